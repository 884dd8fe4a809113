"""A linear layer reshaped to a small feature map, then transposed convolutions, or upsampling and convolutions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import isqrt

from gandiag.checkpoints.architectures.dcgan import (
    TransposedStack,
    build_transposed_spec,
    find_square_odd_kernels,
    find_transposed_convs,
    prefers_square_transposed,
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
from gandiag.checkpoints.inference.layer_specs import LayerSpec
from gandiag.checkpoints.inference.sequential import SequentialSpec, build_with_variants
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig


@dataclass(frozen=True, slots=True)
class _Structure:
    """What neither shapes nor names show: an activation after the linear layers, upsampling first, square kernels."""

    reshape_activation: bool = True
    upsample_first: bool = False
    square_transposed: bool = False


def rebuild(weights: Weights, config: AuditConfig) -> SequentialSpec:
    """Linear layers, a reshape, convolutions.

    ArchitectureMismatch if the linear part cannot be reshaped to the kernels' channels.
    """
    layers = parse_layers(weights, with_affine=True)
    first_kernel = next((i for i, layer in enumerate(layers) if layer.kind == "kernel"), 0)
    if (
        first_kernel == 0
        or layers[0].kind != "linear"
        or any(layer.kind == "linear" for layer in layers[first_kernel:])
    ):
        raise ArchitectureMismatch("it is not a linear layer followed by convolutions")
    modules_between = count_modules_between(layers, weights.module_names)
    channels, split = _find_reshape(layers, first_kernel)
    n_modules = _count_beside_reshape(layers[split - 1], layers[split], modules_between[split - 1])
    ambiguous = find_square_odd_kernels(layers[split:])
    squares = [prefers_square_transposed(layers[split:], channels)] if ambiguous else [False]
    squares += [not squares[0]] if ambiguous else []
    structures = [("", _Structure(square_transposed=square)) for square in squares]
    if len(squares) > 1:
        structures = [(_SQUARE_TEXT[square], _Structure(square_transposed=square)) for square in squares]
    if layers[split].kind == "kernel" and n_modules == 1 and layers[split - 1].kind != "prelu":
        first = _Structure(reshape_activation=False, upsample_first=True, square_transposed=squares[0])
        structures.append(("upsampling, not an activation, after the reshape", first))
    elif layers[split].kind == "kernel" and n_modules is None:
        bare = _Structure(reshape_activation=False, square_transposed=squares[0])
        structures.append(("no activation after the first linear layers", bare))
        first = _Structure(reshape_activation=False, upsample_first=True, square_transposed=squares[0])
        structures.append(("upsampling, not an activation, after the reshape", first))
    return build_with_variants(
        [(text, partial(_build, layers, modules_between, config, entry)) for text, entry in structures],
        unseen=not any(layer.kind == "norm" for layer in layers[split + 1 :]),
    )


_SQUARE_TEXT = {True: "square kernels are transposed", False: "square kernels are plain convolutions"}


def _build(
    layers: list[LayerWeights], modules_between: list[int | None], config: AuditConfig, structure: _Structure
) -> SequentialSpec:
    first_kernel = next(i for i, layer in enumerate(layers) if layer.kind == "kernel")
    channels, split = _find_reshape(layers, first_kernel)
    open_norms = not any(layer.kind in ("norm", "affine") for layer in layers)
    linear_specs, width = stack_linear_layers(layers[:split], modules_between[:split], open_norms=open_norms)
    if not _is_square_map(width, channels):
        raise ArchitectureMismatch(f"{width} features cannot be reshaped to {channels} square maps")
    map_size = isqrt(width // channels)
    n_modules = _count_beside_reshape(layers[split - 1], layers[split], modules_between[split - 1])
    if structure.reshape_activation:
        linear_specs += activation_layer_specs(layers[split - 1], layers[split], n_modules, open_norms=open_norms)
    unflatten = LayerSpec("unflatten", size=(channels, map_size, map_size))
    stack = ConvStack(
        layers[0].shape[1],
        (*linear_specs, unflatten),
        layers[split:],
        modules_between[split:],
        sum(layer.kind == "norm" for layer in layers[:split]),
        2 if structure.upsample_first else n_modules,
    )
    try:
        is_transposed = find_transposed_convs(stack.layers, channels, square_transposed=structure.square_transposed)
    except ArchitectureMismatch:  # channels that fit only with a pixel shuffle between the convolutions
        with contextlib.suppress(ArchitectureMismatch):
            return build_pixel_shuffle_spec(stack, map_size, find_pixel_shuffles(stack.layers, channels), config)
        raise
    if any(is_transposed) and not structure.upsample_first:
        return _build_transposed(stack, map_size, is_transposed, config)
    if any(is_transposed):
        raise ArchitectureMismatch("transposed convolutions upsample by themselves")
    return build_interpolation_spec(stack, map_size, config)


def _build_transposed(
    stack: ConvStack, map_size: int, is_transposed: list[bool], config: AuditConfig
) -> SequentialSpec:
    def build_spec(stride_specs: list[StrideSpec], image_size: int) -> SequentialSpec:
        layer_specs, channels = stack_conv_layers(
            stack.layers, stack.modules_between, is_transposed, stride_specs, config
        )
        return stack.build_spec(layer_specs, (channels, image_size, image_size), config)

    transposed = TransposedStack(map_size, 0, build_spec, stack.previous_batchnorms)
    return build_transposed_spec(stack.layers, is_transposed, config, transposed)


def _find_reshape(layers: list[LayerWeights], first_kernel: int) -> tuple[int, int]:
    """Channels after the reshape, and the index of the layer after it.

    That layer is a norm or PReLU narrower than the linear layer, or the kernel.
    """
    last_linear = max(index for index, layer in enumerate(layers[:first_kernel]) if layer.kind == "linear")
    width, (first, second, kernel, _) = layers[last_linear].shape[0], layers[first_kernel].shape
    for index in range(last_linear + 1, first_kernel):
        if not layers[index].accepts_channels(width):
            return layers[index].shape[0], index
    # A transposed kernel has its input channels first, a convolution second; where both fit, even kernels are
    # transposed.
    candidates = [
        channels
        for channels in ((first, second) if kernel % 2 == 0 else (second, first))
        if _is_square_map(width, channels)
    ]
    if not candidates:
        raise ArchitectureMismatch(f"{width} features cannot be reshaped to {first} or {second} square maps")
    following = layers[first_kernel:]
    fitting = (
        channels
        for match_layers in (find_transposed_convs, find_pixel_shuffles)
        for channels in candidates
        if _matches(match_layers, following, channels)
    )
    return next(fitting, candidates[0]), first_kernel


def _count_beside_reshape(first: LayerWeights, second: LayerWeights, n_modules: int | None) -> int | None:
    """Weightless modules between two layers, without the reshape, which is one of them within one container."""
    if n_modules and first.name.rpartition(".")[0] == second.name.rpartition(".")[0]:
        return n_modules - 1
    return n_modules


def _is_square_map(width: int, channels: int) -> bool:
    return width % channels == 0 and isqrt(width // channels) ** 2 == width // channels


def _matches(
    match_layers: Callable[[list[LayerWeights], int], object], layers: list[LayerWeights], channels: int
) -> bool:
    """Whether the layers follow each other from this number of channels."""
    try:
        match_layers(layers, channels)
    except ArchitectureMismatch:
        return False
    return True
