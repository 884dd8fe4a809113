"""L1 distances of all pairs, twice differentiable, in a few passes over (g, g) arrays.

Autograd would keep a (g, g, K, C) array per operation. The distance is piecewise linear, so its gradient consists of
signs, and the derivative of the gradient by the points is zero almost everywhere.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def pairwise_l1_distances(points: Tensor) -> Tensor:
    """Return sum_c |points[k, i, c] - points[k, j, c]|, (K, g, g), for points (K, g, C)."""
    distances: Tensor = _PairwiseL1.apply(points)
    return distances


def _differences(points: Tensor, c: int) -> Tensor:
    return points[:, :, None, c] - points[:, None, :, c]  # (K, g, g)


class _PairwiseL1(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor) -> Tensor:
        ctx.save_for_backward(points)
        distances = _differences(points, 0).abs_()
        for c in range(1, points.shape[2]):
            distances += _differences(points, c).abs_()
        return distances

    @staticmethod
    def backward(ctx: Any, weight: Tensor) -> Tensor:
        gradient: Tensor = _PairwiseL1Gradient.apply(ctx.saved_tensors[0], weight)
        return gradient


class _PairwiseL1Gradient(torch.autograd.Function):
    """d(sum weight · distances)/d points, (K, g, C), for weights (K, g, g)."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(points)
        pair_weight = weight + weight.transpose(1, 2)  # every pair appears twice
        columns = [_differences(points, c).sign_().mul_(pair_weight).sum(2) for c in range(points.shape[2])]
        return torch.stack(columns, 2)

    @staticmethod
    def backward(ctx: Any, by_gradient: Tensor) -> tuple[None, Tensor]:
        (points,) = ctx.saved_tensors
        by_weight = torch.zeros_like(_differences(points, 0))
        for c in range(points.shape[2]):
            by_weight += _differences(points, c).sign_().mul_(_differences(by_gradient, c))
        return None, by_weight
