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

TILE = 1024
NARROW = 32  # up to this width the products are cheap, and float64 costs nothing
CROWDED = 64  # a tile with more than one pair in so many at a threshold is multiplied again in float64
MOST = 1 << 28  # numbers that a tile's pairs at a threshold may hold before they are left to float64 products
CHUNK = 1 << 19  # numbers held at once where differences are taken


@dataclass(frozen=True, slots=True)
class Tile:
    """Squared distances (I, J) between blocks of rows and columns, right to within `doubt` (I,) per row."""

    rows: slice
    columns: slice
    squared: Tensor
    doubt: Tensor


class Cloud:
    """Two sets of rows about one centre, which is taken off block by block. `y` None: the rows of `x` among themselves."""

    def __init__(self, x: Tensor, y: Tensor | None = None, *, precise: bool = False) -> None:
        self.x, self.y = x, x if y is None else y
        wide = x.shape[1] > NARROW and x.dtype != torch.float64 and not precise
        self.dtype = torch.float32 if wide else torch.float64
        self.centre = (x.mean(0) if y is None else (x.mean(0) + self.y.mean(0)) / 2).to(self.dtype)  # (D,)
        self.left_sq = self._norms(x)  # (N,)
        self.right_sq = self.left_sq if y is None else self._norms(self.y)  # (M,)
        self.unit = torch.finfo(self.dtype).eps / 2 * (8 + x.shape[1] ** 0.5 / 2)
        self._precise: Cloud | None = None

    def tile(self, rows: slice, columns: slice) -> Tile:
        """Squared distances of one block; at least 0."""
        squared = self.squared(rows, columns)
        return Tile(rows, columns, squared, self.unit * (self.left_sq[rows] + self.right_sq[columns].max()))

    def tiles(self, size: int = TILE) -> Iterator[Tile]:
        """All blocks, row by row."""
        for rows in blocks(len(self.x), size):
            for columns in blocks(len(self.y), size):
                yield self.tile(rows, columns)

    def squared(self, rows: slice | Tensor, columns: slice) -> Tensor:
        """The squares alone, for rows by slice or by index: (I, J)."""
        product = torch.addmm(self.right_sq[columns], self._moved(self.x[rows]), self._moved(self.y[columns]).T, alpha=-2)  # (I, J)
        return product.add_(self.left_sq[rows][:, None]).clamp_(min=0)

    def below(self, tile: Tile, radius: Tensor) -> Tensor:
        """Which distances of a tile are smaller than `radius`, which broadcasts to it: (I, J) bool. Pairs at the edge are measured exactly."""
        square, doubt = radius.square(), tile.doubt[:, None].double()
        sure = tile.squared < (square - doubt).to(tile.squared.dtype)  # (I, J)
        edge = (tile.squared <= (square + doubt).to(tile.squared.dtype)) ^ sure
        i, j = torch.nonzero(edge, as_tuple=True) if bool(edge.any()) else (edge.new_empty(0, dtype=torch.int64),) * 2
        if len(i) > edge.numel() // CROWDED and self.dtype == torch.float32:
            self._precise = self._precise or Cloud(self.x, None if self.y is self.x else self.y, precise=True)
            return self._precise.below(self._precise.tile(tile.rows, tile.columns), radius)
        if len(i) * self.x.shape[1] > MOST:  # no result hangs on these: the radius is below 1e-7 of the rows' size
            return tile.squared.sqrt() < radius
        distance = self.exact(i + tile.rows.start, j + tile.columns.start).to(self.x.dtype)
        sure[i, j] = distance < radius.expand(edge.shape)[i, j].to(self.x.dtype)
        return sure

    def exact(self, i: Tensor, j: Tensor) -> Tensor:
        """Distances of the pairs (x[i], y[j]), (P,)."""
        return pair_distances(self.x, self.y, i, j)

    def _moved(self, rows: Tensor) -> Tensor:
        """rows - centre: each difference is rounded once, whatever the centre is, as long as it is the same for all."""
        return rows.to(self.dtype) - self.centre

    def _norms(self, rows: Tensor) -> Tensor:
        out = torch.empty(len(rows), dtype=self.dtype, device=rows.device)
        for part in blocks(len(rows), TILE):
            moved = self._moved(rows[part])
            out[part] = torch.linalg.vecdot(moved, moved)
        return out


def pair_distances(x: Tensor, y: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Distances of the pairs (x[i], y[j]), (P,) float64, from their differences in float64."""
    step = max(1, CHUNK // max(1, x.shape[1]))
    out = torch.empty(len(i), dtype=torch.float64, device=x.device)
    for part in blocks(len(i), step):
        apart = x[i[part]].double().sub_(y[j[part]])  # (P, D)
        out[part] = torch.linalg.vecdot(apart, apart).sqrt_()
    return out


def blocks(n: int, size: int) -> list[slice]:
    """0 … n cut into even slices of at most `size`."""
    count = max(1, -(-n // size))
    return [slice(n * k // count, n * (k + 1) // count) for k in range(count)]


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
