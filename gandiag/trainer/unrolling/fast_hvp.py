"""The slopes of a discriminator that is a plain stack of known layers: the same as `slopes.Autograd` to rounding, without autograd.

Linear maps, convolutions of small images, batch norm, ReLU, leaky ReLU, tanh, maxout, packs, under one of the classical losses;
`layers.py` has their derivatives. Other discriminators and losses take `slopes.Autograd`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gandiag.interfaces import OutputSpec
from gandiag.trainer.networks import InputScale, Maxout
from gandiag.trainer.remedies.base import Loss
from gandiag.trainer.remedies.losses import LOSSES, MINIMAX
from gandiag.trainer.remedies.packing import PackSamples
from gandiag.trainer.unrolling.adam import AdamState
from gandiag.trainer.unrolling.fast_hvp_layers import (
    NUM_HALVES,
    AffinePass,
    BatchNormPass,
    LayerPass,
    LeakyReluPass,
    MaxoutPass,
    ScalePass,
    TanhPass,
)
from gandiag.trainer.unrolling.flat_parameters import FlatModule
from gandiag.trainer.unrolling.hvp import GradientWithVjp
from gandiag.trainer.unrolling.small_convs import SmallBatchNorm2d, SmallConv2d, find_conv_pattern, update_running_stats

PassFactory = Callable[[Sequence[Tensor], Tensor], LayerPass]  # weights and input to a layer's pass


class StackEntry(NamedTuple):
    """A module as a maker of passes, and how many of D's parameters are its weights."""

    module: nn.Module
    make_pass: PassFactory
    n_weights: int


@dataclass(frozen=True, slots=True)
class LayerStack:
    """What a discriminator is made of. `pack`: samples that it judges together."""

    entries: tuple[StackEntry, ...]
    pack_size: int


def build_layer_stack(net: nn.Module, output: OutputSpec, batch_size: int, loss: Loss) -> LayerStack | None:
    """The stack of a discriminator of samples of this shape, under this loss; None where something in it is not known here."""
    if type(net) is not nn.Sequential or loss not in LOSSES.values():
        return None
    layers, pack, shape = list(net), 1, tuple(output.shape)
    if layers and isinstance(layers[0], PackSamples):
        pack = layers.pop(0).pack_size  # type: ignore[assignment]
        shape = (shape[0] * pack, *shape[1:])
    entries = []
    for module in layers:
        found = _entry(module, shape)
        if found is None:
            return None
        entries += found[0]
        shape = found[1]
    return LayerStack(tuple(entries), pack) if shape == (1,) and batch_size % pack == 0 and entries else None


