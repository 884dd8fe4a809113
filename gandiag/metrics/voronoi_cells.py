"""PQMass: a chi-squared test of whether real and generated samples fall into random Voronoi cells in equal shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from scipy.stats import chi2
from torch import Tensor

from gandiag.errors import ConfigError
from gandiag.interfaces import MetricResult
from gandiag.metrics.base import NamedPairedMetric, make_measurement
from gandiag.stats.neighbors import nearest_neighbors
from gandiag.stats.resampling import replicate_half_width
from gandiag.stats.splits import RealFakeSplit
from gandiag.stats.validation import as_feature_pair

KEY = "pqmass"
DEFAULT_CELLS = 100
TESSELLATIONS = 20
ROWS_PER_CELL = 10  # fewer cells where there are fewer rows, so that chi-squared holds
MIN_SAMPLES = 12


@dataclass(frozen=True, slots=True)
class CellTest:
    """Pearson's statistic of one tessellation, its degrees of freedom (cells that are hit, less one), and p."""

    statistic: float
    degrees: int
    p_value: float


def pqmass(real: Any, fake: Any, cells: int | None = None, tessellations: int = TESSELLATIONS, seed: int = 0) -> float:
    """Pearson's chi-squared over its degrees of freedom, averaged over random tessellations: about 1 where both have
    one distribution, larger where they differ.

    `real` (N, D), `fake` (M, D). The cells' centers are drawn from both sets, in proportion, and are not counted. It
    grows with n for the same difference and says nothing about which side is the richer one. Cost: tessellations
    times (N + M)·D·cells. Source: Lemos et al. 2025, PQMass.
    """
    real_rows, fake_rows = as_feature_pair(real, fake)
    tests = run_cell_tests(real_rows, fake_rows, cells, tessellations, seed)
    return sum(test.statistic / max(test.degrees, 1) for test in tests) / len(tests)


def run_cell_tests(
    real: Tensor, fake: Tensor, cells: int | None = None, tessellations: int = TESSELLATIONS, seed: int = 0
) -> list[CellTest]:
    """One test for each random tessellation. ConfigError for more cells than half of the rows."""
    rows = torch.cat([real, fake])
    count = choose_cells(len(rows)) if cells is None else cells
    if not 2 <= count <= len(rows) // 2:
        raise ConfigError(f"{count} cells are not possible with {len(rows)} rows", f"choose 2 to {len(rows) // 2}")
    generator = torch.Generator().manual_seed(seed)
    return [
        compare_cells(rows, len(real), torch.randperm(len(rows), generator=generator)[:count])
        for _ in range(tessellations)
    ]


def choose_cells(n_rows: int) -> int:
    """100 cells, or fewer with fewer than 10 rows for each."""
    return max(2, min(DEFAULT_CELLS, n_rows // ROWS_PER_CELL))


def compare_cells(rows: Tensor, n_real: int, centers: Tensor) -> CellTest:
    """The test of the tessellation about rows[centers]; the first `n_real` rows are real."""
    counted = torch.ones(len(rows), dtype=torch.bool)
    counted[centers] = False
    cell = nearest_neighbors(rows[counted], rows[centers], k=1).indices[:, 0]
    is_real = (torch.arange(len(rows)) < n_real)[counted]
    table = torch.stack(
        [cell[side].bincount(minlength=len(centers)) for side in (is_real, ~is_real)]
    ).double()  # (2, K)
    table = table[:, table.sum(0) > 0]
    expected = table.sum(1, keepdim=True) * table.sum(0, keepdim=True) / table.sum()
    statistic = float(((table - expected).square() / expected).sum()) if bool((expected > 0).all()) else 0.0
    degrees = table.shape[1] - 1
    return CellTest(statistic, degrees, float(chi2.sf(statistic, degrees)) if degrees else 1.0)


@dataclass(frozen=True, slots=True)
class VoronoiMass(NamedPairedMetric):
    """Mean chi-squared over its degrees, reference against generated rows; the floor: against held-out ones."""

    name: ClassVar[str] = KEY
    fewest_samples: ClassVar[int] = MIN_SAMPLES
    purpose: ClassVar[str] = "PQMass"

    def compute(self, split: RealFakeSplit) -> MetricResult:
        reference, heldout, fake = split.flat_rows()
        ratios = [self._ratios(reference, other) for other in (fake, heldout)]
        value, floor = (float(part.mean()) for part in ratios)
        # Tessellations of the same rows are not independent: their spread is that of one test, not of its mean.
        half_width = float(replicate_half_width(ratios[0]))
        measurement = make_measurement(
            value, half_width, n=split.n, floor=floor, better="lower", unit="χ² per degree", bounds=(0, float("inf"))
        )
        return MetricResult({KEY: measurement})

    def _ratios(self, reference: Tensor, other: Tensor) -> Tensor:
        tests = run_cell_tests(reference, other, seed=self.seed)
        return torch.tensor([test.statistic / max(test.degrees, 1) for test in tests], dtype=torch.float64)
