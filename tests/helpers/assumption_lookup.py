"""Finds one assumption of a loaded generator."""

from __future__ import annotations

from gandiag.checkpoints.generator import LoadedGenerator
from gandiag.interfaces import Assumption


def find_assumption(network: LoadedGenerator, setting: str) -> Assumption:
    """The only assumption about `setting`."""
    (assumption,) = (entry for entry in network.assumptions if entry.setting == setting)
    return assumption
