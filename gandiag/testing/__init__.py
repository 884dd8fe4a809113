"""Toy generators with known damage, and checks that a plug-in keeps its contract.

Everything public lives in `toy_mixtures` and `plugin_checks`; names are resolved on first use, because the checks import much more
than the toy mixtures need.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    home = "plugin_checks" if name.startswith("check_") else "toy_mixtures"
    try:
        return getattr(import_module(f"gandiag.testing.{home}"), name)
    except AttributeError:
        raise AttributeError(f"module 'gandiag.testing' has no attribute {name!r}") from None
