"""Distances within and between groups of samples: U-statistics, and how much they vary at a given group size.

A group is what shares one condition: a prompt, a class, a source image. The mean over the pairs of a group's n samples
is a U-statistic. Its variance is [4 (n - 2) zeta_1 + 2 zeta_2] / (n (n - 1)) (Hoeffding 1948), with
zeta_1 the covariance of two distances that share a sample and zeta_2 the variance of one. Both are estimated relative
to the mean and pooled over groups: one group of four cannot tell its own variance.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MAX_GROUP_ROWS = 400  # rows of a group whose distances are computed; an even selection of larger groups
MIN_ROWS_FOR_VARIANCE = 4  # two pairs without a common sample need four
MIN_ROWS_FOR_JACKKNIFE = 5

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PairVariance:
    """Variance of one distance (`single`, zeta_2) and covariance of two that share a sample (`shared`, zeta_1).

    Both relative to the squared mean distance, pooled over groups.
    """

    single: float
    shared: float

    def of_mean(self, n: int) -> float:
        """Relative variance of the mean over the pairs of n samples."""
        if n < 2:
            return math.inf
        return max(0.0, (4 * (n - 2) * self.shared + 2 * self.single) / (n * (n - 1)))


@dataclass(frozen=True, slots=True)
class GroupDistances:
    """Statistics of G groups, in the order of `names`.

    `n`: samples of each group; `mean`: mean distance within it (0 for a group of one); `own_variance`: relative
    variance of that mean by the jackknife over the group's samples, NaN below 5 of them; `closest`: its smallest
    distance; `squared_width`: mean squared distance within; `quantiles` (G, 5): least, quartiles and
    greatest of the distances; `centers` (G, D): group means; `pairs`: pooled variances,
    None where no group has 4 samples.
    """

    names: tuple[Hashable, ...]
    n: NDArray[np.int64]
    mean: Floats
    own_variance: Floats
    closest: Floats
    squared_width: Floats
    quantiles: Floats
    centers: Tensor
    pairs: PairVariance | None

    def relative_variance(self, index: int, pairs: PairVariance) -> float:
        """Variance of the log of a group's mean distance: the pooled one, or the group's own where that is larger."""
        own = float(self.own_variance[index])
        pooled = pairs.of_mean(int(self.n[index]))
        return max(pooled, own) if own == own else pooled

    def select(self, names: Sequence[Hashable]) -> GroupDistances:
        """The groups called `names`, in that order."""
        position = {name: index for index, name in enumerate(self.names)}
        chosen = np.array([position[name] for name in names], dtype=np.int64)
        rows = (self.mean, self.own_variance, self.closest, self.squared_width)
        mean, own, closest, squared = (row[chosen] for row in rows)
        quantiles, centers = self.quantiles[chosen], self.centers[chosen]
        return GroupDistances(tuple(names), self.n[chosen], mean, own, closest, squared, quantiles, centers, self.pairs)


def measure_groups(features: Tensor, groups: Sequence[Hashable]) -> GroupDistances:
    """Statistics of every group of rows, in order of first appearance.

    `features` (N, D), `groups`: one name per row. Cost: sum of n_g² D, and N D for the centers.
    """
    rows_of: dict[Hashable, list[int]] = {}
    for row, name in enumerate(groups):
        rows_of.setdefault(name, []).append(row)
    center = features.mean(0, dtype=torch.float64)
    statistics, quantiles, centers, moments = [], [], [], []
    for rows in rows_of.values():
        values = features[_select_rows(rows)].double() - center  # (n, D)
        centers.append(features[rows].mean(0, dtype=torch.float64) - center)
        distances = torch.cdist(values, values, compute_mode="donot_use_mm_for_euclid_dist").numpy()  # (n, n)
        statistics.append((len(rows), *_summarize_distances(distances)))
        quantiles.append(_five_numbers(distances))
        if len(values) >= MIN_ROWS_FOR_VARIANCE and distances.sum() > 0:
            moments.append(_pair_moments(distances))
    columns = list(zip(*statistics, strict=True))
    n = np.array(columns[0], dtype=np.int64)
    mean, own, closest, squared = (np.array(column, dtype=np.float64) for column in columns[1:])
    spread, middles = np.array(quantiles), torch.stack(centers)
    return GroupDistances(tuple(rows_of), n, mean, own, closest, squared, spread, middles, _pool_moments(moments))


def _select_rows(rows: list[int]) -> list[int]:
    if len(rows) <= MAX_GROUP_ROWS:
        return rows
    return [rows[index * len(rows) // MAX_GROUP_ROWS] for index in range(MAX_GROUP_ROWS)]


def _summarize_distances(distances: Floats) -> tuple[float, float, float, float]:
    """(mean distance, jackknife variance of its log, smallest distance, mean squared distance) of a group."""
    n = len(distances)
    if n < 2:
        return 0.0, math.nan, math.nan, 0.0
    pairs = n * (n - 1)
    closest = float(distances[~np.eye(n, dtype=bool)].min())
    mean = float(distances.sum()) / pairs
    squared = float(np.square(distances).sum()) / pairs
    return mean, _jackknife_log_variance(distances), closest, squared


def _five_numbers(distances: Floats) -> Floats:
    """Least, quartiles and greatest of a group's distances, (5,); zeros for a group of one."""
    if len(distances) < 2:
        return np.zeros(5)
    numbers: Floats = np.quantile(distances[np.triu_indices(len(distances), 1)], [0, 0.25, 0.5, 0.75, 1])
    return numbers


