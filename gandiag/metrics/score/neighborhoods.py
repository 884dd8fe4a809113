"""Who lies near whom: distances in float32 tiles, neighbour radii that survive subsampling, and coverage by equal numbers."""

from __future__ import annotations

import torch
from torch import Tensor

TILE_SIZE = 1024
CHUNK_SIZE = 1 << 14
N_NEIGHBORS = 5  # a reference row's ball reaches to its K-th neighbour among the reference
N_CANDIDATES = 4 * N_NEIGHBORS  # neighbours kept, so that a random half of the rows still holds K of them


def euclidean_distances(rows: Tensor, others: Tensor, *, min_distance: float = 0.0) -> Tensor:
    """Euclidean distances, (N, M) float32. One matrix product a tile, the differences of near pairs done again exactly.

    |a|² + |b|² − 2ab carries an error of 1e-6 (|a|² + |b|²). Pairs that lie within a hundredth of their norms are done again,
    unless that error is small even beside `fine`, the least distance that matters.
    """
    middle = others.mean(0)
    a, b = rows - middle, others - middle
    a2, b2 = a.square().sum(1), b.square().sum(1)
    out = torch.empty(len(a), len(b))  # (N, M)
    for start in range(0, len(a), TILE_SIZE):
        part = slice(start, start + TILE_SIZE)
        square = torch.addmm(b2, a[part], b.T, alpha=-2).add_(a2[part, None]).clamp_(min=0)  # (tile, M)
        i, j = (square < 1e-4 * (a2[part].max() + b2.max())).nonzero().T  # a superset, by one cheap comparison
        norms = a2[part][i] + b2[j]
        near = (square[i, j] < 1e-4 * norms) & (norms > 1e4 * min_distance**2)
        for some_i, some_j in zip(i[near].split(CHUNK_SIZE), j[near].split(CHUNK_SIZE), strict=True):
            square[some_i, some_j] = (a[start + some_i] - b[some_j]).square().sum(1)
        out[part] = square.sqrt_()
    return out


def nearest_in_matrix(distances: Tensor) -> tuple[Tensor, Tensor]:
    """The SPARE nearest other rows of each row, from a square distance matrix that is used up: distances and indices, (N, SPARE)."""
    distances.fill_diagonal_(float("inf"))
    near = distances.topk(min(N_CANDIDATES, len(distances) - 1), largest=False)
    return near.values, near.indices


def neighbor_radius(neighbors: tuple[Tensor, Tensor], subset: Tensor) -> Tensor:
    """Distance of each kept row to its K-th neighbour among the kept rows, (n,). `kept` (n,) indices."""
    present = torch.zeros(len(neighbors[0]), dtype=torch.bool)
    present[subset] = True
    rank = present[neighbors[1][subset]].cumsum(1)  # (n, SPARE): kept neighbours so far
    found = (rank >= N_NEIGHBORS).int().argmax(1)
    found[rank[:, -1] < N_NEIGHBORS] = neighbors[0].shape[1] - 1
    return neighbors[0][subset].gather(1, found[:, None]).squeeze(1)


def neighbor_distances(neighbors: tuple[Tensor, Tensor], subset: Tensor) -> Tensor:
    """Distances of each kept row to those of its nearest rows that are kept too, inf for the others: (n, SPARE)."""
    present = torch.zeros(len(neighbors[0]), dtype=torch.bool)
    present[subset] = True
    return neighbors[0][subset].masked_fill(~present[neighbors[1][subset]], torch.inf)


def expected_coverage(hits: Tensor, n_rows: Tensor, n_target: Tensor) -> Tensor:
    """Chance that a ball with `hits` of the `have` rows in it keeps one of them when only `want` are kept, in [0, 1].

    1 − (1 − want/have)^hits, the sampling with replacement form: within 1/have of the hypergeometric one.
    """
    return 1 - (1 - (n_target / n_rows).clamp(max=1)).pow(hits)
