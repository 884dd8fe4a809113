"""Variety within groups (prompts, classes, source images) against a reference, and between them.

    compare_groups(subject, reference)    the ratio of variety within groups, paired by name, and the collapsed groups
    describe_groups(subject)              without a reference: variety within groups relative to that between them

`subject`, `reference`: features (N, D) with one group name per row (GroupedFeatures). Ratios are 1 where both vary
alike and 0 where the seed changes nothing. Where neither varies within a group (a deterministic translation) nothing
can be lost, and the ratio is 1.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gandiag.errors import SourceError
from gandiag.interfaces import Estimate
from gandiag.metrics.group_entropy import measure_entropies
from gandiag.record import Measurement, Score
from gandiag.stats.group_distances import (
    GroupDistances,
    GroupMoments,
    PairVariance,
    measure_groups,
    measure_moments,
    squared_center_distances,
)
from gandiag.stats.group_ratio import (
    FALSE_DISCOVERY_RATE,
    LogRatios,
    estimate_center_ratio,
    estimate_low_quantile,
    estimate_ratio,
    estimate_worst_loss,
    judge_groups,
    locate,
    smallest_detectable_loss,
)

STILL_SHARE = 0.005  # of the distance between groups: below it, samples of a group count as the same output
RESOLUTION = 1e-6  # of the size of the features: below it, a distance is rounding
NEAR_DUPLICATE_SHARE = 0.05  # of the reference's mean distance within the group
SHUFFLES = 19  # of the group names: the range that remains is a 95 % interval (19 of 20)
# Relative variance of a distance where no group has enough samples to estimate it: that of a two-dimensional normal.
DEFAULT_PAIRS = PairVariance(0.3, 0.06)
MIN_GROUPS_FOR_SPREAD = 5

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class GroupedFeatures:
    """Features (N, D) and the group of each row. `name`: of the samples, for messages."""

    features: Tensor
    groups: Sequence[Hashable]
    name: str = "samples"


@dataclass(frozen=True, slots=True)
class GroupVariety:
    """The record's `groups`, score and measurements, and what was left out."""

    document: dict[str, Any]
    score: Score
    measurements: dict[str, Measurement] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def compare_groups(subject: GroupedFeatures, reference: GroupedFeatures, *, seed: int = 0) -> GroupVariety:
    """Variety within the groups that both have, each with 2 samples or more.

    SourceError where no group is left. Cost: distances within groups, and G² D between their centers.
    """
    common = _match_groups(subject, reference)
    theirs = measure_groups(reference.features, reference.groups).select(common.names)
    ours = measure_groups(subject.features, subject.groups).select(common.names)
    ratios = _log_ratios(ours, theirs)
    within = estimate_ratio(ratios, seed=seed)
    between = estimate_center_ratio(squared_center_distances(ours), squared_center_distances(theirs), seed=seed)
    rows = _build_rows(ours, theirs, ratios)
    document: dict[str, Any] = {
        "within": asdict(within),
        "between": _estimate_document(between, "fewer than 3 groups, or the reference's groups do not differ"),
        "basis": "reference",
        "count": len(common.names),
        "left_out": common.n_left_out,
        "left_out_reasons": common.left_out,
        "collapsed": [_named_row(row) for row in rows if row["q"] <= FALSE_DISCOVERY_RATE],
        "rows": rows,
    }
    low, value, high = (min(1.0, max(0.0, 1 - edge)) for edge in (within.high, within.value, within.low))
    power = smallest_detectable_loss(ratios)
    score = Score(value, low, high, basis="groups", power=power, n_fake=int(ours.n.sum()), n_real=int(theirs.n.sum()))
    quantile, floor = estimate_low_quantile(ratios, seed=seed)
    document["low_quantile"] = {**asdict(quantile), "floor": floor}
    document["power"] = power
    sides = (subject.features, subject.groups), (reference.features, reference.groups)
    measurements = _build_measurements(ours, theirs, ratios, (within, between, quantile, floor))
    measurements |= measure_entropies(*sides, common.names, float(theirs.mean.mean()))
    return GroupVariety(document, score, measurements, common.notes)


