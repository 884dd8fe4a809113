"""The slopes of a discriminator with one ReLU layer, in closed form: all that a gradient needs is which units are on.

With x = [scale · sample, 1] (d+1, N) in columns, a = [W b]ᵀ (d+1, H) and the mask M = [xᵀa > 0] (N, H), the logits are

    l_i = x_i · ((w ∘ a) Mᵀ)_i + c

so that every derivative is a product of d+1 rows with M or Mᵀ, where autograd moves (N, H) arrays back and forth some thirty
times. Ring experiments spend their time here: the same result as `slopes.Autograd` to rounding, many times faster.
Few rows stand on the left of every product: BLAS is five times slower with few columns on the right.
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
    """Whether this file knows the network and the loss."""
    return find_input_scale(net) is not None and loss in LOSSES.values()


def find_input_scale(net: nn.Module) -> float | None:
    """The input scale of a discriminator that this file covers: [Scaled], Linear, ReLU, Linear to one logit. None for others."""
    layers = list(net) if isinstance(net, nn.Sequential) else []
    scale = 1.0
    if layers and isinstance(layers[0], InputScale):
        scale = layers.pop(0).scale  # type: ignore[assignment]
    fits = [type(layer) for layer in layers] == [nn.Linear, nn.ReLU, nn.Linear] and layers[2].out_features == 1
    return scale if fits and all(layer.bias is not None for layer in (layers[0], layers[2])) else None


class _Weights(NamedTuple):
    a: Tensor  # (d+1, H): weights and bias of the first layer
    w: Tensor  # (H,)
    c: Tensor  # (1,)


class ShallowGradients:
    """One minibatch before a discriminator of one ReLU layer, under one of the classical losses. `real`, `fake` (B, d).

    D's loss is softplus(-l) for real and softplus(l) for generated rows, so that its derivatives by a logit are sigmoid(l) minus
    the label, and sigmoid(l) (1 - sigmoid(l)).
    """

    def __init__(self, discriminator: FlatModule, loss: Loss) -> None:
        self._scale = find_input_scale(discriminator.net) or 1.0
        self._player = discriminator
        self._loss = loss
        self._masks: list[Tensor] = []  # kept from minibatch to minibatch: memory that is given back is cleared again

    def set_minibatch(self, real: Tensor, fake: Tensor) -> ShallowGradients:
        """This minibatch from now on."""
        self._sizes = [len(real), len(fake)]
        both = torch.cat([real, fake.detach()]).T * self._scale
        self._x = torch.cat([both, both.new_ones(1, both.shape[1])])  # (d+1, N)
        self._label = torch.cat([real.new_ones(len(real)), real.new_zeros(len(fake))])
        self._share = torch.cat(
            [torch.full_like(side[:, 0], 1 / len(side)) for side in (real, fake)]
        )  # (N,): what a row weighs in its mean
        self._used = 0
        return self

    def discriminator_gradient(self, state: AdamState) -> GradientWithVjp:
        at, x = self._unflat(state.theta), self._x
        mask, reach, logits = self._forward(at)
        sure = logits.sigmoid()
        delta = (sure - self._label).mul_(self._share)  # (N,)
        curve = torch.addcmul(sure, sure, sure, value=-1).mul_(self._share)  # (N,)
        met = (x * delta) @ mask  # (d+1, H)

        def pull(v: Tensor) -> tuple[Tensor, Tensor]:
            by = self._unflat(v)
            turned = torch.addcmul(by.a * at.w, at.a, by.w) @ mask.T  # (d+1, N)
            epsilon = (x * turned).sum(0).add_(by.c).mul_(curve)  # (N,)
            bent = (x * epsilon) @ mask  # (d+1, H)
            w = (at.a * bent).addcmul_(by.a, met).sum(0)
            moved = torch.addcmul(reach * epsilon, turned, delta)
            return self._flat((bent * at.w).addcmul_(met, by.w), w, epsilon.sum()), self._by_fake(moved)

        return GradientWithVjp(
            lambda: self._value(logits, self._loss.discriminator), self._gradient(at, met, delta), pull
        )

    def generator_gradient(self, state: AdamState) -> tuple[float, Tensor, Tensor]:
        at = self._unflat(state.theta)
        mask, reach, logits = self._forward(at)
        delta = self._by_logit(logits)
        gradient = self._gradient(at, (self._x * delta) @ mask, delta)
        return self._value(logits, self._loss.generator), gradient, self._by_fake(reach * delta)

    def _by_logit(self, logits: Tensor) -> Tensor:
        """Derivative of G's loss by the logits, (N,)."""
        if self._loss.name == MINIMAX.name:
            return (self._label - logits.sigmoid()).mul_(self._share)
        return (logits.sigmoid() - 1).mul_(self._share).mul_(1 - self._label)

    def _value(self, logits: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> float:
        return float(loss(*torch.split(logits, self._sizes)))

    def _forward(self, at: _Weights) -> tuple[Tensor, Tensor, Tensor]:
        """Mask (N, H), dlogit/dx (d+1, N), logits (N,)."""
        mask = torch.mm(self._x.T, at.a, out=self._memory(at.a)).gt_(0)
        reach = (at.a * at.w) @ mask.T
        return mask, reach, (self._x * reach).sum(0).add_(at.c)

    def _memory(self, like: Tensor) -> Tensor:
        if self._used == len(self._masks):
            self._masks.append(like.new_empty(self._x.shape[1], like.shape[1]))
        self._used += 1
        return self._masks[self._used - 1]

    def _gradient(self, at: _Weights, met: Tensor, delta: Tensor) -> Tensor:
        return self._flat(met * at.w, (at.a * met).sum(0), delta.sum())

    def _unflat(self, vector: Tensor) -> _Weights:
        first, bias, w, c = self._player.unflatten(vector)
        return _Weights(torch.cat([first.T, bias[None]]), w[0], c)

    def _flat(self, a: Tensor, w: Tensor, c: Tensor) -> Tensor:
        return torch.cat([a[:-1].T.reshape(-1), a[-1], w, c[None]])

    def _by_fake(self, by_x: Tensor) -> Tensor:
        return by_x[:-1, self._sizes[0] :].T * self._scale
