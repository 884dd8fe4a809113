"""Pairs two grouped records by group: the difference of their ratios, with an interval from the groups they share.

Both records hold each group's ratio x_g to its reference. A group that is hard for one model is hard for the other, and
where the reference is the same its noise is in both, so differences by group vary much less than the two numbers do.
The interval is that of the location's influence values, tanh((x_g - m) / 2) over their mean slope, taken group by group
(infinitesimal jackknife: it resamples groups). Torch-free.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gandiag.record import Record

MIN_RATIO = 1e-3
MIN_COMMON_GROUPS = 5
Z95 = 1.959964
DifferenceRow = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class GroupPairing:
    """`differences`: key -> (new minus old, low, high) of the numbers that were paired. `remarks`: what was not."""

    differences: Mapping[str, DifferenceRow] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def pair_groups(old: Record, new: Record) -> GroupPairing:
    """The paired differences of `group_within` and the score, from the groups in both records."""
    before, after = _ratios_by_group(old), _ratios_by_group(new)
    common = [name for name in after if name in before]
    remarks = []
    left_out = len(before) + len(after) - 2 * len(common)
    if left_out:
        remarks.append(f"{left_out} groups are in one of the two records only and were left out of the pairs")
    if len(common) < MIN_COMMON_GROUPS or not _have_one_basis(old, new):
        remarks.append("too few groups in common to pair them: the interval of the difference is wider than necessary")
        return GroupPairing({}, tuple(remarks))
    first, second = [before[name] for name in common], [after[name] for name in common]
    middles = locate(first), locate(second)
    delta = math.exp(middles[1]) - math.exp(middles[0])
    slopes = [
        math.exp(middles[1]) * new_influence - math.exp(middles[0]) * old_influence
        for old_influence, new_influence in zip(
            find_influences(first, middles[0]), find_influences(second, middles[1]), strict=True
        )
    ]
    error = statistics.stdev(slopes) / math.sqrt(len(common))
    half = _student_quantile(len(common) - 1) * error
    within = (delta, delta - half, delta + half)
    score = (-within[0], -within[2], -within[1])
    if (old.score.value or 0.0) > 0 and (new.score.value or 0.0) > 0:
        return GroupPairing({"group_within": within, "score": score}, tuple(remarks))
    # A score clipped at 0 hides part of the difference: its interval stays that of the clipped numbers.
    clipped = [_clip_loss(math.exp(middles[1])) - _clip_loss(math.exp(middles[0])), *score[1:]]
    bounds = (min(clipped[0], max(score[1], -1.0)), max(clipped[0], min(score[2], 1.0)))
    return GroupPairing({"group_within": within, "score": (clipped[0], *bounds)}, tuple(remarks))


def _clip_loss(ratio: float) -> float:
    return min(1.0, max(0.0, 1 - ratio))


def _have_one_basis(old: Record, new: Record) -> bool:
    return old.groups.get("basis") == new.groups.get("basis") == "reference"


def _ratios_by_group(record: Record) -> dict[str, float]:
    """Group -> log ratio, at least log 0.001."""
    rows = record.groups.get("rows") or ()
    return {
        str(row.get("group")): math.log(max(float(row["ratio"]), MIN_RATIO))
        for row in rows
        if isinstance(row, Mapping) and isinstance(row.get("ratio"), (int, float))
    }


def locate(values: Sequence[float]) -> float:
    """m with sum tanh((x - m) / 2) = 0, as in stats/group_ratio.py, by bisection."""
    low, high = min(values) - 1.0, max(values) + 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if sum(math.tanh((value - middle) / 2) for value in values) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def find_influences(values: Sequence[float], middle: float) -> list[float]:
    """How much each value moves m, times the number of values."""
    pulls = [math.tanh((value - middle) / 2) for value in values]
    slope = statistics.fmean((1 - pull * pull) / 2 for pull in pulls)
    return [pull / max(slope, 1e-12) for pull in pulls]


def _student_quantile(degrees: int) -> float:
    """97.5 % quantile of Student's t, by Cornish-Fisher expansion: within 1 % from 4 degrees of freedom on."""
    z, n = Z95, float(degrees)
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / n + second / n**2 + third / n**3
