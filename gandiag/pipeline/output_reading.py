"""A sigmoid in place of the tanh assumed after the last layer, unless the real data's values speak against it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from gandiag.checkpoints.generator import LoadedGenerator, Reading
from gandiag.checkpoints.inference.sequential import SequentialGenerator
from gandiag.interfaces import OutputSpec

_QUANTILES = 25
_CLEARLY_FARTHER = 1.25  # distance of the sigmoid's values over the tanh's, from which it is no reading


def make_sigmoid_reading(generator: LoadedGenerator, samples: Tensor, real: Tensor) -> Reading | None:
    """The generator with a sigmoid, range [0, 1]; None where tanh is no guess, or the real values clearly favor it.

    `samples`, `real`: (N, D) values in [-1, 1]. No BatchNorm comes after the last layer, so only data can tell.
    """
    is_guess = any(
        entry.setting == "output_activation" and entry.value == "tanh" and entry.source == "default"
        for entry in generator.assumptions
    )
    network = generator.module
    if not is_guess or generator.output.kind != "image" or not isinstance(network, SequentialGenerator):
        return None
    if not isinstance(network.layers[-1], nn.Tanh):
        return None
    logits = samples.double().clamp(-1 + 1e-7, 1 - 1e-7).atanh()
    if _quantile_distance((logits / 2).tanh(), real) >= _CLEARLY_FARTHER * _quantile_distance(samples, real):
        return None
    layers = nn.Sequential(*list(network.layers)[:-1], nn.Sigmoid())
    module = SequentialGenerator(layers, network.input_shape, network.output_shape).eval()
    output = OutputSpec("image", generator.output.shape, (0.0, 1.0))
    return Reading({"output_activation": "sigmoid"}, replace(generator, module=module, output=output))


def _quantile_distance(first: Tensor, second: Tensor) -> float:
    """Mean difference between the quantiles of all values."""
    at = torch.linspace(0.02, 0.98, _QUANTILES, dtype=torch.float64)
    quantiles = [torch.quantile(values.flatten().double()[:200_000], at) for values in (first, second)]
    return float((quantiles[0] - quantiles[1]).abs().mean())
