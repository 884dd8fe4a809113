"""Hand-written gradients and Hessian-vector products of sequential discriminators.

Equal to `hvp.AutogradGradients` up to rounding, and about twice as fast to unroll on the benchmark's convolutional
discriminators (`benchmarks/unrolling.py`). Covers linear layers, convolutions of small images, BatchNorm, ReLU and
leaky ReLU under the classical losses; `fast_hvp_relu` covers a single ReLU layer in closed form. Everything else uses
autograd.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from gandiag.interfaces import OutputSpec
from gandiag.trainer.networks import HigherOrderBatchNorm2d
from gandiag.trainer.remedies.base import Loss
from gandiag.trainer.remedies.losses import LOSSES, MINIMAX
from gandiag.trainer.unrolling.adam import AdamState
from gandiag.trainer.unrolling.conv_matrix import find_conv_pattern
from gandiag.trainer.unrolling.fast_hvp_layers import NUM_HALVES, AffinePass, BatchNormPass, LayerPass, LeakyReluPass
from gandiag.trainer.unrolling.fast_hvp_relu import ReluGradients, is_supported
from gandiag.trainer.unrolling.flat_parameters import FlatModule
from gandiag.trainer.unrolling.hvp import DiscriminatorGradients, GradientWithVjp

PassFactory = Callable[[Sequence[Tensor], Tensor], LayerPass]  # a layer's weights and input -> its pass


class FastGradients(Protocol):
    """Hand-written gradients, reused from minibatch to minibatch."""

    def set_minibatch(self, real: Tensor, fake: Tensor) -> DiscriminatorGradients:
        """Set the minibatch, both (B, *shape), and return the gradients on it."""
        ...


class LayerFactory(NamedTuple):
    """How to run one layer, and how many of D's parameters are its weights."""

    make_pass: PassFactory
    n_weights: int


def make_fast_gradients(discriminator: FlatModule, output: OutputSpec, loss: Loss) -> FastGradients | None:
    """Return the fastest hand-written gradients of a discriminator under a loss, or None if there are none."""
    if is_supported(discriminator.net, loss):
        return ReluGradients(discriminator, loss)
    layers = parse_layers(discriminator.net, output, loss)
    return None if layers is None else SequentialGradients(discriminator, layers, loss)


def parse_layers(net: nn.Module, output: OutputSpec, loss: Loss) -> tuple[LayerFactory, ...] | None:
    """Return the layers of a discriminator of samples of this shape; None if a layer or the loss is not covered."""
    if type(net) is not nn.Sequential or loss not in LOSSES.values():
        return None
    shape, layers = tuple(output.shape), []
    for module in net:
        if type(module) is nn.Flatten and module.start_dim == 1:
            shape = (int(torch.Size(shape).numel()),)
            continue
        parsed = _parse_layer(module, shape)
        if parsed is None:
            return None
        layers.append(parsed[0])
        shape = parsed[1]
    return tuple(layers) if layers and shape == (1,) else None


def _parse_layer(module: nn.Module, shape: tuple[int, ...]) -> tuple[LayerFactory, tuple[int, ...]] | None:
    """Return the factory of one layer and its output shape."""
    if type(module) is nn.Conv2d:
        return _parse_convolution(module, shape)
    if type(module) is nn.Linear and shape == (module.in_features,) and module.bias is not None:
        return LayerFactory(lambda weights, x: AffinePass(weights, x, None), 2), (module.out_features,)
    if type(module) is nn.BatchNorm2d or type(module) is HigherOrderBatchNorm2d:
        if not module.affine or shape[0] != module.num_features:
            return None
        eps = module.eps
        return LayerFactory(lambda weights, x: BatchNormPass(weights, x, eps), 2), shape
    if type(module) is nn.ReLU:
        return LayerFactory(lambda weights, x: LeakyReluPass(x, 0.0), 0), shape
    if type(module) is nn.LeakyReLU:
        slope = module.negative_slope
        return LayerFactory(lambda weights, x: LeakyReluPass(x, slope), 0), shape
    return None


def _parse_convolution(module: nn.Conv2d, shape: tuple[int, ...]) -> tuple[LayerFactory, tuple[int, ...]] | None:
    if len(shape) != 3 or shape[0] != module.in_channels or module.bias is None:
        return None
    pattern = find_conv_pattern(module, shape[1], shape[2])
    if pattern is None:
        return None
    output_shape = (module.out_channels, *pattern.output_size)
    return LayerFactory(lambda weights, x: AffinePass(weights, x, pattern), 2), output_shape


