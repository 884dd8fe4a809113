"""Finds clusters: a Ward tree over one half of the rows, cut where the held-out half shows a gap.

In high dimensions every algorithm finds clusters in the rows it was fitted to; only held-out rows can refute them. A
gap is a valley of the held-out density on the line between two sets, counted inside the tube that the two sets fill,
whichever set the rows in it belong to.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import eigh
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from gandiag.stats.cluster_separation import MIN_CLUSTER_ROWS, Array, GapTest, cut_tree, nearest_rows

# Two numbers of principal components are tried: overlapping modes separate in few of them, many modes in many.
# More would only add noise.
MIN_COMPONENTS = 10
MAX_COMPONENTS = 50
MAX_TREE_ROWS = 1_500  # the cost of the tree is quadratic
N_FITS = 5
N_FITS_LARGE = 3  # above SMALL_SAMPLE_SIZE rows, where the fits agree anyway
SMALL_SAMPLE_SIZE = 1_000
CLEAR_DISTANCE_RATIO = 0.75  # the nearest cluster is clear if it is at most this many times as far as any other
# Quantile of the reference rows' own nearest-neighbor distances beyond which a sample belongs to no cluster.
MAX_DISTANCE_QUANTILE = 0.99


@dataclass(frozen=True, slots=True)
class Clustering:
    """A partition of feature space by reference rows.

    `rows` (N, D): the reference. `labels` (N,) int64: its clusters, numbered from 0 by decreasing size. `max_distance`:
    the distance from the nearest reference row beyond which a sample belongs to no cluster. `counts_per_fit`: the
    number of clusters in each fit. `stability`: mean adjusted Rand index of this partition with the other fits, at most
    1.
    """

    rows: Tensor
    labels: Tensor
    n_clusters: int
    max_distance: float
    counts_per_fit: tuple[int, ...]
    stability: float

    def assign(self, samples: Tensor) -> ClusterAssignment:
        """Assign samples (M, D) to clusters. Cost: M x N distances."""
        parts = []
        for start in range(0, len(samples), 1_024):
            distances = torch.cdist(samples[start : start + 1_024], self.rows)  # (m, N)
            nearest_distance, nearest = distances.min(1)
            label = self.labels[nearest]
            other_distance = distances.masked_fill_(self.labels == label[:, None], float("inf")).amin(1)
            is_clear = nearest_distance < CLEAR_DISTANCE_RATIO * other_distance
            parts.append((label, nearest_distance <= self.max_distance, is_clear))
        return ClusterAssignment(*(torch.cat(field) for field in zip(*parts, strict=True)))


@dataclass(frozen=True, slots=True)
class ClusterAssignment:
    """Clusters of M samples.

    `label` (M,) int64: the cluster of the nearest reference row. `nearest_is_close` (M,) bool: that row is within
    `max_distance`. `nearest_is_clear` (M,) bool: that row is nearer than any row of another cluster by a clear margin,
    at any distance.
    """

    label: Tensor
    nearest_is_close: Tensor
    nearest_is_clear: Tensor


def principal_components(rows: Tensor, max_components: int = MAX_COMPONENTS) -> Tensor:
    """Rows in their own principal components, (N, P) float64 with P <= `max_components`, centered but not rescaled."""
    centered = rows.double() - rows.double().mean(0)  # (N, D)
    use_rows = centered.shape[1] > len(centered)  # decompose the smaller of N x N and D x D
    gram = centered @ centered.T if use_rows else centered.T @ centered
    size = len(gram)
    values, vectors = eigh(gram.numpy(), subset_by_index=(max(0, size - max_components), size - 1))
    keep = np.flatnonzero(values > 1e-12 * max(float(values[-1]), 1e-300))[::-1]
    axes = torch.from_numpy(np.ascontiguousarray(vectors[:, keep]))  # (N or D, P)
    return axes * torch.from_numpy(np.sqrt(values[keep])) if use_rows else centered @ axes  # (N, P)


def find_clusters(rows: Tensor, *, seed: int) -> Clustering:
    """Clusters of `rows` (N, D); deterministic by seed. About 2 s at N = 2,000, D = 1,280 on one core.

    Several fits, each growing its tree on another half; the one that agrees best with the others is kept. Finds too few
    clusters where they overlap (nearer than about 8 standard deviations in 64 dimensions at N = 500) or where one holds
    fewer than about 10 of N rows; connected data are one cluster. Finds too many, 2 or 3, on thin curves that bend back
    on themselves.
    """
    max_distance = 0.0
    if len(rows) > 1:
        spacing = nearest_rows(rows, rows, skip_self=True)[0].double()
        max_distance = float(torch.quantile(spacing, MAX_DISTANCE_QUANTILE))
    points = principal_components(rows)
    n_fits = N_FITS if len(rows) <= SMALL_SAMPLE_SIZE else N_FITS_LARGE
    fits = [partition_points(points, seed=seed * N_FITS + i) for i in range(n_fits)]
    agreement = np.array([[adjusted_rand_score(a.numpy(), b.numpy()) for b in fits] for a in fits])  # (R, R)
    mean_agreement = (agreement.sum(1) - 1.0) / (n_fits - 1)
    labels = fits[int(mean_agreement.argmax())]
    counts = tuple(int(fit.max()) + 1 for fit in fits)
    return Clustering(rows, labels, int(labels.max()) + 1, max_distance, counts, float(mean_agreement.max()))


def partition_points(points: Tensor, *, seed: int) -> Tensor:
    """The cluster of each point, (N,) int64, from principal components (N, P).

    Of the partitions in few and in many components, the one with more clusters.
    """
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed)).numpy()
    tree_rows = order[: min(len(order) // 2, MAX_TREE_ROWS)]
    heldout_rows = order[len(tree_rows) :]
    best = np.zeros(len(points), dtype=np.int64)
    for n_components in sorted({min(limit, points.shape[1]) for limit in (MIN_COMPONENTS, MAX_COMPONENTS)}):
        if n_components == 0 or len(points) < 4 * MIN_CLUSTER_ROWS:
            break
        components = np.ascontiguousarray(points[:, :n_components].numpy())  # (N, P)
        tree_labels = cut_tree(GapTest(components[tree_rows], components[heldout_rows]))
        nearest = nearest_rows(torch.from_numpy(components), torch.from_numpy(components[tree_rows]))[1]
        labels = tree_labels[nearest.numpy()]  # (N,)
        best = labels if labels.max() > best.max() else best
    return torch.from_numpy(_number_by_size(best))


def _number_by_size(labels: Array) -> Array:
    """Labels renumbered so that 0 is the largest cluster."""
    sizes = np.bincount(labels)
    rank = np.empty(len(sizes), dtype=np.int64)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return rank[labels]
