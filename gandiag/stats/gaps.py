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

LEAST = 4  # a cluster holds that many rows of the tree, or it is joined untested
VALLEY = 0.5  # a gap: the density half-way is below this share of that at the ends …
DOUBT = 0.02  # … and a binomial test says so at this level
TUBE = 0.9  # the tube holds this share of the two sets' own rows
SHRINK = 0.1  # of the discriminant
FACING = 12  # rows at least in the part of a set that faces another
NEIGHBOURS = 4  # sets that each set is compared with once the tree is cut
CLEAR = 0.5  # a witness is clear of other clusters where its own centre is less than that many times as far as the next
AGREED = 0.95  # that share of the witnesses
MOST_CLEAN = 64  # clusters that are tried to be confirmed together
SPARSE = 400  # with more rows than that in the tree, gaps between pairs are proof enough

Array = NDArray[Any]


def nearest_rows(samples: Tensor, rows: Tensor, *, skip_self: bool = False, chunk: int = 1_024) -> tuple[Tensor, Tensor]:
    """Distance to the nearest row, (M,), and its index, (M,). `skip_self`: samples are the rows, and row i is not its own neighbour."""
    found = []
    for start in range(0, len(samples), chunk):
        part = torch.cdist(samples[start : start + chunk], rows)  # (m, N)
        if skip_self:
            part[torch.arange(len(part)), torch.arange(start, start + len(part))] = float("inf")
        found.append(part.min(1))
    return torch.cat([pair.values for pair in found]), torch.cat([pair.indices for pair in found])


