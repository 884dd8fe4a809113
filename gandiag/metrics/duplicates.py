"""Near-duplicates among generated samples, and the birthday estimate of the number of distinct outputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from gandiag.errors import SourceError
from gandiag.interfaces import MetricResult
from gandiag.metrics.base import NO_REAL_DATA, UnpairedMetric, make_fraction_measurement
from gandiag.record import Measurement
from gandiag.stats.distances import count_within_radius, distance_matrix
from gandiag.stats.neighbors import nearest_neighbors
from gandiag.stats.resampling import interval_half_widths, poisson_interval, subsample_indices
from gandiag.stats.splits import RealFakeSplit
from gandiag.stats.validation import as_feature_pair, as_features

KEYS = ("near_duplicates", "support_size")
DUPLICATE_DISTANCE_RATIO = 0.1  # of the median distance to the nearest neighbor
FLOAT_ERROR_RATIO = 2.0**-20  # of the rows' length: difference of two evaluations of one network in float32


@dataclass(frozen=True, slots=True)
class SupportEstimate:
    """The estimated number of distinct outputs, `value`, with its 95 % interval `low` … `high`.

    From `pairs` near-duplicate pairs among `n` samples; inf without a pair.
    """

    value: float
    low: float
    high: float
    pairs: int
    n: int


def duplicate_threshold(real: Any, fake: Any, *, step: float = 0.0) -> float:
    """The distance below which two generated rows count as the same, in feature units, > 0.

    0.1 × the median distance of a real row to its nearest other real row, so pass as many real rows as generated ones.
    Where `real` is None, 0.1 × that median among the generated rows themselves: independent of scale, but blind once
    more than half of them are near-duplicates that are not exact. Never below the float32 resolution (2⁻²⁰ of the rows'
    rms length), nor below half a quantization `step` per axis, in the units of the rows.
    """
    if real is None:
        fake_rows = as_features(fake, "generated samples")
        reference = fake_rows
    else:
        reference, fake_rows = as_feature_pair(real, fake)
    if len(reference) < 2:
        raise SourceError(f"{len(reference)} samples are too few for a distance", "pass at least 2")
    return threshold_from_spacing(nearest_neighbors(reference).distances[:, 0], fake_rows, step)


def threshold_from_spacing(spacing: Tensor, fake: Tensor, step: float = 0.0) -> float:
    """The same from known nearest-neighbor distances (N,), for generated rows (M, D)."""
    rms_length = math.sqrt(float(fake.double().square().sum(1).mean()))
    return max(
        DUPLICATE_DISTANCE_RATIO * float(spacing.median()),
        FLOAT_ERROR_RATIO * rms_length,
        step / 2 * math.sqrt(fake.shape[1]),
        1e-30,
    )


def near_duplicates(real: Any, fake: Any, threshold: float | None = None) -> float:
    """Fraction of generated rows with another one within the threshold, in [0, 1]; lower is better.

    The default threshold is that of `duplicate_threshold`.
    Reads high at larger n where the support is finite (a pair becomes likely at n = 1.18 √N), low where copies carry
    noise above the threshold. Missing modes alone do not show. Cost M²·D / 2.
    """
    radius = duplicate_threshold(real, fake) if threshold is None else threshold
    return _fraction_repeated(count_within_radius(as_features(fake, "generated samples"), radius))


def support_size(real: Any, fake: Any, threshold: float | None = None) -> SupportEstimate:
    """The birthday estimate of the number of distinct outputs: s(s - 1)/(2c) from c near-duplicate pairs among s rows.

    It is the inverse Simpson index, so a lower bound on the true support when outputs are unequally likely. The
    interval is the exact Poisson one for c, wider where pairs come in clumps. Higher is more diverse; without a pair it
    is inf, with a finite `low`. Source: Arora, Risteski and Zhang 2018.
    """
    radius = duplicate_threshold(real, fake) if threshold is None else threshold
    return birthday_estimate(count_within_radius(as_features(fake, "generated samples"), radius))


def birthday_estimate(duplicate_counts: Tensor) -> SupportEstimate:
    """The estimate from the number of near-duplicates of each row, (s,) int64.

    c = Σ count/2 is a U-statistic. Its jackknife variance, s var(count), counts the Poisson part twice (Hoeffding's
    second term), so s var - c, but at least c, is its variance; divided by c it is the dispersion of the clumps.
    """
    s, n_pairs = len(duplicate_counts), int(duplicate_counts.sum()) // 2
    dispersion = max(1.0, s * float(duplicate_counts.double().var()) / n_pairs - 1) if n_pairs else 1.0
    low, high = poisson_interval(n_pairs, dispersion)
    all_pairs = s * (s - 1) / 2
    return SupportEstimate(
        value=all_pairs / n_pairs if n_pairs else float("inf"),
        low=max(1.0, all_pairs / high),
        high=all_pairs / low if low else float("inf"),
        pairs=n_pairs,
        n=s,
    )


@dataclass(frozen=True, slots=True)
class Duplicates(UnpairedMetric):
    """Near-duplicates and support size in one view. The floor is that of as many real samples, at the same threshold.

    `step`: the quantization step of the view's values (2/255 for 8-bit images in [-1, 1]), 0 if there is none.
    """

    step: float = 0.0

    purpose: ClassVar[str] = "a pair"

    @property
    def key(self) -> str:
        return "duplicates"

    @property
    def measurement_keys(self) -> tuple[str, ...]:
        return KEYS

    def compute(self, fake: Tensor, split: RealFakeSplit | None) -> MetricResult:
        real = None if split is None else split.reference.flatten(1)
        radius = duplicate_threshold(real, fake, step=self.step)
        counts = count_within_radius(fake, radius)  # (n,)
        real_counts = None if real is None else count_within_radius(real, radius)
        fraction = make_fraction_measurement(
            _fraction_repeated(counts),
            self._half_width(fake, radius),
            n=len(fake),
            floor=None if real_counts is None else _fraction_repeated(real_counts),
            better="lower",
            unit="share of generated samples",
        )
        real_support = None if real_counts is None else birthday_estimate(real_counts)
        support = _support_measurement(birthday_estimate(counts), real_support)
        return MetricResult({"near_duplicates": fraction, "support_size": support})

    def _half_width(self, fake: Tensor, radius: float) -> float:
        rows = fake[subsample_indices(len(fake), seed=self.seed)]
        is_near = (distance_matrix(rows) < radius).fill_diagonal_(False)  # (p, p)
        half_widths = interval_half_widths(
            lambda i: is_near[i[:, None], i].any(1).double().mean()[None], (len(rows),), len(fake), seed=self.seed
        )
        return float(half_widths)


def _fraction_repeated(duplicate_counts: Tensor) -> float:
    return float((duplicate_counts > 0).double().mean())


def _support_measurement(estimate: SupportEstimate, real_estimate: SupportEstimate | None) -> Measurement:
    if not estimate.pairs:
        return Measurement.missing(
            f"no two of {estimate.n:,} samples are near-duplicates: "
            f"there are more than {estimate.low:,.0f} different outputs (95 %)"
        )
    floor, reason = None, None
    if real_estimate is None:
        reason = NO_REAL_DATA
    elif real_estimate.pairs:
        floor = real_estimate.value
    else:
        reason = f"no two of {real_estimate.n:,} real samples are near-duplicates"
    high = estimate.high if math.isfinite(estimate.high) else None
    return Measurement(
        estimate.value, estimate.low, high, floor, "different outputs", "higher", estimate.n, reason=reason
    )
