"""KID: the squared maximum mean discrepancy (MMD) under a cubic kernel, over all pairs at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from gandiag.errors import SourceError
from gandiag.interfaces import MetricResult
from gandiag.metrics.base import PairedMetric, make_measurement
from gandiag.stats.distances import TILE_SIZE, even_slices
from gandiag.stats.resampling import DEFAULT_REPLICATES, draw_halves, replicate_half_width
from gandiag.stats.splits import RealFakeSplit
from gandiag.stats.validation import as_feature_pair

MAX_DOUBLE_ROWS = 4_096  # with more rows the products are float32; sums are always float64


@dataclass(frozen=True, slots=True)
class PolynomialKernel:
    """k(x, y) = (gamma x·y + coef)^degree; gamma None is 1/D."""

    degree: int = 3
    gamma: float | None = None
    coef: float = 1.0

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, D), (M, D) -> (N, M)."""
        product: Tensor = x @ y.T
        return product.mul_(self.gamma or 1 / x.shape[1]).add_(self.coef).pow_(self.degree)


def kid(real: Any, fake: Any, kernel: PolynomialKernel | None = None) -> float:
    """The unbiased squared MMD of (N, D) real and (M, D) generated rows over all pairs; lower is better.

    About 0, and sometimes negative, for equal distributions. It estimates the same quantity as the mean over random
    subsets, with the least variance that the samples allow and without a seed. Its expectation does not depend on n. It
    reads low where the lost samples differ little in these features. Cost (N + M)²·D.

    SourceError with fewer than 2 rows per set. Sources: Bińkowski et al. 2018, eq. 4; Gretton et al. 2012, lemma 6.
    """
    real_rows, fake_rows = as_feature_pair(real, fake)
    _require_rows(real_rows, fake_rows, 2)
    all_real, all_fake = torch.ones(1, len(real_rows)), torch.ones(1, len(fake_rows))
    return float(_unbiased_mmd(real_rows, fake_rows, all_real, all_fake, kernel or PolynomialKernel()))


def kid_subsets(real: Any, fake: Any, subsets: int = 100, size: int = 1_000, seed: int = 2020) -> tuple[float, float]:
    """Mean and standard deviation over the random subsets that torch-fidelity draws from this seed.

    `real` is its input 2.     The standard deviation is that of subsets of this size, not a standard error. SourceError
    with fewer than `size` rows per set.
    """
    real_rows, fake_rows = as_feature_pair(real, fake)
    _require_rows(real_rows, fake_rows, size)
    random_state = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        j = random_state.choice(len(fake_rows), size, replace=False)
        i = random_state.choice(len(real_rows), size, replace=False)
        values.append(kid(real_rows[torch.from_numpy(i)], fake_rows[torch.from_numpy(j)]))
    return float(np.mean(values)), float(np.std(values))


def _require_rows(real: Tensor, fake: Tensor, min_rows: int) -> None:
    if min(len(real), len(fake)) < min_rows:
        raise SourceError(
            f"{len(real)} real and {len(fake)} generated samples are too few for KID",
            f"pass at least {min_rows} of each",
        )


def _unbiased_mmd(real: Tensor, fake: Tensor, in_real: Tensor, in_fake: Tensor, kernel: PolynomialKernel) -> Tensor:
    """The unbiased estimate on R selections of rows at the cost of one, (R,) float64.

    `in_real` (R, N) and `in_fake` (R, M) are 1 for the rows of a selection, else 0.
    """
    dtype = torch.float64 if max(len(real), len(fake)) <= MAX_DOUBLE_ROWS else torch.float32
    x, y, u, v = real.to(dtype), fake.to(dtype), in_real.double(), in_fake.double()
    n, m = u.sum(1), v.sum(1)
    real_term = (_kernel_sums(x, x, u, u, kernel) - u @ _kernel_diagonal(x, kernel)) / (n * (n - 1))
    fake_term = (_kernel_sums(y, y, v, v, kernel) - v @ _kernel_diagonal(y, kernel)) / (m * (m - 1))
    return real_term + fake_term - 2 * _kernel_sums(x, y, u, v, kernel) / (n * m)


def _kernel_sums(x: Tensor, y: Tensor, u: Tensor, v: Tensor, kernel: PolynomialKernel) -> Tensor:
    """u K vᵀ for each selection, (R,) float64, tile by tile; half of the tiles where x is y."""
    total = torch.zeros(len(u), dtype=torch.float64)
    for rows in even_slices(len(x), TILE_SIZE):
        for columns in even_slices(len(y), TILE_SIZE):
            if x is y and columns.start < rows.start:
                continue
            tile_sums = ((u[:, rows] @ kernel(x[rows], y[columns]).double()) * v[:, columns]).sum(1)
            total += tile_sums * (2 if x is y and columns.start > rows.start else 1)
    return total


def _kernel_diagonal(x: Tensor, kernel: PolynomialKernel) -> Tensor:
    squares = (x * x).sum(1).double()  # (N,)
    return (squares * (kernel.gamma or 1 / x.shape[1]) + kernel.coef).pow(kernel.degree)


@dataclass(frozen=True, slots=True)
class Kid(PairedMetric):
    """KID's estimator in one view, with that of real against real as the floor.

    The name `kid` alone is reserved for Inception features.
    """

    purpose: ClassVar[str] = "an unbiased estimate with an interval"

    @property
    def key(self) -> str:
        return f"kid[{self.view}]"

    @property
    def min_samples(self) -> int:
        return 4

    def compute(self, split: RealFakeSplit) -> MetricResult:
        reference, heldout, fake = split.flat_rows()  # (n, D) each
        generator = torch.Generator().manual_seed(self.seed)
        in_reference, in_fake = (_select_all_and_halves(split.n, generator) for _ in range(2))
        values = _unbiased_mmd(reference, fake, in_reference, in_fake, PolynomialKernel())  # (1 + R,)
        measurement = make_measurement(
            float(values[0]),
            float(replicate_half_width(values[1:])),
            n=split.n,
            floor=kid(reference, heldout),
            better="lower",
            unit="squared kernel units",
        )
        return MetricResult({self.key: measurement})


def _select_all_and_halves(n: int, generator: torch.Generator) -> Tensor:
    """Row selections of 0 and 1: all rows, then a random half for each replicate, (1 + R, n)."""
    selection = torch.zeros(1 + DEFAULT_REPLICATES, n)
    selection[0] = 1
    for row in selection[1:]:
        row[draw_halves((n,), generator)[0]] = 1
    return selection
