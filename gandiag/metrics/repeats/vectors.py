"""Vectors that lie near one point, or near a few.

How near is near depends on the origin and the unit of each column, which a table chooses freely: years lie within
half a percent of 2010. Decided: vectors count as one output
  - where their differences are small against how the columns of their common point differ among each other, and have
    no structure: a pattern under noise. That does not depend on a common origin;
  - where they are the output of a network and their differences are small against its values, in almost all columns:
    a network's output has zero as its natural origin, as its bias alone gives the common point;
  - otherwise only up to rounding. Sets near one point of which neither is known are undecided without real data.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gandiag.metrics.repeats.groups import RepeatGroups, count_groups, group_isolated
from gandiag.stats.distances import distance_matrix

ROUNDING = 2.0**-18  # of the rows' length: what two float32 evaluations of one network differ by
MIN_COLUMNS = 8  # with fewer columns, noise and tight honest clusters look alike
MIN_COLUMNS_SEVERAL = 16  # the same for several clusters
SAME_PATTERN = 0.05  # noise, relative to the spread among the columns of the common point
SAME_VALUES = 0.01  # spread of a network's output, relative to its values
SAME_MOST_VALUES = 0.03  # the same, median over columns
MIN_WHITENESS = 0.5  # effective rank of the residuals, relative to that of white noise
MAX_UNIT_RATIO = 10.0  # of the columns' spreads: beyond, they have units of their own
MAX_RESIDUAL_ROWS = 500


def group_near_vectors(samples: Tensor, *, is_network: bool) -> RepeatGroups:
    """Group vectors (n, *shape) that are one output apart from rounding, noise, or a vanishing response."""
    rows = samples.flatten(1)
    if len(rows) < 2:
        return RepeatGroups(torch.arange(len(rows)))
    spread, is_near_point = _measure_spread(rows)
    if is_near_point and is_network and rows.shape[1] > 1:
        return RepeatGroups(torch.zeros(len(rows), dtype=torch.int64), f"differences of {spread:.2g} of their size")
    distances = distance_matrix(rows)
    if rows.shape[1] >= MIN_COLUMNS:
        labels = _group_patterns(rows, distances)
        n_groups = count_groups(labels)
        if n_groups == 1 or (n_groups < len(rows) and rows.shape[1] >= MIN_COLUMNS_SEVERAL):
            noise = _standard_deviations(rows, labels).square().mean().sqrt()
            return RepeatGroups(labels, f"noise of standard deviation {float(noise):.2g}")
    if is_near_point:
        reason = f"all outputs lie within {spread:.2g} of their size of one point"
        return RepeatGroups(torch.zeros(len(rows), dtype=torch.int64), reason=reason)
    lengths = rows.norm(dim=1)
    radius = ROUNDING * torch.minimum(lengths[:, None], lengths[None])
    return RepeatGroups(group_isolated(_within(distances, radius), _within(distances, 3 * radius)))


def _measure_spread(rows: Tensor) -> tuple[float, bool]:
    """Spread of the rows relative to their size, and whether it is negligible overall and in most columns."""
    deviations, sizes = rows.double().std(0), rows.double().square().mean(0).sqrt()
    spread = float(deviations.square().mean().sqrt() / sizes.square().mean().sqrt().clamp_min(1e-300))
    relative = deviations[sizes > 0] / sizes[sizes > 0]
    is_small = spread < SAME_VALUES and len(relative) > 0 and float(relative.median()) < SAME_MOST_VALUES
    return spread, is_small and spread > 0


def _group_patterns(rows: Tensor, distances: Tensor) -> Tensor:
    """Labels of outputs that are one pattern over the columns, under noise without structure."""
    energy = rows.var(1, unbiased=False)  # (n,)
    difference = distances.square() / (2 * rows.shape[1])
    contrast = ((energy[:, None] + energy[None]) / 2 - difference).clamp_min(0).sqrt()
    noise = difference.sqrt()
    is_near, is_around = noise <= SAME_PATTERN * contrast, noise <= 3 * SAME_PATTERN * contrast
    labels = group_isolated(is_near.fill_diagonal_(True), is_around.fill_diagonal_(True))
    return labels if _is_noise(rows, labels) else torch.arange(len(rows))


def _is_noise(rows: Tensor, labels: Tensor) -> bool:
    """Whether the residuals about the groups' means are small in most columns, of one unit, and without structure."""
    sizes = torch.bincount(labels)
    if int(sizes.max()) < 2:
        return False
    means = _group_means(rows, labels)
    deviations = _standard_deviations(rows, labels)
    centers = means[sizes > 1]
    pattern = (centers - centers.median(1, keepdim=True).values).abs().median(1).values.median() * 1.4826
    if float(deviations.median()) > SAME_PATTERN * float(pattern):
        return False
    varying = deviations > 0
    sizes_of_values = centers.square().mean(0).sqrt()[varying].clamp_min(1e-30)
    ratios = [_unit_ratio(deviations[varying]), _unit_ratio(deviations[varying] / sizes_of_values)]
    if min(ratios) > MAX_UNIT_RATIO:
        return False
    residuals = (rows - means[labels])[(sizes > 1)[labels]][:MAX_RESIDUAL_ROWS, varying] / deviations[varying]
    return measure_whiteness(residuals) >= MIN_WHITENESS


def measure_whiteness(residuals: Tensor) -> float:
    """Effective rank of rows (m, D), (tr C)² / tr C², over its expectation for white noise, m D / (m + D)."""
    count, width = residuals.shape
    if count < 2 or width == 0:
        return 0.0
    gram = residuals.double() @ residuals.double().T if count < width else residuals.double().T @ residuals.double()
    rank = float(gram.trace().square() / gram.square().sum().clamp_min(1e-300))
    return rank * (count + width) / (count * width)


def _unit_ratio(deviations: Tensor) -> float:
    """The 90 % over the 10 % quantile."""
    low, high = torch.quantile(deviations.double(), torch.tensor([0.1, 0.9], dtype=torch.float64)).tolist()
    return float(high / max(low, 1e-300))


def _group_means(rows: Tensor, labels: Tensor) -> Tensor:
    sums = torch.zeros(int(labels.max()) + 1, rows.shape[1], dtype=rows.dtype).index_add_(0, labels, rows)
    return sums / torch.bincount(labels)[:, None]


def _standard_deviations(rows: Tensor, labels: Tensor) -> Tensor:
    """Standard deviation of each column within groups, (D,)."""
    residuals = rows - _group_means(rows, labels)[labels]
    degrees = max(1, len(rows) - int(labels.max()) - 1)
    return (residuals.double().square().sum(0) / degrees).sqrt()


def _within(distances: Tensor, radius: Tensor) -> Tensor:
    return (distances <= radius).fill_diagonal_(True)