def describe_groups(subject: GroupedFeatures, *, seed: int = 0) -> GroupVariety:
    """Without a reference: distance within groups relative to that between samples of different groups. No score.

    The floor is the range of the same number over shuffled group names: what a condition without effect would give.
    SourceError where no group has 2 samples.
    """
    kept, left_out = _drop_singles(subject)
    ours = measure_groups(kept.features, kept.groups)
    pairs = ours.pairs or DEFAULT_PAIRS
    errors = np.sqrt([ours.relative_variance(g, pairs) for g in range(len(ours.names))])
    ratios = LogRatios(_relative_widths(ours), errors)
    within = estimate_ratio(ratios, seed=seed)
    rows: list[dict[str, Any]] = [
        {"group": str(name), "n": int(n), "n_reference": 0, "ratio": math.exp(x), "low": None, "high": None}
        for name, n, x in zip(ours.names, ours.n, ratios.values, strict=True)
    ]
    floor = _shuffled_range(kept, seed) if len(ours.names) > 1 else None
    document: dict[str, Any] = {
        "within": asdict(within) if len(ours.names) > 1 else {"value": None, "low": None, "high": None},
        "between": {"value": None, "low": None, "high": None, "reason": "no reference to compare with"},
        "basis": "between",
        "floor": None if floor is None else {"low": floor[0], "high": floor[1]},
        "count": len(ours.names),
        "left_out": left_out,
        "left_out_reasons": {"one sample": left_out},
        "collapsed": [],
        "rows": sorted(rows, key=lambda row: row["ratio"]),
    }
    score = Score(None, None, None, basis="groups", n_fake=len(kept.groups))
    measurement = Measurement(
        document["within"]["value"],
        document["within"]["low"],
        document["within"]["high"],
        floor=None if floor is None else sum(floor) / 2,
        unit="ratio",
        better="neither",
        n=len(ours.names),
        reason="distance within groups over that between them; floor: with shuffled groups",
    )
    return GroupVariety(document, score, {"group_relative_width": measurement})


@dataclass(frozen=True, slots=True)
class _CommonGroups:
    """Names that subject and reference share, and how many groups were left out, by reason."""

    names: tuple[Hashable, ...]
    left_out: dict[str, int]

    @property
    def n_left_out(self) -> int:
        return sum(self.left_out.values())

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(
            f"{count} group{'s' * (count != 1)} left out: {why}" for why, count in self.left_out.items() if count
        )


def _match_groups(subject: GroupedFeatures, reference: GroupedFeatures) -> _CommonGroups:
    ours, theirs = Counter(subject.groups), Counter(reference.groups)
    for counts, name in ((ours, subject.name), (theirs, reference.name)):
        if max(counts.values()) < 2:
            _refuse_single_groups(len(counts), name)
    shared = [name for name in ours if name in theirs]
    if not shared:
        raise SourceError(
            f"no group of {subject.name} ({_list_names(ours)}) is in {reference.name} ({_list_names(theirs)})",
            "give the groups of both the same names",
        )
    names = tuple(name for name in shared if min(ours[name], theirs[name]) > 1)
    if not names:
        _refuse_single_groups(len(shared), "one side or the other")
    left_out = {
        "one sample": len(shared) - len(names),
        "not in the reference": len(ours) - len(shared),
        "only in the reference": len(theirs) - len(shared),
    }
    return _CommonGroups(names, left_out)


def _list_names(counts: Counter[Hashable]) -> str:
    names = [str(name) for name in counts]
    return ", ".join(names[:3]) + (f" … {len(names)} in all" if len(names) > 3 else "")


def _refuse_single_groups(count: int, name: str) -> None:
    raise SourceError(
        f"variety within groups cannot be measured: all {count} groups of {name} have one sample",
        "give at least 2 samples for each group, 4 or more for intervals of their own",
    )


