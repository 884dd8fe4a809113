"""Compares a discriminator's BatchNorm input moments with its running statistics."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gandiag.checkpoints.batchnorm.moments import enable_dropout
from gandiag.interfaces import IMPOSSIBLE_MISMATCH

_N_REAL_FRACTIONS = 21  # fractions of real minibatches that are tried, from 0 to 1


def discriminator_mismatch(module: nn.Module, real: Tensor, fake: Tensor) -> float:
    """Mean over BatchNorm layers of |Δmean| / sigma + |log variance ratio|, at the best-fitting real fraction.

    real, fake: (B, *shape), normalized separately, as in training. 0 is exact. Reads high when the real or generated
    samples differ from those of the last training steps. Cost: two forwards of B.
    """
    real_moments, fake_moments = _collect_moments(module, real), _collect_moments(module, fake)
    layers = [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    table = torch.zeros(_N_REAL_FRACTIONS, len(layers), dtype=torch.float64)
    fraction = torch.linspace(0, 1, _N_REAL_FRACTIONS, dtype=torch.float64)[:, None]  # (F, 1)
    for index, layer in enumerate(layers):
        (real_mean, real_var), (fake_mean, fake_var) = real_moments[index], fake_moments[index]
        assert layer.running_mean is not None and layer.running_var is not None
        variance = layer.running_var.double() + 1e-12
        shift = (
            (fraction * real_mean + (1 - fraction) * fake_mean - layer.running_mean.double()).abs() / variance.sqrt()
        ).clamp_max(10)
        stretch = ((fraction * real_var + (1 - fraction) * fake_var + 1e-12) / variance).log().abs().clamp_max(10)
        table[:, index] = (shift + stretch).mean(1)
    mismatch = table.mean(1)
    return float(mismatch.min()) if bool(torch.isfinite(mismatch).all()) else IMPOSSIBLE_MISMATCH


def _collect_moments(module: nn.Module, x: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Mean and variance (C,) of each BatchNorm's input; every BatchNorm normalizes with the batch's own statistics."""
    moments: list[tuple[Tensor, Tensor]] = []

    def collect(layer: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> Tensor:
        assert isinstance(layer, nn.modules.batchnorm._BatchNorm)
        values = inputs[0].detach().transpose(0, 1).flatten(1).double()  # (C, B * positions)
        moments.append((values.mean(1), values.var(1)))
        return torch.nn.functional.batch_norm(inputs[0], None, None, layer.weight, layer.bias, True, 0.0, layer.eps)

    hooks = [
        part.register_forward_hook(collect)
        for part in module.modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm)
    ]
    try:
        with torch.no_grad(), enable_dropout(module):
            module(x)
    finally:
        for hook in hooks:
            hook.remove()
    return moments
