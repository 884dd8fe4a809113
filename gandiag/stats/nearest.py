"""The k nearest neighbours of many rows, found with float32 products and settled with exact differences."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gandiag.errors import SourceError
from gandiag.stats.distances import TILE, Cloud, blocks

SPARE = 4  # candidates kept beyond k, so that a swap by rounding is seen


@dataclass(frozen=True, slots=True)
class Nearest:
    """The k nearest others of each row, nearest first: `distance` (N, k) float64, `index` (N, k) int64."""

    distance: Tensor
    index: Tensor


def neighbours(x: Tensor, y: Tensor | None = None, *, k: int = 1) -> Nearest:
    """The k nearest rows of `y` for each row of `x`; without `y`, the k nearest other rows of `x`.

    A row is excluded as its own neighbour by position, so an exact copy counts, at distance 0. Cost N·M·D (half of it
    without `y`), memory one tile. SourceError if there are fewer than k to choose from.
    """
    cloud, near, index = _candidates(x, y, k)
    found = _refined(cloud, index, k)
    _again(cloud, found, torch.nonzero(_unsure(cloud, near, index, found.distance[:, -1])).flatten(), y is None)
    return found


def kth_distance(x: Tensor, k: int) -> Tensor:
    """The distance of each row of `x` to its k-th nearest other row, (N,) float64: `neighbours` without the nearer ones."""
    cloud, near, index = _candidates(x, None, k)
    middle = near[:, k - 1 : k]
    tied = (near - middle).abs() <= 2 * _doubt(cloud, index)[:, None]  # (N, width): the k-th may be any of these
    values = torch.where(near < middle, -1.0, torch.inf).double()
    rows, columns = torch.nonzero(tied, as_tuple=True)
    values[rows, columns] = cloud.exact(rows, index[rows, columns])
    kth = values.kthvalue(k, dim=1).values  # (N,)
    found = Nearest(kth[:, None].repeat(1, k), index[:, :k].clone())
    _again(cloud, found, torch.nonzero(_unsure(cloud, near, index, kth)).flatten(), True)
    last: Tensor = found.distance[:, -1]
    return last


def _candidates(x: Tensor, y: Tensor | None, k: int) -> tuple[Cloud, Tensor, Tensor]:
    """A little more than k candidates for each row: approximate squares, ascending, and their indices, (N, width) each."""
    choices = len(x) - 1 if y is None else len(y)
    if choices < k:
        raise SourceError(f"{choices} rows hold no {k} neighbours", f"pass at least {k + 1} samples a side")
    cloud = Cloud(x, y)
    width = min(choices, k + SPARE)
    return cloud, *(_among(cloud, width) if y is None else _across(cloud, width))


def _doubt(cloud: Cloud, index: Tensor) -> Tensor:
    doubt: Tensor = cloud.unit * (cloud.left_sq + cloud.right_sq[index].amax(1))  # (N,)
    return doubt


def _unsure(cloud: Cloud, near: Tensor, index: Tensor, kth: Tensor) -> Tensor:
    """Rows of which a candidate that was dropped could be nearer than the k-th found, (N,) bool. Nothing is nearer than a copy."""
    if cloud.dtype == torch.float64 or near.shape[1] == len(cloud.y) - (cloud.x is cloud.y):
        return torch.zeros(len(kth), dtype=torch.bool)
    nearer: Tensor = near[:, -1] - 4 * _doubt(cloud, index) < kth.square()
    return nearer & (kth > 0)


def _across(cloud: Cloud, width: int) -> tuple[Tensor, Tensor]:
    best = [_searched(cloud, rows, rows.stop - rows.start, width) for rows in blocks(len(cloud.x), TILE)]
    return torch.cat([near for near, _ in best]), torch.cat([index for _, index in best])


def _searched(cloud: Cloud, rows: slice | Tensor, count: int, width: int, own: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Candidates for some rows among all columns, (count, width) twice; `own` (count,) are columns to leave out, one a row."""
    near, index = _empty(count, cloud)
    for columns in blocks(len(cloud.y), TILE):
        squared = cloud.squared(rows, columns)  # (I, J)
        if own is not None:
            squared[own[:, None] == torch.arange(columns.start, columns.stop, device=own.device)] = torch.inf
        near, index = _merged(near, index, squared, columns.start, width)
    return near, index


def _among(cloud: Cloud, width: int) -> tuple[Tensor, Tensor]:
    """Every pair once: a tile above the diagonal serves its rows, and its columns too."""
    parts = blocks(len(cloud.x), TILE)
    best = [_empty(part.stop - part.start, cloud) for part in parts]
    for a, rows in enumerate(parts):
        for b, columns in enumerate(parts[a:], a):
            squared = cloud.squared(rows, columns)
            if a == b:
                squared.fill_diagonal_(float("inf"))
            best[a] = _merged(*best[a], squared, columns.start, width)
            if a != b:
                best[b] = _merged(*best[b], squared.T.contiguous(), rows.start, width)
    return torch.cat([near for near, _ in best]), torch.cat([index for _, index in best])


def _empty(n: int, cloud: Cloud) -> tuple[Tensor, Tensor]:
    return cloud.left_sq.new_empty(n, 0), torch.empty(n, 0, dtype=torch.int64, device=cloud.x.device)


def _merged(near: Tensor, index: Tensor, squared: Tensor, offset: int, width: int) -> tuple[Tensor, Tensor]:
    fresh = squared.topk(min(width, squared.shape[1]), dim=1, largest=False)
    near, index = torch.cat([near, fresh.values], 1), torch.cat([index, fresh.indices + offset], 1)
    kept = near.topk(min(width, near.shape[1]), dim=1, largest=False)  # (I, width), ascending
    return kept.values, index.gather(1, kept.indices)


def _refined(cloud: Cloud, index: Tensor, k: int, rows: Tensor | None = None) -> Nearest:
    """Exact distances to the candidates (N, width), the k smallest of them."""
    rows = torch.arange(len(index), device=index.device) if rows is None else rows
    exact = cloud.exact(rows.repeat_interleave(index.shape[1]), index.flatten()).view(index.shape)  # (N, width)
    exact, order = exact.sort(dim=1, stable=True)
    return Nearest(exact[:, :k].clone(), index.gather(1, order)[:, :k].clone())


def _again(cloud: Cloud, found: Nearest, rows: Tensor, alone: bool) -> None:
    """Rows whose neighbours float32 cannot tell apart: the same search in float64, in place."""
    if len(rows) == 0:
        return
    k = found.distance.shape[1]
    precise = Cloud(cloud.x, None if alone else cloud.y, precise=True)
    width = min(len(precise.y) - alone, k + SPARE)
    for part in (rows[cut] for cut in blocks(len(rows), TILE)):
        _, index = _searched(precise, part, len(part), width, part if alone else None)
        better = _refined(precise, index, k, part)
        found.distance[part], found.index[part] = better.distance, better.index
