"""Where the real data separate into modes: k-means cells, merged wherever held-out data show no gap between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.cluster.hierarchy import linkage
from scipy.stats import binom
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits
from torch import Tensor

ROWS_PER_CELL = 20  # reference rows per cell: enough cells that no two modes share one, enough rows to see a gap
MAX_CELLS = 100
GAP_ALPHA = 0.02  # level of the binomial test that the density half-way is below a share of the density at the middles


@dataclass(frozen=True, slots=True)
class GapThresholds:
    """What two modes must show: a density half-way below `gap` times that at their middles, and at most `across` √N − 2 rows between."""

    density_ratio: float
    crossing_factor: float


STRICT_THRESHOLDS = GapThresholds(0.25, 0.7)  # hardly ever parts a single Gaussian
WEAK_THRESHOLDS = GapThresholds(
    0.5, 1.5
)  # parts neighbours four and a half deviations away in eight dimensions, and one single Gaussian in five


@dataclass(frozen=True, slots=True)
class ModePartition:
    """A partition of feature space. `centres` (K, D) of the cells, `mode_of` (K,) the mode that each belongs to.

    `finer` (K,) is the same by weaker evidence: where it changes a result, the result hangs on what counts as a mode.
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
    """Modes of `fitted` (N, D) that `held` (M, D) confirms. Costs one k-means and one Ward tree over its centres.

    Cells are joined along the Ward tree, from the leaves up: two sets of cells become one mode when each is one mode
    already and the held-out rows, projected on the line through the two means, show no gap. Held out, because k-means
    finds a gap in any sample it was fitted to once there are more dimensions than rows. Overlapping modes (nearer than
    about 4 standard deviations) and a connected manifold give one mode: what is lost inside it is left to coverage.
    """
    count = int(min(MAX_CELLS, max(1, len(fit_rows) // ROWS_PER_CELL)))
    if count < 2 or float(fit_rows.var(0).sum()) == 0.0:
        return ModePartition(
            fit_rows.mean(0, keepdim=True), torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
        )
    with threadpool_limits(limits=1):
        cells = KMeans(count, n_init=1, max_iter=50, random_state=seed, algorithm="lloyd").fit(fit_rows.numpy())
    centres = torch.from_numpy(np.ascontiguousarray(cells.cluster_centers_)).float()  # (K, D)
    cell = torch.cdist(heldout_rows, centres).argmin(1).numpy()  # (M,)
    sizes = np.bincount(cells.labels_, minlength=count)
    sure, likely = (
        torch.from_numpy(_join(KMeansCells(centres.numpy(), sizes, heldout_rows.numpy(), cell), strict))
        for strict in (STRICT_THRESHOLDS, WEAK_THRESHOLDS)
    )
    return ModePartition(centres, sure, likely)


@dataclass(frozen=True, slots=True)
class KMeansCells:
    """k-means cells: `centres` (K, D), `sizes` (K,) of the rows they were fitted to, and held-out rows (M, D) with their `cell` (M,)."""

    centers: np.ndarray
    sizes: np.ndarray
    heldout_rows: np.ndarray
    heldout_cells: np.ndarray


def _join(cells: KMeansCells, strict: GapThresholds) -> np.ndarray:
    """The mode of each cell, (K,) int64, numbered in the order of the cells."""
    centres, sizes, held, cell = cells.centers, cells.sizes, cells.heldout_rows, cells.heldout_cells
    count = len(centres)
    members: dict[int, list[int] | None] = {i: [i] for i in range(count)}  # None: more than one mode below
    rows = {i: np.flatnonzero(cell == i) for i in range(count)}
    modes: list[list[int]] = []
    for step, (a, b, *_) in enumerate(linkage(centres, "ward")):
        left, right = members[int(a)], members[int(b)]
        joined = None
        if left is not None and right is not None:
            here, there = (held[np.concatenate([rows[i] for i in part])] for part in (left, right))
            start, end = (np.average(centres[part], axis=0, weights=sizes[part] + 1e-9) for part in (left, right))
            apart = _gap(here, there, end - start, strict.density_ratio) and _strangers(
                here, there, strict.crossing_factor
            )
            joined = None if apart else left + right
        members[count + step] = joined
        if joined is None:
            modes += [part for part in (left, right) if part is not None]
    if members[2 * count - 2] is not None:
        modes = [list(range(count))]
    out = np.empty(count, dtype=np.int64)
    for number, part in enumerate(sorted(modes, key=min)):
        out[part] = number
    return out


def _gap(left: np.ndarray, right: np.ndarray, direction: np.ndarray, share: float) -> bool:
    """Do two sets of held-out rows stand apart along a direction? Windows are a third of the distance between their medians."""
    if len(left) < 3 or len(right) < 3:
        return False
    a, b = left @ direction, right @ direction
    low, high = np.median(a), np.median(b)
    if not high > low:
        return False
    both, reach = np.concatenate([a, b]), (high - low) / 6
    between = int((np.abs(both - (low + high) / 2) < reach).sum())
    sides = min(int((np.abs(both - low) < reach).sum()), int((np.abs(both - high) < reach).sum()))
    return bool(between < share * sides and float(binom.cdf(between, between + sides, 0.5)) < GAP_ALPHA)


def _strangers(left: np.ndarray, right: np.ndarray, limit: float) -> bool:
    """Do two sets of held-out rows hardly ever have a near neighbour on the other side?

    In many dimensions the rows nearest to two cell centres always look parted along the line between these, because the
    rows between them belong to other cells; neighbours do not. Cut through its middle, a Gaussian of N rows a side has about 1.4 √N rows
    with one of their 2 neighbours across in two dimensions, 7 √N in eight and 12 √N in 64; two of them 5 deviations apart have 0.2, 0.6 and
    2.7 √N (N = 75).
    """
    rows = torch.from_numpy(np.concatenate([left, right]))
    side = torch.arange(len(rows)) >= len(left)
    near = torch.cdist(rows, rows).topk(min(3, len(rows)), largest=False).indices  # (N, 3), itself included
    across = int((side[near] != side[:, None]).any(1).sum())
    return bool(across < limit * min(len(left), len(right)) ** 0.5 - 2)
