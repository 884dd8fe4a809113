"""Bounds the influence of single rows: on the balls that reach generated rows, and on the edge of the manifold.

The ball of one far row would reach across the data and let anything pass. The 99 % quantile of a few hundred distances
rests on a handful of them, so that one row more moves it, and in many dimensions everything lies near the edge.
"""

from __future__ import annotations

import torch
from torch import Tensor

MAX_LOCAL_RATIO = 1.5  # times the median radius among a row's own neighbors
TYPICAL_QUANTILE = 0.9  # radii up to that of so many rows are never capped

EDGE_LEVELS = torch.linspace(0.8, 0.98, 19)  # of the held-out rows: the edge of the manifold is extrapolated from these


def cap_radii(radius: Tensor, neighbor_indices: Tensor, subset: Tensor) -> Tensor:
    """Radii (n,) of the rows `subset` (n,) no larger than the balls around them allow, (n,).

    `neighbor_indices` (N, K): the nearest rows of each row. A region that is sparse as a whole keeps its large balls; a
    row whose ball is much larger than those of its neighbors lies outside of the data, and gets a ball of their size.
    """
    radius_of = torch.full((len(neighbor_indices),), torch.nan, dtype=radius.dtype, device=radius.device)
    radius_of[subset] = radius
    local = radius_of[neighbor_indices[subset]].nanmedian(1).values  # (n,)
    cap = torch.maximum(MAX_LOCAL_RATIO * local.nan_to_num(0.0), radius.quantile(TYPICAL_QUANTILE))
    return torch.where(cap > 0, torch.minimum(radius, cap), radius)


def find_manifold_edge(reach: Tensor, quantile: float) -> Tensor:
    """The quantile (at least .98) of how far held-out rows lie, (n,), from a line through the rows below it.

    The line is fitted to the order statistics against normal quantiles. It stays between the .98 quantile and the
    largest value, so that a wrong line is wrong for 2 % of the rows at most; and one row moves it a fifth as far as it
    moves the quantile itself.
    """
    levels = EDGE_LEVELS.to(reach.device)
    x, y = torch.special.ndtri(levels), reach.quantile(levels)
    deviation = x - x.mean()
    slope = (deviation * y).sum() / deviation.square().sum()
    target = torch.special.ndtri(torch.tensor(quantile, device=reach.device))
    edge = y.mean() + slope * (target - x.mean())
    return torch.minimum(torch.maximum(edge, y[-1]), reach.max())
