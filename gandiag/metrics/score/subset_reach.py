"""Neighbor statistics of many subsets of the same rows, in one pass over tiles of distances.

A half-sample is a subset of rows and columns: its distances are those of the whole. Each tile is made once, serves all
subsets and is forgotten, so memory does not grow with the square of the rows. Every result is exact: what lists of
candidates do not settle is read from the tile itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gandiag.metrics.score.neighborhoods import DistanceTiles, neighbor_radius

REACHING_BALLS = 2  # reference balls that must reach a row
N_LISTED = 32  # balls listed per row: half of them are in a half-sample
KEPT_FACTOR = 1.25  # pairs are remembered up to this much growth of the balls
MAX_KEPT_PAIRS = 128  # per row
MAX_SPARSE_SHARE = 1 / 16  # of the pairs of a tile: with more, they are counted as a matrix


@dataclass(frozen=True, slots=True)
class SubsetBalls:
    """Neighborhoods of N reference rows in each of R subsets. `radius` (R, N), 0 for rows outside of a subset."""

    radius: Tensor

    @property
    def largest(self) -> Tensor:
        """The largest radius of each row in any subset, (N,)."""
        return self.radius.amax(0)

    def scale(self, distances: Tensor, rows: Tensor) -> Tensor:
        """Growth at which the balls of reference `rows` (…) reach `distances` (…), (R, …); infinite outside."""
        radius = self.radius[:, rows]
        return torch.where(radius > 0, distances / radius, torch.inf)


@dataclass(frozen=True, slots=True)
class NearPairs:
    """Rows and reference rows (P,) whose `distances` (P,) are within KEPT_FACTOR of the largest radius."""

    rows: Tensor
    columns: Tensor
    distances: Tensor


def make_balls(neighbors: tuple[Tensor, Tensor], subsets: Sequence[Tensor]) -> SubsetBalls:
    """Balls of the reference rows from their nearest neighbors, for subsets given as row indices."""
    radius = torch.zeros(len(subsets), len(neighbors[0]), device=neighbors[0].device)
    for number, subset in enumerate(subsets):
        radius[number, subset] = neighbor_radius(neighbors, subset).clamp(min=1e-12)
    return SubsetBalls(radius)


def limit_widest_ball(tiles: DistanceTiles, radius: Tensor, growth: float) -> Tensor:
    """Factors (N,) on the balls, 1 but for the one that holds most rows: it keeps as many as the next one holds.

    `tiles`: distances to the balls' centers; `radius` (N,); `growth` of the balls. In many dimensions one real row amid
    generated ones is near them all, and would let them pass together with any second ball.
    """
    held = torch.zeros_like(radius)
    for _, tile in tiles:
        held += (tile <= radius * growth).sum(0)
    most = held.topk(min(2, len(held)))
    factor, limit, widest = torch.ones_like(radius), int(most.values[-1]), int(most.indices[0])
    if most.values[0] > limit:
        distances = (tiles.rows - tiles.others[widest]).norm(dim=1).sort().values
        kept = distances[limit - 1] if limit else distances[0] / 2
        factor[widest] = (kept / (radius[widest] * growth)).clamp(min=1e-6, max=1)
    return factor


def mark_members(subsets: Sequence[Tensor], n: int) -> Tensor:
    """Which of n rows are in each subset, (R, n) bool."""
    members = torch.zeros(len(subsets), n, dtype=torch.bool, device=subsets[0].device)
    for number, subset in enumerate(subsets):
        members[number, subset] = True
    return members


def reach_in_tile(tile: Tensor, balls: SubsetBalls, members: Tensor) -> Tensor:
    """How much balls must grow until REACHING_BALLS of them reach each row of a tile (T, N), (R, T).

    `members` (R, T) bool: the rows of each subset; others get any value.
    """
    n_subsets, n_columns = len(balls.radius), tile.shape[1]
    n_listed = min(REACHING_BALLS if n_subsets == 1 else N_LISTED, n_columns)
    nearest = (tile / balls.largest).topk(n_listed, largest=False)  # growth in the most favorable subset
    listed = balls.scale(tile.gather(1, nearest.indices), nearest.indices)  # (R, T, L)
    reach = _smallest(listed)
    if n_listed < n_columns:
        unsettled = members & (reach > nearest.values[:, -1])
        for number in unsettled.any(1).nonzero().flatten().tolist():
            rows, columns = unsettled[number].nonzero().flatten(), balls.radius[number].nonzero().flatten()
            reach[number, rows] = _smallest(tile[rows[:, None], columns].div_(balls.radius[number, columns]))
    return reach


def measure_reach(tiles: DistanceTiles, balls: SubsetBalls, members: Tensor) -> Tensor:
    """`reach_in_tile` of all rows, (R, n)."""
    return torch.cat([reach_in_tile(tile, balls, members[:, rows]) for rows, tile in tiles], 1)


def count_hits(tiles: DistanceTiles, balls: SubsetBalls, weight: Tensor, growth: Tensor) -> Tensor:
    """Weight of the rows in each ball grown by `growth` (R,), (R, N). `weight` (R, n), 0 outside of a subset."""
    hits = torch.zeros_like(balls.radius)
    for rows, tile in tiles:
        hits += hits_in_tile(tile, balls, weight[:, rows], growth)
    return hits


def hits_in_tile(tile: Tensor, balls: SubsetBalls, weight: Tensor, growth: Tensor) -> Tensor:
    """`count_hits` of one tile (T, N). `weight` (R, T)."""
    is_near = tile <= balls.largest * (float(growth.max()) * (1 + 1e-6))
    if int(is_near.count_nonzero()) <= MAX_SPARSE_SHARE * tile.numel():
        i, j = is_near.nonzero().T
        return hits_of_pairs(NearPairs(i, j, tile[i, j]), balls, weight, growth)
    hits = torch.zeros_like(balls.radius)
    for number, radius in enumerate(balls.radius):
        rows, columns = weight[number].nonzero().flatten(), radius.nonzero().flatten()
        scaled = tile[rows[:, None], columns].div_(radius[columns])
        hits[number, columns] = weight[number, rows] @ (scaled <= growth[number]).float()
    return hits


def hits_of_pairs(pairs: NearPairs, balls: SubsetBalls, weight: Tensor, growth: Tensor) -> Tensor:
    """`count_hits` of pairs that hold every one within the grown balls."""
    hits = torch.zeros_like(balls.radius)
    for number, radius in enumerate(balls.radius):
        row_weight, size = weight[number, pairs.rows], radius[pairs.columns]
        inside = (size > 0) & (row_weight > 0) & (pairs.distances / size <= growth[number])
        hits[number].index_add_(0, pairs.columns[inside], row_weight[inside])
    return hits


def reach_and_near_pairs(tiles: DistanceTiles, balls: SubsetBalls, members: Tensor) -> tuple[Tensor, NearPairs | None]:
    """`measure_reach`, and the pairs within KEPT_FACTOR of the balls; None where they are too many to keep."""
    reach, parts, n_kept = [], [], 0
    largest = balls.largest * KEPT_FACTOR
    for rows, tile in tiles:
        reach.append(reach_in_tile(tile, balls, members[:, rows]))
        is_near = tile <= largest
        n_kept += int(is_near.count_nonzero())
        if n_kept <= MAX_KEPT_PAIRS * len(tiles.rows):
            i, j = is_near.nonzero().T
            parts.append(NearPairs(i + rows.start, j, tile[i, j]))
    if n_kept > MAX_KEPT_PAIRS * len(tiles.rows):
        return torch.cat(reach, 1), None
    pairs = NearPairs(*(torch.cat([getattr(part, name) for part in parts]) for name in NearPairs.__slots__))
    return torch.cat(reach, 1), pairs


def copies_in_tile(tile: Tensor, start: int, max_distance: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
    """Copies of each row of a tile (T, n) among the members of each subset, (R, T), and among the rows before it, (T,).

    Copies are within the row's `max_distance` (T,); a row is no copy of itself. `members` (R, n) bool.
    """
    is_copy = tile <= max_distance[:, None]
    is_copy[:, start : start + len(tile)].fill_diagonal_(False)
    if int(is_copy.count_nonzero()) > MAX_SPARSE_SHARE * tile.numel():
        index = torch.arange(tile.shape[1], device=tile.device)
        is_earlier = index < index[start : start + len(tile), None]
        return members.float() @ is_copy.float().T, (is_copy & is_earlier).sum(1)
    i, j = is_copy.nonzero().T
    counts = torch.zeros(len(members), len(tile), device=tile.device)
    counts.index_add_(1, i, members[:, j].float())
    return counts, torch.bincount(i[j < i + start], minlength=len(tile))


def count_copies(tiles: DistanceTiles, max_distance: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
    """`copies_in_tile` of all rows: (R, n) copies of each row, itself included, and (n,) copies before it."""
    parts = [copies_in_tile(tile, rows.start, max_distance[rows], members) for rows, tile in tiles]
    return torch.cat([counts for counts, _ in parts], 1) + 1, torch.cat([earlier for _, earlier in parts])


def _smallest(values: Tensor) -> Tensor:
    """The REACHING_BALLS-th smallest value along the last dimension."""
    return values.topk(min(REACHING_BALLS, values.shape[-1]), largest=False).values[..., -1]