def _drop_singles(subject: GroupedFeatures) -> tuple[GroupedFeatures, int]:
    counts = Counter(subject.groups)
    kept = [row for row, name in enumerate(subject.groups) if counts[name] > 1]
    if not kept:
        _refuse_single_groups(len(counts), subject.name)
    groups = [subject.groups[row] for row in kept]
    return GroupedFeatures(subject.features[kept], groups, subject.name), sum(n == 1 for n in counts.values())


def _log_ratios(ours: GroupDistances, theirs: GroupDistances) -> LogRatios:
    """x_g with the bias of a log at small n removed, and its standard error; 0 where neither varies."""
    pairs = _choose_pairs(ours, theirs)
    variances = np.array(
        [(ours.relative_variance(g, pairs[0]), theirs.relative_variance(g, pairs[1])) for g in range(len(ours.names))]
    )  # (G, 2)
    still = _still_distance(theirs)
    resolution = RESOLUTION * _feature_size(theirs)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.log(np.where(ours.mean > resolution, ours.mean, 0.0)) - np.log(
            np.where(theirs.mean > resolution, theirs.mean, 0.0)
        )
    values = values + (variances[:, 0] - variances[:, 1]) / 2
    errors = np.sqrt(variances.sum(1))
    neither = (ours.mean <= max(still, resolution)) & (theirs.mean <= max(still, resolution))
    values[neither], errors[neither] = 0.0, 0.0
    values = np.nan_to_num(values, nan=0.0, posinf=math.inf, neginf=-math.inf)
    if ours.pairs is None and theirs.pairs is None:
        errors = np.where(neither, errors, np.maximum(errors, _robust_spread(values[~neither])))
    return LogRatios(values, errors)


def _choose_pairs(ours: GroupDistances, theirs: GroupDistances) -> tuple[PairVariance, PairVariance]:
    """Each side's pooled variances; the other's where it has none."""
    fallback = theirs.pairs or ours.pairs or DEFAULT_PAIRS
    return ours.pairs or fallback, theirs.pairs or fallback


def _robust_spread(values: Floats) -> float:
    """Standard deviation of the values by their median absolute deviation; 0 for fewer than five."""
    if len(values) < MIN_GROUPS_FOR_SPREAD:
        return 0.0
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def _still_distance(groups: GroupDistances) -> float:
    """The distance within a group below which its samples are the same output, by the distance between groups."""
    n = len(groups.names)
    if n < 2:
        return 0.0
    mean = float(squared_center_distances(groups).sum()) / (n * (n - 1))
    return STILL_SHARE * math.sqrt(max(mean, 0.0))


def _feature_size(groups: GroupDistances) -> float:
    """Typical length of the features about their mean, at least that of a distance within groups."""
    return max(float(groups.centers.norm(dim=1).max()), float(np.sqrt(groups.squared_width).max()), 1e-30)


def _build_rows(ours: GroupDistances, theirs: GroupDistances, ratios: LogRatios) -> list[dict[str, Any]]:
    """The record's rows, least variety first."""
    across = _distances_to_others(ours), _distances_to_others(theirs)
    rows = [
        {
            "group": str(name),
            "n": int(ours.n[g]),
            "n_reference": int(theirs.n[g]),
            "ratio": judged.value,
            "low": judged.low,
            "high": judged.high,
            "q": judged.q,
            "width": float(ours.mean[g]),
            "reference_width": float(theirs.mean[g]),
            "distances": _relative_quantiles(ours, theirs, g),
            "reference_distances": _relative_quantiles(theirs, theirs, g),
            "between": across[0][g],
            "reference_between": across[1][g],
            "still": bool(ratios.errors[g] == 0.0 and ratios.values[g] == 0.0),
        }
        for g, (name, judged) in enumerate(zip(ours.names, judge_groups(ratios), strict=True))
    ]
    return sorted(rows, key=lambda row: (row["ratio"], row["q"]))


