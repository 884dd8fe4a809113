"""Pairwise distances between a few hundred outputs, precise enough to tell equal outputs from nearly equal ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gandiag.errors import OutputError

DISTANCE_QUANTILE = 0.05  # low, because one repeated output among many hardly changes the mean distance
FLOAT32_RESOLUTION = 2.0**-20  # of the outputs' rms norm: what two float32 evaluations of one network differ by
SATURATION_MARGIN = 0.01  # a value within this share of the range from either end is saturated
CHUNK_SIZE = 1 << 15  # output values multiplied at a time, so that images of any size need little memory


@dataclass(frozen=True, slots=True)
class OutputDistances:
    """Distances at one point of a sweep.

    `distances`: (N, N) float64, zeros on the diagonal; `rms_norm`: of the outputs.
    """

    distances: Tensor
    rms_norm: float
    saturated_fraction: float | None

    @property
    def quantile(self) -> float:
        """The 5 % quantile of all distances."""
        return self.subset_quantile(torch.arange(len(self.distances)))

    def subset_quantile(self, rows: Tensor) -> float:
        """The 5 % quantile of the distances among some rows."""
        return float(torch.quantile(upper_triangle(self.distances[rows][:, rows]), DISTANCE_QUANTILE))

    @property
    def nearest_distance(self) -> float:
        """The median distance to the nearest other output."""
        return float(nearest_distances(self.distances).median())

    @property
    def resolution(self) -> float:
        """Outputs closer than this are the same."""
        return max(FLOAT32_RESOLUTION * self.rms_norm, 1e-30)


def compute_output_distances(outputs: Tensor, value_range: tuple[float, float] | None) -> OutputDistances:
    """Distances between outputs (N, *shape), centered first so that nearly equal outputs keep their precision."""
    flat = outputs.detach().flatten(1)  # (N, D)
    gram = torch.zeros(len(flat), len(flat), dtype=torch.float64)
    sum_of_squares = 0.0
    for start in range(0, flat.shape[1], CHUNK_SIZE):
        part = flat[:, start : start + CHUNK_SIZE].cpu().double()  # (N, d)
        if not bool(torch.isfinite(part).all()):
            raise OutputError(
                "the generator's output is not finite at this latent scale or psi", "leave this scale out with --scales"
            )
        sum_of_squares += float(part.square().sum())
        part = part - part.mean(0)
        gram += part @ part.T
    squared = gram.diagonal()[:, None] + gram.diagonal()[None] - 2 * gram
    distances = squared.clamp_min(0).sqrt().fill_diagonal_(0.0)  # (N, N)
    rms_norm = math.sqrt(sum_of_squares / max(1, len(flat)))
    return OutputDistances(distances, rms_norm, None if value_range is None else _saturated_share(flat, value_range))


def _saturated_share(flat: Tensor, value_range: tuple[float, float]) -> float:
    low, high = value_range
    margin = SATURATION_MARGIN * (high - low)
    return float(((flat <= low + margin) | (flat >= high - margin)).double().mean())


def upper_triangle(matrix: Tensor) -> Tensor:
    """The upper triangle of (N, N) without its diagonal, flat."""
    row, column = torch.triu_indices(len(matrix), len(matrix), 1)
    return matrix[row, column]


def nearest_distances(distances: Tensor) -> Tensor:
    """Distance to the nearest other row, (N,)."""
    return distances.clone().fill_diagonal_(math.inf).amin(1)
