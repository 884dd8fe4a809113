"""Training copies: do the generator's outputs come from the real samples themselves?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gandiag.errors import SourceError
from gandiag.interfaces import MetricResult, Needs
from gandiag.metrics.base import NO_REAL_DATA, make_fraction_measurement, missing_measurements
from gandiag.metrics.duplicates import duplicate_threshold, threshold_from_spacing
from gandiag.record import BetterDirection
from gandiag.stats.distances import count_within_radius
from gandiag.stats.neighbors import nearest_neighbors
from gandiag.stats.resampling import interval_half_widths
from gandiag.stats.splits import RealFakeSplit, split_from_results, split_needs
from gandiag.stats.validation import as_feature_pair

KEYS = ("memorised", "authentic", "repeated_copies", "repeated_novelties")


@dataclass(frozen=True, slots=True)
class CopyFlags:
    """Per generated row: `copied`, nearly a real row; `authentic`, no nearer to its real neighbour than that one's own; `repeated`, nearly another
    generated row. (M,) bool each."""

    copied: Tensor
    authentic: Tensor
    repeated: Tensor

    def compute_shares(self, subset: Tensor | slice = slice(None)) -> Tensor:
        """The four measurements in the order of KEYS, (4,) float64."""
        copied, authentic, repeated = self.copied[subset], self.authentic[subset], self.repeated[subset]
        return torch.stack(
            [part.double().mean() for part in (copied, authentic, copied & repeated, repeated & ~copied)]
        )


def copies(real: Any, fake: Any, threshold: float | None = None) -> CopyFlags:
    """Compare each of (M, D) generated rows with its nearest of (N, D) real rows, and with the other generated rows.

    `threshold`: below it two rows are the same thing; default `duplicate_threshold(real, fake)`. Cost (N²/2 + N·M + M²/2)·D.
    SourceError with fewer than 2 rows a side.
    """
    left, right = as_feature_pair(real, fake)
    if min(len(left), len(right)) < 2:
        raise SourceError(f"there are {len(left)} real and {len(right)} generated samples", "pass at least 2 of each")
    limit = duplicate_threshold(left, right) if threshold is None else threshold
    return _copies(left, right, nearest_neighbors(left).distances[:, 0], limit)


def memorised(real: Any, fake: Any) -> float:
    """Share of generated rows that are copies of a real row: nearer to it than 0.1 × the real rows' median spacing. In [0, 1], lower is better.

    Only the real rows passed can be recognised: with a tenth of the training set, expect a tenth of the copies.
    """
    return float(copies(real, fake).copied.double().mean())


def authenticity(real: Any, fake: Any) -> float:
    """Share of generated rows farther from their nearest real row than that row is from its own nearest; AuthPct/100, in [0, 1].

    A third to 0.6 for fresh real data, by dimension, which the floor shows; 0 for copies; near 1 for samples off the manifold. It looks at each sample
    alone: one authentic sample repeated scores 1. Source: Alaa et al. 2022, section 4.3.
    """
    return float(copies(real, fake).authentic.double().mean())


def _copies(real: Tensor, fake: Tensor, spacing: Tensor, limit: float) -> CopyFlags:
    near = nearest_neighbors(fake, real)
    distance, index = near.distances[:, 0], near.indices[:, 0]  # (M,) each
    return CopyFlags(distance < limit, distance > spacing[index], count_within_radius(fake, limit) > 0)


@dataclass(frozen=True, slots=True)
class Memorization:
    """Training copies in one view, crossed with repetition: few outputs may be copies of training samples or new prototypes.

    The floor takes the null half of the real data for the generated samples. Looks among n real samples: a lower bound
    on what is copied from a larger training set.
    """

    view: str
    n: int
    seed: int = 0
    referenced: bool = True

    @property
    def key(self) -> str:
        return "memorisation"

    def needs(self) -> Needs:
        return split_needs(self.view, self.n) if self.referenced else {}

    def measure(self, results: Any) -> MetricResult:
        sets = split_from_results(results, self.view, self.n) if self.referenced else None
        if sets is None:
            return MetricResult(missing_measurements(KEYS, NO_REAL_DATA))
        if sets.n < 2:
            return MetricResult(missing_measurements(KEYS, f"{sets.n} samples a side have no spacing"))
        return MetricResult(self._measurements(sets))

    def _measurements(self, sets: RealFakeSplit) -> dict[str, Any]:
        a, b, f = (part.flatten(1) for part in (sets.reference, sets.heldout, sets.fake))  # (n, D) each
        spacing = nearest_neighbors(a).distances[:, 0]  # (n,)
        limit = threshold_from_spacing(spacing, f)
        found = _copies(a, f, spacing, limit)
        floor = _copies(a, b, spacing, limit).compute_shares().tolist()
        half = interval_half_widths(found.compute_shares, (sets.n,), sets.n, seed=self.seed).tolist()
        better: tuple[BetterDirection, ...] = ("lower", "neither", "lower", "lower")
        return {
            key: make_fraction_measurement(
                value, width, n=sets.n, floor=least, better=way, unit="share of generated samples"
            )
            for key, value, width, least, way in zip(
                KEYS, found.compute_shares().tolist(), half, floor, better, strict=True
            )
        }
