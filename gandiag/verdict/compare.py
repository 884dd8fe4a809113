"""Compares two records: how much each number changed, with an interval. Torch-free, and nothing is sampled again.

The interval of a difference is built from the two intervals (MOVER: Zou & Donner 2008, Stat. Med. 27:1693). Where both
audits used the same splits of the same samples, their replicates are paired and the shared variance is removed
(Zou 2007, Psychol. Methods 12:399, with the lower bound of the correlation in place of its value).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gandiag.errors import RecordError
from gandiag.record import Record
from gandiag.verdict.group_pairing import pair_groups
from gandiag.verdict.limits import Check, CheckState, Limit, RecordValue, get_record_values

MIN_REPLICATES = 5  # below this number no correlation is estimated


@dataclass(frozen=True, slots=True)
class Change:
    """One number in both records. `delta`: new minus old, with its interval; `better` gives the good direction.

    `paired`: the interval uses the replicates of both records.
    """

    key: str
    old: RecordValue
    new: RecordValue
    delta: float
    low: float
    high: float
    better: str
    paired: bool = False

    @property
    def direction(self) -> str:
        """ "worse", "better", "moved" (neither direction is better), or "same" if the interval contains 0."""
        if not (self.low > 0 or self.high < 0):
            return "same"
        if self.better not in ("lower", "higher"):
            return "moved"
        return "worse" if (self.delta > 0) == (self.better == "lower") else "better"

    def regression_interval(self) -> tuple[float, float, float]:
        """How much worse it got, (value, low, high); negative for an improvement.

        A number without a good direction gets worse by moving either way.
        """
        if self.better == "higher":
            return -self.delta, -self.high, -self.low
        if self.better == "lower":
            return self.delta, self.low, self.high
        smallest = 0.0 if self.low <= 0 <= self.high else min(abs(self.low), abs(self.high))
        return abs(self.delta), smallest, max(abs(self.low), abs(self.high))


COUNTS_OF_OUTPUTS = {"distinct_outputs"}  # they grow with the number of samples


@dataclass(frozen=True, slots=True)
class Comparison:
    """Every number that both records hold, the score first. `remarks`: differences in how the audits were made."""

    changes: tuple[Change, ...]
    remarks: tuple[str, ...] = ()

    def change(self, key: str) -> Change | None:
        """The change of one number; None if only one record holds it."""
        return next((change for change in self.changes if change.key == key), None)


def compare(old: Record, new: Record) -> Comparison:
    """Compare a new record with an old one.

    RecordError where their numbers do not mean the same: other features, another output or another basis of the score.
    """
    _require_comparable(old, new)
    if old.groups.get("rows") and new.groups.get("rows"):
        return _compare_groups(old, new)
    paired = _has_paired_replicates(old, new)
    before, after = get_record_values(old), get_record_values(new)
    # `modes` repeats, without intervals, what measurements hold with intervals.
    left_out = {"classes.*"} | (COUNTS_OF_OUTPUTS if old.score.n_fake != new.score.n_fake else set())
    common = [key for key in after if key in before and key not in left_out and not key.startswith("modes.")]
    correlation = estimate_correlation(old.score.replicates, new.score.replicates) if paired else 0.0
    changes = tuple(
        _make_change(key, before[key], after[key], correlation if key == "score" else 0.0, paired and key == "score")
        for key in common
    )
    return Comparison(changes, tuple(_list_differences(old, new, paired)))


def _compare_groups(old: Record, new: Record) -> Comparison:
    """Two grouped records: the numbers that groups share are paired by group."""
    before, after = get_record_values(old), get_record_values(new)
    pairing = pair_groups(old, new)
    changes = []
    for key in after:
        if key not in before:
            continue
        paired = pairing.differences.get(key)
        if paired is None:
            changes.append(_make_change(key, before[key], after[key], 0.0, False))
        else:
            changes.append(Change(key, before[key], after[key], *paired, after[key].better, paired=True))
    return Comparison(tuple(changes), (*pairing.remarks, *_list_differences(old, new, True)))


def check_regression(limit: Limit, change: Change | None, max_regress: float) -> Check:
    """Check that a number got worse by at most `max_regress`.

    Violated if the whole interval lies beyond it, passed if the whole interval lies within.
    """
    key, must = f"regress.{limit.key}", f"at most {max_regress:g}, against the baseline"
    if change is None:
        return Check(key, must, "unmeasured", where=limit.where, reason="only one of the two records holds it")
    value, low, high = change.regression_interval()
    state: CheckState = "inconclusive"
    if low > max_regress:
        state = "violated"
    elif high <= max_regress:
        state = "passed"
    reason = f"the interval contains the limit {max_regress:g}" if state == "inconclusive" else ""
    return Check(key, must, state, value, low, high, limit.where, reason)


def estimate_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Pearson correlation of two lists of replicates; if positive, its lower 95 % bound by Fisher's z, at least 0."""
    if tuple(first) == tuple(second):
        return 1.0
    if len(first) != len(second) or len(first) < MIN_REPLICATES:
        return 0.0
    if not (statistics.pstdev(first) > 0 and statistics.pstdev(second) > 0):
        return 0.0
    correlation = statistics.correlation(first, second)
    if correlation <= 0:
        return correlation
    return max(0.0, math.tanh(math.atanh(min(correlation, 1 - 1e-12)) - 1.645 / math.sqrt(len(first) - 3)))