def _entry(module: nn.Module, shape: tuple[int, ...]) -> tuple[list[StackEntry], tuple[int, ...]] | None:
    """The entry of one module, none for a mere change of shape, and the shape after it."""
    if type(module) is nn.Flatten and module.start_dim == 1:
        return [], (int(torch.Size(shape).numel()),)
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return _norm(module, shape)
    if type(module) in (SmallConv2d, nn.Conv2d):
        return _convolution(module, shape)  # type: ignore[arg-type]
    if type(module) is nn.Linear and shape == (module.in_features,) and module.bias is not None:
        return [StackEntry(module, lambda at, x: AffinePass(at, x, None), 2)], (module.out_features,)
    if type(module) is Maxout and shape == (module.linear.in_features,):
        pieces, out = module.pieces, module.linear.out_features
        return [
            StackEntry(module.linear, lambda at, x: AffinePass(at, x, None), 2),
            StackEntry(module, lambda at, x: MaxoutPass(x, pieces), 0),
        ], (out // pieces,)
    make = _plain(module)
    return None if make is None else ([StackEntry(module, make, 0)], shape)


def _plain(module: nn.Module) -> PassFactory | None:
    """Layers without weights, number by number."""
    if type(module) is nn.ReLU:
        return lambda at, x: LeakyReluPass(x, 0.0)
    if type(module) is nn.LeakyReLU:
        slope = module.negative_slope
        return lambda at, x: LeakyReluPass(x, slope)
    if type(module) is nn.Tanh:
        return lambda at, x: TanhPass(x)
    if type(module) is InputScale:
        scale = module.scale
        return lambda at, x: ScalePass(x, scale)
    return None


def _norm(
    module: nn.modules.batchnorm._BatchNorm, shape: tuple[int, ...]
) -> tuple[list[StackEntry], tuple[int, ...]] | None:
    known = (
        type(module) in (nn.BatchNorm1d, nn.BatchNorm2d, SmallBatchNorm2d)
        and module.affine
        and module.track_running_stats
    )
    eps = module.eps
    return (
        ([StackEntry(module, lambda at, x: BatchNormPass(at, x, eps), 2)], shape)
        if known and module.momentum is not None and shape[0] == module.num_features
        else None
    )


def _convolution(module: nn.Conv2d, shape: tuple[int, ...]) -> tuple[list[StackEntry], tuple[int, ...]] | None:
    found = (
        find_conv_pattern(module, shape[1], shape[2])
        if len(shape) == 3 and shape[0] == module.in_channels and module.bias is not None
        else None
    )
    return (
        None
        if found is None
        else (
            [StackEntry(module, lambda at, x: AffinePass(at, x, found), 2)],
            (module.out_channels, *found.output_size),
        )
    )


class StackGradients:
    """One minibatch before such a discriminator. `real`, `fake` (B, *shape).

    The losses are means of softplus(± l), so that their derivatives by a logit are sigmoid(l) minus the label, and sigmoid(l) (1 − sigmoid(l)).
    """

    def __init__(self, discriminator: FlatModule, stack: LayerStack, loss: Loss) -> None:
        self._player = discriminator
        self._stack = stack
        self._loss = loss

    def set_minibatch(self, real: Tensor, fake: Tensor) -> StackGradients:
        """This minibatch from now on."""
        count = len(real) // self._stack.pack_size
        self._shape = fake.shape
        self._count = count
        self._x = torch.cat([real, fake.detach()]).reshape(NUM_HALVES * count, -1)
        self._label = torch.cat([real.new_ones(count, 1), real.new_zeros(count, 1)])
        return self

    def discriminator_gradient(self, state: AdamState) -> GradientWithVjp:
        passes, sure = self._forward(state)
        logits = passes[-1].output
        gradient, _ = self._backward(passes, (sure - self._label).div_(self._count))
        curve = torch.addcmul(sure, sure, sure, value=-1).div_(self._count)  # (2 B, 1)

        def pull(v: Tensor) -> tuple[Tensor, Tensor]:
            moved = self._push(passes, v)
            by_x = moved.mul_(curve)
            for entry in reversed(passes):
                by_x = entry.backward_jvp(by_x)
            return self._flat([part for entry in passes for part in entry.weight_grad_tangents]), self._by_fake(by_x)

        return GradientWithVjp(lambda: self._value(logits, self._loss.discriminator), gradient, pull)

    def generator_gradient(self, state: AdamState) -> tuple[float, Tensor, Tensor]:
        passes, sure = self._forward(state)
        return self._finish(passes, sure)

    def simultaneous_gradients(self, state: AdamState) -> tuple[float, Tensor, float, Tensor]:
        """Both sides at one point: D's loss and gradient (P,), G's loss and its derivative by the generated samples; batch norm takes note."""
        passes, sure = self._forward(state)
        gradient, _ = self._backward(passes, (sure - self._label).div_(self._count))
        loss_g, _, by_fake = self._finish(passes, sure)
        self._note(passes)
        return self._value(passes[-1].output, self._loss.discriminator), gradient, loss_g, by_fake

    def _forward(self, state: AdamState) -> tuple[list[LayerPass], Tensor]:
        """The passes of all layers, and sigmoid of the logits (2 B, 1)."""
        x, passes = self._x, []
        for entry, weights in zip(self._stack.entries, self._weights(state.theta), strict=True):
            passes.append(entry.make_pass(weights, x))
            x = passes[-1].output
        return passes, x.sigmoid()

    def _backward(self, passes: list[LayerPass], delta: Tensor) -> tuple[Tensor, Tensor]:
        """Derivatives by the parameters (P,) and by x (2 B, F)."""
        for entry in reversed(passes):
            delta = entry.backward(delta)
        return self._flat([part for entry in passes for part in entry.weight_grads]), delta

    def _push(self, passes: list[LayerPass], v: Tensor) -> Tensor:
        """How the logits move when the parameters move along v."""
        moved = None
        for entry, by in zip(passes, self._weights(v), strict=True):
            moved = entry.jvp(by, moved)
        return passes[-1].output.new_zeros(()).expand_as(passes[-1].output) if moved is None else moved

    def _finish(self, passes: list[LayerPass], sure: Tensor) -> tuple[float, Tensor, Tensor]:
        gradient, by_x = self._backward(passes, self._by_logit(sure))
        return self._value(passes[-1].output, self._loss.generator), gradient, self._by_fake(by_x)

    def _by_logit(self, sure: Tensor) -> Tensor:
        """Derivative of G's loss by the logits, (2 B, 1)."""
        if self._loss.name == MINIMAX.name:
            return (self._label - sure).div_(self._count)
        return (sure - 1).mul_(1 - self._label).div_(self._count)

    def _weights(self, vector: Tensor) -> list[Sequence[Tensor]]:
        parts = self._player.unflatten(vector)
        ends = list(accumulate(entry.n_weights for entry in self._stack.entries))
        return [parts[end - entry.n_weights : end] for entry, end in zip(self._stack.entries, ends, strict=True)]

    def _flat(self, parts: list[Tensor]) -> Tensor:
        return torch.cat([part.reshape(-1) for part in parts])

    def _by_fake(self, by_x: Tensor) -> Tensor:
        return by_x[self._count :].reshape(self._shape)

    def _value(self, logits: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> float:
        return float(loss(logits[: self._count], logits[self._count :]))

    def _note(self, passes: list[LayerPass]) -> None:
        for entry, made in zip(self._stack.entries, passes, strict=True):
            if not isinstance(made, BatchNormPass) or not isinstance(entry.module, nn.modules.batchnorm._BatchNorm):
                continue
            for mean, variance in zip(
                made.mean, made.variance, strict=True
            ):  # (1, F) each: first real, then generated, as D sees them
                update_running_stats(
                    entry.module, mean.view(made.channels, -1)[:, 0], variance.view(made.channels, -1)[:, 0], made.count
                )
