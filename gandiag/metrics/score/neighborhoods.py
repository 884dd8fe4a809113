"""Float32 distances in tiles, nearest-neighbor radii of subsamples, and coverage at equal sample numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gandiag.metrics.score.radius_cap import cap_radii

TILE_SIZE = 1024
MAX_TILE_ELEMENTS = 1 << 23  # fewer rows a tile where there are many columns
MAX_KEPT_ELEMENTS = 1 << 25  # matrices up to this size (5,792 rows) are kept for a second pass; larger ones are not
CHUNK_SIZE = 1 << 14
N_NEIGHBORS = 5  # the ball of a reference row reaches to its k-th neighbor among the reference
N_CANDIDATES = 4 * N_NEIGHBORS  # neighbors kept, so that a random half of the rows still contains k of them

Tile = tuple[slice, Tensor]  # rows, and their distances to all others (T, M)


@dataclass(frozen=True, slots=True)
class DistanceTiles:
    """Euclidean distances between rows (N, D) and others (M, D), a block of rows at a time; iterate as often as needed.

    One matrix product per tile; near pairs are recomputed from their differences. |a|² + |b|² − 2ab has an error of
    1e-6 (|a|² + |b|²). Pairs within a hundredth of their norms are recomputed, unless that error is small even compared
    with `min_distance`, the smallest distance that matters. `skip_self`: the rows are the others, and no row reaches
    itself: infinity on the diagonal. `kept`: the tiles, where all of them are small.
    """

    rows: Tensor
    others: Tensor
    min_distance: float = 0.0
    skip_self: bool = False
    kept: dict[int, Tensor] | None = None

    def __iter__(self) -> Iterator[Tile]:
        n, m = len(self.rows), len(self.others)
        size = max(64, min(TILE_SIZE, MAX_TILE_ELEMENTS // max(m, 1)))
        if self.kept is not None and len(self.kept) == -(-n // size):
            yield from ((slice(start, start + len(tile)), tile) for start, tile in self.kept.items())
            return
        center = self.others.mean(0)
        others = self.others - center  # (M, D)
        squared_norms = others.square().sum(1)
        for start in range(0, n, size):
            tile = _measure_tile(self.rows[start : start + size] - center, others, squared_norms, self.min_distance)
            if self.skip_self:
                tile[:, start : start + len(tile)].fill_diagonal_(torch.inf)
            if self.kept is not None and n * m <= MAX_KEPT_ELEMENTS:
                self.kept[start] = tile
            yield slice(start, start + len(tile)), tile


def _measure_tile(a: Tensor, b: Tensor, b_squared: Tensor, min_distance: float) -> Tensor:
    """Distances between centered rows a (T, D) and b (M, D), (T, M) float32."""
    a_squared = a.square().sum(1)
    squared = torch.addmm(b_squared, a, b.T, alpha=-2).add_(a_squared[:, None]).clamp_(min=0)
    # One cheap comparison selects a superset of the near pairs.
    i, j = (squared < 1e-4 * (a_squared.max() + b_squared.max())).nonzero().T
    norms = a_squared[i] + b_squared[j]
    is_near = (squared[i, j] < 1e-4 * norms) & (norms > 1e4 * min_distance**2)
    for chunk_i, chunk_j in zip(i[is_near].split(CHUNK_SIZE), j[is_near].split(CHUNK_SIZE), strict=True):
        squared[chunk_i, chunk_j] = (a[chunk_i] - b[chunk_j]).square().sum(1)
    return squared.sqrt_()


def measure_distances(rows: Tensor, others: Tensor) -> Tensor:
    """All distances (N, M), for sets small enough to hold them."""
    return torch.cat([tile for _, tile in DistanceTiles(rows, others)])


def nearest_in_tiles(tiles: DistanceTiles) -> tuple[Tensor, Tensor]:
    """The N_CANDIDATES nearest others of each row: distances and indices, (N, N_CANDIDATES)."""
    k = min(N_CANDIDATES, len(tiles.others) - tiles.skip_self)
    nearest = [tile.topk(k, largest=False) for _, tile in tiles]
    return torch.cat([found.values for found in nearest]), torch.cat([found.indices for found in nearest])


def neighbor_radius(neighbors: tuple[Tensor, Tensor], subset: Tensor) -> Tensor:
    """Distance of each subset row to its k-th neighbor within the subset, capped, (n,). `subset` (n,) indices."""
    distances, indices = neighbors
    present = torch.zeros(len(distances), dtype=torch.bool, device=distances.device)
    present[subset] = True
    rank = present[indices[subset]].cumsum(1)  # (n, N_CANDIDATES): neighbors in the subset so far
    column = (rank >= N_NEIGHBORS).int().argmax(1)
    column[rank[:, -1] < N_NEIGHBORS] = distances.shape[1] - 1
    return cap_radii(distances[subset].gather(1, column[:, None]).squeeze(1), indices, subset)


def expected_coverage(hits: Tensor, n_rows: Tensor, n_target: Tensor) -> Tensor:
    """Probability that a ball with `hits` of `n_rows` rows contains one of `n_target` kept rows, in [0, 1].

    1 − (1 − n_target/n_rows)^hits, the form for sampling with replacement: within 1/n_rows of the hypergeometric one.
    """
    return 1 - (1 - (n_target / n_rows).clamp(max=1)).pow(hits)