def _make_change(key: str, old: RecordValue, new: RecordValue, correlation: float, paired: bool) -> Change:
    (before, before_low, before_high), (after, after_low, after_high) = _split_value(old), _split_value(new)
    delta = after - before
    if paired and correlation == 1 and old == new:
        # The same audit twice. An interval cut off at 0 is not symmetric and would not cancel.
        return Change(key, old, new, 0.0, 0.0, 0.0, new.better, paired)
    low = delta - _combine_margins(after - after_low, before_high - before, correlation)
    high = delta + _combine_margins(after_high - after, before - before_low, correlation)
    return Change(key, old, new, delta, low, high, new.better, paired)


def _combine_margins(first: float, second: float, correlation: float) -> float:
    """The margin of a difference of two estimates with these margins."""
    return math.sqrt(max(0.0, first * first + second * second - 2 * correlation * first * second))


def _split_value(number: RecordValue) -> tuple[float, float, float]:
    """(value, low, high)."""
    bounds = number.bounds()
    if bounds is None or number.value is None:
        raise RecordError("a number without a value cannot be compared", "leave it out")
    return number.value, *bounds


def _require_comparable(old: Record, new: Record) -> None:
    if old.score.basis != new.score.basis:
        raise RecordError(
            f"one score is {_describe_basis(old)}, the other {_describe_basis(new)}: they cannot be compared",
            "audit both in the same way: with --real, with --group-by and --against, or without any",
        )
    before, after = _get_features(old), _get_features(new)
    changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    if changed:
        pairs = "; ".join(f"{name}: {before.get(name, 'absent')} and {after.get(name, 'absent')}" for name in changed)
        raise RecordError(
            f"the features of the two records differ ({pairs})",
            "audit both with the same --features and the same version",
        )
    first, second = _describe_output(old), _describe_output(new)
    if first is not None and second is not None and first != second:
        raise RecordError(
            f"the outputs of the two records differ: {first} and {second}",
            "compare records of the same kind of output",
        )


def _describe_basis(record: Record) -> str:
    names = {"referenced": "against real data", "groups": "of variety within groups"}
    return names.get(record.score.basis, "of the generator alone")


def _get_features(record: Record) -> dict[str, str]:
    """View name -> fingerprint of what computed it.

    Degraded views are left out: which of them are used depends on the samples.
    """
    features = record.provenance.get("features")
    if not isinstance(features, Mapping):
        return {}
    return {str(name): str(fingerprint) for name, fingerprint in features.items() if "+" not in str(name)}


def _describe_output(record: Record) -> str | None:
    output = record.subject.get("output")
    return f"{output.get('kind')} {output.get('shape')}" if isinstance(output, Mapping) else None


def _has_paired_replicates(old: Record, new: Record) -> bool:
    """Whether the replicates of both records come from the same splits of the same indices."""
    same = all(_get_setting(old, name) == _get_setting(new, name) for name in ("seed", "n_fake", "n_real"))
    return same and len(old.score.replicates) == len(new.score.replicates) > 0


def _get_setting(record: Record, name: str) -> Any:
    if name in ("n_fake", "n_real"):
        return getattr(record.score, name)
    if name == "gandiag":
        return (record.provenance.get("versions") or {}).get("gandiag")
    if name == "seed":
        return record.provenance.get("seed")
    config = record.provenance.get("config") or {}
    return (config.get(name) or {}).get("value")


_COMPARED_SETTINGS = (
    ("n_fake", "generated samples"),
    ("n_real", "real samples"),
    ("seed", "seeds"),
    ("real", "real data"),
    ("scale", "latent scales"),
    ("gandiag", "versions"),
)


def _list_differences(old: Record, new: Record, paired: bool) -> list[str]:
    """Differences in how the two audits were made."""
    differences = [
        f"the {title} differ: {_get_setting(old, name)} and {_get_setting(new, name)}"
        for name, title in _COMPARED_SETTINGS
        if _get_setting(old, name) != _get_setting(new, name)
    ]
    if not paired:
        differences.append("the replicates are not paired: the intervals of the differences are wider than necessary")
    return differences
