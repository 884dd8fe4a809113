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

from gandiag.catalogue import entry as catalogued
from gandiag.errors import ConfigError, near
from gandiag.record import Record

State = Literal["passed", "violated", "inconclusive", "unmeasured", "degeneracy"]
MODES = ("found", "covered", "effective", "stability", "missed")


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
class Quantity:
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
    state: State
    value: float | None = None
    low: float | None = None
    high: float | None = None
    where: str = ""
    reason: str = ""
    allowed: bool = False

    @property
    def good(self) -> bool:
        """Whether the gate may pass as far as this check goes."""
        return self.state == "passed" or self.allowed


def held(limit: Limit, found: Quantity) -> Check:
    """The number against `min` and `max`. A violation of either side is one; both must be kept to pass."""
    bounds = found.bounds()
    if bounds is None:
        return Check(limit.key, str(limit), "unmeasured", where=limit.where, reason=found.reason)
    low, high = bounds
    at_least, at_most = float("-inf") if limit.min is None else limit.min, float("inf") if limit.max is None else limit.max
    state: State = "inconclusive"
    if low > at_most or high < at_least:
        state = "violated"
    elif low >= at_least and high <= at_most:
        state = "passed"
    reason = _straddles(low, high, limit) if state == "inconclusive" else ""
    return Check(limit.key, str(limit), state, found.value, found.low, found.high, limit.where, reason)


def _straddles(low: float, high: float, limit: Limit) -> str:
    """Why a number says nothing: it is none, or its interval holds the limit."""
    if low != low or high != high:
        return "the number is not a number (NaN)"
    inside = next((edge for edge in (limit.max, limit.min) if edge is not None and low <= edge <= high), None)
    return "" if inside is None else f"the interval contains the limit {inside:g}"


def quantity(record: Record, key: str) -> Quantity:
    """The number called `key`: `score`, `profile.missing`, `aspects.color`, `classes.7`, `classes.*` (the worst), `modes.missed`, or a measurement.

    A name of gandiag's that this record lacks is unmeasured; any other is a ConfigError with the nearest names.
    """
    section, _, name = key.partition(".")
    if key == "score":
        return Quantity(record.score.value, record.score.low, record.score.high, reason="there is no score")
    if section in _SECTIONS and name:
        return _SECTIONS[section](record, name)
    made = record.measurements.get(key)
    if made is not None:
        return Quantity(made.value if made.status == "ok" else None, made.low, made.high, made.better, made.reason or "not measured")
    known = catalogued(key)
    if known is None or key.startswith("GD"):
        raise ConfigError(f"the policy limits {key!r}, which is nothing that gandiag measures", near(key, names(record)))
    return Quantity(None, better=known.better, reason="this record does not hold it")


def names(record: Record) -> list[str]:
    """Every key of this record that a limit can be put on."""
    sections = [f"profile.{name}" for name in record.profile] + [f"aspects.{name}" for name in record.aspects]
    classes = ["classes.*", *(f"classes.{row.get('label')}" for row in record.classes)] if record.classes else []
    modes = [f"modes.{name}" for name in MODES if name in record.modes]
    return ["score", *sections, *classes, *modes, *record.measurements]


def quantities(record: Record) -> dict[str, Quantity]:
    """Every number of the record by key, those without one left out."""
    found = {key: quantity(record, key) for key in names(record)}
    return {key: entry for key, entry in found.items() if entry.value is not None}


def _share(section: Mapping[str, Any], name: str, title: str) -> Quantity:
    found = section.get(name)
    if not isinstance(found, Mapping):
        known = [*section] or ["(none in this record)"]
        return Quantity(None, reason=f"this record has no {title} called {name!r}; it has {', '.join(map(str, known))}")
    return Quantity(found.get("value"), found.get("low"), found.get("high"))


def _class(record: Record, label: str) -> Quantity:
    rows = {str(row.get("label")): _class_row(row) for row in record.classes}
    if label == "*":
        scored = [row for row in rows.values() if row.value is not None]
        return max(scored, key=lambda row: row.value or 0.0) if scored else Quantity(None, reason="this record has no classes with a score")
    return rows.get(label) or Quantity(None, reason=f"this record has no class {label!r}")


def _class_row(row: Mapping[str, Any]) -> Quantity:
    score = row.get("score")
    source = score if isinstance(score, Mapping) else {**row, "value": score}
    return Quantity(source.get("value"), source.get("low"), source.get("high"), reason=str(row.get("method") or "this class has no score"))


def _mode(record: Record, name: str) -> Quantity:
    found = record.modes.get(name)
    better = "lower" if name == "missed" else "neither" if name == "found" else "higher"
    value = float(len(found)) if isinstance(found, (list, tuple)) else found
    return Quantity(value if isinstance(value, (int, float)) else None, better=better, reason="this record has no modes")


_SECTIONS: dict[str, Callable[[Record, str], Quantity]] = {
    "profile": lambda record, name: _share(record.profile, name, "profile entry"),
    "aspects": lambda record, name: _share(record.aspects, name, "aspect"),
    "classes": _class,
    "modes": _mode,
}
