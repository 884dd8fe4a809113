"""One limit on one number of a record, and whether the number keeps it. Torch-free.

    violated       the whole interval lies beyond the limit
    passed         the whole interval lies within it
    inconclusive   the limit lies inside the interval, or the number is NaN
    unmeasured     there is no number
    degeneracy     of the score alone: no real data, so that only repeats can be seen

Comparisons are written so that NaN is never within a limit and never beyond it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gandiag.catalogue import find_entry as catalogued
from gandiag.errors import ConfigError, close_match_hint
from gandiag.record import Record

CheckState = Literal["passed", "violated", "inconclusive", "unmeasured", "degeneracy"]
MODE_KEYS = ("found", "covered", "effective", "stability", "missed")


@dataclass(frozen=True, slots=True)
class Limit:
    """What a number may be: at least `min`, at most `max`, and at most `max_regress` worse than the baseline's. `where`: "gandiag.toml:7"."""

    key: str
    min: float | None = None
    max: float | None = None
    max_regress: float | None = None
    where: str = ""

    def __str__(self) -> str:
        parts = [] if self.min is None else [f"at least {self.min:g}"]
        return " and ".join(parts if self.max is None else [*parts, f"at most {self.max:g}"])


@dataclass(frozen=True, slots=True)
class RecordValue:
    """A number of a record with its interval; facts have none. `reason`: why there is no number."""

    value: float | None
    low: float | None = None
    high: float | None = None
    better: str = "lower"
    reason: str = ""

    def bounds(self) -> tuple[float, float] | None:
        """The interval, or the number twice where it has none; None where there is no number."""
        if self.value is None:
            return None
        return (self.value if self.low is None else self.low), (self.value if self.high is None else self.high)


@dataclass(frozen=True, slots=True)
class Check:
    """A limit held against a number. `must`: the limit in words. `allowed`: whether this state lets the gate pass."""

    key: str
    must: str
    state: CheckState
    value: float | None = None
    low: float | None = None
    high: float | None = None
    where: str = ""
    reason: str = ""
    allowed: bool = False

    @property
    def ok(self) -> bool:
        """Whether the gate may pass as far as this check goes."""
        return self.state == "passed" or self.allowed


def check_limit(limit: Limit, value: RecordValue) -> Check:
    """The number against `min` and `max`. A violation of either side is one; both must be kept to pass."""
    bounds = value.bounds()
    if bounds is None:
        return Check(limit.key, str(limit), "unmeasured", where=limit.where, reason=value.reason)
    low, high = bounds
    at_least, at_most = (
        float("-inf") if limit.min is None else limit.min,
        float("inf") if limit.max is None else limit.max,
    )
    state: CheckState = "inconclusive"
    if low > at_most or high < at_least:
        state = "violated"
    elif low >= at_least and high <= at_most:
        state = "passed"
    reason = _straddles(low, high, limit) if state == "inconclusive" else ""
    return Check(limit.key, str(limit), state, value.value, value.low, value.high, limit.where, reason)


def _straddles(low: float, high: float, limit: Limit) -> str:
    """Why a number says nothing: it is none, or its interval holds the limit."""
    if low != low or high != high:
        return "the number is not a number (NaN)"
    inside = next((edge for edge in (limit.max, limit.min) if edge is not None and low <= edge <= high), None)
    return "" if inside is None else f"the interval contains the limit {inside:g}"


def get_record_value(record: Record, key: str) -> RecordValue:
    """The number called `key`: `score`, `profile.missing`, `aspects.color`, `classes.7`, `classes.*` (the worst), `modes.missed`, or a measurement.

    A name of gandiag's that this record lacks is unmeasured; any other is a ConfigError with the nearest names.
    """
    section, _, name = key.partition(".")
    if key == "score":
        return RecordValue(record.score.value, record.score.low, record.score.high, reason="there is no score")
    if section in _SECTIONS and name:
        return _SECTIONS[section](record, name)
    made = record.measurements.get(key)
    if made is not None:
        return RecordValue(
            made.value if made.status == "ok" else None, made.low, made.high, made.better, made.reason or "not measured"
        )
    known = catalogued(key)
    if known is None or key.startswith("GD"):
        raise ConfigError(
            f"the policy limits {key!r}, which is nothing that gandiag measures",
            close_match_hint(key, list_limit_keys(record)),
        )
    return RecordValue(None, better=known.better, reason="this record does not hold it")


def list_limit_keys(record: Record) -> list[str]:
    """Every key of this record that a limit can be put on."""
    sections = [f"profile.{name}" for name in record.profile] + [f"aspects.{name}" for name in record.aspects]
    classes = ["classes.*", *(f"classes.{row.get('label')}" for row in record.classes)] if record.classes else []
    modes = [f"modes.{name}" for name in MODE_KEYS if name in record.modes]
    return ["score", *sections, *classes, *modes, *record.measurements]


def get_record_values(record: Record) -> dict[str, RecordValue]:
    """Every number of the record by key, those without one left out."""
    found = {key: get_record_value(record, key) for key in list_limit_keys(record)}
    return {key: entry for key, entry in found.items() if entry.value is not None}


def _share(section: Mapping[str, Any], name: str, title: str) -> RecordValue:
    found = section.get(name)
    if not isinstance(found, Mapping):
        known = [*section] or ["(none in this record)"]
        return RecordValue(
            None, reason=f"this record has no {title} called {name!r}; it has {', '.join(map(str, known))}"
        )
    return RecordValue(found.get("value"), found.get("low"), found.get("high"))


def _class(record: Record, label: str) -> RecordValue:
    rows = {str(row.get("label")): _class_row(row) for row in record.classes}
    if label == "*":
        scored = [row for row in rows.values() if row.value is not None]
        return (
            max(scored, key=lambda row: row.value or 0.0)
            if scored
            else RecordValue(None, reason="this record has no classes with a score")
        )
    return rows.get(label) or RecordValue(None, reason=f"this record has no class {label!r}")


def _class_row(row: Mapping[str, Any]) -> RecordValue:
    score = row.get("score")
    source = score if isinstance(score, Mapping) else {**row, "value": score}
    return RecordValue(
        source.get("value"),
        source.get("low"),
        source.get("high"),
        reason=str(row.get("method") or "this class has no score"),
    )


def _mode(record: Record, name: str) -> RecordValue:
    found = record.modes.get(name)
    better = "lower" if name == "missed" else "neither" if name == "found" else "higher"
    value = float(len(found)) if isinstance(found, (list, tuple)) else found
    return RecordValue(
        value if isinstance(value, (int, float)) else None, better=better, reason="this record has no modes"
    )


_SECTIONS: dict[str, Callable[[Record, str], RecordValue]] = {
    "profile": lambda record, name: _share(record.profile, name, "profile entry"),
    "aspects": lambda record, name: _share(record.aspects, name, "aspect"),
    "classes": _class,
    "modes": _mode,
}
