"""Float32 distance matrices, nearest-neighbor radii of subsamples, and coverage at equal sample numbers."""

from __future__ import annotations

import torch
from torch import Tensor

TILE_SIZE = 1024
CHUNK_SIZE = 1 << 14
N_NEIGHBORS = 5  # the ball of a reference row reaches to its k-th neighbor among the reference
N_CANDIDATES = 4 * N_NEIGHBORS  # neighbors kept, so that a random half of the rows still contains k of them


def euclidean_distances(rows: Tensor, others: Tensor, *, min_distance: float = 0.0) -> Tensor:
    """Euclidean distances, (N, M) float32.

    One matrix product per tile; near pairs are recomputed from their differences.     |a|² + |b|² − 2ab has an error of
    1e-6 (|a|² + |b|²). Pairs within a hundredth of their norms are recomputed, unless that error is small even compared
    with `min_distance`, the smallest distance that matters.
    """
    center = others.mean(0)
    a, b = rows - center, others - center
    a_squared, b_squared = a.square().sum(1), b.square().sum(1)
    out = torch.empty(len(a), len(b))  # (N, M)
    for start in range(0, len(a), TILE_SIZE):
        tile = slice(start, start + TILE_SIZE)
        squared = torch.addmm(b_squared, a[tile], b.T, alpha=-2).add_(a_squared[tile, None]).clamp_(min=0)  # (tile, M)
        # One cheap comparison selects a superset of the near pairs.
        i, j = (squared < 1e-4 * (a_squared[tile].max() + b_squared.max())).nonzero().T
        norms = a_squared[tile][i] + b_squared[j]
        is_near = (squared[i, j] < 1e-4 * norms) & (norms > 1e4 * min_distance**2)
        for chunk_i, chunk_j in zip(i[is_near].split(CHUNK_SIZE), j[is_near].split(CHUNK_SIZE), strict=True):
            squared[chunk_i, chunk_j] = (a[start + chunk_i] - b[chunk_j]).square().sum(1)
        out[tile] = squared.sqrt_()
    return out


def nearest_in_matrix(distances: Tensor) -> tuple[Tensor, Tensor]:
    """The N_CANDIDATES nearest other rows of each row: distances and indices, (N, N_CANDIDATES).

    Takes a square distance matrix and overwrites its diagonal.
    """
    distances.fill_diagonal_(float("inf"))
    nearest = distances.topk(min(N_CANDIDATES, len(distances) - 1), largest=False)
    return nearest.values, nearest.indices


def neighbor_radius(neighbors: tuple[Tensor, Tensor], subset: Tensor) -> Tensor:
    """Distance of each subset row to its k-th neighbor within the subset, (n,). `subset` (n,) indices."""
    distances, indices = neighbors
    present = torch.zeros(len(distances), dtype=torch.bool)
    present[subset] = True
    rank = present[indices[subset]].cumsum(1)  # (n, N_CANDIDATES): neighbors in the subset so far
    column = (rank >= N_NEIGHBORS).int().argmax(1)
    column[rank[:, -1] < N_NEIGHBORS] = distances.shape[1] - 1
    return distances[subset].gather(1, column[:, None]).squeeze(1)


def expected_coverage(hits: Tensor, n_rows: Tensor, n_target: Tensor) -> Tensor:
    """Probability that a ball with `hits` of `n_rows` rows contains one of `n_target` kept rows, in [0, 1].

    1 − (1 − n_target/n_rows)^hits, the form for sampling with replacement: within 1/n_rows of the hypergeometric one.
    """
    return 1 - (1 - (n_target / n_rows).clamp(max=1)).pow(hits)
