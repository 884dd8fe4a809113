"""Two records held against each other: how much worse or better, with an interval, from what both hold. Torch-free.

Intervals of differences are built from the two intervals (MOVER: Zou & Donner 2008, Stat. Med. 27:1693); where both audits
split the same samples in the same way, the replicates pair up, and what they share is taken out of the difference
(Zou 2007, Psychol. Methods 12:399, with the correlation's lower bound in place of its value). Nothing is sampled again.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gandiag.errors import RecordError
from gandiag.record import Record
from gandiag.verdict.limits import Check, CheckState, Limit, RecordValue, get_record_values


@dataclass(frozen=True, slots=True)
class Change:
    """One number in both records. `delta` = new − old with its interval; `worse` is in the direction that `better` makes bad.

    `paired`: the interval uses the replicates that both records hold.
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
        """ "worse", "better", "moved" (where neither side is good), or "same" where the interval holds 0."""
        if not (self.low > 0 or self.high < 0):
            return "same"
        if self.better not in ("lower", "higher"):
            return "moved"
        return "worse" if (self.delta > 0) == (self.better == "lower") else "better"

    def regression_interval(self) -> tuple[float, float, float]:
        """By how much it got worse: (value, low, high); negative where it got better. What has no direction gets worse both ways."""
        if self.better == "higher":
            return -self.delta, -self.high, -self.low
        if self.better == "lower":
            return self.delta, self.low, self.high
        inside = self.low <= 0 <= self.high
        return (
            abs(self.delta),
            0.0 if inside else min(abs(self.low), abs(self.high)),
            max(abs(self.low), abs(self.high)),
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """Every number that both records hold, the score first, and what a reader should know of the two."""

    changes: tuple[Change, ...]
    remarks: tuple[str, ...] = ()

    def change(self, key: str) -> Change | None:
        return next((change for change in self.changes if change.key == key), None)


def compare(old: Record, new: Record) -> Comparison:
    """New against old. RecordError where their numbers do not mean the same: other features, another output, another basis."""
    _demand_comparable(old, new)
    paired = _pairs(old, new)
    before, after = get_record_values(old), get_record_values(new)
    # The section `modes` says again, without intervals, what measurements say with them.
    common = [key for key in after if key in before and key != "classes.*" and not key.startswith("modes.")]
    rho = estimate_correlation(old.score.replicates, new.score.replicates) if paired else 0.0
    changes = tuple(
        _change(key, before[key], after[key], rho if key == "score" else 0.0, paired and key == "score")
        for key in common
    )
    return Comparison(changes, tuple(_remarks(old, new, paired)))


def check_regression(limit: Limit, change: Change | None, max_regress: float) -> Check:
    """Whether a number got worse by more than `most`: the whole interval beyond it is a violation, within it a pass."""
    key, must = f"regress.{limit.key}", f"at most {max_regress:g}, against the baseline"
    if change is None:
        return Check(key, must, "unmeasured", where=limit.where, reason="only one of the two records holds it")
    value, low, high = change.regression_interval()
    state: CheckState = "violated" if low > max_regress else "passed" if high <= max_regress else "inconclusive"
    reason = f"the interval contains the limit {max_regress:g}" if state == "inconclusive" else ""
    return Check(key, must, state, value, low, high, limit.where, reason)


def estimate_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Pearson's correlation of two lists of replicates, its lower 95 % bound by Fisher's z where it is positive."""
    if tuple(first) == tuple(second):
        return 1.0
    if (
        len(first) != len(second)
        or len(first) < 5
        or not (statistics.pstdev(first) > 0 and statistics.pstdev(second) > 0)
    ):
        return 0.0
    found = statistics.correlation(first, second)
    if found <= 0:
        return found
    return max(0.0, math.tanh(math.atanh(min(found, 1 - 1e-12)) - 1.645 / math.sqrt(len(first) - 3)))


def _change(key: str, old: RecordValue, new: RecordValue, rho: float, paired: bool) -> Change:
    (before, before_low, before_high), (after, after_low, after_high) = _parts(old), _parts(new)
    delta = after - before
    if (
        paired and rho == 1 and old == new
    ):  # the same audit twice; an interval cut off at 0 is not symmetric, and would not cancel
        return Change(key, old, new, 0.0, 0.0, 0.0, new.better, paired)
    low = delta - _reach(after - after_low, before_high - before, rho)
    high = delta + _reach(after_high - after, before - before_low, rho)
    return Change(key, old, new, delta, low, high, new.better, paired)


def _reach(one: float, two: float, rho: float) -> float:
    return math.sqrt(max(0.0, one * one + two * two - 2 * rho * one * two))


def _parts(found: RecordValue) -> tuple[float, float, float]:
    bounds = found.bounds()
    if bounds is None or found.value is None:
        raise RecordError("a number without a value cannot be compared", "leave it out")
    return found.value, *bounds


def _demand_comparable(old: Record, new: Record) -> None:
    if old.score.basis != new.score.basis:
        what = f"one score is {_basis(old)} and the other {_basis(new)}: they do not mean the same"
        raise RecordError(what, "audit both with --real, or both without")
    before, after = _features(old), _features(new)
    differ = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    if differ:
        told = "; ".join(f"{name}: {before.get(name, 'absent')} and {after.get(name, 'absent')}" for name in differ)
        raise RecordError(
            f"the features of the two records differ ({told})",
            "audit both with the same --features and the same version",
        )
    shapes = [_output(record) for record in (old, new)]
    if None not in shapes and shapes[0] != shapes[1]:
        raise RecordError(
            f"the outputs of the two records differ: {shapes[0]} and {shapes[1]}",
            "compare records of the same kind of output",
        )


def _basis(record: Record) -> str:
    return "against real data" if record.score.basis == "referenced" else "of the generator alone"


def _features(record: Record) -> dict[str, str]:
    """View -> what exactly computed it. Views through frosted glass are left out: they depend on the samples."""
    found = record.provenance.get("features")
    return (
        {str(name): str(mark) for name, mark in found.items() if "+" not in str(name)}
        if isinstance(found, Mapping)
        else {}
    )


def _output(record: Record) -> str | None:
    output = record.subject.get("output")
    return f"{output.get('kind')} {output.get('shape')}" if isinstance(output, Mapping) else None


def _pairs(old: Record, new: Record) -> bool:
    """Whether the replicates of the two stand for the same splits of the same indices."""
    same = all(_setting(old, name) == _setting(new, name) for name in ("seed", "n_fake", "n_real"))
    return same and len(old.score.replicates) == len(new.score.replicates) > 0


def _setting(record: Record, name: str) -> Any:
    if name in ("n_fake", "n_real"):
        return getattr(record.score, name)
    if name == "gandiag":
        return (record.provenance.get("versions") or {}).get("gandiag")
    if name == "seed":
        return record.provenance.get("seed")
    config = record.provenance.get("config") or {}
    return (config.get(name) or {}).get("value")


_ASKED = (
    ("n_fake", "generated samples"),
    ("n_real", "real samples"),
    ("seed", "seeds"),
    ("real", "real data"),
    ("scale", "latent scales"),
    ("gandiag", "versions"),
)


def _remarks(old: Record, new: Record, paired: bool) -> list[str]:
    """What differs in how the two were made; never silent."""
    found = [
        f"the {title} differ: {_setting(old, name)} and {_setting(new, name)}"
        for name, title in _ASKED
        if _setting(old, name) != _setting(new, name)
    ]
    if not paired:
        found.append("the replicates do not pair up: the intervals of the differences are wider than they could be")
    return found
