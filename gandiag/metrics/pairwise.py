"""How far apart two generated samples are: the whole distribution of pairwise distances, beside that of real ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gandiag.errors import SourceError
from gandiag.interfaces import MetricResult, Needs
from gandiag.metrics.base import make_measurement, missing_measurements
from gandiag.record import Exhibit
from gandiag.stats.distances import distance_matrix
from gandiag.stats.resampling import MAX_SUBSAMPLE_ROWS, interval_half_widths, subsample_indices
from gandiag.stats.splits import split_from_results, split_needs
from gandiag.stats.subset import SubsetSpec
from gandiag.stats.validation import as_feature_pair, as_features

QUANTILE_LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
KEYS = ("pairwise_distance", *(f"pairwise_distance_q{round(100 * level):02d}" for level in QUANTILE_LEVELS))
RATIO_KEY = "pairwise_ratio"
HISTOGRAM_BINS = 48


def pairwise_distances(samples: Any) -> Tensor:
    """All n(n - 1)/2 Euclidean distances of (n, D) rows, in feature units, in no particular order; short ones are exact. Memory n²."""
    return _pairs(distance_matrix(as_features(samples)))


def pairwise_distance(real: Any, fake: Any) -> tuple[float, float]:
    """Mean distance of two real rows, and of two generated ones, in feature units: the U-statistic 2/(n(n-1)) Σ d.

    Few but distant modes keep the mean, and junk raises it: never judge by it alone; `pairwise_ratio` looks at the near
    pairs instead. Cost (N² + M²)·D.
    """
    left, right = as_feature_pair(real, fake)
    _require(left, right)
    return float(pairwise_distances(left).double().mean()), float(pairwise_distances(right).double().mean())


def pairwise_ratio(real: Any, fake: Any, level: float = 0.05) -> float:
    """A low quantile of generated pairwise distances over that of real ones; 1 for equal laws, 0 where many pairs coincide, in [0, inf).

    Higher is more diverse. Half of K equal modes gone moves the 5 % quantile little when K is small, since most near pairs
    lie within a mode: it sees thin and repeated modes. NaN where the real rows coincide.
    """
    left, right = as_feature_pair(real, fake)
    _require(left, right)
    below, above = _quantile(pairwise_distances(right), level), _quantile(pairwise_distances(left), level)
    return below / above if above > 0 else math.nan


def _require(real: Tensor, fake: Tensor) -> None:
    if min(len(real), len(fake)) < 2:
        raise SourceError(
            f"there are {len(real)} real and {len(fake)} generated samples",
            "pass at least 2 of each: a distance takes a pair",
        )


def _pairs(matrix: Tensor) -> Tensor:
    i, j = torch.triu_indices(len(matrix), len(matrix), 1)
    return matrix[i, j]  # (n(n-1)/2,)


def _quantile(values: Tensor, level: float) -> float:
    """The smallest value that at least a share `level` of the values do not exceed."""
    return float(values.kthvalue(max(1, math.ceil(level * len(values)))).values)


def _summary(pairs: Tensor) -> list[float]:
    """Mean and quantiles of (P,) distances; a sort serves all levels."""
    ordered = pairs.sort().values
    return [
        float(pairs.double().mean()),
        *(float(ordered[max(1, math.ceil(level * len(ordered))) - 1]) for level in QUANTILE_LEVELS),
    ]


@dataclass(frozen=True, slots=True)
class PairwiseDistances:
    """Mean and quantiles of pairwise distances in one view, at most 2,000 rows of them; the floor is the real data's own."""

    view: str
    n: int
    seed: int = 0
    referenced: bool = True

    @property
    def key(self) -> str:
        return "pairwise"

    def needs(self) -> Needs:
        return (
            split_needs(self.view, self.n) if self.referenced else {"fake": frozenset({SubsetSpec(self.view, self.n)})}
        )

    def measure(self, results: Any) -> MetricResult:
        sets = split_from_results(results, self.view, self.n) if self.referenced else None
        fake = (results["fake"][SubsetSpec(self.view, self.n)].values if sets is None else sets.fake).flatten(
            1
        )  # (n, D)
        if len(fake) < 2:
            return MetricResult(missing_measurements(KEYS, f"{len(fake)} generated samples have no pairs"))
        keep = subsample_indices(len(fake), MAX_SUBSAMPLE_ROWS, self.seed)
        mine = distance_matrix(fake[keep])  # (p, p)
        real = None if sets is None else distance_matrix(sets.reference.flatten(1)[keep])
        found = _entries(mine, real, self.seed)
        if sets is not None and real is not None:
            found[RATIO_KEY] = _ratio(mine, real, distance_matrix(sets.heldout.flatten(1)[keep]), self.seed)
        return MetricResult(found, exhibits=(_histogram(mine, real),))


def _entries(mine: Tensor, real: Tensor | None, seed: int) -> dict[str, Any]:
    n = len(mine)
    width = interval_half_widths(
        lambda i: torch.tensor(_summary(_pairs(mine[i[:, None], i])), dtype=torch.float64), (n,), n, seed=seed
    )
    floor = [None] * len(KEYS) if real is None else _summary(_pairs(real))
    return {
        key: make_measurement(
            value, half, n=n, floor=least, better="higher", unit="feature units", bounds=(0, math.inf)
        )
        for key, value, half, least in zip(KEYS, _summary(_pairs(mine)), width.tolist(), floor, strict=True)
    }


def _ratio(mine: Tensor, a: Tensor, b: Tensor, seed: int) -> Any:
    """The 5 % quantile over that of A, with B over A as the floor."""
    n, level = len(mine), QUANTILE_LEVELS[0]
    scale = _quantile(_pairs(a), level)
    if not scale > 0:
        return missing_measurements((RATIO_KEY,), "more than 5 % of the pairs of real samples coincide")[RATIO_KEY]

    def ratio(i: Tensor, j: Tensor) -> Tensor:
        return torch.tensor(
            [_quantile(_pairs(mine[i[:, None], i]), level) / max(_quantile(_pairs(a[j[:, None], j]), level), 1e-300)]
        )

    width = float(interval_half_widths(ratio, (n, n), n, seed=seed))
    return make_measurement(
        _quantile(_pairs(mine), level) / scale,
        width,
        n=n,
        floor=_quantile(_pairs(b), level) / scale,
        better="higher",
        unit="of the real data's",
        bounds=(0, math.inf),
    )


def _histogram(mine: Tensor, real: Tensor | None) -> Exhibit:
    sides = {"generated": _pairs(mine)} if real is None else {"real": _pairs(real), "generated": _pairs(mine)}
    top = max(float(pairs.max()) for pairs in sides.values()) or 1.0
    counts = {
        name: torch.histc(pairs.double(), HISTOGRAM_BINS, 0, top).long().tolist() for name, pairs in sides.items()
    }
    edges = [top * k / HISTOGRAM_BINS for k in range(HISTOGRAM_BINS + 1)]
    return Exhibit(
        "pairwise",
        "histogram",
        "Distances between two samples; a peak at 0 is repetition",
        {"edges": edges, "counts": counts},
    )
