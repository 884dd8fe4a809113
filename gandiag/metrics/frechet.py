"""The Fréchet distance between two Gaussians, from a factor of the reference: no matrix square root."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gandiag.interfaces import MetricResult, Needs
from gandiag.metrics.base import NO_REAL_DATA, make_measurement, missing_measurements
from gandiag.stats.moments import Gaussian, fit_gaussian
from gandiag.stats.resampling import interval_half_widths, subsample_indices
from gandiag.stats.splits import RealFakeSplit, split_from_results, split_needs
from gandiag.stats.validation import as_feature_pair

MAX_SUBSAMPLE_ROWS = 1_000  # rows that replicates draw from: each costs a singular value decomposition


@dataclass(frozen=True, slots=True)
class ReferenceStatistics:
    """A Gaussian with covariance `factor` @ `factor`.T: mean (D,), factor (D, r), both float64; `trace` of the covariance."""

    mean: Tensor
    cov_factor: Tensor
    cov_trace: float


def reference_statistics(real: Gaussian | Tensor) -> ReferenceStatistics:
    """The side that stays, factored once. With n <= D rows the centred rows themselves are the factor, and nothing is decomposed."""
    if isinstance(real, Tensor) and len(real) <= real.shape[1]:
        mean, factor = _centred(real)
        return ReferenceStatistics(mean, factor.T, float(factor.square().sum()))
    moments = fit_gaussian(real) if isinstance(real, Tensor) else real
    return ReferenceStatistics(moments.mean, _root(moments.cov), float(moments.cov.trace()))


def frechet_to_reference(reference: ReferenceStatistics, fake: Gaussian | Tensor) -> float:
    """|m - m'|² + tr(S + S' - 2 (S S')^½), in squared feature units, in [0, inf).

    With S = F Fᵀ the last trace is the sum of the roots of the eigenvalues of Fᵀ S' F, which is symmetric: no complex
    numbers, no added epsilon, and what rounding makes negative is 0. With n <= D rows it is the sum of the singular
    values of the centred rows times F, over √(n - 1).
    """
    if isinstance(fake, Tensor) and len(fake) <= fake.shape[1]:
        mean, scaled = _centred(fake)  # (D,), (n, D)
        trace, cross = float(scaled.square().sum()), float(torch.linalg.svdvals(scaled @ reference.cov_factor).sum())
    else:
        moments = fit_gaussian(fake) if isinstance(fake, Tensor) else fake
        mean, trace = moments.mean, float(moments.cov.trace())
        cross = float(
            torch.linalg.eigvalsh(reference.cov_factor.T @ moments.cov @ reference.cov_factor)
            .clamp_(min=0)
            .sqrt_()
            .sum()
        )
    return max(0.0, float((reference.mean - mean).square().sum()) + reference.cov_trace + trace - 2 * cross)


def frechet_distance(real: Any, fake: Any) -> float:
    """The Fréchet distance of (N, D) real and (M, D) generated rows, or of two `Gaussian`s. 0: equal means and covariances; lower is better.

    On Inception features this is FID; on any other it is no FID. It reads high at small n (a bias of about D/n times the
    variance, which differs between models), and sees two moments only: missing modes and thin modes that leave these
    alone go unseen. Cost D³ + n·D², or n²·D where n <= D.

    Sources: Dowson and Landau 1982; Heusel et al. 2017, eq. 6.
    """
    if isinstance(real, Gaussian) and isinstance(fake, Gaussian):
        return frechet_to_reference(reference_statistics(real), fake)
    left, right = as_feature_pair(real, fake)
    return frechet_to_reference(reference_statistics(left), right)


def _centred(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The mean (D,) and (rows - mean)/√(n - 1), (n, D), float64."""
    wide = rows.double()
    mean = wide.mean(0)
    return mean, (wide - mean) / math.sqrt(max(1, len(rows) - 1))


def _root(cov: Tensor) -> Tensor:
    """F with F Fᵀ = cov: Cholesky where the matrix has full rank, else from its eigenvectors."""
    found, info = torch.linalg.cholesky_ex(cov)
    root: Tensor = found
    if int(info):
        values, vectors = torch.linalg.eigh(cov)
        keep = values > 0
        root = vectors[:, keep] * values[keep].sqrt()
    return root


@dataclass(frozen=True, slots=True)
class FrechetDistance:
    """The Fréchet distance in one view, with that of real against real as the floor."""

    view: str
    n: int
    seed: int = 0
    referenced: bool = True

    @property
    def key(self) -> str:
        return f"frechet[{self.view}]"

    def needs(self) -> Needs:
        return split_needs(self.view, self.n) if self.referenced else {}

    def measure(self, results: Any) -> MetricResult:
        sets = split_from_results(results, self.view, self.n) if self.referenced else None
        if sets is None:
            return MetricResult(missing_measurements((self.key,), NO_REAL_DATA))
        if sets.n < 2:
            return MetricResult(missing_measurements((self.key,), f"{sets.n} samples a side have no covariance"))
        return MetricResult({self.key: frechet_measurement(sets, self.seed)})


def frechet_measurement(split: RealFakeSplit, seed: int) -> Any:
    """A against F, with A against B as the floor and an interval from half-samples."""
    a, b, f = (part.flatten(1) for part in (split.reference, split.heldout, split.fake))  # (n, D) each
    anchor = reference_statistics(a)
    keep = subsample_indices(split.n, MAX_SUBSAMPLE_ROWS, seed)
    left, right = a[keep], f[keep]
    width = interval_half_widths(
        lambda i, j: torch.tensor([frechet_distance(left[i], right[j])]), (len(keep), len(keep)), split.n, seed=seed
    )
    return make_measurement(
        frechet_to_reference(anchor, f),
        float(width),
        n=split.n,
        floor=frechet_to_reference(anchor, b),
        better="lower",
        unit="squared feature units",
        bounds=(0, math.inf),
    )
