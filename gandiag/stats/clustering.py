"""Where a set of samples separates into clusters: a Ward tree over one half, cut where the other half shows a gap.

Half of the rows grows the tree, the other half is the witness: in many dimensions every algorithm finds clusters in the
rows it was fitted to, and only rows it has not seen can deny them. A gap is a valley of the witness's density on the line
between two sets, counted inside the tube that the two sets fill, whoever owns the rows in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import eigh
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from gandiag.stats.cluster_separation import MIN_CLUSTER_ROWS, Array, GapTest, cut_tree, nearest_rows

MIN_COMPONENTS = 10  # principal components are tried in two numbers: overlapping modes separate in few of them,
MAX_COMPONENTS = 50  # many modes in many; more would only add noise
MAX_TREE_ROWS = 1_500  # rows in the tree at most: its cost is quadratic
N_FITS = 5  # three above SMALL rows, where they agree anyway
SMALL_SAMPLE_SIZE = 1_000
CLEAR_DISTANCE_RATIO = 0.75  # a sample leans to a cluster that is at most that many times as far as any other
MAX_DISTANCE_QUANTILE = (
    0.99  # quantile of the reference's own nearest-neighbour distances beyond which a sample belongs nowhere
)


@dataclass(frozen=True, slots=True)
class Clustering:
    """A partition of feature space. `rows` (N, D) the reference, `labels` (N,) int64 its clusters, numbered from 0 by falling size.

    `reach`: the distance from the nearest reference row beyond which a sample belongs to no cluster. `counts`: how many
    clusters each refit found. `stability`: the mean adjusted Rand index of this partition with the other refits, at most 1.
    """

    rows: Tensor
    labels: Tensor
    n_clusters: int
    max_distance: float
    counts_per_fit: tuple[int, ...]
    stability: float

    def assign(self, samples: Tensor) -> ClusterAssignment:
        """Where samples (M, D) belong. Cost: M x N distances."""
        found = []
        for start in range(0, len(samples), 1_024):
            distance = torch.cdist(samples[start : start + 1_024], self.rows)  # (m, N)
            first, nearest = distance.min(1)
            label = self.labels[nearest]
            other = distance.masked_fill_(self.labels == label[:, None], float("inf")).amin(1)
            found.append((label, first <= self.max_distance, first < CLEAR_DISTANCE_RATIO * other))
        return ClusterAssignment(*(torch.cat(part) for part in zip(*found, strict=True)))


@dataclass(frozen=True, slots=True)
class ClusterAssignment:
    """`label` (M,) int64: the cluster of the nearest reference row. `near` (M,) bool: that row is within reach.

    `leans` (M,) bool: that row is nearer than any row of another cluster by a clear margin, however far.
    """

    label: Tensor
    nearest_is_close: Tensor
    nearest_is_clear: Tensor


def principal_components(rows: Tensor, max_components: int = MAX_COMPONENTS) -> Tensor:
    """Rows in their own principal components, (N, P) float64 with P <= `most`, centred and not rescaled."""
    centred = rows.double() - rows.double().mean(0)  # (N, D)
    wide = centred.shape[1] > len(centred)
    gram = centred @ centred.T if wide else centred.T @ centred
    count = len(gram)
    values, vectors = eigh(gram.numpy(), subset_by_index=(max(0, count - max_components), count - 1))
    keep = np.flatnonzero(values > 1e-12 * max(float(values[-1]), 1e-300))[::-1]
    axes = torch.from_numpy(np.ascontiguousarray(vectors[:, keep]))  # (N or D, P)
    return axes * torch.from_numpy(np.sqrt(values[keep])) if wide else centred @ axes  # (N, P)


def find_clusters(rows: Tensor, *, seed: int) -> Clustering:
    """Clusters of `rows` (N, D). Deterministic by seed. About 2 s at N = 2,000, D = 1,280 on one core.

    A few refits, each growing its tree on another half; the one that agrees best with the others is kept.
    Reads low where clusters overlap (nearer than about 8 standard deviations in 64 dimensions at N = 500), where one holds
    fewer than about 10 rows of N, and on whatever is connected: one cluster is then the answer. Reads high, 2 or 3, on
    thin curves that bend back on themselves.
    """
    reach = (
        float(torch.quantile(nearest_rows(rows, rows, skip_self=True)[0].double(), MAX_DISTANCE_QUANTILE))
        if len(rows) > 1
        else 0.0
    )
    points = principal_components(rows)
    refitted = N_FITS if len(rows) <= SMALL_SAMPLE_SIZE else 3
    refits = [partition_points(points, seed=seed * N_FITS + i) for i in range(refitted)]
    agreement = np.array([[adjusted_rand_score(a.numpy(), b.numpy()) for b in refits] for a in refits])  # (R, R)
    mean = (agreement.sum(1) - 1.0) / (refitted - 1)
    labels = refits[int(mean.argmax())]
    counts = tuple(int(refit.max()) + 1 for refit in refits)
    return Clustering(rows, labels, int(labels.max()) + 1, reach, counts, float(mean.max()))


def partition_points(points: Tensor, *, seed: int) -> Tensor:
    """The cluster of each point, (N,) int64, from principal components (N, P): the finer of the partitions in few and in many of them."""
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed)).numpy()
    grown = order[: min(len(order) // 2, MAX_TREE_ROWS)]
    witness = order[len(grown) :]
    best = np.zeros(len(points), dtype=np.int64)
    for width in sorted({min(most, points.shape[1]) for most in (MIN_COMPONENTS, MAX_COMPONENTS)}):
        if width == 0 or len(points) < 4 * MIN_CLUSTER_ROWS:
            break
        part = np.ascontiguousarray(points[:, :width].numpy())  # (N, P)
        mode = cut_tree(GapTest(part[grown], part[witness]))
        found = mode[nearest_rows(torch.from_numpy(part), torch.from_numpy(part[grown]))[1].numpy()]  # (N,)
        best = found if found.max() > best.max() else best
    return torch.from_numpy(_by_size(best))


def _by_size(labels: Array) -> Array:
    """Labels renumbered so that 0 is the largest cluster."""
    sizes = np.bincount(labels)
    rank = np.empty(len(sizes), dtype=np.int64)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return rank[labels]
