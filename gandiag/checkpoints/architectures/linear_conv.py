"""A linear layer whose output is reshaped into a small picture, then transposed convolutions, or upsampling and convolutions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from math import isqrt

from gandiag.checkpoints.architectures.dcgan import (
    TransposedStack,
    build_transposed_spec,
    find_transposed_convs,
    stack_conv_layers,
)
from gandiag.checkpoints.architectures.mlp import activation_layer_specs, stack_linear_layers
from gandiag.checkpoints.architectures.upsample_conv import (
    ConvStack,
    build_interpolation_spec,
    build_pixel_shuffle_spec,
    find_pixel_shuffles,
)
from gandiag.checkpoints.inference.conv_geometry import StrideSpec
from gandiag.checkpoints.inference.layer_list import (
    ArchitectureMismatch,
    LayerWeights,
    count_modules_between,
    parse_layers,
)
from gandiag.checkpoints.inference.sequential import LayerSpec, SequentialSpec
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig


def rebuild(weights: Weights, config: AuditConfig) -> SequentialSpec:
    """Linear layers, a reshape, kernels. NotThis if the linear part's width is no square picture of the kernels' channels."""
    layers = parse_layers(weights)
    start = next((i for i, layer in enumerate(layers) if layer.kind == "kernel"), 0)
    if start == 0 or layers[0].kind != "linear" or any(layer.kind == "linear" for layer in layers[start:]):
        raise ArchitectureMismatch("it is not a linear layer followed by convolutions")
    spacing = count_modules_between(layers, weights.module_names)
    channels, split = _reshape(layers, start)
    flat, width = stack_linear_layers(layers[:split], spacing[:split])
    if not _square(width, channels):
        raise ArchitectureMismatch(f"{width} values are no square picture of {channels} channels")
    side = isqrt(width // channels)
    lead = _beside_the_reshape(layers[split - 1], layers[split], spacing[split - 1])
    flat += activation_layer_specs(layers[split - 1], layers[split], lead)
    unflatten = LayerSpec("unflatten", size=(channels, side, side))
    before = sum(layer.kind == "norm" for layer in layers[:split])
    body = ConvStack(layers[0].shape[1], (*flat, unflatten), layers[split:], spacing[split:], before, lead)
    try:
        turned = find_transposed_convs(body.layers, channels)
    except ArchitectureMismatch:  # pixels that are shuffled between convolutions follow each other in no other way
        with contextlib.suppress(ArchitectureMismatch):
            return build_pixel_shuffle_spec(body, side, find_pixel_shuffles(body.layers, channels), config)
        raise
    if any(turned):
        return build_transposed_spec(
            body.layers, turned, config, TransposedStack(side, 0, _finish(body, turned, config), before)
        )
    return build_interpolation_spec(body, side, config)


def _finish(
    body: ConvStack, turned: list[bool], config: AuditConfig
) -> Callable[[list[StrideSpec], int], SequentialSpec]:
    def finish(geometry: list[StrideSpec], side: int) -> SequentialSpec:
        steps, channels = stack_conv_layers(body.layers, body.modules_between, turned, geometry)
        return body.build_spec(steps, (channels, side, side), config)

    return finish


def _reshape(layers: list[LayerWeights], start: int) -> tuple[int, int]:
    """Channels after the reshape, and the index of the first layer behind it: a norm narrower than the linear layer, or the kernel."""
    before = layers[start - 1]
    if (
        before.kind == "norm"
        and start >= 2
        and layers[start - 2].kind == "linear"
        and layers[start - 2].shape[0] != before.shape[0]
    ):
        return before.shape[0], start - 1
    width, (first, second, kernel, _) = before.shape[0], layers[start].shape
    # A transposed kernel names its inputs first, a convolution second; where either goes on, even sizes are transposed.
    either = [into for into in ((first, second) if kernel % 2 == 0 else (second, first)) if _square(width, into)]
    if not either:
        raise ArchitectureMismatch(f"{width} values are no square picture of {first} or {second} channels")
    behind = layers[start:]
    return next(
        (
            into
            for follow in (find_transposed_convs, find_pixel_shuffles)
            for into in either
            if _goes_on(follow, behind, into)
        ),
        either[0],
    ), start


def _beside_the_reshape(first: LayerWeights, second: LayerWeights, gap: int | None) -> int | None:
    """Modules without weights between two layers of which one reshapes, as in any stack that both stand in."""
    return gap - 1 if gap and first.name.rpartition(".")[0] == second.name.rpartition(".")[0] else gap


def _square(width: int, channels: int) -> bool:
    return width % channels == 0 and isqrt(width // channels) ** 2 == width // channels


def _goes_on(follow: Callable[[list[LayerWeights], int], object], layers: list[LayerWeights], channels: int) -> bool:
    """Do the layers follow each other from so many channels?"""
    try:
        follow(layers, channels)
    except ArchitectureMismatch:
        return False
    return True
