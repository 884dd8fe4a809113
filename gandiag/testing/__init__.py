"""Toy generators with known corruption, and checks that a plug-in keeps its contract.

The public names live in `toy_mixtures`, `plugin_checks` and `checkpoint_checks`. They are resolved on first use,
because the checks import much more than the toy mixtures need.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_CHECKPOINT_CHECKS = ("check_loader", "check_reader")


def __getattr__(name: str) -> Any:
    module = "plugin_checks" if name.startswith("check_") else "toy_mixtures"
    if name in _CHECKPOINT_CHECKS:
        module = "checkpoint_checks"
    try:
        return getattr(import_module(f"gandiag.testing.{module}"), name)
    except AttributeError:
        raise AttributeError(f"module 'gandiag.testing' has no attribute {name!r}") from None
