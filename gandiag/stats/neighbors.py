"""The k nearest neighbors of many rows: candidates from float32 products, decided by exact differences."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gandiag.errors import SourceError
from gandiag.stats.distances import TILE_SIZE, TiledDistances, even_slices

N_EXTRA_CANDIDATES = 4  # candidates kept beyond k, to detect an order swapped by rounding

Candidates = tuple[Tensor, Tensor]  # approximate squared distances, ascending, and column indices: (N, width) each


@dataclass(frozen=True, slots=True)
class NearestNeighbors:
    """The k nearest other rows of each row, nearest first: `distances` (N, k) float64, `indices` (N, k) int64."""

    distances: Tensor
    indices: Tensor


def nearest_neighbors(x: Tensor, y: Tensor | None = None, *, k: int = 1) -> NearestNeighbors:
    """The k nearest rows of `y` for each row of `x`; without `y`, the k nearest other rows of `x`.

    A row is excluded as its own neighbor by position, so an exact copy counts, at distance 0. Cost N·M·D (half of it
    without `y`), memory one tile. SourceError with fewer than k rows to choose from.
    """
    tiles, squared, index = _find_candidates(x, y, k)
    neighbors = _exact_neighbors(tiles, index, k)
    ambiguous = torch.nonzero(_is_ambiguous(tiles, squared, index, neighbors.distances[:, -1])).flatten()
    _search_again_in_double(tiles, neighbors, ambiguous, y is None)
    return neighbors


def kth_neighbor_distance(x: Tensor, k: int) -> Tensor:
    """The distance of each row of `x` to its k-th nearest other row, (N,) float64.

    Cheaper than `nearest_neighbors`: only candidates that may be the k-th are computed exactly.
    """
    tiles, squared, index = _find_candidates(x, None, k)
    kth_squared = squared[:, k - 1 : k]
    may_be_kth = (squared - kth_squared).abs() <= 2 * _row_error(tiles, index)[:, None]  # (N, width)
    values = torch.where(squared < kth_squared, -1.0, torch.inf).double()
    rows, columns = torch.nonzero(may_be_kth, as_tuple=True)
    values[rows, columns] = tiles.exact_distances(rows, index[rows, columns])
    kth = values.kthvalue(k, dim=1).values  # (N,)
    neighbors = NearestNeighbors(kth[:, None].repeat(1, k), index[:, :k].clone())
    ambiguous = torch.nonzero(_is_ambiguous(tiles, squared, index, kth)).flatten()
    _search_again_in_double(tiles, neighbors, ambiguous, True)
    kth_distances: Tensor = neighbors.distances[:, -1]
    return kth_distances


def _find_candidates(x: Tensor, y: Tensor | None, k: int) -> tuple[TiledDistances, Tensor, Tensor]:
    """A few more than k candidates for each row."""
    n_choices = len(x) - 1 if y is None else len(y)
    if n_choices < k:
        raise SourceError(
            f"{n_choices} rows to choose from are too few for {k} neighbors", f"pass at least {k + 1} samples per set"
        )
    tiles = TiledDistances(x, y)
    width = min(n_choices, k + N_EXTRA_CANDIDATES)
    return tiles, *(_search_within(tiles, width) if y is None else _search_between(tiles, width))


def _row_error(tiles: TiledDistances, index: Tensor) -> Tensor:
    """Error bound of the squared distances between each row and its candidates, (N,)."""
    error: Tensor = tiles.relative_error * (tiles.x_squared_norms + tiles.y_squared_norms[index].amax(1))  # (N,)
    return error


def _is_ambiguous(tiles: TiledDistances, squared: Tensor, index: Tensor, kth: Tensor) -> Tensor:
    """Rows whose k-th neighbor could be a dropped candidate, (N,) bool; never if it is an exact copy."""
    if tiles.dtype == torch.float64 or squared.shape[1] == len(tiles.y) - (tiles.x is tiles.y):
        return torch.zeros(len(kth), dtype=torch.bool)
    dropped_is_nearer: Tensor = squared[:, -1] - 4 * _row_error(tiles, index) < kth.square()
    return dropped_is_nearer & (kth > 0)


def _search_between(tiles: TiledDistances, width: int) -> Candidates:
    """Candidates for all rows of x among the rows of y."""
    parts = [_search_rows(tiles, rows, rows.stop - rows.start, width) for rows in even_slices(len(tiles.x), TILE_SIZE)]
    return torch.cat([squared for squared, _ in parts]), torch.cat([index for _, index in parts])


def _search_rows(
    tiles: TiledDistances, rows: slice | Tensor, n_rows: int, width: int, excluded: Tensor | None = None
) -> Candidates:
    """Candidates for some rows among all columns; `excluded` (n_rows,) is a column to skip per row."""
    squared, index = _empty_candidates(n_rows, tiles)
    for columns in even_slices(len(tiles.y), TILE_SIZE):
        tile = tiles.squared_distances(rows, columns)  # (I, J)
        if excluded is not None:
            column_index = torch.arange(columns.start, columns.stop, device=excluded.device)
            tile[excluded[:, None] == column_index] = torch.inf
        squared, index = _merge_candidates(squared, index, tile, columns.start, width)
    return squared, index


def _search_within(tiles: TiledDistances, width: int) -> Candidates:
    """Candidates among the other rows of x. Each tile above the diagonal serves both of its blocks."""
    blocks = even_slices(len(tiles.x), TILE_SIZE)
    best = [_empty_candidates(block.stop - block.start, tiles) for block in blocks]
    for a, rows in enumerate(blocks):
        for b, columns in enumerate(blocks[a:], a):
            tile = tiles.squared_distances(rows, columns)
            if a == b:
                tile.fill_diagonal_(float("inf"))
            best[a] = _merge_candidates(*best[a], tile, columns.start, width)
            if a != b:
                best[b] = _merge_candidates(*best[b], tile.T.contiguous(), rows.start, width)
    return torch.cat([squared for squared, _ in best]), torch.cat([index for _, index in best])


def _empty_candidates(n: int, tiles: TiledDistances) -> Candidates:
    return tiles.x_squared_norms.new_empty(n, 0), torch.empty(n, 0, dtype=torch.int64, device=tiles.x.device)


def _merge_candidates(squared: Tensor, index: Tensor, tile: Tensor, offset: int, width: int) -> Candidates:
    """The best `width` of the candidates so far and those of a tile (I, J) whose columns start at `offset`."""
    best = tile.topk(min(width, tile.shape[1]), dim=1, largest=False)
    squared, index = torch.cat([squared, best.values], 1), torch.cat([index, best.indices + offset], 1)
    kept = squared.topk(min(width, squared.shape[1]), dim=1, largest=False)  # (I, width), ascending
    return kept.values, index.gather(1, kept.indices)


def _exact_neighbors(tiles: TiledDistances, index: Tensor, k: int, rows: Tensor | None = None) -> NearestNeighbors:
    """The k nearest of the candidates (N, width), by exact distance."""
    rows = torch.arange(len(index), device=index.device) if rows is None else rows
    exact = tiles.exact_distances(rows.repeat_interleave(index.shape[1]), index.flatten()).view(index.shape)
    exact, order = exact.sort(dim=1, stable=True)  # (N, width)
    return NearestNeighbors(exact[:, :k].clone(), index.gather(1, order)[:, :k].clone())


def _search_again_in_double(
    tiles: TiledDistances, neighbors: NearestNeighbors, rows: Tensor, excludes_self: bool
) -> None:
    """Repeat the search in float64 for rows whose neighbors float32 cannot tell apart; updates `neighbors` in place."""
    if len(rows) == 0:
        return
    k = neighbors.distances.shape[1]
    double = TiledDistances(tiles.x, None if excludes_self else tiles.y, use_double=True)
    width = min(len(double.y) - excludes_self, k + N_EXTRA_CANDIDATES)
    for block in (rows[part] for part in even_slices(len(rows), TILE_SIZE)):
        _, index = _search_rows(double, block, len(block), width, block if excludes_self else None)
        exact = _exact_neighbors(double, index, k, block)
        neighbors.distances[block], neighbors.indices[block] = exact.distances, exact.indices
