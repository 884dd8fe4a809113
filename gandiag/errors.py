"""Exceptions and exit codes.

GandiagError                every error that gandiag raises on purpose; `message` is one sentence, `hint` one action
  LoadError                 the file contains no generator that can be read, or be read safely
  SourceError               samples or real data cannot be read, do not match, or are too few
  OutputError               the generator's output cannot be measured (NaN, wrong shape)
  FeatureError              a feature extractor is unknown, missing or offline
  ConfigError               an option, TOML key or value does not exist or is out of range
  RecordError               a record cannot be read, written or compared
  PluginError               an extension violates its contract
  VerdictError              raised by Record.raise_for_verdict(); carries the record
"""

from __future__ import annotations

import enum
from typing import Any


class ExitCode(enum.IntEnum):
    """Exit codes of the `gandiag` command. Of several subjects the worst counts: 130 over 2 over 1 over 3 over 0."""

    OK = 0
    COLLAPSED = 1
    CANNOT_RUN = 2
    INSUFFICIENT = 3
    INTERRUPTED = 130

    @classmethod
    def worst(cls, codes: list[ExitCode]) -> ExitCode:
        """The code that counts for several subjects; OK for none."""
        order = (cls.INTERRUPTED, cls.CANNOT_RUN, cls.COLLAPSED, cls.INSUFFICIENT, cls.OK)
        return next((code for code in order if code in codes), cls.OK)


class GandiagError(Exception):
    """An error with a hint. `message`: one sentence with the offending value. `hint`: what to do next."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class LoadError(GandiagError):
    """The file contains no generator that can be rebuilt, or none that can be read without running code."""


class SourceError(GandiagError):
    """Samples or real data cannot be read, do not match, or are too few."""


class OutputError(GandiagError):
    """The generator ran, but its output cannot be measured."""


class FeatureError(GandiagError):
    """A feature extractor is unknown, not installed or offline."""


class ConfigError(GandiagError):
    """An option, key or value does not exist or is out of range."""


class RecordError(GandiagError):
    """A record cannot be read, written or compared."""


class PluginError(GandiagError):
    """An extension violates its contract."""


class VerdictError(GandiagError):
    """The verdict is not one that the caller accepts. `record` contains the evidence."""

    def __init__(self, message: str, hint: str = "", record: Any = None) -> None:
        super().__init__(message, hint)
        self.record = record


def close_match_hint(name: str, known: list[str] | tuple[str, ...], fallback: str = "") -> str:
    """ "did you mean …?" for an unknown name, then all known names, or `fallback` where these are too many to list."""
    import difflib

    matches = difflib.get_close_matches(name, known, n=2, cutoff=0.55)
    options = fallback or f"choose from: {', '.join(sorted(known))}"
    return (f"did you mean {' or '.join(matches)}? " if matches else "") + options
