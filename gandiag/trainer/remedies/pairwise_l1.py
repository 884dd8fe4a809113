"""L1 distances of all pairs, differentiable twice, in a few passes over (g, g) arrays.

Autograd would keep a (g, g, K, C) array per operation. The distance is linear wherever no two coordinates are equal, so that its
slope is a matter of signs, and the derivative of the slope by the points is zero almost everywhere.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def pairwise_l1_distances(points: Tensor) -> Tensor:
    """sum_c |points[k, i, c] - points[k, j, c]| for points (K, g, C): (K, g, g)."""
    made: Tensor = _Distances.apply(points)
    return made


def _gap(points: Tensor, c: int) -> Tensor:
    return points[:, :, None, c] - points[:, None, :, c]  # (K, g, g)


class _Distances(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor) -> Tensor:
        ctx.save_for_backward(points)
        made = _gap(points, 0).abs_()
        for c in range(1, points.shape[2]):
            made += _gap(points, c).abs_()
        return made

    @staticmethod
    def backward(ctx: Any, weight: Tensor) -> Tensor:
        made: Tensor = _Slopes.apply(ctx.saved_tensors[0], weight)
        return made


class _Slopes(torch.autograd.Function):
    """d(sum weight · distances)/d points, (K, g, C), for weights (K, g, g)."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(points)
        both = weight + weight.transpose(1, 2)  # a pair is met twice
        return torch.stack([_gap(points, c).sign_().mul_(both).sum(2) for c in range(points.shape[2])], 2)

    @staticmethod
    def backward(ctx: Any, by_slope: Tensor) -> tuple[None, Tensor]:
        (points,) = ctx.saved_tensors
        made = torch.zeros_like(_gap(points, 0))
        for c in range(points.shape[2]):
            made += _gap(points, c).sign_().mul_(_gap(by_slope, c))
        return None, made
