"""Pairwise distances of generated samples: their whole distribution, compared with that of real samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from gandiag.errors import SourceError
from gandiag.interfaces import MetricResult
from gandiag.metrics.base import UnpairedMetric, make_measurement
from gandiag.record import Exhibit, Measurement
from gandiag.stats.distances import distance_matrix
from gandiag.stats.resampling import MAX_SUBSAMPLE_ROWS, interval_half_widths, subsample_indices
from gandiag.stats.splits import RealFakeSplit
from gandiag.stats.validation import as_feature_pair, as_features

QUANTILE_LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
KEYS = ("pairwise_distance", *(f"pairwise_distance_q{round(100 * level):02d}" for level in QUANTILE_LEVELS))
RATIO_KEY = "pairwise_ratio"
HISTOGRAM_BINS = 48


def pairwise_distances(samples: Any) -> Tensor:
    """All n(n - 1)/2 Euclidean distances of (n, D) rows, in feature units, in no particular order.

    Short distances are exact. Memory n².
    """
    return _upper_triangle(distance_matrix(as_features(samples)))


def pairwise_distance(real: Any, fake: Any) -> tuple[float, float]:
    """Mean distance of two real rows, and of two generated rows, in feature units: the U-statistic 2/(n(n-1)) Σ d.

    Few but distant modes keep the mean, and outliers raise it: never rely on it alone; `pairwise_ratio` uses the near
    pairs instead. Cost (N² + M²)·D.
    """
    real_rows, fake_rows = as_feature_pair(real, fake)
    _require_pairs(real_rows, fake_rows)
    return float(pairwise_distances(real_rows).double().mean()), float(pairwise_distances(fake_rows).double().mean())


def pairwise_ratio(real: Any, fake: Any, level: float = 0.05) -> float:
    """A low quantile of generated pairwise distances over that of real ones, in [0, inf); higher is more diverse.

    1 for equal distributions, 0 where many pairs coincide. It detects narrowed and repeated modes. Half of K equal
    modes missing changes the 5 % quantile little when K is small, since most near pairs lie within a mode. NaN where
    the real rows coincide.
    """
    real_rows, fake_rows = as_feature_pair(real, fake)
    _require_pairs(real_rows, fake_rows)
    fake_quantile = _lower_quantile(pairwise_distances(fake_rows), level)
    real_quantile = _lower_quantile(pairwise_distances(real_rows), level)
    return fake_quantile / real_quantile if real_quantile > 0 else math.nan


def _require_pairs(real: Tensor, fake: Tensor) -> None:
    if min(len(real), len(fake)) < 2:
        raise SourceError(
            f"{len(real)} real and {len(fake)} generated samples are too few for pairwise distances",
            "pass at least 2 of each",
        )


def _upper_triangle(matrix: Tensor) -> Tensor:
    i, j = torch.triu_indices(len(matrix), len(matrix), 1)
    return matrix[i, j]  # (n(n-1)/2,)


def _lower_quantile(values: Tensor, level: float) -> float:
    """The smallest value that at least a fraction `level` of the values do not exceed."""
    return float(values.kthvalue(max(1, math.ceil(level * len(values)))).values)


def _mean_and_quantiles(distances: Tensor) -> list[float]:
    """Mean and quantiles of (P,) distances, in the order of KEYS; one sort serves all levels."""
    ordered = distances.sort().values
    quantiles = (float(ordered[max(1, math.ceil(level * len(ordered))) - 1]) for level in QUANTILE_LEVELS)
    return [float(distances.double().mean()), *quantiles]


@dataclass(frozen=True, slots=True)
class PairwiseDistances(UnpairedMetric):
    """Mean and quantiles of pairwise distances of at most 2,000 rows in one view; the floor is that of real rows."""

    purpose: ClassVar[str] = "a pair"

    @property
    def key(self) -> str:
        return "pairwise"

    @property
    def measurement_keys(self) -> tuple[str, ...]:
        return KEYS

    def compute(self, fake: Tensor, split: RealFakeSplit | None) -> MetricResult:
        keep = subsample_indices(len(fake), MAX_SUBSAMPLE_ROWS, self.seed)
        fake_distances = distance_matrix(fake[keep])  # (p, p)
        real_distances = None if split is None else distance_matrix(split.reference.flatten(1)[keep])
        measurements = _summary_measurements(fake_distances, real_distances, self.seed)
        if split is not None and real_distances is not None:
            heldout_distances = distance_matrix(split.heldout.flatten(1)[keep])
            measurements[RATIO_KEY] = _ratio_measurement(fake_distances, real_distances, heldout_distances, self.seed)
        return MetricResult(measurements, exhibits=(_histogram(fake_distances, real_distances),))


def _summary_measurements(fake_distances: Tensor, real_distances: Tensor | None, seed: int) -> dict[str, Measurement]:
    """Mean and quantiles from distance matrices (p, p)."""
    n = len(fake_distances)
    half_widths = interval_half_widths(
        lambda i: torch.tensor(
            _mean_and_quantiles(_upper_triangle(fake_distances[i[:, None], i])), dtype=torch.float64
        ),
        (n,),
        n,
        seed=seed,
    )
    values = _mean_and_quantiles(_upper_triangle(fake_distances))
    floors: list[float | None] = [None] * len(KEYS)
    if real_distances is not None:
        floors = [*_mean_and_quantiles(_upper_triangle(real_distances))]
    return {
        key: make_measurement(
            value, half_width, n=n, floor=floor, better="higher", unit="feature units", bounds=(0, math.inf)
        )
        for key, value, half_width, floor in zip(KEYS, values, half_widths.tolist(), floors, strict=True)
    }


def _ratio_measurement(fake: Tensor, reference: Tensor, heldout: Tensor, seed: int) -> Measurement:
    """The 5 % quantile over that of the reference, from distance matrices (p, p); held-out rows give the floor."""
    n, level = len(fake), QUANTILE_LEVELS[0]
    reference_quantile = _lower_quantile(_upper_triangle(reference), level)
    if not reference_quantile > 0:
        return Measurement.missing("more than 5 % of the pairs of real samples coincide")

    def ratio(i: Tensor, j: Tensor) -> Tensor:
        fake_quantile = _lower_quantile(_upper_triangle(fake[i[:, None], i]), level)
        real_quantile = _lower_quantile(_upper_triangle(reference[j[:, None], j]), level)
        return torch.tensor([fake_quantile / max(real_quantile, 1e-300)])

    half_width = float(interval_half_widths(ratio, (n, n), n, seed=seed))
    return make_measurement(
        _lower_quantile(_upper_triangle(fake), level) / reference_quantile,
        half_width,
        n=n,
        floor=_lower_quantile(_upper_triangle(heldout), level) / reference_quantile,
        better="higher",
        unit="of the real data's",
        bounds=(0, math.inf),
    )


def _histogram(fake_distances: Tensor, real_distances: Tensor | None) -> Exhibit:
    distances = {} if real_distances is None else {"real": _upper_triangle(real_distances)}
    distances["generated"] = _upper_triangle(fake_distances)
    top = max(float(values.max()) for values in distances.values()) or 1.0
    counts = {
        name: torch.histc(values.double(), HISTOGRAM_BINS, 0, top).long().tolist() for name, values in distances.items()
    }
    edges = [top * k / HISTOGRAM_BINS for k in range(HISTOGRAM_BINS + 1)]
    caption = "Distances between two samples; a peak at 0 means repeated outputs"
    return Exhibit("pairwise", "histogram", caption, {"edges": edges, "counts": counts})
