"""KID: the squared maximum mean discrepancy under a cubic kernel, from all pairs at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import t
from torch import Tensor

from gandiag.errors import SourceError
from gandiag.interfaces import MetricResult, Needs
from gandiag.metrics.base import NO_REAL_DATA, make_measurement, missing_measurements
from gandiag.stats.distances import TILE_SIZE, even_slices
from gandiag.stats.splits import DEFAULT_REPLICATES, split_from_results, split_needs
from gandiag.stats.validation import as_feature_pair

MAX_DOUBLE_ROWS = 4_096  # beyond so many rows the products are float32; sums never are


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
    """The unbiased squared MMD of (N, D) real and (M, D) generated rows over all pairs; lower is better, about 0 for equal laws, and at times below 0.

    What the mean over random subsets estimates, with the least variance that the samples allow, and without a seed. Its
    expectation does not depend on n. Reads low when what is lost carries little feature mass. Cost (N + M)²·D.

    SourceError with fewer than 2 rows a side. Source: Bińkowski et al. 2018, eq. 4; Gretton et al. 2012, lemma 6.
    """
    left, right = as_feature_pair(real, fake)
    _require(left, right, 2)
    return float(_mmd(left, right, torch.ones(1, len(left)), torch.ones(1, len(right)), kernel or PolynomialKernel()))


def kid_subsets(real: Any, fake: Any, subsets: int = 100, size: int = 1_000, seed: int = 2020) -> tuple[float, float]:
    """Mean and standard deviation over random subsets, the same subsets that torch-fidelity draws from this seed (`real` is its input 2).

    The deviation describes subsets of this size; it is no standard error. SourceError with fewer than `size` rows a side.
    """
    left, right = as_feature_pair(real, fake)
    _require(left, right, size)
    draw = np.random.RandomState(seed)
    found = []
    for _ in range(subsets):
        j = draw.choice(len(right), size, replace=False)
        i = draw.choice(len(left), size, replace=False)
        found.append(kid(left[torch.from_numpy(i)], right[torch.from_numpy(j)]))
    return float(np.mean(found)), float(np.std(found))


def _require(real: Tensor, fake: Tensor, least: int) -> None:
    if min(len(real), len(fake)) < least:
        raise SourceError(
            f"there are {len(real)} real and {len(fake)} generated samples", f"pass at least {least} of each"
        )


def _mmd(real: Tensor, fake: Tensor, in_real: Tensor, in_fake: Tensor, kernel: PolynomialKernel) -> Tensor:
    """The unbiased estimate on R choices of rows, (R, N) and (R, M) of 0 and 1, at the cost of one: (R,) float64."""
    dtype = torch.float64 if max(len(real), len(fake)) <= MAX_DOUBLE_ROWS else torch.float32
    x, y, u, v = real.to(dtype), fake.to(dtype), in_real.double(), in_fake.double()
    n, m = u.sum(1), v.sum(1)
    among = (_sums(x, x, u, u, kernel) - u @ _diagonal(x, kernel)) / (n * (n - 1))
    beside = (_sums(y, y, v, v, kernel) - v @ _diagonal(y, kernel)) / (m * (m - 1))
    return among + beside - 2 * _sums(x, y, u, v, kernel) / (n * m)


def _sums(x: Tensor, y: Tensor, u: Tensor, v: Tensor, kernel: PolynomialKernel) -> Tensor:
    """u K vᵀ for each choice, (R,) float64, tile by tile; half of the tiles where x is y."""
    total = torch.zeros(len(u), dtype=torch.float64)
    for rows in even_slices(len(x), TILE_SIZE):
        for columns in even_slices(len(y), TILE_SIZE):
            if x is y and columns.start < rows.start:
                continue
            part = ((u[:, rows] @ kernel(x[rows], y[columns]).double()) * v[:, columns]).sum(1)
            total += part * (2 if x is y and columns.start > rows.start else 1)
    return total


def _diagonal(x: Tensor, kernel: PolynomialKernel) -> Tensor:
    squares = (x * x).sum(1).double()  # (N,)
    return (squares * (kernel.gamma or 1 / x.shape[1]) + kernel.coef).pow(kernel.degree)


@dataclass(frozen=True, slots=True)
class Kid:
    """KID's estimator in one view, with that of real against real as the floor; called `kid` on Inception features alone."""

    view: str
    n: int
    seed: int = 0
    referenced: bool = True

    @property
    def key(self) -> str:
        return f"kid[{self.view}]"

    def needs(self) -> Needs:
        return split_needs(self.view, self.n) if self.referenced else {}

    def measure(self, results: Any) -> MetricResult:
        sets = split_from_results(results, self.view, self.n) if self.referenced else None
        if sets is None:
            return MetricResult(missing_measurements((self.key,), NO_REAL_DATA))
        if sets.n < 4:
            return MetricResult(
                missing_measurements((self.key,), f"{sets.n} samples a side are too few for an unbiased estimate")
            )
        a, b, f = (part.flatten(1) for part in (sets.reference, sets.heldout, sets.fake))  # (n, D) each
        found = _mmd(a, f, *_choices(sets.n, self.seed), PolynomialKernel())  # (1 + R,): all rows, then halves
        width = float(found[1:].std()) * float(t.ppf(0.975, DEFAULT_REPLICATES - 1))
        return MetricResult(
            {
                self.key: make_measurement(
                    float(found[0]), width, n=sets.n, floor=kid(a, b), better="lower", unit="squared kernel units"
                )
            }
        )


def _choices(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """All rows, then a random half for each replicate: (1 + R, n) twice."""
    draw = torch.Generator().manual_seed(seed)
    sides = []
    for _ in range(2):
        side = torch.ones(1 + DEFAULT_REPLICATES, n)
        for row in side[1:]:
            row[torch.randperm(n, generator=draw)[n // 2 :]] = 0
        sides.append(side)
    return sides[0], sides[1]
