"""What went wrong, and what to do about it.

GandiagError                every error gandiag raises on purpose; `what` is one sentence, `hint` one action
  LoadError                 the file is no generator we can read, or not safely
  SourceError               samples or real data that cannot be read, or are too few
  OutputError               the generator ran, and what came out cannot be measured (NaN, wrong shape)
  FeatureError              an extractor is unknown, missing or offline
  ConfigError               an option, a TOML key or a value that does not exist
  RecordError               a record that cannot be read or written
  PluginError               an extension that does not keep its contract
  VerdictError              raised by Record.raise_for_verdict(); carries the record
"""

from __future__ import annotations

import enum
from typing import Any


class ExitCode(enum.IntEnum):
    """What `gandiag` returns to the shell. The worst of several subjects wins: 2 over 1 over 3 over 0."""

    OK = 0
    COLLAPSED = 1
    CANNOT_RUN = 2
    INSUFFICIENT = 3
    INTERRUPTED = 130

    @classmethod
    def worst(cls, codes: list[ExitCode]) -> ExitCode:
        order = (cls.INTERRUPTED, cls.CANNOT_RUN, cls.COLLAPSED, cls.INSUFFICIENT, cls.OK)
        return next((code for code in order if code in codes), cls.OK)


class GandiagError(Exception):
    """An error with an action. `what`: one sentence with the offending value. `hint`: what to do next."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class LoadError(GandiagError):
    """The file holds no generator that can be rebuilt, or none that can be read without running code."""


class SourceError(GandiagError):
    """Samples or real data cannot be read, do not match, or are too few."""


class OutputError(GandiagError):
    """The generator ran, and its output cannot be measured."""


class FeatureError(GandiagError):
    """A feature extractor is unknown, not installed, or offline."""


class ConfigError(GandiagError):
    """An option, key or value that does not exist or is out of range."""


class RecordError(GandiagError):
    """A record that cannot be read, written or compared."""


class PluginError(GandiagError):
    """An extension that does not keep its contract."""


class VerdictError(GandiagError):
    """The verdict is not one the caller accepts. `record` holds the evidence."""

    def __init__(self, message: str, hint: str = "", record: Any = None) -> None:
        super().__init__(message, hint)
        self.record = record


def close_match_hint(name: str, known: list[str] | tuple[str, ...], fallback: str = "") -> str:
    """«did you mean …» for an unknown name, then all the options, or `rest` where these are too many."""
    import difflib

    close = difflib.get_close_matches(name, known, n=2, cutoff=0.55)
    options = fallback or f"choose from: {', '.join(sorted(known))}"
    return (f"did you mean {' or '.join(close)}? " if close else "") + options