class Halves:
    """The rows that grow the tree (G, P) and the rows that witness (W, P). `owner` (W,): the grown row next to each witness."""

    def __init__(self, grown: Array, witness: Array) -> None:
        self.grown, self.witness = grown, witness
        self.owner: Array = nearest_rows(torch.from_numpy(witness), torch.from_numpy(grown))[1].numpy()
        self._squared: Array = (witness**2).sum(1)  # (W,)

    def owned(self, part: Array) -> Array:
        """Which witnesses are next to a row of `part`: (W,) bool."""
        mask = np.zeros(len(self.grown), dtype=bool)
        mask[part] = True
        return mask[self.owner]

    def counts(self, left: Array, right: Array) -> tuple[int, int]:
        """Witnesses half-way between two sets of grown rows, and at the emptier end, in equal windows on the line between their means."""
        start = self.grown[left].mean(0)
        line = self.grown[right].mean(0) - start
        length = float(np.linalg.norm(line))
        first, last = self.owned(left), self.owned(right)
        if length == 0.0 or not first.any() or not last.any():
            return 0, 0
        line = line / length
        along = self.witness @ line - start @ line  # (W,)
        off = self._squared - 2 * (self.witness @ start) + start @ start - along**2  # (W,) squared distance from the line
        inside = off <= np.quantile(off[first | last], TUBE)
        along = self.witness @ self._direction(left, right, line)
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
        rows = np.concatenate([self.grown[part] - self.grown[part].mean(0) for part in (left, right)])
        scatter = rows.T @ rows / len(rows)  # (P, P)
        shrunk = scatter + np.eye(len(line)) * (SHRINK * np.trace(scatter) / len(line) + 1e-12)
        return np.asarray(np.linalg.solve(shrunk, line))

    def apart(self, left: Array, right: Array) -> bool:
        """Do the witnesses prove a gap between two sets?"""
        between, sides = self.counts(left, right) if min(len(left), len(right)) >= LEAST else (0, 0)
        return between < VALLEY * sides and float(binom.cdf(between, between + sides, 0.5)) < DOUBT

    def touching(self, left: Array, right: Array) -> bool:
        """Do witnesses fill the space between two sets, and that between the parts of them that face each other?"""
        distances = torch.cdist(torch.from_numpy(self.grown[left]), torch.from_numpy(self.grown[right])).numpy()  # (L, R)
        facing = max(FACING, min(len(left), len(right)) // 4)
        near_left = left[np.argsort(distances.min(1), kind="stable")[:facing]]
        near_right = right[np.argsort(distances.min(0), kind="stable")[:facing]]
        found = (self.counts(left, right), self.counts(near_left, near_right))
        return all(between > 0 and between >= VALLEY * sides for between, sides in found)

    def confirmed(self, labels: Array) -> Array | None:
        """The clusters (G,) among `labels` (G,) that witnesses confirm, the rows of others given to the nearest of them; None unless nearly all agree."""
        member = (labels[:, None] == np.arange(labels.max() + 1)).astype(np.float64)  # (G, K)
        centres = (member / member.sum(0)).T @ self.grown  # (K, P)
        squared = np.maximum(self._squared[:, None] - 2 * self.witness @ centres.T + (centres**2).sum(1), 0)  # (W, K)
        two = np.partition(squared, 1, axis=1)
        clear = two[:, 0] < CLEAR**2 * two[:, 1]
        count = np.bincount(squared.argmin(1), minlength=len(centres))
        plain = np.bincount(squared.argmin(1), weights=clear, minlength=len(centres))
        sure = (plain >= 2) & (plain >= 0.75 * count)
        if sure.sum() < 2 or clear.mean() < AGREED or count[sure].sum() < (2 * AGREED - 1) * len(clear):
            return None
        distance = ((centres[:, None] - centres[None, sure]) ** 2).sum(2)  # (K, S)
        return np.asarray(distance.argmin(1)[labels], dtype=np.int64)


def cut(halves: Halves) -> Array:
    """The cluster of each grown row, (G,) int64: sets are joined up the Ward tree unless the witness shows a gap between them."""
    count = len(halves.grown)
    tree = linkage(halves.grown, "ward")
    members: list[Array | None] = [np.array([i]) for i in range(count)]  # None: more than one cluster below
    final: list[Array] = []
    for a, b, *_ in tree:
        left, right = members[int(a)], members[int(b)]
        joined = None
        if left is not None and right is not None and not halves.apart(left, right):
            joined = np.concatenate([left, right])
        members.append(joined)
        if joined is None:
            final += [part for part in (left, right) if part is not None]
    final = [np.arange(count)] if members[-1] is not None else _joined(halves, final)
    mode = np.zeros(count, dtype=np.int64)
    for number, part in enumerate(final):
        mode[part] = number
    clean = _confirmed_cut(halves, tree) if count <= SPARSE else mode
    return clean if clean.max() > mode.max() else mode


def _confirmed_cut(halves: Halves, tree: Array) -> Array:
    """The finest cut of the tree that leaves almost no witness between two clusters, (G,) int64.

    Few rows a cluster cannot prove a single gap, all of them together can: a witness is clear where its nearest centre is
    less than half as far as the next.
    """
    best = np.zeros(len(halves.grown), dtype=np.int64)
    for count in range(2, min(MOST_CLEAN, len(halves.grown) // LEAST) + 1):
        labels = fcluster(tree, count, "maxclust").astype(np.int64) - 1
        found = halves.confirmed(labels)
        best = best if found is None or found.max() <= best.max() else found
    return best


def _joined(halves: Halves, parts: list[Array]) -> list[Array]:
    """Parts joined, nearest first, until no two that are near each other touch."""
    denied: set[frozenset[int]] = set()
    numbered = dict(enumerate(parts))
    fresh, pairs = len(parts), _near_pairs(halves.grown, dict(enumerate(parts)))
    while pairs:
        pair = pairs.pop(0)
        i, j = sorted(pair)
        if pair in denied or not halves.touching(numbered[i], numbered[j]):
            denied.add(pair)
            continue
        numbered[fresh] = np.concatenate([numbered.pop(i), numbered.pop(j)])
        fresh += 1
        pairs = _near_pairs(halves.grown, numbered)
    return list(numbered.values())


def _near_pairs(grown: Array, parts: dict[int, Array]) -> list[frozenset[int]]:
    """Each part with its nearest few, the nearest pair first; none if there is one part only."""
    names = list(parts)
    centres = np.stack([grown[part].mean(0) for part in parts.values()])  # (K, P)
    distance = ((centres[:, None] - centres[None]) ** 2).sum(2)
    pairs = [(distance[i, j], i, int(j)) for i in range(len(names)) for j in np.argsort(distance[i], kind="stable")[1 : NEIGHBOURS + 1]]
    return [frozenset((names[i], names[j])) for _, i, j in sorted(pairs)]
