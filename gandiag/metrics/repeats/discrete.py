"""Equal outputs: repeats of a generator, or outcomes that honestly repeat.

A die, a category, a count or a column with many zeros repeats in the data too. Equal rows are repeats for sure where
the values are not on a grid, or where one row fixes far more columns than its own entropy could: a pool of few rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gandiag.metrics.repeats.groups import RepeatGroups
from gandiag.stats.exact_rows import label_equal_rows

# Sum of the columns' entropies over that of the rows: about 1 for independent columns, at most 2 for one-hot columns.
MAX_REDUNDANCY = 8.0
MIN_SURE_COLUMNS = 8  # with fewer columns, a value that repeats may be a property of the data
MAX_TESTED_COLUMNS = 256
GRID_TOLERANCE = 0.02
MAX_DOMINANT = 0.95  # share of one outcome above which discrete data may well be a collapsed category
MIN_VERTEX = 0.999  # of a probability: a saturated softmax
MAX_POOL = 0.1  # different binary images per image, up to which they are a pool for sure
MASK_BACKGROUND = 0.9  # share of one value in the other images from which an empty image may be an honest empty mask


def group_equal_vectors(rows: Tensor) -> RepeatGroups:
    """Equal rows of vectors (n, D)."""
    labels = label_equal_rows(rows)
    distinct = int(labels.max()) + 1
    if distinct in (1, len(rows)):
        return RepeatGroups(labels)
    varying = rows[:, (rows != rows[:1]).any(0)]
    columns = varying[:, :: -(-varying.shape[1] // MAX_TESTED_COLUMNS)]
    if rows.shape[1] == 1:
        return RepeatGroups(labels, reason=_explain_discrete(labels, "values"))
    if all(_is_on_grid(column) for column in columns.T):
        factor = varying.shape[1] / columns.shape[1]
        if factor * sum(_entropy(column) for column in columns.T) > MAX_REDUNDANCY * _entropy(labels):
            return RepeatGroups(labels)
        return RepeatGroups(labels, reason=_explain_discrete(labels, "rows of discrete values"))
    if _repeats_are_vertices(rows, labels):
        return RepeatGroups(labels, reason=_explain_discrete(labels, "saturated probabilities"))
    if rows.shape[1] < MIN_SURE_COLUMNS and _repeats_are_round(rows, labels):
        return RepeatGroups(labels, reason=_explain_discrete(labels, "rows of round values"))
    return RepeatGroups(labels)


def group_equal_images(rows: Tensor) -> RepeatGroups:
    """Equal images, flat (n, D).

    Among binary or mostly empty images, empty ones may be honest, and so may others that repeat rarely: a small object
    has few places.
    """
    labels = label_equal_rows(rows)
    distinct = int(labels.max()) + 1
    if distinct in (1, len(rows)):
        return RepeatGroups(labels)
    if distinct > MAX_POOL * len(rows) and bool(((rows == rows.min()) | (rows == rows.max())).all()):
        return RepeatGroups(labels, reason=_explain_discrete(labels, "binary images"))
    members = labels == torch.bincount(labels).argmax()
    blank = rows[members][0]
    is_pool = distinct - 1 <= MAX_POOL * int((~members).sum())
    if (
        is_pool
        or bool((blank != blank[0]).any())
        or float((rows[~members] == blank[0]).float().mean()) < MASK_BACKGROUND
    ):
        return RepeatGroups(labels)
    share = float(members.float().mean())
    reason = f"{share:.0%} of the outputs are one empty image among mostly empty ones, as masks honestly may be"
    return RepeatGroups(labels, reason=reason)


def is_explained(groups: RepeatGroups) -> bool:
    """Whether honest discrete outcomes with no dominant one explain the repeats of vectors."""
    return bool(groups.reason) and groups.largest < MAX_DOMINANT


def _explain_discrete(labels: Tensor, noun: str) -> str:
    share = float(torch.bincount(labels).max()) / len(labels)
    return f"{int(labels.max()) + 1} different {noun} occur, the most frequent in {share:.0%} of the outputs"


def _is_on_grid(column: Tensor) -> bool:
    """Whether the values (n,) are few multiples of one step from the lowest: categories, counts, rounded numbers."""
    values = torch.unique(column.double())
    if len(values) < 3:
        return True
    if len(values) > len(column) // 2:
        return False
    steps = values.diff()
    ratio = steps / steps.min()
    return bool(((ratio - ratio.round()).abs() < GRID_TOLERANCE).all())


def _repeats_are_round(rows: Tensor, labels: Tensor) -> bool:
    repeated = rows[(torch.bincount(labels) > 1)[labels]].double()
    return bool((repeated * 100 - (repeated * 100).round()).abs().max() < 1e-3)


def _repeats_are_vertices(rows: Tensor, labels: Tensor) -> bool:
    """Whether the rows (n, D) are probabilities, and those that repeat all of one category."""
    if bool((rows < 0).any()) or bool(((rows.sum(1) - 1).abs() > 1e-3).any()):
        return False
    return bool((rows[(torch.bincount(labels) > 1)[labels]].amax(1) > MIN_VERTEX).all())


def _entropy(values: Tensor) -> float:
    """The entropy of the empirical distribution of values (n,), in nats."""
    shares = torch.unique(values, return_counts=True)[1].double() / len(values)
    return float(-(shares * shares.log()).sum())
