"""DCGAN and its kin: a stack of transposed convolutions on a 1x1 latent, with batch norm or without."""

from __future__ import annotations

from gandiag.config import AuditConfig
from gandiag.contracts import Assumption
from gandiag.errors import LoadError
from gandiag.load.rebuild.chain import Blueprint, Step, conv_step, norm_step, transposed_step
from gandiag.load.rebuild.geometry import Geometry, plan, side_after
from gandiag.load.rebuild.layers import Layer, NotThis, gaps, layers_of
from gandiag.load.rebuild.mlp import activated
from gandiag.load.rebuild.outputs import image_output
from gandiag.load.weights import Weights


def rebuild(weights: Weights, config: AuditConfig) -> Blueprint:
    """A chain that starts with ConvTranspose2d on (inputs, 1, 1). NotThis if a linear layer or anything unknown is in it."""
    layers = layers_of(weights)
    if not layers or layers[0].kind != "kernel" or any(layer.kind == "linear" for layer in layers):
        raise NotThis("it is not made of convolutions alone")
    first = layers[0]
    spacing = gaps(layers, weights.modules)
    turned = transposition(layers, first.shape[0])
    if not turned[0]:
        raise NotThis(f"{first.key} is {first.shape}: a convolution, which takes an image")
    rising = [layer for layer, up in zip(layers, turned, strict=True) if up][1:]
    geometry, assumed = grown(first.shape[2], rising, config)
    steps, channels = kernel_steps(layers, spacing, turned, [(1, 0, 0), *geometry])
    side = final_side(first.shape[2], rising, geometry)
    output, final, said = image_output((channels, side, side), spacing[-1], config)
    return Blueprint("transposed", tuple(steps), first.shape[0], True, output, final, (*assumed, *said))


def transposition(layers: list[Layer], channels: int) -> list[bool]:
    """Which kernels are transposed, by chaining channels: ConvTranspose2d is (in, out, k, k), Conv2d (out, in, k, k).

    A square kernel fits both ways; even sizes are then transposed, as convolutions that keep the size have odd ones.
    """
    found = []
    for layer in layers:
        if layer.kind == "norm":
            if layer.shape[0] != channels:
                raise NotThis(f"{layer.name}.running_mean has {layer.shape[0]} entries after {channels} channels")
            found.append(False)
            continue
        into, out, kernel, other = layer.shape
        if kernel != other:
            raise NotThis(f"{layer.key} is {layer.shape}: its kernel is not square")
        up = into == channels and (out != channels or kernel % 2 == 0)
        if not up and (out != channels or kernel % 2 == 0):
            raise NotThis(f"{layer.key} is {layer.shape}, which does not take the {channels} channels before it")
        channels = out if up else into
        found.append(up)
    return found


def grown(start: int, layers: list[Layer], config: AuditConfig) -> tuple[list[Geometry], tuple[Assumption, ...]]:
    """Strides and paddings that lead from `start` to a customary side, or to --image-size."""
    found = plan(start, [layer.shape[2] for layer in layers], config.image_size)
    if found is None:
        raise NotThis(f"kernels of size {', '.join(str(layer.shape[2]) for layer in layers)} have no customary stride")
    geometry, sides = found
    if len(geometry) != len(layers):
        listed = ", ".join(map(str, sides[:12]))
        raise LoadError(f"--image-size {config.image_size} contradicts the weights: their kernels lead to {listed}", f"remove it, or choose from: {listed}")
    value = " ".join(f"k{layer.shape[2]}s{s}p{p}" + (f"+{extra}" if extra else "") for layer, (s, p, extra) in zip(layers, geometry, strict=True))
    if not layers:
        return geometry, ()
    return geometry, (Assumption("strides and paddings (--image-size)", value, "flag" if config.image_size else "default"),)


def final_side(side: int, layers: list[Layer], geometry: list[Geometry]) -> int:
    """The side after these transposed convolutions."""
    for layer, chosen in zip(layers, geometry, strict=True):
        side = side_after(side, layer.shape[2], chosen)
    return side


def kernel_steps(layers: list[Layer], spacing: list[int | None], turned: list[bool], geometry: list[Geometry]) -> tuple[list[Step], int]:
    """Steps of kernels and norms with activations between them, and the channels at the end. One geometry per transposed kernel."""
    steps: list[Step] = []
    channels, strides = layers[0].shape[0], iter(geometry)
    for index, layer in enumerate(layers):
        if layer.kind == "norm":
            steps.append(norm_step(layer, spatial=True))
        elif turned[index]:
            steps.append(transposed_step(layer, next(strides)))
            channels = layer.shape[1]
        else:
            steps.append(conv_step(layer))
            channels = layer.shape[0]
        if index + 1 < len(layers) and activated(layer, layers[index + 1], spacing[index]):
            steps.append(Step("activation"))
            if spacing[index] == 2:
                steps.append(Step("dropout"))  # a second module without weights: what it is, the statistics say
    return steps, channels
