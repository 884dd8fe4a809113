"""Layers of a discriminator that know their derivatives: forward, backward, and how both move when the weights move.

The derivative of a gradient along v is what the gradient does when the weights move along v: push v forward through the network,
then backward. Source: Pearlmutter 1994, Fast exact multiplication by the Hessian, equations 3 to 5.

Each layer below is one pass of one minibatch, both sides of it in one array x (2 B, F), rows of real samples first:

    y                       what it gives
    back(delta)             dL/dy to dL/dx; keeps dL/dweights in `found`
    push(by, dx)            the move of y, from the moves of the weights and of x (None: it stays)
    back_push(ddelta)       the move of dL/dy to that of dL/dx; keeps that of dL/dweights in `moved`

With small networks autograd's bookkeeping costs many times the arithmetic; here there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from gandiag.trainer.unrolling.small_convs import ConvPattern, repeat_per_pixel

NUM_HALVES = 2  # real and generated: batch norm never mixes them


class LayerPass(Protocol):
    """One layer in one pass."""

    output: Tensor
    weight_grads: tuple[Tensor, ...]
    weight_grad_tangents: tuple[Tensor, ...]

    def backward(self, grad_output: Tensor) -> Tensor: ...
    def jvp(self, weight_tangents: Sequence[Tensor], input_tangent: Tensor | None) -> Tensor | None: ...
    def backward_jvp(self, grad_output_tangent: Tensor) -> Tensor: ...


class AffinePass:
    """y = x Wᵀ + b; with a stencil W is the matrix of a kernel. Weights: W (O, I) or a kernel, b (O,)."""

    def __init__(self, weights: Sequence[Tensor], x: Tensor, pattern: ConvPattern | None) -> None:
        self._stencil = pattern
        self._shape = weights[0].shape
        self._x = x
        self._matrix, self._bias = self._whole(weights)
        self.output = torch.addmm(self._bias, x, self._matrix.T)

    def backward(self, grad_output: Tensor) -> Tensor:
        self._delta = grad_output
        self.weight_grads = self._parts(grad_output.T @ self._x, grad_output.sum(0))
        return grad_output @ self._matrix

    def jvp(self, weight_tangents: Sequence[Tensor], input_tangent: Tensor | None) -> Tensor:
        self._by, bias = self._whole(weight_tangents)
        self._dx = input_tangent
        moved = torch.addmm(bias, self._x, self._by.T)
        return moved if input_tangent is None else moved.addmm_(input_tangent, self._matrix.T)

    def backward_jvp(self, grad_output_tangent: Tensor) -> Tensor:
        by_matrix = grad_output_tangent.T @ self._x
        if self._dx is not None:
            by_matrix.addmm_(self._delta.T, self._dx)
        self.weight_grad_tangents = self._parts(by_matrix, grad_output_tangent.sum(0))
        return (grad_output_tangent @ self._matrix).addmm_(self._delta, self._by)

    def _whole(self, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        if self._stencil is None:
            return weights[0], weights[1]
        return self._stencil.to_matrix(weights[0]), repeat_per_pixel(weights[1], self._stencil.indicator.shape[1])

    def _parts(self, matrix: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        if self._stencil is None:
            return matrix, bias
        return self._stencil.to_kernel(matrix, self._shape), bias.view(self._shape[0], -1).sum(1)


class BatchNormPass:
    """Batch norm of each side by itself, y = g n + b with n = (x - mean) r. Weights: g, b (C,); F = C · P numbers a row."""

    weight_grads: tuple[Tensor, ...]
    weight_grad_tangents: tuple[Tensor, ...]

    def __init__(self, weights: Sequence[Tensor], x: Tensor, eps: float) -> None:
        self.channels = len(weights[0])
        self._pixels = x.shape[1] // self.channels
        self.count = len(x) // NUM_HALVES * self._pixels  # per side and channel
        self.mean = self._average(self._sides(x))
        self._centred = self._sides(x) - self.mean
        self.variance = self._average(self._centred.square())  # (2, 1, F)
        self._r = (self.variance + eps).rsqrt()
        self._n = self._centred * self._r
        self._gain = repeat_per_pixel(weights[0], self._pixels)
        self.output = torch.addcmul(repeat_per_pixel(weights[1], self._pixels), self._n, self._gain).view_as(x)

    def backward(self, grad_output: Tensor) -> Tensor:
        self._delta = self._sides(grad_output)
        self._by_n = self._delta * self._gain
        self.weight_grads = self._sum(self._delta * self._n), self._sum(self._delta)
        self._slope = self._average(self._by_n * self._n)
        self._flat = torch.addcmul(self._by_n - self._average(self._by_n), self._n, self._slope, value=-1)
        return (self._r * self._flat).view_as(grad_output)

    def jvp(self, weight_tangents: Sequence[Tensor], input_tangent: Tensor | None) -> Tensor:
        if input_tangent is None:
            input_tangent = torch.zeros_like(self.output)
        moved = self._sides(input_tangent)
        moved = moved - self._average(moved)
        self._dr = self._average(self._centred * moved).mul_(self._r.pow(3)).neg_()
        self._dn = (moved * self._r).addcmul_(self._centred, self._dr)
        self._dgain = repeat_per_pixel(weight_tangents[0], self._pixels)
        return (
            (repeat_per_pixel(weight_tangents[1], self._pixels) + self._dgain * self._n)
            .addcmul_(self._gain, self._dn)
            .view_as(self.output)
        )

    def backward_jvp(self, grad_output_tangent: Tensor) -> Tensor:
        by_y = self._sides(grad_output_tangent)
        by_n = torch.addcmul(self._delta * self._dgain, by_y, self._gain)
        self.weight_grad_tangents = self._sum((by_y * self._n).addcmul_(self._delta, self._dn)), self._sum(by_y)
        slope = self._average((self._dn * self._by_n).addcmul_(self._n, by_n))
        flat = (by_n - self._average(by_n)).addcmul_(self._dn, self._slope, value=-1).addcmul_(self._n, slope, value=-1)
        return (self._dr * self._flat).addcmul_(self._r, flat).view_as(grad_output_tangent)

    def _sides(self, x: Tensor) -> Tensor:
        return x.view(NUM_HALVES, -1, x.shape[1])

    def _average(self, x: Tensor) -> Tensor:
        """Means per side and channel beside every number of the channel, (2, 1, F)."""
        mean = x.mean(1)
        if self._pixels == 1:
            return mean[:, None]
        return (
            mean.view(NUM_HALVES, self.channels, -1)
            .mean(2, keepdim=True)
            .expand(-1, -1, self._pixels)
            .reshape(NUM_HALVES, 1, -1)
        )

    def _sum(self, x: Tensor) -> Tensor:
        return x.sum((0, 1)).view(self.channels, -1).sum(1)


class LeakyReluPass:
    """max(x, s x): ReLU at s = 0, leaky ReLU above. No weights, no curvature."""

    weight_grads: tuple[Tensor, ...] = ()
    weight_grad_tangents: tuple[Tensor, ...] = ()

    def __init__(self, x: Tensor, slope: float) -> None:
        self._mask = x.gt(0).to(x.dtype)
        if slope:
            self._mask.mul_(1 - slope).add_(slope)
        self.output = x * self._mask

    def backward(self, grad_output: Tensor) -> Tensor:
        return grad_output * self._mask

    def jvp(self, weight_tangents: Sequence[Tensor], input_tangent: Tensor | None) -> Tensor | None:
        return None if input_tangent is None else input_tangent * self._mask

    def backward_jvp(self, grad_output_tangent: Tensor) -> Tensor:
        return grad_output_tangent * self._mask


class TanhPass:
    """tanh x, whose slope 1 - y² moves with x."""

    weight_grads: tuple[Tensor, ...] = ()
    weight_grad_tangents: tuple[Tensor, ...] = ()

    def __init__(self, x: Tensor) -> None:
        self.output = x.tanh()
        self._slope = torch.addcmul(self.output.new_ones(()), self.output, self.output, value=-1)

    def backward(self, grad_output: Tensor) -> Tensor:
        self._delta = grad_output
        return grad_output * self._slope

    def jvp(self, weight_tangents: Sequence[Tensor], input_tangent: Tensor | None) -> Tensor:
        self._dy = torch.zeros_like(self.output) if input_tangent is None else input_tangent * self._slope
        return self._dy

    def backward_jvp(self, grad_output_tangent: Tensor) -> Tensor:
        return (grad_output_tangent * self._slope).addcmul_(self._delta * self.output, self._dy, value=-2)


class ScalePass:
    """x times a constant."""

    weight_grads: tuple[Tensor, ...] = ()
    weight_grad_tangents: tuple[Tensor, ...] = ()

    def __init__(self, x: Tensor, scale: float) -> None:
        self._scale = scale
        self.output = x * scale

    def backward(self, grad_output: Tensor) -> Tensor:
        return grad_output * self._scale

    def jvp(self, weight_tangents: Sequence[Tensor], input_tangent: Tensor | None) -> Tensor | None:
        return None if input_tangent is None else input_tangent * self._scale

    def backward_jvp(self, grad_output_tangent: Tensor) -> Tensor:
        return grad_output_tangent * self._scale


class MaxoutPass:
    """Maxout: the largest of `pieces` neighbours, (N, F · pieces) to (N, F)."""

    weight_grads: tuple[Tensor, ...] = ()
    weight_grad_tangents: tuple[Tensor, ...] = ()

    def __init__(self, x: Tensor, pieces: int) -> None:
        self._shape = (len(x), -1, pieces)
        self.output, self._place = x.view(self._shape).max(2)

    def backward(self, grad_output: Tensor) -> Tensor:
        wide = grad_output.new_zeros(len(grad_output), grad_output.shape[1], self._shape[2])
        return wide.scatter_(2, self._place[:, :, None], grad_output[:, :, None]).flatten(1)

    def jvp(self, weight_tangents: Sequence[Tensor], input_tangent: Tensor | None) -> Tensor:
        return (
            torch.zeros_like(self.output)
            if input_tangent is None
            else input_tangent.view(self._shape).gather(2, self._place[:, :, None])[:, :, 0]
        )

    def backward_jvp(self, grad_output_tangent: Tensor) -> Tensor:
        return self.backward(grad_output_tangent)