def _jackknife_log_variance(distances: Floats) -> float:
    """Jackknife variance of the log of the mean distance, leaving out one sample at a time; NaN where undefined."""
    n, total = len(distances), float(distances.sum())
    if n < MIN_ROWS_FOR_JACKKNIFE:
        return math.nan
    without = (total - 2 * distances.sum(1)) / ((n - 1) * (n - 2))  # (n,)
    if not without.min() > 1e-9 * total:
        return math.nan
    logs = np.log(without)
    return float((n - 1) / n * np.square(logs - logs.mean()).sum())


def _pair_moments(distances: Floats) -> tuple[float, float, float]:
    """Mean products of two distances of a group: of a pair with itself, with one sample in common, with none.

    Relative to the squared mean distance.
    """
    n = len(distances)
    total, squares = float(distances.sum()), float(np.square(distances).sum())
    sharing = float(np.square(distances.sum(1)).sum()) - squares
    disjoint = total**2 - 2 * squares - 4 * sharing
    scale = (total / (n * (n - 1))) ** 2
    counts = n * (n - 1), n * (n - 1) * (n - 2), n * (n - 1) * (n - 2) * (n - 3)
    same, shared, apart = (
        part / count / scale for part, count in zip((squares, sharing, disjoint), counts, strict=True)
    )
    return same, shared, apart


def _pool_moments(moments: list[tuple[float, float, float]]) -> PairVariance | None:
    if not moments:
        return None
    same, shared, apart = np.array(moments).mean(0)
    single = max(0.0, float(same - apart) / float(apart))
    return PairVariance(single, min(max(0.0, float(shared - apart) / float(apart)), single / 2))


@dataclass(frozen=True, slots=True)
class GroupMoments:
    """Samples `n` (G,), mean squared distance within `squared_width` (G,) and `centers` (G, D) of each group."""

    n: NDArray[np.int64]
    squared_width: Floats
    centers: Tensor


def measure_moments(features: Tensor, labels: NDArray[np.int64]) -> GroupMoments:
    """Second moments of groups 0 … G-1 alone, from sums: the cost is that of reading the features once."""
    index = torch.from_numpy(labels)
    n = torch.bincount(index)
    values = features.double() - features.mean(0, dtype=torch.float64)
    centers = torch.zeros(len(n), values.shape[1], dtype=torch.float64).index_add_(0, index, values) / n[:, None]
    residual = (values - centers[index]).square().sum(1)  # (N,)
    squared = torch.zeros(len(n), dtype=torch.float64).index_add_(0, index, residual) * 2 / (n - 1).clamp(min=1)
    return GroupMoments(n.numpy(), squared.numpy(), centers)


def squared_center_distances(groups: GroupDistances | GroupMoments) -> Floats:
    """Squared distances between the true centers of the groups, unbiased, (G, G) float64; may be slightly negative.

    The squared distance of two sample means exceeds that of the true ones by each group's variance over its n.
    """
    squared = torch.cdist(groups.centers, groups.centers).square().numpy()
    noise = groups.squared_width / 2 / np.maximum(groups.n, 1)  # (G,) trace of the covariance over n
    unbiased: Floats = squared - noise[:, None] - noise[None, :]
    np.fill_diagonal(unbiased, 0.0)
    return unbiased
