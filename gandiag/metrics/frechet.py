"""Fréchet distance between two Gaussians, from a factor of the reference covariance instead of a matrix square root."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from gandiag.interfaces import MetricResult
from gandiag.metrics.base import PairedMetric, make_measurement
from gandiag.record import Measurement
from gandiag.stats.moments import Gaussian, fit_gaussian
from gandiag.stats.resampling import interval_half_widths, subsample_indices
from gandiag.stats.splits import RealFakeSplit
from gandiag.stats.validation import as_feature_pair

MAX_SUBSAMPLE_ROWS = 1_000  # rows that replicates draw from: each replicate takes a singular value decomposition


@dataclass(frozen=True, slots=True)
class ReferenceStatistics:
    """A Gaussian with covariance F Fᵀ: `mean` (D,), `cov_factor` F (D, r), both float64, and `cov_trace`."""

    mean: Tensor
    cov_factor: Tensor
    cov_trace: float


def reference_statistics(real: Gaussian | Tensor) -> ReferenceStatistics:
    """Factor the reference once. With n <= D rows the centered rows themselves are the factor: no decomposition."""
    if isinstance(real, Tensor) and len(real) <= real.shape[1]:
        mean, centered = _center_and_scale(real)
        return ReferenceStatistics(mean, centered.T, float(centered.square().sum()))
    moments = fit_gaussian(real) if isinstance(real, Tensor) else real
    return ReferenceStatistics(moments.mean, _factor_covariance(moments.cov), float(moments.cov.trace()))


def frechet_to_reference(reference: ReferenceStatistics, fake: Gaussian | Tensor) -> float:
    """|m - m'|² + tr(S + S' - 2 (S S')^½), in squared feature units, in [0, inf).

    With S = F Fᵀ the last trace is the sum of the square roots of the eigenvalues of Fᵀ S' F. That matrix is symmetric:
    no complex numbers and no added epsilon, and eigenvalues that rounding makes negative are set to 0. With n <= D rows
    it is the sum of the singular values of the centered rows times F, over √(n - 1).
    """
    factor = reference.cov_factor
    if isinstance(fake, Tensor) and len(fake) <= fake.shape[1]:
        mean, centered = _center_and_scale(fake)  # (D,), (n, D)
        trace = float(centered.square().sum())
        cross_trace = float(torch.linalg.svdvals(centered @ factor).sum())
    else:
        moments = fit_gaussian(fake) if isinstance(fake, Tensor) else fake
        mean, trace = moments.mean, float(moments.cov.trace())
        eigenvalues = torch.linalg.eigvalsh(factor.T @ moments.cov @ factor)
        cross_trace = float(eigenvalues.clamp_(min=0).sqrt_().sum())
    return max(0.0, float((reference.mean - mean).square().sum()) + reference.cov_trace + trace - 2 * cross_trace)


def frechet_distance(real: Any, fake: Any) -> float:
    """The Fréchet distance of (N, D) real and (M, D) generated rows, or of two `Gaussian`s; lower is better.

    0 for equal means and covariances. On Inception features this is FID; on any other features it is not. It reads high
    at small n (a bias of about D/n times the variance, which differs between models). It sees two moments only: missing
    or narrowed modes that leave these unchanged are invisible. Cost D³ + n·D², or n²·D where n <= D.

    Sources: Dowson and Landau 1982; Heusel et al. 2017, eq. 6.
    """
    if isinstance(real, Gaussian) and isinstance(fake, Gaussian):
        return frechet_to_reference(reference_statistics(real), fake)
    real_rows, fake_rows = as_feature_pair(real, fake)
    return frechet_to_reference(reference_statistics(real_rows), fake_rows)


def _center_and_scale(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The mean (D,) and (rows - mean)/√(n - 1), (n, D), float64."""
    double = rows.double()
    mean = double.mean(0)
    return mean, (double - mean) / math.sqrt(max(1, len(rows) - 1))


def _factor_covariance(cov: Tensor) -> Tensor:
    """F with F Fᵀ = cov: Cholesky where the matrix has full rank, else from its eigenvectors."""
    cholesky, info = torch.linalg.cholesky_ex(cov)
    factor: Tensor = cholesky
    if int(info):
        values, vectors = torch.linalg.eigh(cov)
        keep = values > 0
        factor = vectors[:, keep] * values[keep].sqrt()
    return factor


def frechet_measurement(split: RealFakeSplit, seed: int) -> Measurement:
    """Fréchet distance of generated from reference rows; the floor is that of held-out rows."""
    reference_rows, heldout, fake = split.flat_rows()  # (n, D) each
    reference = reference_statistics(reference_rows)
    keep = subsample_indices(split.n, MAX_SUBSAMPLE_ROWS, seed)
    real_pool, fake_pool = reference_rows[keep], fake[keep]
    half_width = interval_half_widths(
        lambda i, j: torch.tensor([frechet_distance(real_pool[i], fake_pool[j])]),
        (len(keep), len(keep)),
        split.n,
        seed=seed,
    )
    return make_measurement(
        frechet_to_reference(reference, fake),
        float(half_width),
        n=split.n,
        floor=frechet_to_reference(reference, heldout),
        better="lower",
        unit="squared feature units",
        bounds=(0, math.inf),
    )


@dataclass(frozen=True, slots=True)
class FrechetDistance(PairedMetric):
    """The Fréchet distance in one view, with that of real against real as the floor."""

    purpose: ClassVar[str] = "a covariance"

    @property
    def key(self) -> str:
        return f"frechet[{self.view}]"

    def compute(self, split: RealFakeSplit) -> MetricResult:
        return MetricResult({self.key: frechet_measurement(split, self.seed)})
