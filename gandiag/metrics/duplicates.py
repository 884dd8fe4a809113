"""Samples that say the same thing twice, and how many different ones there can be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gandiag.errors import SourceError
from gandiag.interfaces import MetricResult, Needs
from gandiag.metrics.base import NO_REAL_DATA, make_fraction_measurement, missing_measurements
from gandiag.record import Measurement
from gandiag.stats.distances import count_within_radius, distance_matrix
from gandiag.stats.neighbors import nearest_neighbors
from gandiag.stats.resampling import interval_half_widths, poisson_interval, subsample_indices
from gandiag.stats.splits import split_from_results, split_needs
from gandiag.stats.subset import SubsetSpec
from gandiag.stats.validation import as_feature_pair, as_features

KEYS = ("near_duplicates", "support_size")
DUPLICATE_DISTANCE_RATIO = 0.1  # of the median distance to the nearest neighbour
FLOAT_ERROR_RATIO = 2.0**-20  # of the rows' size: what two evaluations of one network differ by in float32


@dataclass(frozen=True, slots=True)
class SupportEstimate:
    """About `value` different outputs, 95 % sure between `low` and `high`, from `pairs` near-duplicate pairs among `n`. inf without a pair."""

    value: float
    low: float
    high: float
    pairs: int
    n: int


def duplicate_threshold(real: Any, fake: Any, *, step: float = 0.0) -> float:
    """The distance below which two generated rows are the same thing, in feature units, > 0.

    0.1 × the median distance of a real row to its nearest other real row, so take as many real rows as generated ones.
    Where `real` is None, 0.1 × that median among the generated rows themselves: free of scale, but blind once more
    than half of them are near-duplicates that are not exact. Never below what float32 resolves (2⁻²⁰ of the rows' rms
    length), nor below half a quantisation `step` per axis, in the units of the rows.
    """
    left, right = (None, as_features(fake, "generated samples")) if real is None else as_feature_pair(real, fake)
    basis = right if left is None else left
    if len(basis) < 2:
        raise SourceError(f"there are {len(basis)} samples", "pass at least 2: a distance takes a pair")
    return threshold_from_spacing(nearest_neighbors(basis).distances[:, 0], right, step)


def threshold_from_spacing(spacing: Tensor, fake: Tensor, step: float = 0.0) -> float:
    """The same from nearest-neighbour distances (N,) already known, for generated rows (M, D)."""
    size = math.sqrt(float(fake.double().square().sum(1).mean()))
    return max(
        DUPLICATE_DISTANCE_RATIO * float(spacing.median()),
        FLOAT_ERROR_RATIO * size,
        step / 2 * math.sqrt(fake.shape[1]),
        1e-30,
    )


def near_duplicates(real: Any, fake: Any, threshold: float | None = None) -> float:
    """Share of generated rows that have another one within the threshold (`duplicate_threshold`), in [0, 1]; lower is better.

    Reads high at larger n where the support is finite (a pair becomes likely at n = 1.18 √N), low where copies carry noise
    above the threshold. Dropped modes alone do not show. Cost M²·D / 2.
    """
    limit = duplicate_threshold(real, fake) if threshold is None else threshold
    return float((count_within_radius(as_features(fake, "generated samples"), limit) > 0).double().mean())


def support_size(real: Any, fake: Any, threshold: float | None = None) -> SupportEstimate:
    """The birthday estimate of how many different outputs there are: s(s - 1)/(2c) from c near-duplicate pairs among s rows.

    It is the inverse Simpson index, so a lower bound on the true support when outputs are unequally likely. The interval
    is the exact Poisson one for c, wider where pairs come in clumps. Higher is more diverse; inf, with a finite `low`,
    where no pair is found. Source: Arora, Risteski and Zhang 2018.
    """
    limit = duplicate_threshold(real, fake) if threshold is None else threshold
    return birthday_estimate(count_within_radius(as_features(fake, "generated samples"), limit))


def birthday_estimate(duplicate_counts: Tensor) -> SupportEstimate:
    """The estimate from how many near-duplicates each row has, (s,) int64.

    c = Σ degree/2 is a U-statistic: its jackknife variance, s var(degree), counts the Poisson part twice (Hoeffding's second
    term), so s var - c, at least c, is its variance; over c, that is the dispersion of the clumps.
    """
    s, pairs = len(duplicate_counts), int(duplicate_counts.sum()) // 2
    dispersion = max(1.0, s * float(duplicate_counts.double().var()) / pairs - 1) if pairs else 1.0
    low, high = poisson_interval(pairs, dispersion)
    every = s * (s - 1) / 2
    return SupportEstimate(
        every / pairs if pairs else float("inf"), max(1.0, every / high), every / low if low else float("inf"), pairs, s
    )


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Near-duplicates and support size in one view. The floor is that of as many real samples, at the same threshold.

    `step`: the quantisation step of the view's values (2/255 for 8-bit images in [-1, 1]), 0 if there is none.
    """

    view: str
    n: int
    seed: int = 0
    referenced: bool = True
    step: float = 0.0

    @property
    def key(self) -> str:
        return "duplicates"

    def needs(self) -> Needs:
        return (
            split_needs(self.view, self.n) if self.referenced else {"fake": frozenset({SubsetSpec(self.view, self.n)})}
        )

    def measure(self, results: Any) -> MetricResult:
        sets = split_from_results(results, self.view, self.n) if self.referenced else None
        fake = (results["fake"][SubsetSpec(self.view, self.n)].values if sets is None else sets.fake).flatten(
            1
        )  # (n, D)
        real = None if sets is None else sets.reference.flatten(1)
        if len(fake) < 2:
            return MetricResult(missing_measurements(KEYS, f"{len(fake)} generated samples have no pairs"))
        limit = duplicate_threshold(real, fake, step=self.step)
        degree = count_within_radius(fake, limit)  # (n,)
        floor = None if real is None else count_within_radius(real, limit)
        half = self._half_width(fake, limit)
        value, least = _repeated(degree), None if floor is None else _repeated(floor)
        return MetricResult(
            {
                "near_duplicates": make_fraction_measurement(
                    value, half, n=len(fake), floor=least, better="lower", unit="share of generated samples"
                ),
                "support_size": _support(
                    birthday_estimate(degree), None if floor is None else birthday_estimate(floor)
                ),
            }
        )

    def _half_width(self, fake: Tensor, limit: float) -> float:
        part = fake[subsample_indices(len(fake), seed=self.seed)]
        near = (distance_matrix(part) < limit).fill_diagonal_(False)  # (p, p)
        return float(
            interval_half_widths(
                lambda i: near[i[:, None], i].any(1).double().mean()[None], (len(part),), len(fake), seed=self.seed
            )
        )


def _repeated(degree: Tensor) -> float:
    return float((degree > 0).double().mean())


def _support(found: SupportEstimate, floor: SupportEstimate | None) -> Measurement:
    if not found.pairs:
        return Measurement.missing(
            f"no pair among {found.n:,} samples is a near-duplicate: there are more than {found.low:,.0f} different outputs (95 %)"
        )
    least = floor.value if floor is not None and floor.pairs else None
    reason = (
        None
        if least is not None
        else NO_REAL_DATA
        if floor is None
        else f"no pair among {floor.n:,} real samples is a near-duplicate"
    )
    high = found.high if torch.isfinite(torch.tensor(found.high)) else None
    return Measurement(found.value, found.low, high, least, "different outputs", "higher", found.n, reason=reason)