def _relative_quantiles(groups: GroupDistances, reference: GroupDistances, index: int) -> list[float] | None:
    """Least, quartiles and greatest of a group's distances, in units of the reference's mean; None where that is 0."""
    unit = float(reference.mean[index])
    return [round(float(value) / unit, 4) for value in groups.quantiles[index]] if unit > 0 else None


def _distances_to_others(groups: GroupDistances) -> list[float | None]:
    """Root mean squared distance from each group's center to those of the others; None for a single group."""
    n = len(groups.names)
    if n < 2:
        return [None] * n
    squared = np.maximum(squared_center_distances(groups), 0.0)
    return [float(value) for value in np.sqrt(squared.sum(1) / (n - 1))]


def _named_row(row: dict[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in ("group", "ratio", "low", "high", "q")}


def _estimate_document(estimate: Estimate | None, reason: str) -> dict[str, Any]:
    if estimate is None:
        return {"value": None, "low": None, "high": None, "reason": reason}
    return asdict(estimate)


def _build_measurements(
    ours: GroupDistances,
    theirs: GroupDistances,
    ratios: LogRatios,
    estimates: tuple[Estimate, Estimate | None, Estimate, float],
) -> dict[str, Measurement]:
    within, between, quantile, floor = estimates
    n = len(ours.names)
    shown: dict[str, Any] = {"unit": "ratio", "better": "higher", "n": n}
    measurements = {
        "group_within": Measurement(within.value, within.low, within.high, floor=1.0, **shown),
        "group_low_quantile": Measurement(quantile.value, quantile.low, quantile.high, floor=floor, **shown),
    }
    if between is None:
        measurements["group_between"] = Measurement.missing("needs 3 groups that differ in the reference")
    else:
        measurements["group_between"] = Measurement(between.value, between.low, between.high, floor=1.0, **shown)
    worst = estimate_worst_loss(ratios)
    measurements["group_worst"] = Measurement(
        worst.value, worst.low, worst.high, unit="share", better="lower", n=n, reason="interval for all groups at once"
    )
    return measurements | {"group_duplicates": _measure_duplicates(ours, theirs)}


def _measure_duplicates(ours: GroupDistances, theirs: GroupDistances) -> Measurement:
    """Share of groups whose closest pair is a near-duplicate; the floor is the reference's own."""
    from gandiag.stats.resampling import wilson_interval

    varied = theirs.mean > max(_still_distance(theirs), RESOLUTION * _feature_size(theirs))
    if not varied.any():
        return Measurement.missing("the reference does not vary within groups either")
    near = NEAR_DUPLICATE_SHARE * theirs.mean[varied]
    shares = [float((groups.closest[varied] < near).mean()) for groups in (ours, theirs)]
    low, high = wilson_interval(shares[0], int(varied.sum()))
    return Measurement(shares[0], low, high, floor=shares[1], unit="share", better="lower", n=int(varied.sum()))


def _relative_widths(groups: GroupDistances | GroupMoments) -> Floats:
    """log of the rms distance within each group over that to samples of other groups, (G,)."""
    n = len(groups.n)
    squared = np.maximum(squared_center_distances(groups), 0.0)
    halves = groups.squared_width / 2
    across = squared + halves[:, None] + halves[None, :]  # (G, G) mean squared distance between samples
    np.fill_diagonal(across, 0.0)
    to_others = across.sum(1) / max(n - 1, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.log(groups.squared_width / to_others) / 2
    logs: Floats = np.nan_to_num(values, nan=0.0, posinf=math.inf, neginf=-math.inf)
    return logs


def _shuffled_range(subject: GroupedFeatures, seed: int) -> tuple[float, float]:
    """Smallest and largest value of the same ratio over shuffled group names."""
    generator = np.random.default_rng(seed)
    _, labels = np.unique(np.array([str(name) for name in subject.groups]), return_inverse=True)
    values = []
    for _ in range(SHUFFLES):
        moments = measure_moments(subject.features, labels[generator.permutation(len(labels))])
        logs = _relative_widths(moments)
        values.append(float(np.exp(locate(LogRatios(logs, np.zeros(len(logs))).values)[0])))
    return min(values), max(values)
