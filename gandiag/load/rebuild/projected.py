"""A linear layer whose output is reshaped into a small picture, then transposed convolutions, or upsampling and convolutions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from math import isqrt

from gandiag.config import AuditConfig
from gandiag.load.rebuild.chain import Blueprint, Step
from gandiag.load.rebuild.geometry import Geometry
from gandiag.load.rebuild.layers import Layer, NotThis, gaps, layers_of
from gandiag.load.rebuild.mlp import between, flat_steps
from gandiag.load.rebuild.transposed import Rising, kernel_steps, rising, transposition
from gandiag.load.rebuild.upsampled import Body, shuffled, shuffles, upsampled
from gandiag.load.weights import Weights


def rebuild(weights: Weights, config: AuditConfig) -> Blueprint:
    """Linear layers, a reshape, kernels. NotThis if the linear part's width is no square picture of the kernels' channels."""
    layers = layers_of(weights)
    start = next((i for i, layer in enumerate(layers) if layer.kind == "kernel"), 0)
    if start == 0 or layers[0].kind != "linear" or any(layer.kind == "linear" for layer in layers[start:]):
        raise NotThis("it is not a linear layer followed by convolutions")
    spacing = gaps(layers, weights.modules)
    channels, split = _reshape(layers, start)
    flat, width = flat_steps(layers[:split], spacing[:split])
    if not _square(width, channels):
        raise NotThis(f"{width} values are no square picture of {channels} channels")
    side = isqrt(width // channels)
    lead = _beside_the_reshape(layers[split - 1], layers[split], spacing[split - 1])
    flat += between(layers[split - 1], layers[split], lead)
    unflatten = Step("unflatten", size=(channels, side, side))
    before = sum(layer.kind == "norm" for layer in layers[:split])
    body = Body(layers[0].shape[1], (*flat, unflatten), layers[split:], spacing[split:], before, lead)
    try:
        turned = transposition(body.layers, channels)
    except NotThis:  # pixels that are shuffled between convolutions follow each other in no other way
        with contextlib.suppress(NotThis):
            return shuffled(body, side, shuffles(body.layers, channels), config)
        raise
    if any(turned):
        return rising(body.layers, turned, config, Rising(side, 0, _finish(body, turned, config), before))
    return upsampled(body, side, config)


def _finish(body: Body, turned: list[bool], config: AuditConfig) -> Callable[[list[Geometry], int], Blueprint]:
    def finish(geometry: list[Geometry], side: int) -> Blueprint:
        steps, channels = kernel_steps(body.layers, body.spacing, turned, geometry)
        return body.whole(steps, (channels, side, side), config)

    return finish


def _reshape(layers: list[Layer], start: int) -> tuple[int, int]:
    """Channels after the reshape, and the index of the first layer behind it: a norm narrower than the linear layer, or the kernel."""
    before = layers[start - 1]
    if before.kind == "norm" and start >= 2 and layers[start - 2].kind == "linear" and layers[start - 2].shape[0] != before.shape[0]:
        return before.shape[0], start - 1
    width, (first, second, kernel, _) = before.shape[0], layers[start].shape
    # A transposed kernel names its inputs first, a convolution second; where either goes on, even sizes are transposed.
    either = [into for into in ((first, second) if kernel % 2 == 0 else (second, first)) if _square(width, into)]
    if not either:
        raise NotThis(f"{width} values are no square picture of {first} or {second} channels")
    behind = layers[start:]
    return next((into for follow in (transposition, shuffles) for into in either if _goes_on(follow, behind, into)), either[0]), start


def _beside_the_reshape(first: Layer, second: Layer, gap: int | None) -> int | None:
    """Modules without weights between two layers of which one reshapes, as in any stack that both stand in."""
    return gap - 1 if gap and first.name.rpartition(".")[0] == second.name.rpartition(".")[0] else gap


def _square(width: int, channels: int) -> bool:
    return width % channels == 0 and isqrt(width // channels) ** 2 == width // channels


def _goes_on(follow: Callable[[list[Layer], int], object], layers: list[Layer], channels: int) -> bool:
    """Do the layers follow each other from so many channels?"""
    try:
        follow(layers, channels)
    except NotThis:
        return False
    return True
