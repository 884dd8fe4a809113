"""Captures a network's first linear layer and the BatchNorm after it by watching a forward pass."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from gandiag.checkpoints.batchnorm.first_layer import FirstLayer, build_first_layer
from gandiag.checkpoints.batchnorm.moments import StopForward, module_device

_N_DRAWS = 4
_MAX_CLASSES = 512  # classes that are drawn, of as many as there are
_WATCHED = (
    nn.Linear,
    nn.ConvTranspose2d,
    nn.modules.batchnorm._BatchNorm,
    nn.ReLU,
    nn.LeakyReLU,
    nn.Tanh,
    nn.Sigmoid,
    nn.GELU,
    nn.ELU,
    nn.SELU,
    nn.SiLU,
)


@dataclass(frozen=True, slots=True)
class _LayerCall:
    """One call of a layer, with its first input and its output."""

    layer: nn.Module
    input: Tensor
    output: Tensor


def capture_first_layer(
    forward: Callable[[Tensor, Tensor | None], Tensor],
    module: nn.Module,
    latent_shape: tuple[int, ...],
    classes: int | None,
) -> FirstLayer | None:
    """Run `forward` on a few latents and return the first linear layer with the BatchNorm after it.

    None if no BatchNorm follows directly, or if the layer's input is neither the latent itself nor the latent times
    something that depends on its class (a normalized z, a mapping network).
    """
    rng = torch.Generator().manual_seed(7)
    drawn = torch.arange(0)
    if classes is not None:
        drawn = torch.arange(min(classes, _MAX_CLASSES)) * classes // min(classes, _MAX_CLASSES)
    labels = None if classes is None else drawn[torch.arange(max(_N_DRAWS, 2 * len(drawn))) % len(drawn)]
    z = torch.randn(_N_DRAWS if labels is None else len(labels), *latent_shape, generator=rng)
    calls: list[_LayerCall] = []
    device = module_device(module)

    def watch(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if len(calls) < 2 and inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
            calls.append(_LayerCall(layer, inputs[0].detach().cpu().clone(), output.detach().cpu().clone()))
            if len(calls) == 2:
                raise StopForward

    hooks = [part.register_forward_hook(watch) for part in module.modules() if isinstance(part, _WATCHED)]
    try:
        with torch.no_grad(), contextlib.suppress(StopForward):
            forward(z.to(device), None if labels is None else labels.to(device))
    finally:
        for hook in hooks:
            hook.remove()
    return _interpret_calls(calls, z.flatten(1), len(drawn)) if len(calls) == 2 else None


def _interpret_calls(calls: list[_LayerCall], z: Tensor, classes: int) -> FirstLayer | None:
    """The first layer of the first two calls.

    `classes`: how many were drawn in turn; 0 for an unconditional network.
    """
    first, second = calls
    if not isinstance(first.layer, (nn.Linear, nn.ConvTranspose2d)) or not isinstance(
        second.layer, nn.modules.batchnorm._BatchNorm
    ):
        return None
    x = first.input.flatten(1)
    if not torch.equal(first.output.flatten(), second.input.flatten()) or x.shape[1] < z.shape[1]:
        return None
    if isinstance(first.layer, nn.ConvTranspose2d) and x.shape[1] != first.layer.in_channels:
        return None  # not a 1x1 input
    latents = [column for column in range(x.shape[1]) if bool((x[:, column, None] == z).all(0).any())]
    weights, statistics = (
        {name: entry.cpu() for name, entry in call.layer.state_dict().items()} for call in (first, second)
    )
    if len(latents) == z.shape[1]:
        offsets = x[:classes].double()
        offsets[:, latents] = 0
        return build_first_layer(
            weights, statistics, latents, offsets if classes and x.shape[1] > len(latents) else None
        )
    scales = _class_scales(x, z, classes)
    layer = None if scales is None else build_first_layer(weights, statistics)
    return None if layer is None else replace(layer, class_scales=scales)


def _class_scales(x: Tensor, z: Tensor, classes: int) -> Tensor | None:
    """What each class multiplies the latents by, (K, D); None unless it is the same in both halves of the draws."""
    if not classes or x.shape != z.shape or len(z) < 2 * classes:
        return None
    first, second = (x[start : start + classes] / z[start : start + classes] for start in (0, classes))
    return first.double() if torch.allclose(first, second, rtol=1e-3, atol=1e-5) else None
