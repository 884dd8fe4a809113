"""Estimates what a forward pass to each BatchNorm costs, and how many latents it can afford."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gandiag.checkpoints.batchnorm.sequential import MAX_CHANNELS, BatchNorm
from gandiag.checkpoints.inference.sequential import SequentialGenerator

WEIGHTED_LAYERS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
_MAC_BUDGET, _COARSE_MAC_BUDGET = 2e8, 3e7  # multiplications of one pass, roughly; of one among hundreds
_MAX_VALUES = 4e6  # numbers in the largest activation
_MIN_LATENTS, _MAX_COARSE_LATENTS, _MAX_LATENTS = 16, 128, 1024
MACS_PER_VALUE = 60  # multiplications that take as long as writing a number and reading it again, roughly


@dataclass(frozen=True, slots=True)
class ForwardCost:
    """Cost of one sample up to a BatchNorm.

    `macs_before`: multiplications before the last weighted layer; `macs_last`: of that layer, for the channels that are
    computed; `largest_layer`: numbers in the largest activation; `total_values`: in all activations.
    """

    macs_before: float
    macs_last: float
    largest_layer: float
    total_values: float

    @property
    def max_latents(self) -> int:
        """Number of latents that a pass can afford; even."""
        return self._affordable(_MAC_BUDGET, _MAX_LATENTS)

    @property
    def max_latents_coarse(self) -> int:
        """Number of latents that one of hundreds of passes can afford; even."""
        return self._affordable(_COARSE_MAC_BUDGET, _MAX_COARSE_LATENTS)

    @property
    def cost_per_sample(self) -> float:
        """In multiplications; small layers cost the time it takes to write their activations."""
        return self.macs_before + self.macs_last + MACS_PER_VALUE * self.total_values

    def _affordable(self, mac_budget: float, limit: int) -> int:
        by_macs = mac_budget / max(1.0, self.macs_before + self.macs_last)
        by_memory = _MAX_VALUES / max(1.0, self.largest_layer)
        return max(_MIN_LATENTS, 2 * int(min(by_macs, by_memory, limit) / 2))


def estimate_costs(generator: SequentialGenerator, depth: int | None = None) -> list[ForwardCost]:
    """The cost of reaching each BatchNorm, or each of the first `depth`, by a pass of two samples.

    RuntimeError where the layers do not fit each other.
    """
    costs: list[ForwardCost] = []
    x = torch.zeros(2, *generator.input_shape)
    macs_before, macs_last, largest, total = 0.0, 0.0, 0.0, 0.0
    follows_weights = False  # does a weighted layer's output go straight to the next layer?
    with torch.no_grad():
        for layer in generator.layers:
            if len(costs) == depth:
                break
            inputs, x = x, layer(x)
            values = float(x[0].numel())
            largest, total = max(largest, values), total + values
            if isinstance(layer, WEIGHTED_LAYERS):
                positions = math.prod((inputs if isinstance(layer, nn.ConvTranspose2d) else x).shape[2:])
                macs_before, macs_last = macs_before + macs_last, float(layer.weight.numel() * positions)
            elif isinstance(layer, BatchNorm):
                computed = min(1.0, MAX_CHANNELS / layer.num_features) if follows_weights else 1.0
                costs.append(ForwardCost(macs_before, macs_last * computed, largest, total))
            follows_weights = isinstance(layer, WEIGHTED_LAYERS)
    return costs


def count_multiplications(module: nn.Module, forward: Callable[[], object]) -> float:
    """Multiplications of the module's weighted layers in one call of `forward`, which runs it."""
    total = 0.0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        weight = layer.weight
        assert isinstance(weight, Tensor)
        x = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
        total += float(weight.numel() * len(x) * math.prod(x.shape[2:]))

    hooks = [layer.register_forward_hook(count) for layer in module.modules() if isinstance(layer, WEIGHTED_LAYERS)]
    try:
        forward()
    finally:
        for hook in hooks:
            hook.remove()
    return total
