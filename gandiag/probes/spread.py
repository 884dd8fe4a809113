"""How far apart a network's outputs lie: all pairwise distances of a few hundred samples, with the digits that equal ones need."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gandiag.errors import OutputError

QUANTILE = 0.05  # low, because one repeated output among many leaves the mean distance where it was
RESOLUTION = 2.0**-20  # of the outputs' rms length: what two evaluations of one network differ by in float32
EDGE = 0.01  # a value is saturated within that share of the range from either end
CHUNK = 1 << 15  # output values multiplied at a time: images of any size in little memory


@dataclass(frozen=True, slots=True)
class Spread:
    """The outputs at one place of a sweep. `distances` (N, N) float64 with zeros on the diagonal; `size`: their rms length."""

    distances: Tensor
    size: float
    saturated: float | None

    @property
    def quantile(self) -> float:
        return self.quantile_of(torch.arange(len(self.distances)))

    def quantile_of(self, rows: Tensor) -> float:
        """The 5 % quantile of the distances among some rows."""
        return float(torch.quantile(off_diagonal(self.distances[rows][:, rows]), QUANTILE))

    @property
    def spacing(self) -> float:
        """The median distance to the nearest other output."""
        return float(nearest(self.distances).median())

    @property
    def resolution(self) -> float:
        """Below this, two outputs are the same."""
        return max(RESOLUTION * self.size, 1e-30)


def spread_of(outputs: Tensor, span: tuple[float, float] | None) -> Spread:
    """Distances between outputs (N, *shape); centred first, so that nearly equal outputs keep their digits."""
    flat = outputs.detach().flatten(1)  # (N, D)
    gram = torch.zeros(len(flat), len(flat), dtype=torch.float64)
    square = 0.0
    for start in range(0, flat.shape[1], CHUNK):
        part = flat[:, start : start + CHUNK].cpu().double()  # (N, d)
        if not bool(torch.isfinite(part).all()):
            raise OutputError("the generator's output is not finite at this latent scale or psi", "leave this scale out with --scales")
        square += float(part.square().sum())
        part = part - part.mean(0)
        gram += part @ part.T
    squared = gram.diagonal()[:, None] + gram.diagonal()[None] - 2 * gram
    distances = squared.clamp_min(0).sqrt().fill_diagonal_(0.0)  # (N, N)
    return Spread(distances, math.sqrt(square / max(1, len(flat))), None if span is None else _saturated(flat, span))


def _saturated(flat: Tensor, span: tuple[float, float]) -> float:
    low, high = span
    margin = EDGE * (high - low)
    return float(((flat <= low + margin) | (flat >= high - margin)).double().mean())


def off_diagonal(square: Tensor) -> Tensor:
    """The upper triangle of (N, N) without its diagonal, flat."""
    row, column = torch.triu_indices(len(square), len(square), 1)
    return square[row, column]


def nearest(distances: Tensor) -> Tensor:
    """Distance to the nearest other row, (N,)."""
    return distances.clone().fill_diagonal_(math.inf).amin(1)
