"""Partitions the real data into modes: k-means cells, merged wherever held-out data show no gap between them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from scipy.cluster.hierarchy import linkage
from scipy.stats import binom
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits
from torch import Tensor

ROWS_PER_CELL = 20  # reference rows per cell: enough cells that no two modes share one, enough rows to see a gap
MAX_CELLS = 100
# Level of the binomial test that the density half-way is below a fraction of the density at the centers.
GAP_ALPHA = 0.02


@dataclass(frozen=True, slots=True)
class GapThresholds:
    """Conditions for two separate modes.

    The density half-way is below `density_ratio` times that at their centers, and at most `crossing_factor` √N − 2 rows
    have a near neighbor on the other side.
    """

    density_ratio: float
    crossing_factor: float


STRICT_THRESHOLDS = GapThresholds(0.25, 0.7)  # almost never split a single Gaussian
# Separate neighbors four and a half standard deviations apart in eight dimensions; split one single Gaussian in five.
WEAK_THRESHOLDS = GapThresholds(0.5, 1.5)


@dataclass(frozen=True, slots=True)
class ModePartition:
    """A partition of feature space. `cell_centers` (K, D); `mode_of_cell` (K,): the mode that each cell belongs to.

    `fine_mode_of_cell` (K,): the same under weaker evidence. Where it changes a result, the result depends on what
    counts as a mode.
    """

    cell_centers: Tensor
    mode_of_cell: Tensor
    fine_mode_of_cell: Tensor

    @property
    def n_modes(self) -> int:
        return int(self.mode_of_cell.max()) + 1

    def assign_cells(self, rows: Tensor) -> Tensor:
        """The nearest cell of each row, (N,) int64."""
        return torch.cdist(rows, self.cell_centers).argmin(1)

    def assign_modes(self, rows: Tensor) -> Tensor:
        """The mode of each row's nearest cell, (N,) int64."""
        return self.mode_of_cell[self.assign_cells(rows)]


