"""Memorization: the fraction of generated samples that are copies of real ones.

A copy lies much nearer to a real row than real rows lie to each other: within half of the 5 % quantile of their
nearest-neighbor distances (at most half of the median, at least a tenth). In many dimensions those distances hardly
vary, so that copies under noise of a fifth of the data's width are still seen; in two or three, chance comes that near
too, and only close copies are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from gandiag.errors import SourceError
from gandiag.interfaces import MetricResult
from gandiag.metrics.base import PairedMetric, make_fraction_measurement
from gandiag.metrics.duplicates import threshold_from_spacing
from gandiag.record import BetterDirection
from gandiag.stats.distances import count_within_radius
from gandiag.stats.neighbors import nearest_neighbors
from gandiag.stats.resampling import interval_half_widths
from gandiag.stats.splits import RealFakeSplit
from gandiag.stats.validation import as_feature_pair

DIRECTIONS: dict[str, BetterDirection] = {
    "memorised": "lower",
    "authentic": "neither",
    "repeated_copies": "lower",
    "repeated_novelties": "lower",
}
KEYS = tuple(DIRECTIONS)
MIN_SEARCHED = 10  # samples per set, below which copies are not searched for
MAX_QUANTILE_ROWS = 1_000_000  # more than torch.quantile takes are not needed
NEAR_QUANTILE = 0.05  # of the real rows' nearest-neighbor distances
COPY_RATIO = 0.5  # of that quantile, and at most of the median


@dataclass(frozen=True, slots=True)
class CopyFlags:
    """Three flags per generated row, (M,) bool each.

    `copied`: nearly equal to a real row. `authentic`: no nearer to its nearest real row than that row is to its own
    nearest. `repeated`: nearly equal to another generated row.
    """

    copied: Tensor
    authentic: Tensor
    repeated: Tensor

    def compute_shares(self, subset: Tensor | slice = slice(None)) -> Tensor:
        """The four measurements in the order of KEYS, (4,) float64."""
        copied, authentic, repeated = self.copied[subset], self.authentic[subset], self.repeated[subset]
        flags = (copied, authentic, copied & repeated, repeated & ~copied)
        return torch.stack([flag.double().mean() for flag in flags])


def copies(real: Any, fake: Any, threshold: float | None = None) -> CopyFlags:
    """Compare each of (M, D) generated rows with its nearest of (N, D) real rows, and with the other generated rows.

    `threshold`: the distance below which two rows count as the same; by default a copy is within `copy_radius` and a
    repeat within `duplicate_threshold(real, fake)`.
    Cost (N²/2 + N·M + M²/2)·D. SourceError with fewer than 2 rows per set.
    """
    real_rows, fake_rows = as_feature_pair(real, fake)
    if min(len(real_rows), len(fake_rows)) < 2:
        raise SourceError(
            f"{len(real_rows)} real and {len(fake_rows)} generated samples are too few to compare",
            "pass at least 2 of each",
        )
    spacing = nearest_neighbors(real_rows).distances[:, 0]  # (N,)
    if threshold is not None:
        return _flag_copies(real_rows, fake_rows, spacing, (threshold, threshold))
    return _flag_copies(real_rows, fake_rows, spacing, _choose_radii(spacing, fake_rows))


def copy_radius(spacing: Tensor, fake: Tensor) -> float:
    """The distance below which a generated row is a copy; `spacing` (N,): the real rows' nearest-neighbor distances."""
    near = torch.quantile(spacing[:MAX_QUANTILE_ROWS].double(), NEAR_QUANTILE)
    return max(threshold_from_spacing(spacing, fake), COPY_RATIO * min(float(near), float(spacing.median())))


def _choose_radii(spacing: Tensor, fake: Tensor) -> tuple[float, float]:
    """The radius of copies and that of repeats."""
    return copy_radius(spacing, fake), threshold_from_spacing(spacing, fake)


def memorised(real: Any, fake: Any) -> float:
    """Fraction of generated rows that are copies of a real row, in [0, 1]; lower is better.

    A copy is nearer to a real row than `copy_radius`. Only the real rows passed can be
    recognized: with a tenth of the training set, expect a tenth of the copies.
    """
    return float(copies(real, fake).copied.double().mean())


def authenticity(real: Any, fake: Any) -> float:
    """Fraction of generated rows farther from their nearest real row than that row is from its own nearest.

    AuthPct/100, in [0, 1]. A third to 0.6 for fresh real data, depending on the dimension (see the floor); 0 for
    copies; near 1 for samples off the manifold. It treats each sample alone: one authentic sample repeated scores 1.
    Source: Alaa et al. 2022, section 4.3.
    """
    return float(copies(real, fake).authentic.double().mean())


def _flag_copies(real: Tensor, fake: Tensor, spacing: Tensor, radii: tuple[float, float]) -> CopyFlags:
    """`spacing` (N,): distance of each real row to its nearest other real row. `radii`: of copies and of repeats."""
    neighbors = nearest_neighbors(fake, real)
    distance, index = neighbors.distances[:, 0], neighbors.indices[:, 0]  # (M,) each
    return CopyFlags(distance < radii[0], distance > spacing[index], count_within_radius(fake, radii[1]) > 0)


@dataclass(frozen=True, slots=True)
class Memorization(PairedMetric):
    """Copies of training samples in one view, crossed with repetition.

    Few distinct outputs may be copies of training samples or new ones. The floor uses the held-out half of the real
    data in place of the generated samples. Only n real samples are searched; `search_copies` searches all of them.
    """

    purpose: ClassVar[str] = "a nearest neighbor"

    @property
    def key(self) -> str:
        return "memorisation"

    @property
    def measurement_keys(self) -> tuple[str, ...]:
        return KEYS

    def compute(self, split: RealFakeSplit) -> MetricResult:
        reference, heldout, fake = split.flat_rows()  # (n, D) each
        spacing = nearest_neighbors(reference).distances[:, 0]  # (n,)
        radii = _choose_radii(spacing, fake)
        flags = _flag_copies(reference, fake, spacing, radii)
        shares = flags.compute_shares().tolist()
        floors = _flag_copies(reference, heldout, spacing, radii).compute_shares().tolist()
        half_widths = interval_half_widths(flags.compute_shares, (split.n,), split.n, seed=self.seed).tolist()
        return MetricResult(
            {
                key: make_fraction_measurement(
                    share, half_width, n=split.n, floor=floor, better=better, unit="share of generated samples"
                )
                for (key, better), share, half_width, floor in zip(
                    DIRECTIONS.items(), shares, half_widths, floors, strict=True
                )
            }
        )
