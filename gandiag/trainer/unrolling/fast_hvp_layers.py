"""Layers with hand-written backward and forward-over-reverse passes.

The derivative of a gradient along v is the change of the gradient as the weights move along v: push v forward through
the network, then backward. Source: Pearlmutter 1994, Fast exact multiplication by the Hessian, equations 3 to 5.

Each class is one pass of one minibatch through one layer, real and generated samples in one array x (2 B, F), real rows
first:

    output                        the layer's output y
    backward(dL/dy)               dL/dx; stores dL/dweights in `weight_grads`
    jvp(weight_tangents, dx)      change of y, given the changes of the weights and of x (None: x is constant)
    backward_jvp(d(dL/dy))        change of dL/dx; stores that of dL/dweights in `weight_grad_tangents`

For small networks, autograd's bookkeeping costs many times the arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from gandiag.trainer.unrolling.conv_matrix import ConvPattern, repeat_per_pixel

NUM_HALVES = 2  # real and generated samples: BatchNorm never mixes them


class LayerPass(Protocol):
    """One pass through one layer; see the module's docstring."""

    output: Tensor
    weight_grads: tuple[Tensor, ...]
    weight_grad_tangents: tuple[Tensor, ...]

    def backward(self, grad_output: Tensor) -> Tensor: ...
    def jvp(self, weight_tangents: Sequence[Tensor], input_tangent: Tensor | None) -> Tensor | None: ...
    def backward_jvp(self, grad_output_tangent: Tensor) -> Tensor: ...


class AffinePass:
    """y = x Wᵀ + b; with a pattern, W is the matrix of a convolution kernel. Weights: W (O, I) or a kernel, b (O,)."""

    def __init__(self, weights: Sequence[Tensor], x: Tensor, pattern: ConvPattern | None) -> None:
        self._pattern = pattern
        self._shape = weights[0].shape
        self._x = x
        self._matrix, self._bias = self._to_matrix(weights)
        self.output = torch.addmm(self._bias, x, self._matrix.T)

    def backward(self, grad_output: Tensor) -> Tensor:
        self._delta = grad_output
        self.weight_grads = self._to_weights(grad_output.T @ self._x, grad_output.sum(0))
        return grad_output @ self._matrix

    def jvp(self, weight_tangents: Sequence[Tensor], input_tangent: Tensor | None) -> Tensor:
        self._dmatrix, bias = self._to_matrix(weight_tangents)
        self._dx = input_tangent
        tangent = torch.addmm(bias, self._x, self._dmatrix.T)
        return tangent if input_tangent is None else tangent.addmm_(input_tangent, self._matrix.T)

    def backward_jvp(self, grad_output_tangent: Tensor) -> Tensor:
        by_matrix = grad_output_tangent.T @ self._x
        if self._dx is not None:
            by_matrix.addmm_(self._delta.T, self._dx)
        self.weight_grad_tangents = self._to_weights(by_matrix, grad_output_tangent.sum(0))
        return (grad_output_tangent @ self._matrix).addmm_(self._delta, self._dmatrix)

    def _to_matrix(self, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        if self._pattern is None:
            return weights[0], weights[1]
        return self._pattern.to_matrix(weights[0]), repeat_per_pixel(weights[1], self._pattern.indicator.shape[1])

    def _to_weights(self, matrix: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        if self._pattern is None:
            return matrix, bias
        return self._pattern.to_kernel(matrix, self._shape), bias.view(self._shape[0], -1).sum(1)


class BatchNormPass:
    """Training-mode BatchNorm of each half separately: y = g n + b, n = (x - mean) r.

    Weights: g, b (C,); a row has F = C · P values.
    """

    weight_grads: tuple[Tensor, ...]
    weight_grad_tangents: tuple[Tensor, ...]

    def __init__(self, weights: Sequence[Tensor], x: Tensor, eps: float) -> None:
        self._channels = len(weights[0])
        self._pixels = x.shape[1] // self._channels
        self._centered = self._split_halves(x) - self._average(self._split_halves(x))
        variance = self._average(self._centered.square())  # (2, 1, F)
        self._r = (variance + eps).rsqrt()
        self._n = self._centered * self._r
        self._gain = repeat_per_pixel(weights[0], self._pixels)
        self.output = torch.addcmul(repeat_per_pixel(weights[1], self._pixels), self._n, self._gain).view_as(x)

    def backward(self, grad_output: Tensor) -> Tensor:
        self._delta = self._split_halves(grad_output)
        self._by_n = self._delta * self._gain
        self.weight_grads = self._sum(self._delta * self._n), self._sum(self._delta)
        self._slope = self._average(self._by_n * self._n)
        self._by_x = torch.addcmul(self._by_n - self._average(self._by_n), self._n, self._slope, value=-1)
        return (self._r * self._by_x).view_as(grad_output)

    def jvp(self, weight_tangents: Sequence[Tensor], input_tangent: Tensor | None) -> Tensor:
        if input_tangent is None:
            input_tangent = torch.zeros_like(self.output)
        dx = self._split_halves(input_tangent)
        dx = dx - self._average(dx)
        self._dr = self._average(self._centered * dx).mul_(self._r.pow(3)).neg_()
        self._dn = (dx * self._r).addcmul_(self._centered, self._dr)
        self._dgain = repeat_per_pixel(weight_tangents[0], self._pixels)
        dbias = repeat_per_pixel(weight_tangents[1], self._pixels)
        return (dbias + self._dgain * self._n).addcmul_(self._gain, self._dn).view_as(self.output)

    def backward_jvp(self, grad_output_tangent: Tensor) -> Tensor:
        ddelta = self._split_halves(grad_output_tangent)
        dby_n = torch.addcmul(self._delta * self._dgain, ddelta, self._gain)
        self.weight_grad_tangents = self._sum((ddelta * self._n).addcmul_(self._delta, self._dn)), self._sum(ddelta)
        dslope = self._average((self._dn * self._by_n).addcmul_(self._n, dby_n))
        dby_x = dby_n - self._average(dby_n)
        dby_x = dby_x.addcmul_(self._dn, self._slope, value=-1).addcmul_(self._n, dslope, value=-1)
        return (self._dr * self._by_x).addcmul_(self._r, dby_x).view_as(grad_output_tangent)

    def _split_halves(self, x: Tensor) -> Tensor:
        return x.view(NUM_HALVES, -1, x.shape[1])

    def _average(self, x: Tensor) -> Tensor:
        """Return the means per half and channel, repeated over the channel's pixels, (2, 1, F)."""
        mean = x.mean(1).view(NUM_HALVES, self._channels, -1).mean(2, keepdim=True)
        return mean.expand(-1, -1, self._pixels).reshape(NUM_HALVES, 1, -1)

    def _sum(self, x: Tensor) -> Tensor:
        return x.sum((0, 1)).view(self._channels, -1).sum(1)


class LeakyReluPass:
    """max(x, s x): ReLU at s = 0, leaky ReLU above. It has no weights and no curvature."""

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
