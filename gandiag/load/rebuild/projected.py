"""A linear layer whose output is reshaped into a small picture, then transposed convolutions, or upsampling and convolutions."""

from __future__ import annotations

from gandiag.config import AuditConfig
from gandiag.contracts import Assumption
from gandiag.errors import LoadError
from gandiag.load.rebuild.chain import Blueprint, Step, conv_step, norm_step
from gandiag.load.rebuild.layers import Layer, NotThis, gaps, layers_of
from gandiag.load.rebuild.mlp import activated, flat_steps
from gandiag.load.rebuild.outputs import image_output
from gandiag.load.rebuild.transposed import final_side, grown, kernel_steps, transposition
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
    side = round((width / channels) ** 0.5)
    if channels * side * side != width:
        raise NotThis(f"{width} values are no square picture of {channels} channels")
    if activated(layers[split - 1], layers[split], spacing[split - 1]):
        flat.append(Step("activation"))
    unflatten = Step("unflatten", size=(channels, side, side))
    tail, gap = layers[split:], spacing[split:]
    turned = transposition(tail, channels)
    if any(turned):
        rising = [layer for layer, up in zip(tail, turned, strict=True) if up]
        geometry, assumed = grown(side, rising, config)
        steps, channels = kernel_steps(tail, gap, turned, geometry)
        side = final_side(side, rising, geometry)
    else:
        steps, channels, side, assumed = _upsampled(tail, gap, side, config)
    output, final, said = image_output((channels, side, side), spacing[-1], config)
    return Blueprint("projected", (*flat, unflatten, *steps), layers[0].shape[1], False, output, final, (*assumed, *said))


def _reshape(layers: list[Layer], start: int) -> tuple[int, int]:
    """Channels after the reshape, and the index of the first layer behind it: a norm narrower than the linear layer, or the kernel."""
    before = layers[start - 1]
    if before.kind == "norm" and start >= 2 and layers[start - 2].kind == "linear" and layers[start - 2].shape[0] != before.shape[0]:
        return before.shape[0], start - 1
    kernel = layers[start].shape
    width = layers[start - 1].shape[0]
    # A transposed kernel names its inputs first, a convolution second; where both divide the width, even sizes are transposed.
    into = kernel[0] if kernel[2] % 2 == 0 or width % kernel[1] else kernel[1]
    return into, start


def _upsampled(layers: list[Layer], spacing: list[int | None], side: int, config: AuditConfig) -> tuple[list[Step], int, int, tuple[Assumption, ...]]:
    """Convolutions with nearest-neighbour doubling where a second module stands before one, or as --image-size asks."""
    kernels = [i for i, layer in enumerate(layers) if layer.kind == "kernel"]
    room = [0 if i == 0 else spacing[i - 1] for i in kernels]
    bare = len(layers) > 1 and layers[0].kind == "norm" and spacing[0] == 1  # PyTorch-GAN: reshape, norm, upsample
    doubled = [i for i, modules in zip(kernels, room, strict=True) if (modules or 0) >= 2 or (bare and i == 1)]
    source = "metadata"
    if config.image_size is not None and side * 2 ** len(doubled) != config.image_size:
        times = (config.image_size // side).bit_length() - 1
        if side * 2**times != config.image_size or times > len(kernels):
            listed = ", ".join(str(side * 2**n) for n in range(len(kernels) + 1))
            raise LoadError(f"--image-size {config.image_size} contradicts the weights, which lead to {listed}", f"remove it, or choose from: {listed}")
        doubled, source = kernels[:times], "flag"
    elif not doubled and any(modules is None for modules in room[1:]):
        raise LoadError("the weights do not say where the picture is upsampled", "give the size of the output: --image-size N")
    steps: list[Step] = []
    for index, layer in enumerate(layers):
        if index in doubled:
            steps.append(Step("upsample"))
        taken = bare and index == 0  # PyTorch-GAN: the one module there is the upsampling, and this norm alone has the usual eps
        steps.append(norm_step(layer, spatial=True, ordinary=taken) if layer.kind == "norm" else conv_step(layer))
        if index + 1 < len(layers) and not taken and activated(layer, layers[index + 1], spacing[index]):
            steps.append(Step("activation"))
    grown_to = side * 2 ** len(doubled)
    value = f"nearest, before {', '.join(layers[i].name for i in doubled) or 'no layer'}: {side} to {grown_to} pixels"
    return steps, layers[kernels[-1]].shape[0], grown_to, (Assumption("upsampling (--image-size)", value, source),)
