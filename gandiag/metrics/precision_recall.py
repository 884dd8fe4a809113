"""Precision, recall, density and coverage: who lies in whose neighbourhood."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from gandiag.interfaces import MetricResult, Needs
from gandiag.metrics.base import NO_REAL_DATA, make_fraction_measurement, make_measurement, missing_measurements
from gandiag.stats.distances import TiledDistances, distance_matrix
from gandiag.stats.neighbors import kth_neighbor_distance
from gandiag.stats.resampling import interval_half_widths, subsample_indices
from gandiag.stats.splits import RealFakeSplit, split_from_results, split_needs
from gandiag.stats.validation import as_feature_pair

N_NEIGHBORS = 5


@dataclass(frozen=True, slots=True)
class PrdcResult:
    """`precision`, `recall`, `coverage` in [0, 1], `density` in [0, inf); 1 is as good as real data, but see each function."""

    precision: float
    recall: float
    density: float
    coverage: float


KEYS = ("precision", "recall", "density", "coverage")


def prdc(real: Any, fake: Any, k: int = N_NEIGHBORS) -> PrdcResult:
    """All four at the cost of one, on (N, D) real and (M, D) generated rows, tensors or arrays.

    The same numbers as the `prdc` package: the radius of a row is the distance to its k-th nearest *other* row of its own
    set, and a row lies in a ball when its distance is *smaller* than the radius. Cost 2·N·M·D, memory N + M and one tile.
    All four depend on n, k and the features: compare with real against real at the same n.

    SourceError with fewer than k + 1 rows a side. Sources: Kynkäänniemi et al. 2019 (eq. 2, 3), Naeem et al. 2020 (eq. 4, 5).
    """
    left, right = as_feature_pair(real, fake)
    return prdc_from_radius(left, right, kth_neighbor_distance(left, k), kth_neighbor_distance(right, k), k)


def precision(real: Any, fake: Any, k: int = N_NEIGHBORS) -> float:
    """Share of generated rows inside some real ball, in [0, 1], higher is better. Fidelity: one good point repeated scores 1. See `prdc`."""
    return prdc(real, fake, k).precision


def recall(real: Any, fake: Any, k: int = N_NEIGHBORS) -> float:
    """Share of real rows inside some generated ball, in [0, 1], higher is better. Reads high when far-off samples have huge balls. See `prdc`."""
    return prdc(real, fake, k).recall


def density(real: Any, fake: Any, k: int = N_NEIGHBORS) -> float:
    """Mean number of real balls around a generated row, over k; 1 for real data, well above 1 when modes are thin. See `prdc`."""
    return prdc(real, fake, k).density


def coverage(real: Any, fake: Any, k: int = N_NEIGHBORS) -> float:
    """Share of real balls that hold a generated row, in [0, 1], higher is better; at most about 1 - 2^-k in expectation at equal n. See `prdc`."""
    return prdc(real, fake, k).coverage


def prdc_from_radius(real: Tensor, fake: Tensor, real_radius: Tensor, fake_radius: Tensor, k: int) -> PrdcResult:
    """The four numbers from rows (N, D), (M, D) and their radii (N,), (M,) float64."""
    cloud = TiledDistances(real, fake)
    holds = torch.zeros(len(real), dtype=torch.int64)  # generated rows in the ball of each real one
    held = torch.zeros(len(fake), dtype=torch.int64)  # real balls around each generated row
    reached = torch.zeros(len(real), dtype=torch.bool)  # real rows inside some generated ball
    for tile in cloud.iter_tiles():
        inside = cloud.within_radius(tile, real_radius[tile.rows, None])
        around = cloud.within_radius(tile, fake_radius[None, tile.columns])
        holds[tile.rows] += inside.sum(1)
        held[tile.columns] += inside.sum(0)
        reached[tile.rows] |= around.any(1)
    return _four(held > 0, reached, held.double() / k, holds > 0)


def _four(*columns: Tensor) -> PrdcResult:
    return PrdcResult(*(float(column.double().mean()) for column in columns))


@dataclass(frozen=True, slots=True)
class Prdc:
    """Precision, recall, density and coverage of one view, with those of real against real as the floor."""

    view: str
    n: int
    seed: int = 0
    referenced: bool = True
    k: int = N_NEIGHBORS
    max_rows: int = 10_000

    @property
    def key(self) -> str:
        return "neighbours"

    def needs(self) -> Needs:
        return split_needs(self.view, self.n) if self.referenced else {}

    def measure(self, results: Any) -> MetricResult:
        sets = split_from_results(results, self.view, self.n) if self.referenced else None
        if sets is None:
            return MetricResult(missing_measurements(KEYS, NO_REAL_DATA))
        if sets.n <= self.k + 1:
            return MetricResult(
                missing_measurements(KEYS, f"{sets.n} samples a side are too few for {self.k} neighbours")
            )
        return MetricResult(self._measurements(sets))

    def _measurements(self, sets: RealFakeSplit) -> dict[str, Any]:
        n = min(sets.n, self.max_rows)
        a, b, f = (
            part.flatten(1)[subsample_indices(sets.n, n, self.seed)]
            for part in (sets.reference, sets.heldout, sets.fake)
        )  # (n, D) each
        radius = [kth_neighbor_distance(part, self.k) for part in (a, b, f)]
        found, floor = (
            asdict(prdc_from_radius(a, f, radius[0], radius[2], self.k)),
            asdict(prdc_from_radius(a, b, radius[0], radius[1], self.k)),
        )
        width = dict(zip(KEYS, self._half_widths(a, f).tolist(), strict=True))
        out = {
            key: make_fraction_measurement(found[key], width[key], n=n, floor=floor[key], better="higher", unit=unit)
            for key, unit in (
                ("precision", "share of generated samples"),
                ("recall", "share of real samples"),
                ("coverage", "share of real samples"),
            )
        }
        out["density"] = make_measurement(
            found["density"],
            width["density"],
            n=n,
            floor=floor["density"],
            better="neither",
            unit="balls over k",
            bounds=(0, math.inf),
        )
        return {key: out[key] for key in KEYS}

    def _half_widths(self, a: Tensor, f: Tensor) -> Tensor:
        """From one set of distance matrices: a half-sample is a choice of rows and columns."""
        real, fake = a[subsample_indices(len(a), seed=self.seed)], f[subsample_indices(len(f), seed=self.seed)]
        among, beside, cross = distance_matrix(real), distance_matrix(fake), distance_matrix(real, fake)

        def four(i: Tensor, j: Tensor) -> Tensor:
            # A row's distance to itself, 0, is the first of its k + 1 smallest.
            reach_i = among[i[:, None], i].kthvalue(self.k + 1, dim=1).values  # (p/2,)
            reach_j = beside[j[:, None], j].kthvalue(self.k + 1, dim=1).values
            part = cross[i[:, None], j]  # (p/2, p/2)
            inside = part < reach_i[:, None]
            return torch.tensor(
                list(
                    asdict(
                        _four(inside.any(0), (part < reach_j).any(1), inside.sum(0) / self.k, inside.any(1))
                    ).values()
                )
            )

        if len(real) // 2 <= self.k:
            return torch.full((4,), float("nan"))
        return interval_half_widths(four, (len(real), len(fake)), len(a), seed=self.seed)