def find_modes(fit_rows: Tensor, heldout_rows: Tensor, *, seed: int) -> ModePartition:
    """Modes of `fit_rows` (N, D) that `heldout_rows` (M, D) confirm.

    Costs one k-means and one Ward tree over its centers.

    Cells are merged along the Ward tree, from the leaves up: two sets of cells become one mode when each is one mode
    already and the held-out rows, projected on the line through the two means, show no gap. Held-out rows, because
    k-means finds a gap in any sample it was fitted to once there are more dimensions than rows. Overlapping modes
    (nearer than about 4 standard deviations) and a connected manifold give one mode: losses inside it show only in
    coverage.
    """
    n_cells = int(min(MAX_CELLS, max(1, len(fit_rows) // ROWS_PER_CELL)))
    if n_cells < 2 or float(fit_rows.var(0).sum()) == 0.0:
        single_mode = torch.zeros(1, dtype=torch.int64)
        return ModePartition(fit_rows.mean(0, keepdim=True), single_mode, single_mode.clone())
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than cells: some cells stay empty
        kmeans = KMeans(n_cells, n_init=1, max_iter=50, random_state=seed, algorithm="lloyd").fit(fit_rows.numpy())
    centers = torch.from_numpy(np.ascontiguousarray(kmeans.cluster_centers_)).float()  # (K, D)
    heldout_cells = torch.cdist(heldout_rows, centers).argmin(1).numpy()  # (M,)
    sizes = np.bincount(kmeans.labels_, minlength=n_cells)
    cells = KMeansCells(centers.numpy(), sizes, heldout_rows.numpy(), heldout_cells)
    strict_modes = torch.from_numpy(_merge_cells(cells, STRICT_THRESHOLDS))
    fine_modes = torch.from_numpy(_merge_cells(cells, WEAK_THRESHOLDS))
    return ModePartition(centers, strict_modes, fine_modes)


@dataclass(frozen=True, slots=True)
class KMeansCells:
    """k-means cells: `centers` (K, D), `sizes` (K,) in fitted rows, held-out rows (M, D) and their cells (M,)."""

    centers: np.ndarray
    sizes: np.ndarray
    heldout_rows: np.ndarray
    heldout_cells: np.ndarray

    def rows_in(self, cells: list[int]) -> np.ndarray:
        """Held-out rows in these cells, cell by cell."""
        indices = np.concatenate([np.flatnonzero(self.heldout_cells == cell) for cell in cells])
        return np.asarray(self.heldout_rows[indices])

    def mean_of(self, cells: list[int]) -> np.ndarray:
        """Mean of these cells' centers, weighted by size."""
        return np.asarray(np.average(self.centers[cells], axis=0, weights=self.sizes[cells] + 1e-9))


def _merge_cells(cells: KMeansCells, thresholds: GapThresholds) -> np.ndarray:
    """The mode of each cell, (K,) int64, numbered in the order of the cells."""
    n_cells = len(cells.centers)
    members: dict[int, list[int] | None] = {i: [i] for i in range(n_cells)}  # None: more than one mode below
    modes: list[list[int]] = []
    for step, (a, b, *_) in enumerate(linkage(cells.centers, "ward")):
        left, right = members[int(a)], members[int(b)]
        union = None
        if left is not None and right is not None and not _are_separate(cells, left, right, thresholds):
            union = left + right
        members[n_cells + step] = union
        if union is None:
            modes += [part for part in (left, right) if part is not None]
    if members[2 * n_cells - 2] is not None:
        modes = [list(range(n_cells))]
    mode_of_cell = np.empty(n_cells, dtype=np.int64)
    for number, part in enumerate(sorted(modes, key=min)):
        mode_of_cell[part] = number
    return mode_of_cell


def _are_separate(cells: KMeansCells, left: list[int], right: list[int], thresholds: GapThresholds) -> bool:
    """Whether held-out rows separate two sets of cells, by both criteria."""
    left_rows, right_rows = cells.rows_in(left), cells.rows_in(right)
    direction = cells.mean_of(right) - cells.mean_of(left)
    return _has_gap(left_rows, right_rows, direction, thresholds.density_ratio) and _has_few_crossings(
        left_rows, right_rows, thresholds.crossing_factor
    )


def _has_gap(left: np.ndarray, right: np.ndarray, direction: np.ndarray, density_ratio: float) -> bool:
    """Whether two sets of held-out rows show a density valley along a direction.

    Counted in windows of a third of the distance between their medians.
    """
    if len(left) < 3 or len(right) < 3:
        return False
    left_positions, right_positions = left @ direction, right @ direction
    low, high = np.median(left_positions), np.median(right_positions)
    if not high > low:
        return False
    positions, half_window = np.concatenate([left_positions, right_positions]), (high - low) / 6
    n_between, n_low, n_high = (
        int((np.abs(positions - center) < half_window).sum()) for center in ((low + high) / 2, low, high)
    )
    n_end = min(n_low, n_high)
    if n_between >= density_ratio * n_end:
        return False
    return float(binom.cdf(n_between, n_between + n_end, 0.5)) < GAP_ALPHA


def _has_few_crossings(left: np.ndarray, right: np.ndarray, max_factor: float) -> bool:
    """Whether few held-out rows of either set have a near neighbor in the other.

    In high dimensions the rows nearest to two cell centers always look separated along the line between them, because
    the rows between them belong to other cells; neighbors do not. Cut through its middle, a Gaussian of N rows per half
    has about 1.4 √N rows with one of their 2 neighbors across in two dimensions, 7 √N in eight and 12 √N in 64; two
    Gaussians 5 standard deviations apart have 0.2, 0.6 and 2.7 √N (N = 75).
    """
    rows = torch.from_numpy(np.concatenate([left, right]))
    is_right = torch.arange(len(rows)) >= len(left)
    neighbors = torch.cdist(rows, rows).topk(min(3, len(rows)), largest=False).indices  # (N, 3), itself included
    n_crossings = int((is_right[neighbors] != is_right[:, None]).any(1).sum())
    return bool(n_crossings < max_factor * min(len(left), len(right)) ** 0.5 - 2)
