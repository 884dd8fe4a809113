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

from gandiag.reference.small import Stencil, spread

SIDES = 2  # real and generated: batch norm never mixes them


class Layer(Protocol):
    """One layer in one pass."""

    y: Tensor
    found: tuple[Tensor, ...]
    moved: tuple[Tensor, ...]

    def back(self, delta: Tensor) -> Tensor: ...
    def push(self, by: Sequence[Tensor], dx: Tensor | None) -> Tensor | None: ...
    def back_push(self, ddelta: Tensor) -> Tensor: ...


class Affine:
    """y = x Wᵀ + b; with a stencil W is the matrix of a kernel. Weights: W (O, I) or a kernel, b (O,)."""

    def __init__(self, weights: Sequence[Tensor], x: Tensor, stencil: Stencil | None) -> None:
        self._stencil = stencil
        self._shape = weights[0].shape
        self._x = x
        self._matrix, self._bias = self._whole(weights)
        self.y = torch.addmm(self._bias, x, self._matrix.T)

    def back(self, delta: Tensor) -> Tensor:
        self._delta = delta
        self.found = self._parts(delta.T @ self._x, delta.sum(0))
        return delta @ self._matrix

    def push(self, by: Sequence[Tensor], dx: Tensor | None) -> Tensor:
        self._by, bias = self._whole(by)
        self._dx = dx
        moved = torch.addmm(bias, self._x, self._by.T)
        return moved if dx is None else moved.addmm_(dx, self._matrix.T)

    def back_push(self, ddelta: Tensor) -> Tensor:
        by_matrix = ddelta.T @ self._x
        if self._dx is not None:
            by_matrix.addmm_(self._delta.T, self._dx)
        self.moved = self._parts(by_matrix, ddelta.sum(0))
        return (ddelta @ self._matrix).addmm_(self._delta, self._by)

    def _whole(self, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        if self._stencil is None:
            return weights[0], weights[1]
        return self._stencil.matrix(weights[0]), spread(weights[1], self._stencil.ones.shape[1])

    def _parts(self, matrix: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        if self._stencil is None:
            return matrix, bias
        return self._stencil.kernel(matrix, self._shape), bias.view(self._shape[0], -1).sum(1)


class Norm:
    """Batch norm of each side by itself, y = g n + b with n = (x - mean) r. Weights: g, b (C,); F = C · P numbers a row."""

    found: tuple[Tensor, ...]
    moved: tuple[Tensor, ...]

    def __init__(self, weights: Sequence[Tensor], x: Tensor, eps: float) -> None:
        self.channels = len(weights[0])
        self._pixels = x.shape[1] // self.channels
        self.numbers = len(x) // SIDES * self._pixels  # per side and channel
        self.mean = self._average(self._sides(x))
        self._centred = self._sides(x) - self.mean
        self.variance = self._average(self._centred.square())  # (2, 1, F)
        self._r = (self.variance + eps).rsqrt()
        self._n = self._centred * self._r
        self._gain = spread(weights[0], self._pixels)
        self.y = torch.addcmul(spread(weights[1], self._pixels), self._n, self._gain).view_as(x)

    def back(self, delta: Tensor) -> Tensor:
        self._delta = self._sides(delta)
        self._by_n = self._delta * self._gain
        self.found = self._sum(self._delta * self._n), self._sum(self._delta)
        self._slope = self._average(self._by_n * self._n)
        self._flat = torch.addcmul(self._by_n - self._average(self._by_n), self._n, self._slope, value=-1)
        return (self._r * self._flat).view_as(delta)

    def push(self, by: Sequence[Tensor], dx: Tensor | None) -> Tensor:
        if dx is None:
            dx = torch.zeros_like(self.y)
        moved = self._sides(dx)
        moved = moved - self._average(moved)
        self._dr = self._average(self._centred * moved).mul_(self._r.pow(3)).neg_()
        self._dn = (moved * self._r).addcmul_(self._centred, self._dr)
        self._dgain = spread(by[0], self._pixels)
        return (spread(by[1], self._pixels) + self._dgain * self._n).addcmul_(self._gain, self._dn).view_as(self.y)

    def back_push(self, ddelta: Tensor) -> Tensor:
        by_y = self._sides(ddelta)
        by_n = torch.addcmul(self._delta * self._dgain, by_y, self._gain)
        self.moved = self._sum((by_y * self._n).addcmul_(self._delta, self._dn)), self._sum(by_y)
        slope = self._average((self._dn * self._by_n).addcmul_(self._n, by_n))
        flat = (by_n - self._average(by_n)).addcmul_(self._dn, self._slope, value=-1).addcmul_(self._n, slope, value=-1)
        return (self._dr * self._flat).addcmul_(self._r, flat).view_as(ddelta)

    def _sides(self, x: Tensor) -> Tensor:
        return x.view(SIDES, -1, x.shape[1])

    def _average(self, x: Tensor) -> Tensor:
        """Means per side and channel beside every number of the channel, (2, 1, F)."""
        mean = x.mean(1)
        if self._pixels == 1:
            return mean[:, None]
        return mean.view(SIDES, self.channels, -1).mean(2, keepdim=True).expand(-1, -1, self._pixels).reshape(SIDES, 1, -1)

    def _sum(self, x: Tensor) -> Tensor:
        return x.sum((0, 1)).view(self.channels, -1).sum(1)


class Bent:
    """max(x, s x): ReLU at s = 0, leaky ReLU above. No weights, no curvature."""

    found: tuple[Tensor, ...] = ()
    moved: tuple[Tensor, ...] = ()

    def __init__(self, x: Tensor, slope: float) -> None:
        self._mask = x.gt(0).to(x.dtype)
        if slope:
            self._mask.mul_(1 - slope).add_(slope)
        self.y = x * self._mask

    def back(self, delta: Tensor) -> Tensor:
        return delta * self._mask

    def push(self, by: Sequence[Tensor], dx: Tensor | None) -> Tensor | None:
        return None if dx is None else dx * self._mask

    def back_push(self, ddelta: Tensor) -> Tensor:
        return ddelta * self._mask


class Tanh:
    """tanh x, whose slope 1 - y² moves with x."""

    found: tuple[Tensor, ...] = ()
    moved: tuple[Tensor, ...] = ()

    def __init__(self, x: Tensor) -> None:
        self.y = x.tanh()
        self._slope = torch.addcmul(self.y.new_ones(()), self.y, self.y, value=-1)

    def back(self, delta: Tensor) -> Tensor:
        self._delta = delta
        return delta * self._slope

    def push(self, by: Sequence[Tensor], dx: Tensor | None) -> Tensor:
        self._dy = torch.zeros_like(self.y) if dx is None else dx * self._slope
        return self._dy

    def back_push(self, ddelta: Tensor) -> Tensor:
        return (ddelta * self._slope).addcmul_(self._delta * self.y, self._dy, value=-2)


class Times:
    """x times a constant."""

    found: tuple[Tensor, ...] = ()
    moved: tuple[Tensor, ...] = ()

    def __init__(self, x: Tensor, scale: float) -> None:
        self._scale = scale
        self.y = x * scale

    def back(self, delta: Tensor) -> Tensor:
        return delta * self._scale

    def push(self, by: Sequence[Tensor], dx: Tensor | None) -> Tensor | None:
        return None if dx is None else dx * self._scale

    def back_push(self, ddelta: Tensor) -> Tensor:
        return ddelta * self._scale


class Largest:
    """Maxout: the largest of `pieces` neighbours, (N, F · pieces) to (N, F)."""

    found: tuple[Tensor, ...] = ()
    moved: tuple[Tensor, ...] = ()

    def __init__(self, x: Tensor, pieces: int) -> None:
        self._shape = (len(x), -1, pieces)
        self.y, self._place = x.view(self._shape).max(2)

    def back(self, delta: Tensor) -> Tensor:
        wide = delta.new_zeros(len(delta), delta.shape[1], self._shape[2])
        return wide.scatter_(2, self._place[:, :, None], delta[:, :, None]).flatten(1)

    def push(self, by: Sequence[Tensor], dx: Tensor | None) -> Tensor:
        return torch.zeros_like(self.y) if dx is None else dx.view(self._shape).gather(2, self._place[:, :, None])[:, :, 0]

    def back_push(self, ddelta: Tensor) -> Tensor:
        return self.back(ddelta)
