"""Precision, recall, density and coverage, from k-nearest-neighbor balls."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from gandiag.interfaces import MetricResult
from gandiag.metrics.base import PairedMetric, make_fraction_measurement, make_measurement
from gandiag.stats.distances import TiledDistances, distance_matrix
from gandiag.stats.neighbors import kth_neighbor_distance
from gandiag.stats.resampling import interval_half_widths, subsample_indices
from gandiag.stats.splits import RealFakeSplit
from gandiag.stats.validation import as_feature_pair

N_NEIGHBORS = 5
KEYS = ("precision", "recall", "density", "coverage")
UNITS = {
    "precision": "share of generated samples",
    "recall": "share of real samples",
    "density": "balls over k",
    "coverage": "share of real samples",
}


@dataclass(frozen=True, slots=True)
class PrdcResult:
    """`precision`, `recall`, `coverage` in [0, 1], `density` in [0, inf). See each function."""

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(real: Any, fake: Any, k: int = N_NEIGHBORS) -> PrdcResult:
    """All four at the cost of one, on (N, D) real and (M, D) generated rows, tensors or arrays.

    The same numbers as the `prdc` package: the radius of a row is the distance to its k-th nearest *other* row of its
    own set, and a row lies in a ball when its distance is *smaller* than the radius. Cost 2·N·M·D, memory N + M and one
    tile. All four depend on n, k and the features: compare with real against real at the same n.

    SourceError with fewer than k + 1 rows per set. Sources: Kynkäänniemi et al. 2019 (eq. 2, 3), Naeem et al. 2020 (eq.
    4, 5).
    """
    real_rows, fake_rows = as_feature_pair(real, fake)
    real_radius, fake_radius = kth_neighbor_distance(real_rows, k), kth_neighbor_distance(fake_rows, k)
    return prdc_from_radius(real_rows, fake_rows, real_radius, fake_radius, k)


def precision(real: Any, fake: Any, k: int = N_NEIGHBORS) -> float:
    """Fraction of generated rows inside some real ball, in [0, 1]; higher is better. See `prdc`.

    Measures fidelity: one good point repeated scores 1.
    """
    return prdc(real, fake, k).precision


def recall(real: Any, fake: Any, k: int = N_NEIGHBORS) -> float:
    """Fraction of real rows inside some generated ball, in [0, 1]; higher is better. See `prdc`.

    Reads high when distant samples have large balls.
    """
    return prdc(real, fake, k).recall


def density(real: Any, fake: Any, k: int = N_NEIGHBORS) -> float:
    """Mean number of real balls around a generated row, over k; 1 for real data. See `prdc`.

    Well above 1 when modes are narrowed.
    """
    return prdc(real, fake, k).density


def coverage(real: Any, fake: Any, k: int = N_NEIGHBORS) -> float:
    """Fraction of real balls that contain a generated row, in [0, 1]; higher is better. See `prdc`.

    At most about 1 - 2^-k in expectation at equal n.
    """
    return prdc(real, fake, k).coverage


def prdc_from_radius(real: Tensor, fake: Tensor, real_radius: Tensor, fake_radius: Tensor, k: int) -> PrdcResult:
    """The four numbers from rows (N, D), (M, D) and their radii (N,), (M,) float64."""
    distances = TiledDistances(real, fake)
    fakes_in_ball = torch.zeros(len(real), dtype=torch.int64)  # generated rows in the ball of each real one
    real_balls = torch.zeros(len(fake), dtype=torch.int64)  # real balls around each generated row
    is_recalled = torch.zeros(len(real), dtype=torch.bool)  # real rows inside some generated ball
    for tile in distances.iter_tiles():
        in_real_ball = distances.within_radius(tile, real_radius[tile.rows, None])
        in_fake_ball = distances.within_radius(tile, fake_radius[None, tile.columns])
        fakes_in_ball[tile.rows] += in_real_ball.sum(1)
        real_balls[tile.columns] += in_real_ball.sum(0)
        is_recalled[tile.rows] |= in_fake_ball.any(1)
    return PrdcResult(
        precision=_mean(real_balls > 0),
        recall=_mean(is_recalled),
        density=_mean(real_balls.double() / k),
        coverage=_mean(fakes_in_ball > 0),
    )


def _mean(values: Tensor) -> float:
    return float(values.double().mean())


@dataclass(frozen=True, slots=True)
class Prdc(PairedMetric):
    """Precision, recall, density and coverage of one view, with those of real against real as the floor."""

    k: int = N_NEIGHBORS
    max_rows: int = 10_000

    purpose: ClassVar[str] = "k nearest neighbors"

    @property
    def key(self) -> str:
        return "neighbours"

    @property
    def measurement_keys(self) -> tuple[str, ...]:
        return KEYS

    @property
    def min_samples(self) -> int:
        return self.k + 2

    def compute(self, split: RealFakeSplit) -> MetricResult:
        n = min(split.n, self.max_rows)
        keep = subsample_indices(split.n, n, self.seed)
        reference, heldout, fake = (rows[keep] for rows in split.flat_rows())  # (n, D) each
        reference_radius, heldout_radius, fake_radius = (
            kth_neighbor_distance(rows, self.k) for rows in (reference, heldout, fake)
        )
        values = asdict(prdc_from_radius(reference, fake, reference_radius, fake_radius, self.k))
        floors = asdict(prdc_from_radius(reference, heldout, reference_radius, heldout_radius, self.k))
        half_widths = dict(zip(KEYS, self._half_widths(reference, fake).tolist(), strict=True))
        measurements = {}
        for key in KEYS:
            value, half_width, floor, unit = values[key], half_widths[key], floors[key], UNITS[key]
            measurements[key] = (
                make_measurement(value, half_width, n=n, floor=floor, better="neither", unit=unit, bounds=(0, math.inf))
                if key == "density"
                else make_fraction_measurement(value, half_width, n=n, floor=floor, better="higher", unit=unit)
            )
        return MetricResult(measurements)

    def _half_widths(self, reference: Tensor, fake: Tensor) -> Tensor:
        """95 % half-widths in the order of KEYS, (4,).

        Each half-sample selects rows and columns of the same distance matrices.
        """
        real_rows = reference[subsample_indices(len(reference), seed=self.seed)]
        fake_rows = fake[subsample_indices(len(fake), seed=self.seed)]
        real_distances, fake_distances = distance_matrix(real_rows), distance_matrix(fake_rows)
        cross_distances = distance_matrix(real_rows, fake_rows)

        def compute_half(i: Tensor, j: Tensor) -> Tensor:
            # A row's distance to itself, 0, is the first of its k + 1 smallest.
            real_radius = real_distances[i[:, None], i].kthvalue(self.k + 1, dim=1).values  # (p/2,)
            fake_radius = fake_distances[j[:, None], j].kthvalue(self.k + 1, dim=1).values
            cross = cross_distances[i[:, None], j]  # (p/2, p/2)
            in_real_ball = cross < real_radius[:, None]
            is_recalled = (cross < fake_radius).any(1)
            columns = (in_real_ball.any(0), is_recalled, in_real_ball.sum(0) / self.k, in_real_ball.any(1))
            return torch.tensor([_mean(column) for column in columns])

        if len(real_rows) // 2 <= self.k:
            return torch.full((4,), float("nan"))
        return interval_half_widths(compute_half, (len(real_rows), len(fake_rows)), len(reference), seed=self.seed)
