"""Euclidean distances between many rows: tiled, never N x N in memory, and exact where it matters.

One GEMM per tile gives squared distances with an error of about 1e-6 of the squared norms. That error is everything
where a generator has collapsed, so rows are centred first, and whatever a result hangs on (the nearest neighbours,
distances at a threshold) is computed again from the differences of the original rows in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gandiag.errors import SourceError

TILE = 2048
SPARE = 8  # candidates kept beyond k, so that a swap by rounding is seen
NARROW = 32  # up to this width the products are cheap, and float64 costs nothing
CROWDED = 64  # a tile with more than one pair in so many at a threshold is multiplied again in float64
MOST = 1 << 28  # numbers that a tile's pairs at a threshold may hold before they are left to float64 products
CHUNK = 1 << 22  # numbers held at once where differences are taken


@dataclass(frozen=True, slots=True)
class Nearest:
    """The k nearest others of each row, nearest first: `distance` (N, k) float64, `index` (N, k) int64."""

    distance: Tensor
    index: Tensor


@dataclass(frozen=True, slots=True)
class Tile:
    """Squared distances (I, J) of rows[start:stop] to columns[from:to], right to within `doubt` (I,) per row."""

    rows: slice
    columns: slice
    squared: Tensor
    doubt: Tensor


class Cloud:
    """Two sets of rows about one centre, ready to be multiplied. `y` None: the rows of `x` among themselves."""

    def __init__(self, x: Tensor, y: Tensor | None = None, *, precise: bool = False) -> None:
        self.x, self.y = x, x if y is None else y
        wide = x.shape[1] > NARROW and x.dtype != torch.float64 and not precise
        dtype = torch.float32 if wide else torch.float64
        centre = _centre(self.x) if y is None else (_centre(self.x) + _centre(self.y)) / 2  # (D,) float64
        self.left = _moved(x, centre, dtype)  # (N, D)
        self.right = self.left if y is None else _moved(self.y, centre, dtype)  # (M, D)
        self.left_sq = _norms(self.left)  # (N,)
        self.right_sq = self.left_sq if y is None else _norms(self.right)  # (M,)
        self._precise: Cloud | None = None
        self.unit = torch.finfo(dtype).eps / 2 * (8 + x.shape[1] ** 0.5 / 2)

    def tile(self, rows: slice, columns: slice) -> Tile:
        """Squared distances of one block; at least 0."""
        squared = torch.addmm(self.right_sq[columns], self.left[rows], self.right[columns].T, alpha=-2)  # (I, J)
        squared.add_(self.left_sq[rows, None]).clamp_(min=0)
        return Tile(rows, columns, squared, self.unit * (self.left_sq[rows] + self.right_sq[columns].max()))

    def tiles(self, size: int = TILE) -> Iterator[Tile]:
        """All blocks, row by row."""
        for rows in blocks(len(self.left), size):
            for columns in blocks(len(self.right), size):
                yield self.tile(rows, columns)

    def below(self, tile: Tile, radius: Tensor) -> Tensor:
        """Which distances of a tile are smaller than `radius`, which broadcasts to it: (I, J) bool. Pairs at the edge are measured exactly."""
        square, doubt = radius.square(), tile.doubt[:, None].double()
        sure = tile.squared < (square - doubt).to(tile.squared.dtype)  # (I, J)
        edge = (tile.squared <= (square + doubt).to(tile.squared.dtype)) ^ sure
        i, j = torch.nonzero(edge, as_tuple=True) if bool(edge.any()) else (edge.new_empty(0, dtype=torch.int64),) * 2
        if len(i) > edge.numel() // CROWDED and self.left.dtype == torch.float32:
            self._precise = self._precise or Cloud(self.x, None if self.y is self.x else self.y, precise=True)
            return self._precise.below(self._precise.tile(tile.rows, tile.columns), radius)
        if len(i) * self.x.shape[1] > MOST:  # no result hangs on these: the radius is below 1e-8 of the rows' size
            return tile.squared.sqrt() < radius
        distance = self.exact(i + tile.rows.start, j + tile.columns.start).to(self.x.dtype)
        sure[i, j] = distance < radius.expand(edge.shape)[i, j].to(self.x.dtype)
        return sure

    def exact(self, i: Tensor, j: Tensor) -> Tensor:
        """Distances of the pairs (x[i], y[j]), (P,)."""
        return pair_distances(self.x, self.y, i, j)


def pair_distances(x: Tensor, y: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Distances of the pairs (x[i], y[j]) from their differences in float64: (P,)."""
    step = max(1, CHUNK // max(1, x.shape[1]))
    return torch.cat([(x[i[part]].double() - y[j[part]].double()).square_().sum(1).sqrt_() for part in blocks(len(i), step)])


def blocks(n: int, size: int) -> list[slice]:
    """0 … n cut into even slices of at most `size`."""
    count = max(1, -(-n // size))
    return [slice(n * k // count, n * (k + 1) // count) for k in range(count)]


def neighbours(x: Tensor, y: Tensor | None = None, *, k: int = 1) -> Nearest:
    """The k nearest rows of `y` for each row of `x`; without `y`, the k nearest other rows of `x`.

    A row is excluded as its own neighbour by position, so an exact copy counts, at distance 0. Cost N·M·D (half of it
    without `y`), memory one tile. SourceError if there are fewer than k to choose from.
    """
    choices = len(x) - 1 if y is None else len(y)
    if choices < k:
        raise SourceError(f"{choices} rows hold no {k} neighbours", f"pass at least {k + 1} samples a side")
    cloud = Cloud(x, y)
    width = min(choices, k + SPARE)
    near, index = _among(cloud, width) if y is None else _across(cloud, width)  # (N, width), approximate squares
    found = _refined(cloud, index, k)
    if width == choices:
        return found
    doubt = cloud.unit * (cloud.left_sq + cloud.right_sq[index].amax(1))  # (N,)
    kth = found.distance[:, -1]
    unsure = torch.nonzero((near[:, -1] - 4 * doubt < kth.square()) & (kth > 0)).flatten()
    if len(unsure) and cloud.left.dtype == torch.float32:
        _again(cloud, found, unsure, y is None)
    return found


def degrees(x: Tensor, radius: float) -> Tensor:
    """How many other rows lie nearer than `radius` to each row, (N,) int64. Cost N²·D / 2."""
    cloud = Cloud(x)
    out = torch.zeros(len(x), dtype=torch.int64)
    parts = blocks(len(x), TILE)
    for a, rows in enumerate(parts):
        for columns in parts[a:]:
            near = cloud.below(cloud.tile(rows, columns), torch.tensor([[radius]], dtype=torch.float64))  # (I, J)
            if rows == columns:
                near.fill_diagonal_(False)
            out[rows] += near.sum(1)
            if rows != columns:
                out[columns] += near.sum(0)
    return out


def distance_matrix(x: Tensor, y: Tensor | None = None) -> Tensor:
    """All distances, (N, M) in the dtype of `x`; for sets that are small enough. Short distances are exact, the diagonal is 0 without `y`."""
    squared, short = _matrix(Cloud(x, y), y is None)
    many = 16 * len(x)
    if x.dtype == torch.float32 and int(short.sum()) > many:
        squared, short = _matrix(Cloud(x, y, precise=True), y is None)
    out = squared.sqrt_()  # (N, M)
    if int(short.sum()) <= 4 * many:
        i, j = torch.nonzero(short, as_tuple=True)
        out[i, j] = pair_distances(x, x if y is None else y, i, j).to(out.dtype)
    return out.to(x.dtype)


def _matrix(cloud: Cloud, alone: bool) -> tuple[Tensor, Tensor]:
    """Squared distances (N, M), and where rounding could reach 1e-4 of the distance, (N, M) bool."""
    tile = cloud.tile(slice(0, len(cloud.x)), slice(0, len(cloud.y)))
    short = tile.squared < 4096 * tile.doubt[:, None]
    if alone:
        tile.squared.fill_diagonal_(0)
        short.fill_diagonal_(False)
    return tile.squared, short


def _centre(x: Tensor) -> Tensor:
    return x.mean(0, dtype=torch.float64)  # (D,)


def _moved(x: Tensor, centre: Tensor, dtype: torch.dtype) -> Tensor:
    """x - centre, subtracted in float64 and then rounded, block by block to spare memory."""
    out = torch.empty(x.shape, dtype=dtype, device=x.device)
    for part in blocks(len(x), TILE):
        out[part] = (x[part].double() - centre).to(dtype)
    return out


def _norms(x: Tensor) -> Tensor:
    squares: Tensor = torch.linalg.vecdot(x, x)  # (N,)
    return squares


def _across(cloud: Cloud, width: int) -> tuple[Tensor, Tensor]:
    best: list[tuple[Tensor, Tensor]] = []
    for rows in blocks(len(cloud.left), TILE):
        near, index = _empty(rows.stop - rows.start, cloud)
        for columns in blocks(len(cloud.right), TILE):
            near, index = _merged(near, index, cloud.tile(rows, columns).squared, columns.start, width)
        best.append((near, index))
    return torch.cat([near for near, _ in best]), torch.cat([index for _, index in best])


def _among(cloud: Cloud, width: int) -> tuple[Tensor, Tensor]:
    """Every pair once: a tile above the diagonal serves its rows, and its columns too."""
    parts = blocks(len(cloud.left), TILE)
    best = [_empty(part.stop - part.start, cloud) for part in parts]
    for a, rows in enumerate(parts):
        for b, columns in enumerate(parts[a:], a):
            squared = cloud.tile(rows, columns).squared
            if a == b:
                squared.fill_diagonal_(float("inf"))
            best[a] = _merged(*best[a], squared, columns.start, width)
            if a != b:
                best[b] = _merged(*best[b], squared.T.contiguous(), rows.start, width)
    return torch.cat([near for near, _ in best]), torch.cat([index for _, index in best])


def _empty(n: int, cloud: Cloud) -> tuple[Tensor, Tensor]:
    return cloud.left.new_empty(n, 0), torch.empty(n, 0, dtype=torch.int64, device=cloud.left.device)


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
    k = found.distance.shape[1]
    precise = Cloud(cloud.x, None if alone else cloud.y, precise=True)
    choices = len(precise.right) - alone
    for part in (rows[cut] for cut in blocks(len(rows), TILE // 4)):
        product = precise.left[part] @ precise.right.T  # (P, M)
        squared = product.mul_(-2).add_(precise.right_sq).add_(precise.left_sq[part, None])
        if alone:
            squared.scatter_(1, part[:, None], float("inf"))
        index = squared.topk(min(choices, k + SPARE), dim=1, largest=False).indices
        better = _refined(precise, index, k, part)
        found.distance[part], found.index[part] = better.distance, better.index
