"""Groups of outputs that are the same, and the numbers that follow from them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MIN_OWN_TEST = 5  # groups of this size are tested for isolation one by one, smaller ones together
MAX_AROUND = 1.5  # neighbors in a ball three times as wide, per neighbor inside: 1 for a clump, at least 3 on a curve


@dataclass(frozen=True, slots=True)
class RepeatGroups:
    """Which of `n` outputs are the same. `labels` (n,) int64: those of one number are one output.

    `difference`: how outputs of one group differ, in words; "" where they are equal. `reason`: why the groups may be a
    property of the data, which only real data can decide; "" where they are repeats for sure.
    """

    labels: Tensor
    difference: str = ""
    reason: str = ""

    @property
    def distinct(self) -> int:
        """The number of different outputs."""
        return count_groups(self.labels)

    @property
    def largest(self) -> float:
        """The share of the largest group."""
        return float(torch.bincount(self.labels).max()) / len(self.labels)

    @property
    def repeated(self) -> float:
        """The share of outputs that repeat another one: 1 - distinct / n, corrected so that all equal gives 1."""
        n = len(self.labels)
        return (n - self.distinct) / max(1, n - 1)


def group_isolated(is_near: Tensor, is_around: Tensor) -> Tensor:
    """Group rows into isolated clumps: labels (n,) int64.

    `is_near`, `is_around`: (n, n) bool, pairs within a radius and within three times that radius, true on the diagonal.
    A clump is a ball around one row with next to nothing around it. Rows on a curve or surface that passes near them
    have at least three times as many neighbors in the wider ball, and are not grouped.
    """
    groups = _cover_greedily(is_near)
    labels = torch.arange(len(is_near))
    small = []
    for members in groups:
        if len(members) < MIN_OWN_TEST:
            small.append(members)
        elif _is_isolated([members], is_near, is_around):
            labels[members] = int(members[0])
    if small and _is_isolated(small, is_near, is_around):
        for members in small:
            labels[members] = int(members[0])
    return renumber(labels)


def renumber(labels: Tensor) -> Tensor:
    """The same groups, numbered 0 ... k - 1, (n,) int64."""
    numbers: Tensor = torch.unique(labels, return_inverse=True)[1]
    return numbers


def count_groups(labels: Tensor) -> int:
    """The number of different labels."""
    return int(renumber(labels).max()) + 1


def _cover_greedily(is_near: Tensor) -> list[Tensor]:
    """Balls that cover all rows with a neighbor, those with most rows first."""
    near = is_near.float()
    counts = near.sum(1)
    is_free = torch.ones(len(near), dtype=torch.bool)
    groups: list[Tensor] = []
    while True:
        leader = int(torch.where(is_free, counts, 0.0).argmax())
        members = torch.nonzero(is_near[leader] & is_free).flatten()
        if len(members) < 2 or not bool(is_free[leader]):
            return groups
        groups.append(members)
        is_free[members] = False
        counts -= near[:, members].sum(1)


def _is_isolated(groups: list[Tensor], is_near: Tensor, is_around: Tensor) -> bool:
    members = torch.cat(groups)
    near = int(is_near[members].sum()) - len(members)
    around = int(is_around[members].sum()) - len(members)
    return around <= MAX_AROUND * near


def merge_labels(inner: Tensor, outer: Tensor) -> Tensor:
    """Labels of rows (n,) from those of equal rows, `inner` (n,), and of one row for each of these, `outer` (k,)."""
    return outer[inner]


def first_rows(labels: Tensor) -> Tensor:
    """The position of the first row of each label 0 ... k - 1, (k,) int64."""
    order = torch.argsort(labels, stable=True)
    sizes = torch.bincount(labels)
    return order[torch.cat([sizes.new_zeros(1), sizes.cumsum(0)[:-1]])]
