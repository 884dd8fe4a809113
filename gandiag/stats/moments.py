"""Mean and covariance in one pass, merged batch by batch in float64.

Merging follows Chan, Golub and LeVeque (1979). Raw second moments would lose the variance exactly when a generator has
collapsed, because it is then a small difference of two large numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gandiag.interfaces import Batch
from gandiag.sampling.latents import chunk_slices

BLOCK_ROWS = 256  # rows that are summed at a time, whatever the size of the batches


@dataclass(frozen=True, slots=True)
class Gaussian:
    """`n` samples with `mean` (D,) and unbiased covariance `cov` (D, D), float64; `cov` is zero for n < 2."""

    n: int
    mean: Tensor
    cov: Tensor


def fit_gaussian(rows: Tensor) -> Gaussian:
    """The moments of (N, D) rows that are all in memory."""
    accumulator = MomentsAccumulator(MomentsSpec(""))
    accumulator.add_rows(rows)
    return accumulator.result()


@dataclass(frozen=True, slots=True)
class MomentsSpec:
    """Accumulate the mean and covariance of one view. The result is a Gaussian. Memory: D² float64, whatever n."""

    view: str

    def start(self) -> MomentsAccumulator:
        return MomentsAccumulator(self)


class MomentsAccumulator:
    """Mean and scatter matrix of blocks of rows, merged by Chan's formula.

    Bit for bit the same under any batching of the same rows in one order; to 1e-6 relative in any order and sharding.
    """

    def __init__(self, spec: MomentsSpec) -> None:
        self.spec = spec
        self._waiting: list[Tensor] = []  # rows that do not fill a block yet
        self._n = 0
        self._mean = torch.zeros(0, dtype=torch.float64)
        self._scatter = torch.zeros(0, 0, dtype=torch.float64)

    def update(self, batch: Batch) -> None:
        values = batch.samples if self.spec.view == "samples" else batch.features[self.spec.view]
        self.add_rows(values.flatten(1))

    def add_rows(self, rows: Tensor) -> None:
        """Add (B, D) rows of any float type."""
        if len(rows) == 0:
            return
        self._waiting.append(rows.detach().cpu())
        if sum(map(len, self._waiting)) < BLOCK_ROWS:
            return
        waiting = torch.cat(self._waiting)
        whole = len(waiting) - len(waiting) % BLOCK_ROWS
        for part in chunk_slices(whole, BLOCK_ROWS):
            self._add_block(waiting[part])
        self._waiting = [waiting[whole:].clone()]

    def _add_block(self, rows: Tensor) -> None:
        block = rows.double()  # (B, D)
        mean = block.mean(0)  # (D,)
        block = block - mean
        mean = mean + block.mean(0)  # a second pass removes the rounding error of the first
        self._combine(len(block), mean, block.T @ block)

    def _add_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        if sum(map(len, waiting)):
            self._add_block(torch.cat(waiting))

    def merge(self, other: MomentsAccumulator) -> None:
        self._add_waiting()
        other._add_waiting()
        if other._n:
            self._combine(other._n, other._mean, other._scatter)

    def result(self) -> Gaussian:
        self._add_waiting()
        return Gaussian(self._n, self._mean.clone(), self._scatter / max(1, self._n - 1))

    def _combine(self, n: int, mean: Tensor, scatter: Tensor) -> None:
        if self._n == 0:
            self._n, self._mean, self._scatter = n, mean.clone(), scatter.clone()
            return
        total = self._n + n
        shift = mean - self._mean  # (D,)
        self._scatter = self._scatter + scatter + torch.outer(shift, shift) * (self._n * n / total)
        self._mean = self._mean + shift * (n / total)
        self._n = total