class SequentialGradients:
    """Gradients of a sequential discriminator on one minibatch.

    The losses are means of softplus(± l), so their first derivative by a logit is sigmoid(l) minus the label, and their
    second is sigmoid(l) (1 − sigmoid(l)).
    """

    def __init__(self, discriminator: FlatModule, layers: Sequence[LayerFactory], loss: Loss) -> None:
        self._discriminator = discriminator
        self._layers = layers
        self._ends = list(accumulate(layer.n_weights for layer in layers))
        self._loss = loss

    def set_minibatch(self, real: Tensor, fake: Tensor) -> SequentialGradients:
        """Set the minibatch, `real` and `fake` (B, *shape)."""
        self._batch_size = len(real)
        self._shape = fake.shape
        self._x = torch.cat([real, fake.detach()]).reshape(NUM_HALVES * len(real), -1)
        self._label = torch.cat([real.new_ones(len(real), 1), real.new_zeros(len(real), 1)])
        return self

    def discriminator_gradient(self, state: AdamState) -> GradientWithVjp:
        passes, probability = self._forward(state)
        logits = passes[-1].output
        gradient, _ = self._backward(passes, (probability - self._label).div_(self._batch_size))
        curvature = torch.addcmul(probability, probability, probability, value=-1).div_(self._batch_size)  # (2 B, 1)

        def vjp(v: Tensor) -> tuple[Tensor, Tensor]:
            tangent = self._push_forward(passes, v).mul_(curvature)
            for layer in reversed(passes):
                tangent = layer.backward_jvp(tangent)
            by_parameters = [part for layer in passes for part in layer.weight_grad_tangents]
            return self._concatenate(by_parameters), self._select_fake(tangent)

        return GradientWithVjp(lambda: self._evaluate(logits, self._loss.discriminator), gradient, vjp)

    def generator_gradient(self, state: AdamState) -> tuple[float, Tensor, Tensor]:
        passes, probability = self._forward(state)
        gradient, by_x = self._backward(passes, self._generator_logit_gradient(probability))
        return self._evaluate(passes[-1].output, self._loss.generator), gradient, self._select_fake(by_x)

    def _forward(self, state: AdamState) -> tuple[list[LayerPass], Tensor]:
        """Return the passes of all layers, and the sigmoid of the logits (2 B, 1)."""
        x, passes = self._x, list[LayerPass]()
        for layer, weights in zip(self._layers, self._split_weights(state.theta), strict=True):
            passes.append(layer.make_pass(weights, x))
            x = passes[-1].output
        return passes, x.sigmoid()

    def _backward(self, passes: list[LayerPass], delta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the derivatives by the parameters (P,) and by x (2 B, F)."""
        for layer in reversed(passes):
            delta = layer.backward(delta)
        return self._concatenate([part for layer in passes for part in layer.weight_grads]), delta

    def _push_forward(self, passes: list[LayerPass], v: Tensor) -> Tensor:
        """Return the derivative of the logits as the parameters move along v."""
        tangent = None
        for layer, weight_tangents in zip(passes, self._split_weights(v), strict=True):
            tangent = layer.jvp(weight_tangents, tangent)
        assert tangent is not None  # the last layer maps to one logit, so it has weights
        return tangent

    def _generator_logit_gradient(self, probability: Tensor) -> Tensor:
        """Return the derivative of G's loss by the logits, (2 B, 1)."""
        if self._loss.name == MINIMAX.name:
            return (self._label - probability).div_(self._batch_size)
        return (probability - 1).mul_(1 - self._label).div_(self._batch_size)

    def _split_weights(self, vector: Tensor) -> list[Sequence[Tensor]]:
        parts = self._discriminator.unflatten(vector)
        return [parts[end - layer.n_weights : end] for layer, end in zip(self._layers, self._ends, strict=True)]

    def _concatenate(self, parts: list[Tensor]) -> Tensor:
        return torch.cat([part.reshape(-1) for part in parts])

    def _select_fake(self, by_x: Tensor) -> Tensor:
        return by_x[self._batch_size :].reshape(self._shape)

    def _evaluate(self, logits: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> float:
        return float(loss(logits[: self._batch_size], logits[self._batch_size :]))
