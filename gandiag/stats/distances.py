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

TILE_SIZE = 1024
MAX_DOUBLE_WIDTH = 32  # up to this width the products are cheap, and float64 costs nothing
MIN_PAIRS_PER_EXACT = 64  # a tile with more than one pair in so many at a threshold is multiplied again in float64
MAX_EXACT_ELEMENTS = (
    1 << 28
)  # numbers that a tile's pairs at a threshold may hold before they are left to float64 products
CHUNK_ELEMENTS = 1 << 19  # numbers held at once where differences are taken


@dataclass(frozen=True, slots=True)
class DistanceTile:
    """Squared distances (I, J) between blocks of rows and columns, right to within `doubt` (I,) per row."""

    rows: slice
    columns: slice
    squared_distances: Tensor
    error_bound: Tensor


class TiledDistances:
    """Two sets of rows about one centre, which is taken off block by block. `y` None: the rows of `x` among themselves."""

    def __init__(self, x: Tensor, y: Tensor | None = None, *, use_double: bool = False) -> None:
        self.x, self.y = x, x if y is None else y
        wide = x.shape[1] > MAX_DOUBLE_WIDTH and x.dtype != torch.float64 and not use_double
        self.dtype = torch.float32 if wide else torch.float64
        self.center = (x.mean(0) if y is None else (x.mean(0) + self.y.mean(0)) / 2).to(self.dtype)  # (D,)
        self.x_squared_norms = self._norms(x)  # (N,)
        self.y_squared_norms = self.x_squared_norms if y is None else self._norms(self.y)  # (M,)
        self.relative_error = torch.finfo(self.dtype).eps / 2 * (8 + x.shape[1] ** 0.5 / 2)
        self._precise: TiledDistances | None = None

    def compute_tile(self, rows: slice, columns: slice) -> DistanceTile:
        """Squared distances of one block; at least 0."""
        squared = self.squared_distances(rows, columns)
        return DistanceTile(
            rows,
            columns,
            squared,
            self.relative_error * (self.x_squared_norms[rows] + self.y_squared_norms[columns].max()),
        )

    def iter_tiles(self, size: int = TILE_SIZE) -> Iterator[DistanceTile]:
        """All blocks, row by row."""
        for rows in even_slices(len(self.x), size):
            for columns in even_slices(len(self.y), size):
                yield self.compute_tile(rows, columns)

    def squared_distances(self, rows: slice | Tensor, columns: slice) -> Tensor:
        """The squares alone, for rows by slice or by index: (I, J)."""
        product = torch.addmm(
            self.y_squared_norms[columns], self._moved(self.x[rows]), self._moved(self.y[columns]).T, alpha=-2
        )  # (I, J)
        return product.add_(self.x_squared_norms[rows][:, None]).clamp_(min=0)

    def within_radius(self, tile: DistanceTile, radius: Tensor) -> Tensor:
        """Which distances of a tile are smaller than `radius`, which broadcasts to it: (I, J) bool. Pairs at the edge are measured exactly."""
        square, doubt = radius.square(), tile.error_bound[:, None].double()
        sure = tile.squared_distances < (square - doubt).to(tile.squared_distances.dtype)  # (I, J)
        edge = (tile.squared_distances <= (square + doubt).to(tile.squared_distances.dtype)) ^ sure
        i, j = torch.nonzero(edge, as_tuple=True) if bool(edge.any()) else (edge.new_empty(0, dtype=torch.int64),) * 2
        if len(i) > edge.numel() // MIN_PAIRS_PER_EXACT and self.dtype == torch.float32:
            self._precise = self._precise or TiledDistances(
                self.x, None if self.y is self.x else self.y, use_double=True
            )
            return self._precise.within_radius(self._precise.compute_tile(tile.rows, tile.columns), radius)
        if (
            len(i) * self.x.shape[1] > MAX_EXACT_ELEMENTS
        ):  # no result hangs on these: the radius is below 1e-7 of the rows' size
            return tile.squared_distances.sqrt() < radius
        distance = self.exact_distances(i + tile.rows.start, j + tile.columns.start).to(self.x.dtype)
        sure[i, j] = distance < radius.expand(edge.shape)[i, j].to(self.x.dtype)
        return sure

    def exact_distances(self, i: Tensor, j: Tensor) -> Tensor:
        """Distances of the pairs (x[i], y[j]), (P,)."""
        return pair_distances(self.x, self.y, i, j)

    def _moved(self, rows: Tensor) -> Tensor:
        """rows - centre: each difference is rounded once, whatever the centre is, as long as it is the same for all."""
        return rows.to(self.dtype) - self.center

    def _norms(self, rows: Tensor) -> Tensor:
        out = torch.empty(len(rows), dtype=self.dtype, device=rows.device)
        for part in even_slices(len(rows), TILE_SIZE):
            moved = self._moved(rows[part])
            out[part] = torch.linalg.vecdot(moved, moved)
        return out


def pair_distances(x: Tensor, y: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Distances of the pairs (x[i], y[j]), (P,) float64, from their differences in float64."""
    step = max(1, CHUNK_ELEMENTS // max(1, x.shape[1]))
    out = torch.empty(len(i), dtype=torch.float64, device=x.device)
    for part in even_slices(len(i), step):
        apart = x[i[part]].double().sub_(y[j[part]])  # (P, D)
        out[part] = torch.linalg.vecdot(apart, apart).sqrt_()
    return out


def even_slices(n: int, max_size: int) -> list[slice]:
    """0 … n cut into even slices of at most `size`."""
    count = max(1, -(-n // max_size))
    return [slice(n * k // count, n * (k + 1) // count) for k in range(count)]


def count_within_radius(x: Tensor, radius: float) -> Tensor:
    """How many other rows lie nearer than `radius` to each row, (N,) int64. Cost N²·D / 2."""
    cloud = TiledDistances(x)
    out = torch.zeros(len(x), dtype=torch.int64)
    parts = even_slices(len(x), TILE_SIZE)
    for a, rows in enumerate(parts):
        for columns in parts[a:]:
            near = cloud.within_radius(
                cloud.compute_tile(rows, columns), torch.tensor([[radius]], dtype=torch.float64)
            )  # (I, J)
            if rows == columns:
                near.fill_diagonal_(False)
            out[rows] += near.sum(1)
            if rows != columns:
                out[columns] += near.sum(0)
    return out


def distance_matrix(x: Tensor, y: Tensor | None = None) -> Tensor:
    """All distances, (N, M) in the dtype of `x`; for sets that are small enough. Short distances are exact, the diagonal is 0 without `y`."""
    squared, short = _matrix(TiledDistances(x, y), y is None)
    many = 16 * len(x)
    if x.dtype == torch.float32 and int(short.sum()) > many:
        squared, short = _matrix(TiledDistances(x, y, use_double=True), y is None)
    out = squared.sqrt_()  # (N, M)
    if int(short.sum()) <= 4 * many:
        i, j = torch.nonzero(short, as_tuple=True)
        out[i, j] = pair_distances(x, x if y is None else y, i, j).to(out.dtype)
    return out.to(x.dtype)


def _matrix(cloud: TiledDistances, alone: bool) -> tuple[Tensor, Tensor]:
    """Squared distances (N, M), and where rounding could reach 1e-4 of the distance, (N, M) bool."""
    tile = cloud.compute_tile(slice(0, len(cloud.x)), slice(0, len(cloud.y)))
    short = tile.squared_distances < 4096 * tile.error_bound[:, None]
    if alone:
        tile.squared_distances.fill_diagonal_(0)
        short.fill_diagonal_(False)
    return tile.squared_distances, short
