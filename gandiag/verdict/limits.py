"""Checks one number of a record, with its interval, against one limit. Torch-free.

    violated       the whole interval lies beyond the limit
    passed         the whole interval lies within it
    inconclusive   the limit lies inside the interval, or the number is NaN
    unmeasured     there is no number
    degeneracy     score only: no real data, so only repeated outputs can be detected

Comparisons are written so that NaN is neither within nor beyond a limit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gandiag.catalogue import find_entry
from gandiag.errors import ConfigError, close_match_hint
from gandiag.record import Record

CheckState = Literal["passed", "violated", "inconclusive", "unmeasured", "degeneracy"]
MODE_KEYS = ("found", "covered", "effective", "stability", "missed")
_MODE_DIRECTIONS = {"missed": "lower", "found": "neither"}  # the others: higher is better


@dataclass(frozen=True, slots=True)
class Limit:
    """Bounds on a number: at least `min`, at most `max`, and at most `max_regress` worse than the baseline's.

    `where`: where the policy sets it, such as "gandiag.toml:7".
    """

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
        """The interval; the value twice if it has no interval, None if there is no value."""
        if self.value is None:
            return None
        return (self.value if self.low is None else self.low), (self.value if self.high is None else self.high)


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one limit. `must`: the limit in words. `allowed`: the policy accepts this state."""

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
        """Whether this check lets the gate pass."""
        return self.state == "passed" or self.allowed


def check_limit(limit: Limit, value: RecordValue) -> Check:
    """Check a number against `min` and `max`. Violating either is a violation; passing takes both."""
    bounds = value.bounds()
    if bounds is None:
        return Check(limit.key, str(limit), "unmeasured", where=limit.where, reason=value.reason)
    low, high = bounds
    at_least = float("-inf") if limit.min is None else limit.min
    at_most = float("inf") if limit.max is None else limit.max
    state: CheckState = "inconclusive"
    if low > at_most or high < at_least:
        state = "violated"
    elif low >= at_least and high <= at_most:
        state = "passed"
    reason = _explain_inconclusive(low, high, limit) if state == "inconclusive" else ""
    return Check(limit.key, str(limit), state, value.value, value.low, value.high, limit.where, reason)


def _explain_inconclusive(low: float, high: float, limit: Limit) -> str:
    """Why an interval decides nothing: a bound is NaN, or the limit lies inside."""
    if low != low or high != high:
        return "the number is NaN"
    inside = next((edge for edge in (limit.max, limit.min) if edge is not None and low <= edge <= high), None)
    return "" if inside is None else f"the interval contains the limit {inside:g}"


def get_record_value(record: Record, key: str) -> RecordValue:
    """The number called `key`.

    Keys: `score`, `profile.missing`, `aspects.color`, `classes.7`, `classes.*` (the worst class), `modes.missed`, or a
    measurement. A key known to gandiag that this record lacks is unmeasured; any other raises ConfigError with the
    nearest names.
    """
    section, _, name = key.partition(".")
    if key == "score":
        return RecordValue(record.score.value, record.score.low, record.score.high, reason="there is no score")
    if section in _SECTIONS and name:
        return _SECTIONS[section](record, name)
    measurement = record.measurements.get(key)
    if measurement is not None:
        value = measurement.value if measurement.status == "ok" else None
        reason = measurement.reason or "not measured"
        return RecordValue(value, measurement.low, measurement.high, measurement.better, reason)
    entry = find_entry(key)
    if entry is None or key.startswith("GD"):
        raise ConfigError(
            f"the policy limits {key!r}, which is not a measurement", close_match_hint(key, list_limit_keys(record))
        )
    return RecordValue(None, better=entry.better, reason="not in this record")


def list_limit_keys(record: Record) -> list[str]:
    """Every key of this record that can be limited."""
    sections = [f"profile.{name}" for name in record.profile] + [f"aspects.{name}" for name in record.aspects]
    classes = ["classes.*", *(f"classes.{row.get('label')}" for row in record.classes)] if record.classes else []
    modes = [f"modes.{name}" for name in MODE_KEYS if name in record.modes]
    return ["score", *sections, *classes, *modes, *record.measurements]


def get_record_values(record: Record) -> dict[str, RecordValue]:
    """Every number of the record by key; keys without a value are left out."""
    values = {key: get_record_value(record, key) for key in list_limit_keys(record)}
    return {key: entry for key, entry in values.items() if entry.value is not None}


def _get_share(section: Mapping[str, Any], name: str, title: str) -> RecordValue:
    entry = section.get(name)
    if not isinstance(entry, Mapping):
        known = ", ".join(map(str, section)) or "(none in this record)"
        return RecordValue(None, reason=f"this record has no {title} called {name!r}; it has {known}")
    return RecordValue(entry.get("value"), entry.get("low"), entry.get("high"))


def _get_class_score(record: Record, label: str) -> RecordValue:
    """The score of one class; of the worst one for label "*"."""
    rows = {str(row.get("label")): _parse_class_row(row) for row in record.classes}
    if label == "*":
        scored = [row for row in rows.values() if row.value is not None]
        if not scored:
            return RecordValue(None, reason="no class in this record has a score")
        return max(scored, key=lambda row: row.value or 0.0)
    return rows.get(label) or RecordValue(None, reason=f"this record has no class {label!r}")


def _parse_class_row(row: Mapping[str, Any]) -> RecordValue:
    """A row of `classes`: the score is a number beside its bounds, or a table of {value, low, high}."""
    score = row.get("score")
    table = score if isinstance(score, Mapping) else {**row, "value": score}
    reason = str(row.get("method") or "this class has no score")
    return RecordValue(table.get("value"), table.get("low"), table.get("high"), reason=reason)


def _get_mode_value(record: Record, name: str) -> RecordValue:
    entry = record.modes.get(name)
    value = float(len(entry)) if isinstance(entry, (list, tuple)) else entry
    number = value if isinstance(value, (int, float)) else None
    better = _MODE_DIRECTIONS.get(name, "higher")
    return RecordValue(number, better=better, reason="this record has no modes")


_SECTIONS: dict[str, Callable[[Record, str], RecordValue]] = {
    "profile": lambda record, name: _get_share(record.profile, name, "profile entry"),
    "aspects": lambda record, name: _get_share(record.aspects, name, "aspect"),
    "classes": _get_class_score,
    "modes": _get_mode_value,
}
