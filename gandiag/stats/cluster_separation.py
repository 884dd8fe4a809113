"""Separates clusters: a Ward tree over one half of the rows, cut where the held-out half shows a density valley.

A gap is a valley of the held-out density along the discriminant between two sets. It is counted inside the tube that
the two sets fill, whichever set the rows in it belong to.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.stats import binom
from torch import Tensor

MIN_CLUSTER_ROWS = 4  # a set with fewer tree rows is joined without a test
GAP_DENSITY_RATIO = 0.5  # a gap: the density half-way is below this fraction of the density at the ends …
GAP_ALPHA = 0.02  # … and a binomial test confirms it at this level
TUBE_QUANTILE = 0.9  # fraction of the two sets' own rows inside the tube
SHRINKAGE = 0.1  # of the discriminant
MIN_BOUNDARY_ROWS = 12  # minimum size of the part of a set that faces another set
N_NEIGHBORS = 4  # sets that each set is compared with after the tree is cut
# A held-out row is clear if its own center is less than this many times as far as the next nearest center.
CLEAR_DISTANCE_RATIO = 0.5
MIN_CLEAR_FRACTION = 0.95  # of the held-out rows
MAX_VALIDATED_CLUSTERS = 64  # most clusters that are confirmed together
MAX_SPARSE_ROWS = 400  # with more tree rows, gaps between pairs are proof enough

Array = NDArray[Any]


def nearest_rows(
    samples: Tensor, rows: Tensor, *, skip_self: bool = False, chunk_size: int = 1_024
) -> tuple[Tensor, Tensor]:
    """Distance from each sample to the nearest row, (M,), and the index of that row, (M,).

    `skip_self`: the samples are the rows, and row i is not its own neighbor.
    """
    distances, indices = [], []
    for start in range(0, len(samples), chunk_size):
        chunk = torch.cdist(samples[start : start + chunk_size], rows)  # (m, N)
        if skip_self:
            chunk[torch.arange(len(chunk)), torch.arange(start, start + len(chunk))] = float("inf")
        nearest = chunk.min(1)
        distances.append(nearest.values)
        indices.append(nearest.indices)
    return torch.cat(distances), torch.cat(indices)


class GapTest:
    """Tests for gaps between sets of tree rows (G, P) by the density of held-out rows (W, P).

    `nearest_tree_row` (W,): index of the tree row nearest to each held-out row.
    """

    def __init__(self, tree_rows: Array, heldout_rows: Array) -> None:
        self.tree_rows, self.heldout_rows = tree_rows, heldout_rows
        nearest = nearest_rows(torch.from_numpy(heldout_rows), torch.from_numpy(tree_rows))[1]
        self.nearest_tree_row: Array = nearest.numpy()
        self._squared_norms: Array = (heldout_rows**2).sum(1)  # (W,)

    def nearest_is_in(self, members: Array) -> Array:
        """Held-out rows whose nearest tree row is one of `members`: (W,) bool."""
        mask = np.zeros(len(self.tree_rows), dtype=bool)
        mask[members] = True
        return mask[self.nearest_tree_row]

    def count_gap_rows(self, left: Array, right: Array) -> tuple[int, int]:
        """Held-out rows half-way between two sets of tree rows, and at the emptier end.

        Counted in windows of equal length on the line between the two means.
        """
        start = self.tree_rows[left].mean(0)
        line = self.tree_rows[right].mean(0) - start
        length = float(np.linalg.norm(line))
        in_left, in_right = self.nearest_is_in(left), self.nearest_is_in(right)
        if length == 0.0 or not in_left.any() or not in_right.any():
            return 0, 0
        line = line / length
        position = self.heldout_rows @ line - start @ line  # (W,)
        # Squared distance from the line, (W,)
        squared_offset = self._squared_norms - 2 * (self.heldout_rows @ start) + start @ start - position**2
        in_tube = squared_offset <= np.quantile(squared_offset[in_left | in_right], TUBE_QUANTILE)
        position = self.heldout_rows @ self._discriminant(left, right, line)
        low, high = float(np.median(position[in_left])), float(np.median(position[in_right]))
        tube_positions = position[in_tube]
        half_window = (high - low) / 6
        if half_window <= 0:
            return 1, 0
        n_between, n_low, n_high = (
            int((np.abs(tube_positions - center) < half_window).sum()) for center in ((low + high) / 2, low, high)
        )
        return n_between, min(n_low, n_high)

    def _discriminant(self, left: Array, right: Array, line: Array) -> Array:
        """Fisher's discriminant between two sets of tree rows (P,), shrunk towards the line between their means.

        That line itself where rows are few.
        """
        if len(left) + len(right) < 2 * len(line):
            return line
        centered = [self.tree_rows[members] - self.tree_rows[members].mean(0) for members in (left, right)]
        rows = np.concatenate(centered)
        scatter = rows.T @ rows / len(rows)  # (P, P)
        shrunk = scatter + np.eye(len(line)) * (SHRINKAGE * np.trace(scatter) / len(line) + 1e-12)
        return np.asarray(np.linalg.solve(shrunk, line))

    def is_separated(self, left: Array, right: Array) -> bool:
        """Whether the held-out rows prove a gap between two sets."""
        if min(len(left), len(right)) < MIN_CLUSTER_ROWS:
            return False
        n_between, n_end = self.count_gap_rows(left, right)
        if n_between >= GAP_DENSITY_RATIO * n_end:
            return False
        return float(binom.cdf(n_between, n_between + n_end, 0.5)) < GAP_ALPHA

    def is_connected(self, left: Array, right: Array) -> bool:
        """Whether held-out rows fill the space between two sets, and between the parts of them that face each other."""
        distances = torch.cdist(
            torch.from_numpy(self.tree_rows[left]), torch.from_numpy(self.tree_rows[right])
        ).numpy()  # (L, R)
        n_facing = max(MIN_BOUNDARY_ROWS, min(len(left), len(right)) // 4)
        facing_left = left[np.argsort(distances.min(1), kind="stable")[:n_facing]]
        facing_right = right[np.argsort(distances.min(0), kind="stable")[:n_facing]]
        counts = (self.count_gap_rows(left, right), self.count_gap_rows(facing_left, facing_right))
        return all(n_between > 0 and n_between >= GAP_DENSITY_RATIO * n_end for n_between, n_end in counts)

    def validate_labels(self, labels: Array) -> Array | None:
        """Keep the clusters among `labels` (G,) that held-out rows confirm.

        Rows of other clusters go to the nearest confirmed one. Returns labels (G,), or None unless nearly all held-out
        rows agree.
        """
        member = (labels[:, None] == np.arange(labels.max() + 1)).astype(np.float64)  # (G, K)
        centers = (member / member.sum(0)).T @ self.tree_rows  # (K, P)
        products = 2 * self.heldout_rows @ centers.T
        squared = np.maximum(self._squared_norms[:, None] - products + (centers**2).sum(1), 0)  # (W, K)
        nearest_two = np.partition(squared, 1, axis=1)
        is_clear = nearest_two[:, 0] < CLEAR_DISTANCE_RATIO**2 * nearest_two[:, 1]
        count = np.bincount(squared.argmin(1), minlength=len(centers))
        n_clear = np.bincount(squared.argmin(1), weights=is_clear, minlength=len(centers))
        confirmed = (n_clear >= 2) & (n_clear >= 0.75 * count)
        min_confirmed_rows = (2 * MIN_CLEAR_FRACTION - 1) * len(is_clear)
        if confirmed.sum() < 2 or is_clear.mean() < MIN_CLEAR_FRACTION or count[confirmed].sum() < min_confirmed_rows:
            return None
        distance = ((centers[:, None] - centers[None, confirmed]) ** 2).sum(2)  # (K, S)
        return np.asarray(distance.argmin(1)[labels], dtype=np.int64)


def cut_tree(gap_test: GapTest) -> Array:
    """The cluster of each tree row, (G,) int64.

    Sets are joined up the Ward tree unless the held-out rows show a gap between them.
    """
    n_rows = len(gap_test.tree_rows)
    tree = linkage(gap_test.tree_rows, "ward")
    members: list[Array | None] = [np.array([i]) for i in range(n_rows)]  # None: more than one cluster below
    clusters: list[Array] = []
    for a, b, *_ in tree:
        left, right = members[int(a)], members[int(b)]
        union = None
        if left is not None and right is not None and not gap_test.is_separated(left, right):
            union = np.concatenate([left, right])
        members.append(union)
        if union is None:
            clusters += [part for part in (left, right) if part is not None]
    clusters = [np.arange(n_rows)] if members[-1] is not None else _merge_connected(gap_test, clusters)
    labels = np.zeros(n_rows, dtype=np.int64)
    for number, part in enumerate(clusters):
        labels[part] = number
    finest = _finest_validated_cut(gap_test, tree) if n_rows <= MAX_SPARSE_ROWS else labels
    return finest if finest.max() > labels.max() else labels


def _finest_validated_cut(gap_test: GapTest, tree: Array) -> Array:
    """The finest cut of the tree that leaves almost no held-out row between two clusters, (G,) int64.

    With few rows per cluster no single gap can be proven, but all of them together can: a held-out row is clear where
    its nearest center is less than half as far as the next.
    """
    n_rows = len(gap_test.tree_rows)
    best = np.zeros(n_rows, dtype=np.int64)
    for n_clusters in range(2, min(MAX_VALIDATED_CLUSTERS, n_rows // MIN_CLUSTER_ROWS) + 1):
        labels = gap_test.validate_labels(fcluster(tree, n_clusters, "maxclust").astype(np.int64) - 1)
        if labels is not None and labels.max() > best.max():
            best = labels
    return best


def _merge_connected(gap_test: GapTest, parts: list[Array]) -> list[Array]:
    """Merge connected parts, nearest pair first, until no two near parts are connected."""
    disconnected: set[frozenset[int]] = set()
    part_by_id = dict(enumerate(parts))
    next_id, pairs = len(parts), _near_pairs(gap_test.tree_rows, part_by_id)
    while pairs:
        pair = pairs.pop(0)
        i, j = sorted(pair)
        if pair in disconnected or not gap_test.is_connected(part_by_id[i], part_by_id[j]):
            disconnected.add(pair)
            continue
        part_by_id[next_id] = np.concatenate([part_by_id.pop(i), part_by_id.pop(j)])
        next_id += 1
        pairs = _near_pairs(gap_test.tree_rows, part_by_id)
    return list(part_by_id.values())


def _near_pairs(tree_rows: Array, part_by_id: dict[int, Array]) -> list[frozenset[int]]:
    """Each part paired with its nearest few, the nearest pair first; empty for a single part."""
    ids = list(part_by_id)
    centers = np.stack([tree_rows[part].mean(0) for part in part_by_id.values()])  # (K, P)
    distance = ((centers[:, None] - centers[None]) ** 2).sum(2)
    pairs = [
        (distance[i, j], i, int(j))
        for i in range(len(ids))
        for j in np.argsort(distance[i], kind="stable")[1 : N_NEIGHBORS + 1]
    ]
    return [frozenset((ids[i], ids[j])) for _, i, j in sorted(pairs)]
