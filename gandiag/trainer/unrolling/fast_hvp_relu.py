"""Closed-form gradients and Hessian-vector products of a discriminator with one ReLU layer.

With x = [scale · sample, 1] (d+1, N) in columns, a = [W b]ᵀ (d+1, H) and the mask M = [xᵀa > 0] (N, H), the logits are

    l_i = x_i · ((w ∘ a) Mᵀ)_i + c

so every derivative is a product of d+1 rows with M or Mᵀ, where autograd moves (N, H) arrays back and forth some
thirty times. Equal to `hvp.AutogradGradients` up to rounding, and about three times as fast to unroll, which is where
experiments on rings spend their time. Products keep the few rows on the left: BLAS is five times slower with few
columns on the right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gandiag.trainer.networks import InputScale
from gandiag.trainer.remedies.base import Loss
from gandiag.trainer.remedies.losses import LOSSES, MINIMAX
from gandiag.trainer.unrolling.adam import AdamState
from gandiag.trainer.unrolling.flat_parameters import FlatModule
from gandiag.trainer.unrolling.hvp import GradientWithVjp


def is_supported(net: nn.Module, loss: Loss) -> bool:
    """Return whether the closed form covers this network and loss."""
    return find_input_scale(net) is not None and loss in LOSSES.values()


def find_input_scale(net: nn.Module) -> float | None:
    """Return the input scale of [InputScale], Linear, ReLU, Linear to one logit; None for any other network."""
    layers = list(net) if isinstance(net, nn.Sequential) else []
    scale = 1.0
    if layers and isinstance(layers[0], InputScale):
        scale = layers[0].scale
        del layers[0]
    fits = [type(layer) for layer in layers] == [nn.Linear, nn.ReLU, nn.Linear] and layers[2].out_features == 1
    return scale if fits and all(layer.bias is not None for layer in (layers[0], layers[2])) else None


class _Weights(NamedTuple):
    a: Tensor  # (d+1, H): weights and bias of the first layer
    w: Tensor  # (H,)
    c: Tensor  # (1,)


class ReluGradients:
    """Gradients of a discriminator with one ReLU layer on one minibatch, under one of the classical losses.

    D's loss is softplus(-l) for real and softplus(l) for generated rows, so its first derivative by a logit is
    sigmoid(l) minus the label, and its second is sigmoid(l) (1 - sigmoid(l)).
    """

    def __init__(self, discriminator: FlatModule, loss: Loss) -> None:
        self._scale = find_input_scale(discriminator.net) or 1.0
        self._discriminator = discriminator
        self._loss = loss
        self._masks: list[Tensor] = []  # reused across minibatches: the allocator would clear fresh memory each time

    def set_minibatch(self, real: Tensor, fake: Tensor) -> ReluGradients:
        """Set the minibatch, `real` and `fake` (B, d)."""
        self._sizes = [len(real), len(fake)]
        samples = torch.cat([real, fake.detach()]).T * self._scale
        self._x = torch.cat([samples, samples.new_ones(1, samples.shape[1])])  # (d+1, N)
        self._label = torch.cat([real.new_ones(len(real)), real.new_zeros(len(fake))])
        # (N,): weight of a row in the mean over its half
        self._row_weight = torch.cat([torch.full_like(half[:, 0], 1 / len(half)) for half in (real, fake)])
        self._n_masks_used = 0
        return self

    def discriminator_gradient(self, state: AdamState) -> GradientWithVjp:
        weights, x = self._unflatten(state.theta), self._x
        mask, slope, logits = self._forward(weights)
        probability = logits.sigmoid()
        delta = (probability - self._label).mul_(self._row_weight)  # (N,)
        curvature = torch.addcmul(probability, probability, probability, value=-1).mul_(self._row_weight)  # (N,)
        x_delta = (x * delta) @ mask  # (d+1, H)

        def vjp(v: Tensor) -> tuple[Tensor, Tensor]:
            tangent = self._unflatten(v)
            dslope = torch.addcmul(tangent.a * weights.w, weights.a, tangent.w) @ mask.T  # (d+1, N)
            ddelta = (x * dslope).sum(0).add_(tangent.c).mul_(curvature)  # (N,)
            x_ddelta = (x * ddelta) @ mask  # (d+1, H)
            by_a = (x_ddelta * weights.w).addcmul_(x_delta, tangent.w)
            by_w = (weights.a * x_ddelta).addcmul_(tangent.a, x_delta).sum(0)
            by_x = torch.addcmul(slope * ddelta, dslope, delta)
            return self._flatten(by_a, by_w, ddelta.sum()), self._select_fake(by_x)

        gradient = self._weight_gradient(weights, x_delta, delta)
        return GradientWithVjp(lambda: self._evaluate(logits, self._loss.discriminator), gradient, vjp)

    def generator_gradient(self, state: AdamState) -> tuple[float, Tensor, Tensor]:
        weights = self._unflatten(state.theta)
        mask, slope, logits = self._forward(weights)
        delta = self._generator_logit_gradient(logits)
        gradient = self._weight_gradient(weights, (self._x * delta) @ mask, delta)
        return self._evaluate(logits, self._loss.generator), gradient, self._select_fake(slope * delta)

    def _generator_logit_gradient(self, logits: Tensor) -> Tensor:
        """Return the derivative of G's loss by the logits, (N,)."""
        if self._loss.name == MINIMAX.name:
            return (self._label - logits.sigmoid()).mul_(self._row_weight)
        return (logits.sigmoid() - 1).mul_(self._row_weight).mul_(1 - self._label)

    def _evaluate(self, logits: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> float:
        return float(loss(*torch.split(logits, self._sizes)))

    def _forward(self, weights: _Weights) -> tuple[Tensor, Tensor, Tensor]:
        """Return the mask (N, H), dlogit/dx (d+1, N) and the logits (N,)."""
        mask = torch.mm(self._x.T, weights.a, out=self._take_mask(weights.a)).gt_(0)
        slope = (weights.a * weights.w) @ mask.T
        return mask, slope, (self._x * slope).sum(0).add_(weights.c)

    def _take_mask(self, like: Tensor) -> Tensor:
        if self._n_masks_used == len(self._masks):
            self._masks.append(like.new_empty(self._x.shape[1], like.shape[1]))
        self._n_masks_used += 1
        return self._masks[self._n_masks_used - 1]

    def _weight_gradient(self, weights: _Weights, x_delta: Tensor, delta: Tensor) -> Tensor:
        return self._flatten(x_delta * weights.w, (weights.a * x_delta).sum(0), delta.sum())

    def _unflatten(self, vector: Tensor) -> _Weights:
        first, bias, w, c = self._discriminator.unflatten(vector)
        return _Weights(torch.cat([first.T, bias[None]]), w[0], c)

    def _flatten(self, a: Tensor, w: Tensor, c: Tensor) -> Tensor:
        return torch.cat([a[:-1].T.reshape(-1), a[-1], w, c[None]])

    def _select_fake(self, by_x: Tensor) -> Tensor:
        return by_x[:-1, self._sizes[0] :].T * self._scale
