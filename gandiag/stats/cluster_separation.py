"""Gaps between clusters: a Ward tree over one half of the rows, cut where the other half, the witnesses, shows a valley.

A gap is a valley of the witnesses' density along the discriminant between two sets, counted inside the tube that the two
sets fill, whoever owns the rows in it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.stats import binom
from torch import Tensor

MIN_CLUSTER_ROWS = 4  # a cluster holds that many rows of the tree, or it is joined untested
GAP_DENSITY_RATIO = 0.5  # a gap: the density half-way is below this share of that at the ends …
GAP_ALPHA = 0.02  # … and a binomial test says so at this level
TUBE_QUANTILE = 0.9  # the tube holds this share of the two sets' own rows
SHRINKAGE = 0.1  # of the discriminant
MIN_BOUNDARY_ROWS = 12  # rows at least in the part of a set that faces another
N_NEIGHBORS = 4  # sets that each set is compared with once the tree is cut
CLEAR_DISTANCE_RATIO = (
    0.5  # a witness is clear of other clusters where its own centre is less than that many times as far as the next
)
MIN_CLEAR_FRACTION = 0.95  # that share of the witnesses
MAX_VALIDATED_CLUSTERS = 64  # clusters that are tried to be confirmed together
MAX_SPARSE_ROWS = 400  # with more rows than that in the tree, gaps between pairs are proof enough

Array = NDArray[Any]


def nearest_rows(
    samples: Tensor, rows: Tensor, *, skip_self: bool = False, chunk_size: int = 1_024
) -> tuple[Tensor, Tensor]:
    """Distance to the nearest row, (M,), and its index, (M,). `skip_self`: samples are the rows, and row i is not its own neighbour."""
    found = []
    for start in range(0, len(samples), chunk_size):
        part = torch.cdist(samples[start : start + chunk_size], rows)  # (m, N)
        if skip_self:
            part[torch.arange(len(part)), torch.arange(start, start + len(part))] = float("inf")
        found.append(part.min(1))
    return torch.cat([pair.values for pair in found]), torch.cat([pair.indices for pair in found])


class GapTest:
    """The rows that grow the tree (G, P) and the rows that witness (W, P). `owner` (W,): the grown row next to each witness."""

    def __init__(self, tree_rows: Array, heldout_rows: Array) -> None:
        self.tree_rows, self.heldout_rows = tree_rows, heldout_rows
        self.nearest_tree_row: Array = nearest_rows(torch.from_numpy(heldout_rows), torch.from_numpy(tree_rows))[
            1
        ].numpy()
        self._squared: Array = (heldout_rows**2).sum(1)  # (W,)

    def nearest_is_in(self, part: Array) -> Array:
        """Which witnesses are next to a row of `part`: (W,) bool."""
        mask = np.zeros(len(self.tree_rows), dtype=bool)
        mask[part] = True
        return mask[self.nearest_tree_row]

    def count_gap_rows(self, left: Array, right: Array) -> tuple[int, int]:
        """Witnesses half-way between two sets of grown rows, and at the emptier end, in equal windows on the line between their means."""
        start = self.tree_rows[left].mean(0)
        line = self.tree_rows[right].mean(0) - start
        length = float(np.linalg.norm(line))
        first, last = self.nearest_is_in(left), self.nearest_is_in(right)
        if length == 0.0 or not first.any() or not last.any():
            return 0, 0
        line = line / length
        along = self.heldout_rows @ line - start @ line  # (W,)
        off = (
            self._squared - 2 * (self.heldout_rows @ start) + start @ start - along**2
        )  # (W,) squared distance from the line
        inside = off <= np.quantile(off[first | last], TUBE_QUANTILE)
        along = self.heldout_rows @ self._direction(left, right, line)
        low, high = float(np.median(along[first])), float(np.median(along[last]))
        tube = along[inside]
        reach = (high - low) / 6
        if reach <= 0:
            return 1, 0
        between, start_side, end_side = (int((np.abs(tube - at) < reach).sum()) for at in ((low + high) / 2, low, high))
        return between, min(start_side, end_side)

    def _direction(self, left: Array, right: Array, line: Array) -> Array:
        """Fisher's discriminant between two sets of grown rows (P,), shrunk towards the line between their means; that line where rows are few."""
        if len(left) + len(right) < 2 * len(line):
            return line
        rows = np.concatenate([self.tree_rows[part] - self.tree_rows[part].mean(0) for part in (left, right)])
        scatter = rows.T @ rows / len(rows)  # (P, P)
        shrunk = scatter + np.eye(len(line)) * (SHRINKAGE * np.trace(scatter) / len(line) + 1e-12)
        return np.asarray(np.linalg.solve(shrunk, line))

    def is_separated(self, left: Array, right: Array) -> bool:
        """Do the witnesses prove a gap between two sets?"""
        between, sides = self.count_gap_rows(left, right) if min(len(left), len(right)) >= MIN_CLUSTER_ROWS else (0, 0)
        return between < GAP_DENSITY_RATIO * sides and float(binom.cdf(between, between + sides, 0.5)) < GAP_ALPHA

    def is_connected(self, left: Array, right: Array) -> bool:
        """Do witnesses fill the space between two sets, and that between the parts of them that face each other?"""
        distances = torch.cdist(
            torch.from_numpy(self.tree_rows[left]), torch.from_numpy(self.tree_rows[right])
        ).numpy()  # (L, R)
        facing = max(MIN_BOUNDARY_ROWS, min(len(left), len(right)) // 4)
        near_left = left[np.argsort(distances.min(1), kind="stable")[:facing]]
        near_right = right[np.argsort(distances.min(0), kind="stable")[:facing]]
        found = (self.count_gap_rows(left, right), self.count_gap_rows(near_left, near_right))
        return all(between > 0 and between >= GAP_DENSITY_RATIO * sides for between, sides in found)

    def validate_labels(self, labels: Array) -> Array | None:
        """The clusters (G,) among `labels` (G,) that witnesses confirm, the rows of others given to the nearest of them; None unless nearly all agree."""
        member = (labels[:, None] == np.arange(labels.max() + 1)).astype(np.float64)  # (G, K)
        centres = (member / member.sum(0)).T @ self.tree_rows  # (K, P)
        squared = np.maximum(
            self._squared[:, None] - 2 * self.heldout_rows @ centres.T + (centres**2).sum(1), 0
        )  # (W, K)
        two = np.partition(squared, 1, axis=1)
        clear = two[:, 0] < CLEAR_DISTANCE_RATIO**2 * two[:, 1]
        count = np.bincount(squared.argmin(1), minlength=len(centres))
        plain = np.bincount(squared.argmin(1), weights=clear, minlength=len(centres))
        sure = (plain >= 2) & (plain >= 0.75 * count)
        if (
            sure.sum() < 2
            or clear.mean() < MIN_CLEAR_FRACTION
            or count[sure].sum() < (2 * MIN_CLEAR_FRACTION - 1) * len(clear)
        ):
            return None
        distance = ((centres[:, None] - centres[None, sure]) ** 2).sum(2)  # (K, S)
        return np.asarray(distance.argmin(1)[labels], dtype=np.int64)


def cut_tree(gap_test: GapTest) -> Array:
    """The cluster of each grown row, (G,) int64: sets are joined up the Ward tree unless the witness shows a gap between them."""
    count = len(gap_test.tree_rows)
    tree = linkage(gap_test.tree_rows, "ward")
    members: list[Array | None] = [np.array([i]) for i in range(count)]  # None: more than one cluster below
    final: list[Array] = []
    for a, b, *_ in tree:
        left, right = members[int(a)], members[int(b)]
        joined = None
        if left is not None and right is not None and not gap_test.is_separated(left, right):
            joined = np.concatenate([left, right])
        members.append(joined)
        if joined is None:
            final += [part for part in (left, right) if part is not None]
    final = [np.arange(count)] if members[-1] is not None else _joined(gap_test, final)
    mode = np.zeros(count, dtype=np.int64)
    for number, part in enumerate(final):
        mode[part] = number
    clean = _confirmed_cut(gap_test, tree) if count <= MAX_SPARSE_ROWS else mode
    return clean if clean.max() > mode.max() else mode


def _confirmed_cut(halves: GapTest, tree: Array) -> Array:
    """The finest cut of the tree that leaves almost no witness between two clusters, (G,) int64.

    Few rows a cluster cannot prove a single gap, all of them together can: a witness is clear where its nearest centre is
    less than half as far as the next.
    """
    best = np.zeros(len(halves.tree_rows), dtype=np.int64)
    for count in range(2, min(MAX_VALIDATED_CLUSTERS, len(halves.tree_rows) // MIN_CLUSTER_ROWS) + 1):
        labels = fcluster(tree, count, "maxclust").astype(np.int64) - 1
        found = halves.validate_labels(labels)
        best = best if found is None or found.max() <= best.max() else found
    return best


def _joined(halves: GapTest, parts: list[Array]) -> list[Array]:
    """Parts joined, nearest first, until no two that are near each other touch."""
    denied: set[frozenset[int]] = set()
    numbered = dict(enumerate(parts))
    fresh, pairs = len(parts), _near_pairs(halves.tree_rows, dict(enumerate(parts)))
    while pairs:
        pair = pairs.pop(0)
        i, j = sorted(pair)
        if pair in denied or not halves.is_connected(numbered[i], numbered[j]):
            denied.add(pair)
            continue
        numbered[fresh] = np.concatenate([numbered.pop(i), numbered.pop(j)])
        fresh += 1
        pairs = _near_pairs(halves.tree_rows, numbered)
    return list(numbered.values())


def _near_pairs(grown: Array, parts: dict[int, Array]) -> list[frozenset[int]]:
    """Each part with its nearest few, the nearest pair first; none if there is one part only."""
    names = list(parts)
    centres = np.stack([grown[part].mean(0) for part in parts.values()])  # (K, P)
    distance = ((centres[:, None] - centres[None]) ** 2).sum(2)
    pairs = [
        (distance[i, j], i, int(j))
        for i in range(len(names))
        for j in np.argsort(distance[i], kind="stable")[1 : N_NEIGHBORS + 1]
    ]
    return [frozenset((names[i], names[j])) for _, i, j in sorted(pairs)]
