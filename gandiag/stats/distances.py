"""Euclidean distances between many rows, in tiles rather than N x N, and exact where results depend on it.

One matrix product per tile gives squared distances with an error of about 1e-6 of the squared norms. After a collapse
the distances are as small as that error. Rows are therefore centered first, and the distances that decide a result
(nearest neighbors, pairs at a threshold) are computed again from the differences of the original rows in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

TILE_SIZE = 1024
MAX_DOUBLE_WIDTH = 32  # up to this many features the products are cheap enough for float64
MIN_PAIRS_PER_EXACT = 64  # a tile with more than one pair in this many at a threshold is recomputed in float64
# Above this many elements, a tile's pairs at a threshold are not recomputed from their differences.
MAX_EXACT_ELEMENTS = 1 << 28
CHUNK_ELEMENTS = 1 << 19  # elements held at once while differences are computed


@dataclass(frozen=True, slots=True)
class DistanceTile:
    """Squared distances (I, J) between blocks of rows and columns, correct to within `error_bound` (I,) per row."""

    rows: slice
    columns: slice
    squared_distances: Tensor
    error_bound: Tensor


class TiledDistances:
    """Distances between two sets of rows about a common center, which is subtracted block by block.

    Without `y`: the rows of `x` among themselves.
    """

    def __init__(self, x: Tensor, y: Tensor | None = None, *, use_double: bool = False) -> None:
        self.x, self.y = x, x if y is None else y
        use_float = x.shape[1] > MAX_DOUBLE_WIDTH and x.dtype != torch.float64 and not use_double
        self.dtype = torch.float32 if use_float else torch.float64
        self.center = (x.mean(0) if y is None else (x.mean(0) + self.y.mean(0)) / 2).to(self.dtype)  # (D,)
        self.x_squared_norms = self._squared_norms(x)  # (N,)
        self.y_squared_norms = self.x_squared_norms if y is None else self._squared_norms(self.y)  # (M,)
        self.relative_error = torch.finfo(self.dtype).eps / 2 * (8 + x.shape[1] ** 0.5 / 2)
        self._double: TiledDistances | None = None

    def compute_tile(self, rows: slice, columns: slice) -> DistanceTile:
        """Squared distances of one block; at least 0."""
        squared = self.squared_distances(rows, columns)
        error_bound = self.relative_error * (self.x_squared_norms[rows] + self.y_squared_norms[columns].max())
        return DistanceTile(rows, columns, squared, error_bound)

    def iter_tiles(self, size: int = TILE_SIZE) -> Iterator[DistanceTile]:
        """All blocks, row by row."""
        for rows in even_slices(len(self.x), size):
            for columns in even_slices(len(self.y), size):
                yield self.compute_tile(rows, columns)

    def squared_distances(self, rows: slice | Tensor, columns: slice) -> Tensor:
        """Squared distances (I, J) alone; rows are selected by slice or by index."""
        product = torch.addmm(
            self.y_squared_norms[columns], self._centered(self.x[rows]), self._centered(self.y[columns]).T, alpha=-2
        )  # (I, J)
        return product.add_(self.x_squared_norms[rows][:, None]).clamp_(min=0)

    def within_radius(self, tile: DistanceTile, radius: Tensor) -> Tensor:
        """Which distances of a tile are smaller than `radius`, which broadcasts to it: (I, J) bool.

        Pairs too close to the radius to decide are computed exactly.
        """
        squared_radius, error = radius.square(), tile.error_bound[:, None].double()
        dtype = tile.squared_distances.dtype
        inside = tile.squared_distances < (squared_radius - error).to(dtype)  # (I, J)
        undecided = (tile.squared_distances <= (squared_radius + error).to(dtype)) ^ inside
        i = j = undecided.new_empty(0, dtype=torch.int64)
        if bool(undecided.any()):
            i, j = torch.nonzero(undecided, as_tuple=True)
        if len(i) > undecided.numel() // MIN_PAIRS_PER_EXACT and self.dtype == torch.float32:
            if self._double is None:
                self._double = TiledDistances(self.x, None if self.y is self.x else self.y, use_double=True)
            return self._double.within_radius(self._double.compute_tile(tile.rows, tile.columns), radius)
        if len(i) * self.x.shape[1] > MAX_EXACT_ELEMENTS:
            # The radius is below 1e-7 of the rows' size, so no result depends on these pairs.
            return tile.squared_distances.sqrt() < radius
        distances = self.exact_distances(i + tile.rows.start, j + tile.columns.start).to(self.x.dtype)
        inside[i, j] = distances < radius.expand(undecided.shape)[i, j].to(self.x.dtype)
        return inside

    def exact_distances(self, i: Tensor, j: Tensor) -> Tensor:
        """Distances of the pairs (x[i], y[j]), (P,) float64."""
        return pair_distances(self.x, self.y, i, j)

    def _centered(self, rows: Tensor) -> Tensor:
        """rows - center. Each difference is rounded once, for any center, as long as all rows share it."""
        return rows.to(self.dtype) - self.center

    def _squared_norms(self, rows: Tensor) -> Tensor:
        out = torch.empty(len(rows), dtype=self.dtype, device=rows.device)
        for block in even_slices(len(rows), TILE_SIZE):
            centered = self._centered(rows[block])
            out[block] = torch.linalg.vecdot(centered, centered)
        return out


def pair_distances(x: Tensor, y: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Distances of the pairs (x[i], y[j]), (P,) float64, from their differences in float64."""
    chunk_rows = max(1, CHUNK_ELEMENTS // max(1, x.shape[1]))
    out = torch.empty(len(i), dtype=torch.float64, device=x.device)
    for chunk in even_slices(len(i), chunk_rows):
        difference = x[i[chunk]].double().sub_(y[j[chunk]])  # (P, D)
        out[chunk] = torch.linalg.vecdot(difference, difference).sqrt_()
    return out


def even_slices(n: int, max_size: int) -> list[slice]:
    """0 … n in slices of nearly equal size, at most `max_size` each."""
    count = max(1, -(-n // max_size))
    return [slice(n * k // count, n * (k + 1) // count) for k in range(count)]


def count_within_radius(x: Tensor, radius: float) -> Tensor:
    """Number of other rows nearer than `radius` to each row, (N,) int64. Cost N²·D / 2."""
    distances = TiledDistances(x)
    counts = torch.zeros(len(x), dtype=torch.int64)
    blocks = even_slices(len(x), TILE_SIZE)
    broadcast_radius = torch.tensor([[radius]], dtype=torch.float64)
    for i, rows in enumerate(blocks):
        for columns in blocks[i:]:
            inside = distances.within_radius(distances.compute_tile(rows, columns), broadcast_radius)  # (I, J)
            if rows == columns:
                inside.fill_diagonal_(False)
            counts[rows] += inside.sum(1)
            if rows != columns:
                counts[columns] += inside.sum(0)
    return counts


def distance_matrix(x: Tensor, y: Tensor | None = None) -> Tensor:
    """All distances, (N, M) in the dtype of `x`, for sets small enough to hold them.

    Short distances are exact; without `y` the diagonal is 0.
    """
    squared, is_short = _squared_matrix(TiledDistances(x, y), y is None)
    max_short = 16 * len(x)
    if x.dtype == torch.float32 and int(is_short.sum()) > max_short:
        squared, is_short = _squared_matrix(TiledDistances(x, y, use_double=True), y is None)
    out = squared.sqrt_()  # (N, M)
    if int(is_short.sum()) <= 4 * max_short:
        i, j = torch.nonzero(is_short, as_tuple=True)
        out[i, j] = pair_distances(x, x if y is None else y, i, j).to(out.dtype)
    return out.to(x.dtype)


def _squared_matrix(distances: TiledDistances, zero_diagonal: bool) -> tuple[Tensor, Tensor]:
    """Squared distances (N, M), and where rounding could exceed 1e-4 of the distance, (N, M) bool."""
    tile = distances.compute_tile(slice(0, len(distances.x)), slice(0, len(distances.y)))
    is_short = tile.squared_distances < 4096 * tile.error_bound[:, None]
    if zero_diagonal:
        tile.squared_distances.fill_diagonal_(0)
        is_short.fill_diagonal_(False)
    return tile.squared_distances, is_short
