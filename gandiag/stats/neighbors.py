"""The k nearest neighbours of many rows, found with float32 products and settled with exact differences."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gandiag.errors import SourceError
from gandiag.stats.distances import TILE_SIZE, TiledDistances, even_slices

N_EXTRA_CANDIDATES = 4  # candidates kept beyond k, so that a swap by rounding is seen


@dataclass(frozen=True, slots=True)
class NearestNeighbors:
    """The k nearest others of each row, nearest first: `distance` (N, k) float64, `index` (N, k) int64."""

    distances: Tensor
    indices: Tensor


def nearest_neighbors(x: Tensor, y: Tensor | None = None, *, k: int = 1) -> NearestNeighbors:
    """The k nearest rows of `y` for each row of `x`; without `y`, the k nearest other rows of `x`.

    A row is excluded as its own neighbour by position, so an exact copy counts, at distance 0. Cost N·M·D (half of it
    without `y`), memory one tile. SourceError if there are fewer than k to choose from.
    """
    cloud, near, index = _candidates(x, y, k)
    found = _refined(cloud, index, k)
    _again(cloud, found, torch.nonzero(_unsure(cloud, near, index, found.distances[:, -1])).flatten(), y is None)
    return found


def kth_neighbor_distance(x: Tensor, k: int) -> Tensor:
    """The distance of each row of `x` to its k-th nearest other row, (N,) float64: `neighbours` without the nearer ones."""
    cloud, near, index = _candidates(x, None, k)
    middle = near[:, k - 1 : k]
    tied = (near - middle).abs() <= 2 * _doubt(cloud, index)[:, None]  # (N, width): the k-th may be any of these
    values = torch.where(near < middle, -1.0, torch.inf).double()
    rows, columns = torch.nonzero(tied, as_tuple=True)
    values[rows, columns] = cloud.exact_distances(rows, index[rows, columns])
    kth = values.kthvalue(k, dim=1).values  # (N,)
    found = NearestNeighbors(kth[:, None].repeat(1, k), index[:, :k].clone())
    _again(cloud, found, torch.nonzero(_unsure(cloud, near, index, kth)).flatten(), True)
    last: Tensor = found.distances[:, -1]
    return last


def _candidates(x: Tensor, y: Tensor | None, k: int) -> tuple[TiledDistances, Tensor, Tensor]:
    """A little more than k candidates for each row: approximate squares, ascending, and their indices, (N, width) each."""
    choices = len(x) - 1 if y is None else len(y)
    if choices < k:
        raise SourceError(f"{choices} rows hold no {k} neighbours", f"pass at least {k + 1} samples a side")
    cloud = TiledDistances(x, y)
    width = min(choices, k + N_EXTRA_CANDIDATES)
    return cloud, *(_among(cloud, width) if y is None else _across(cloud, width))


def _doubt(cloud: TiledDistances, index: Tensor) -> Tensor:
    doubt: Tensor = cloud.relative_error * (cloud.x_squared_norms + cloud.y_squared_norms[index].amax(1))  # (N,)
    return doubt


def _unsure(cloud: TiledDistances, near: Tensor, index: Tensor, kth: Tensor) -> Tensor:
    """Rows of which a candidate that was dropped could be nearer than the k-th found, (N,) bool. Nothing is nearer than a copy."""
    if cloud.dtype == torch.float64 or near.shape[1] == len(cloud.y) - (cloud.x is cloud.y):
        return torch.zeros(len(kth), dtype=torch.bool)
    nearer: Tensor = near[:, -1] - 4 * _doubt(cloud, index) < kth.square()
    return nearer & (kth > 0)


def _across(cloud: TiledDistances, width: int) -> tuple[Tensor, Tensor]:
    best = [_searched(cloud, rows, rows.stop - rows.start, width) for rows in even_slices(len(cloud.x), TILE_SIZE)]
    return torch.cat([near for near, _ in best]), torch.cat([index for _, index in best])


def _searched(
    cloud: TiledDistances, rows: slice | Tensor, count: int, width: int, own: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Candidates for some rows among all columns, (count, width) twice; `own` (count,) are columns to leave out, one a row."""
    near, index = _empty(count, cloud)
    for columns in even_slices(len(cloud.y), TILE_SIZE):
        squared = cloud.squared_distances(rows, columns)  # (I, J)
        if own is not None:
            squared[own[:, None] == torch.arange(columns.start, columns.stop, device=own.device)] = torch.inf
        near, index = _merged(near, index, squared, columns.start, width)
    return near, index


def _among(cloud: TiledDistances, width: int) -> tuple[Tensor, Tensor]:
    """Every pair once: a tile above the diagonal serves its rows, and its columns too."""
    parts = even_slices(len(cloud.x), TILE_SIZE)
    best = [_empty(part.stop - part.start, cloud) for part in parts]
    for a, rows in enumerate(parts):
        for b, columns in enumerate(parts[a:], a):
            squared = cloud.squared_distances(rows, columns)
            if a == b:
                squared.fill_diagonal_(float("inf"))
            best[a] = _merged(*best[a], squared, columns.start, width)
            if a != b:
                best[b] = _merged(*best[b], squared.T.contiguous(), rows.start, width)
    return torch.cat([near for near, _ in best]), torch.cat([index for _, index in best])


def _empty(n: int, cloud: TiledDistances) -> tuple[Tensor, Tensor]:
    return cloud.x_squared_norms.new_empty(n, 0), torch.empty(n, 0, dtype=torch.int64, device=cloud.x.device)


def _merged(near: Tensor, index: Tensor, squared: Tensor, offset: int, width: int) -> tuple[Tensor, Tensor]:
    fresh = squared.topk(min(width, squared.shape[1]), dim=1, largest=False)
    near, index = torch.cat([near, fresh.values], 1), torch.cat([index, fresh.indices + offset], 1)
    kept = near.topk(min(width, near.shape[1]), dim=1, largest=False)  # (I, width), ascending
    return kept.values, index.gather(1, kept.indices)


def _refined(cloud: TiledDistances, index: Tensor, k: int, rows: Tensor | None = None) -> NearestNeighbors:
    """Exact distances to the candidates (N, width), the k smallest of them."""
    rows = torch.arange(len(index), device=index.device) if rows is None else rows
    exact = cloud.exact_distances(rows.repeat_interleave(index.shape[1]), index.flatten()).view(
        index.shape
    )  # (N, width)
    exact, order = exact.sort(dim=1, stable=True)
    return NearestNeighbors(exact[:, :k].clone(), index.gather(1, order)[:, :k].clone())


def _again(cloud: TiledDistances, found: NearestNeighbors, rows: Tensor, alone: bool) -> None:
    """Rows whose neighbours float32 cannot tell apart: the same search in float64, in place."""
    if len(rows) == 0:
        return
    k = found.distances.shape[1]
    precise = TiledDistances(cloud.x, None if alone else cloud.y, use_double=True)
    width = min(len(precise.y) - alone, k + N_EXTRA_CANDIDATES)
    for part in (rows[cut] for cut in even_slices(len(rows), TILE_SIZE)):
        _, index = _searched(precise, part, len(part), width, part if alone else None)
        better = _refined(precise, index, k, part)
        found.distances[part], found.indices[part] = better.distances, better.indices
