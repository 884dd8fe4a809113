"""DCGAN and similar: transposed convolutions on a 1x1 latent, with or without BatchNorm."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from gandiag.checkpoints.architectures.mlp import activation_layer_specs
from gandiag.checkpoints.inference.conv_geometry import (
    COMMON_IMAGE_SIZES,
    COMMON_STRIDES,
    MAX_IMAGE_SIZE,
    StrideSpec,
    describe_kernels,
    enumerate_strides,
    format_stride,
    format_strides,
    infer_strides,
    parse_stride,
    transposed_conv_size,
)
from gandiag.checkpoints.inference.layer_list import (
    ArchitectureMismatch,
    LayerWeights,
    count_modules_between,
    parse_layers,
)
from gandiag.checkpoints.inference.layer_specs import (
    LayerSpec,
    conv_layer_spec,
    norm_layer_spec,
    transposed_conv_layer_spec,
)
from gandiag.checkpoints.inference.output_activation import (
    assume_no_resize,
    progressive_gan_activation,
    resolve_image_output,
)
from gandiag.checkpoints.inference.sequential import Choice, OpenChoice, SequentialSpec, build_with_variants
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.interfaces import UNDECIDED, Assumption


@dataclass(frozen=True, slots=True)
class TransposedStack:
    """Transposed convolutions on a feature map of `start_size`; the first `n_fixed` layers have known strides.

    `build_spec`: (strides of the others, image size) -> spec. `previous_batchnorms`: BatchNorm layers before the list.
    """

    start_size: int
    n_fixed: int
    build_spec: Callable[[list[StrideSpec], int], SequentialSpec]
    previous_batchnorms: int = 0


@dataclass(frozen=True, slots=True)
class _OpenStrides:
    """Open choices of strides; `fix` gives the strides of the first layers for one option of each choice."""

    choices: tuple[OpenChoice, ...]
    fix: Callable[[tuple[int, ...]], list[StrideSpec]]


def rebuild(weights: Weights, config: AuditConfig) -> SequentialSpec:
    """A stack that starts with ConvTranspose2d on (inputs, 1, 1).

    ArchitectureMismatch for linear layers or anything unknown.
    """
    layers = parse_layers(weights, with_affine=True)
    if not layers or layers[0].kind != "kernel" or any(layer.kind == "linear" for layer in layers):
        raise ArchitectureMismatch("it is not made of convolutions only")
    ambiguous = find_square_odd_kernels(layers[1:])
    squares = [prefers_square_transposed(layers[1:], layers[0].shape[1])] if ambiguous else [False]
    squares += [not squares[0]] if ambiguous else []
    texts = {True: "square kernels are transposed", False: "square kernels are plain convolutions"}
    return build_with_variants(
        [(texts[square] if ambiguous else "", partial(_build, weights, layers, config, square)) for square in squares],
        unseen=not any(layer.kind == "norm" for layer in layers[2:]),
    )


def _build(
    weights: Weights, layers: list[LayerWeights], config: AuditConfig, square_transposed: bool
) -> SequentialSpec:
    modules_between = count_modules_between(layers, weights.module_names)
    is_transposed = _find_transposed_from_latent(layers, square_transposed)
    file_activation = progressive_gan_activation(weights.extra_settings.get("config"))

    def build_spec(stride_specs: list[StrideSpec], image_size: int) -> SequentialSpec:
        layer_specs, channels = stack_conv_layers(
            layers, modules_between, is_transposed, [(1, 0, 0), *stride_specs], config
        )
        output, activation, assumptions = resolve_image_output(
            (channels, image_size, image_size), modules_between[-1], config, file_activation
        )
        assumptions = (*assumptions, *assume_no_resize(modules_between[-1], config))
        return SequentialSpec(
            "transposed", tuple(layer_specs), layers[0].shape[0], True, output, activation, assumptions
        )

    return build_transposed_spec(layers, is_transposed, config, TransposedStack(layers[0].shape[2], 1, build_spec))


def _find_transposed_from_latent(layers: list[LayerWeights], square_transposed: bool) -> list[bool]:
    """Which kernels are transposed.

    The first one is, even where it is square: a convolution would do nothing to a single pixel.
    """
    first = layers[0]
    if first.shape[2] == first.shape[3] and first.accepts_out_channels(first.shape[1]):
        with contextlib.suppress(ArchitectureMismatch):
            found = find_transposed_convs(layers[1:], first.shape[1], square_transposed=square_transposed)
            return [True, *found]
    is_transposed = find_transposed_convs(layers, first.shape[0], square_transposed=square_transposed)
    if not is_transposed[0]:
        raise ArchitectureMismatch(f"{first.weight_key} is {first.shape}: a convolution, which takes an image")
    return is_transposed


def find_square_odd_kernels(layers: list[LayerWeights]) -> list[LayerWeights]:
    """Kernels that may be convolutions or transposed: as many inputs as outputs, and an odd size above 1."""
    return [
        layer
        for layer in layers
        if layer.kind == "kernel" and layer.shape[0] == layer.shape[1] and layer.shape[2] % 2 and layer.shape[2] > 1
    ]


def prefers_square_transposed(layers: list[LayerWeights], in_channels: int) -> bool:
    """Whether square odd kernels are more likely transposed: others of an odd size are, by their channels."""
    with contextlib.suppress(ArchitectureMismatch):
        found = find_transposed_convs(layers, in_channels)
        return any(transposed and layer.shape[2] % 2 for layer, transposed in zip(layers, found, strict=True))
    return True  # as plain convolutions the channels do not match


def find_transposed_convs(
    layers: list[LayerWeights], in_channels: int, *, square_transposed: bool = False
) -> list[bool]:
    """Which kernels are transposed, by matching channels: ConvTranspose2d is (in, out, k, k), Conv2d (out, in, k, k).

    With as many inputs as outputs both fit: even kernel sizes are then transposed, as convolutions that keep the image
    size have odd ones; odd ones above 1 only if `square_transposed`.
    """
    is_transposed = []
    for layer in layers:
        if layer.keeps_channels:
            if not layer.accepts_channels(in_channels):
                leaf = "running_mean" if layer.kind == "norm" else "weight"
                raise ArchitectureMismatch(
                    f"{layer.name}.{leaf} has {layer.shape[0]} entries after {in_channels} channels"
                )
            is_transposed.append(False)
            continue
        first, second, height, width = layer.shape
        if height != width:
            raise ArchitectureMismatch(f"{layer.weight_key} is {layer.shape}: its kernel is not square")
        prefers_transposed = second != in_channels or height % 2 == 0
        prefers_transposed |= square_transposed and first == second and height > 1
        transposed = first == in_channels and prefers_transposed
        out_channels = second if transposed else first
        if (not transposed and prefers_transposed) or not layer.accepts_out_channels(out_channels):
            raise ArchitectureMismatch(
                f"{layer.weight_key} is {layer.shape}, which does not take the {in_channels} channels before it"
            )
        in_channels = out_channels
        is_transposed.append(transposed)
    return is_transposed


def build_transposed_spec(
    layers: list[LayerWeights], is_transposed: list[bool], config: AuditConfig, stack: TransposedStack
) -> SequentialSpec:
    """The spec with the most common strides and paddings, or those that lead to --image-size.

    They are open choices where a BatchNorm follows; those given by --strides are not open.
    """
    indices = [index for index, transposed in enumerate(is_transposed) if transposed][stack.n_fixed :]
    kernels = [layers[index].shape[2] for index in indices]
    names = [layers[index].name for index in indices]
    if config.strides:
        return _build_with_given_strides([layers[index].weight_key for index in indices], kernels, config, stack)
    default = _infer_default_strides(kernels, config, stack)
    after = [_next_batchnorm(layers, index) for index in indices]
    batchnorms = [index + stack.previous_batchnorms for index in after if index is not None]  # layers without come last
    options = [
        (chosen, *(other for other in COMMON_STRIDES[kernel] if other != chosen))
        for kernel, chosen in zip(kernels, default, strict=True)
    ][: len(batchnorms)]
    if config.image_size is None:
        open_strides = _open_each_layer(names, kernels, options, batchnorms)
    else:
        paths = enumerate_strides(stack.start_size, kernels, config.image_size, options)
        open_strides = _open_together(names, kernels, paths, batchnorms)

    def rebuild_with(choices: tuple[int, ...]) -> SequentialSpec:
        fixed = open_strides.fix(choices)
        inferred = infer_strides(stack.start_size, kernels, config.image_size, fixed)
        if inferred is None or len(inferred[0]) != len(kernels):
            raise ArchitectureMismatch("no strides lead through its kernels")
        spec = stack.build_spec(inferred[0], transposed_stack_size(stack.start_size, kernels, inferred[0]))
        assumptions = spec.assumptions
        if len(fixed) < len(kernels):
            is_odd = any(kernel % 2 and kernel > 1 for kernel in kernels[len(fixed) :])
            is_guess = is_odd and spec.output.shape[-1] not in COMMON_IMAGE_SIZES
            source = "flag" if config.image_size else UNDECIDED if is_guess else "default"
            n = len(fixed)
            assumptions = (_assume_strides(names[n:], kernels[n:], inferred[0][n:], source), *assumptions)
        return replace(spec, assumptions=assumptions, open_choices=open_strides.choices, rebuild_with=rebuild_with)

    return rebuild_with((0,) * len(open_strides.choices))


def _infer_default_strides(kernels: list[int], config: AuditConfig, stack: TransposedStack) -> list[StrideSpec]:
    """The most common strides, of those that lead to --image-size. LoadError where none do."""
    inferred = infer_strides(stack.start_size, kernels, config.image_size)
    if inferred is None:
        raise ArchitectureMismatch(
            f"there are no common strides for kernels of size {', '.join(map(str, kernels))}; --strides 2/1,… gives "
            "the stride and padding of each"
        )
    default, sizes = inferred
    if len(default) != len(kernels) or config.image_size not in (None, *sizes):
        listed = ", ".join(map(str, sizes[:12])) + (", …" if len(sizes) > 12 else "")
        raise LoadError(
            f"--image-size {config.image_size} contradicts the weights: with common strides their kernels lead to "
            f"{listed}",
            f"remove it, or choose from: {listed}; for other strides, --strides 2/1,… (stride and padding of each)",
        )
    return default


def _build_with_given_strides(
    weight_keys: list[str], kernels: list[int], config: AuditConfig, stack: TransposedStack
) -> SequentialSpec:
    """The spec with --strides.

    LoadError where they are not one per kernel, do not fit, or lead elsewhere than --image-size.
    """
    given = config.strides or ()
    try:
        stride_specs = [parse_stride(part) for part in given]
    except ValueError:
        raise LoadError(
            f"--strides is {','.join(given)}",
            "give stride/padding of each layer, or stride/padding/output padding: 2/1,2/1,1/0",
        ) from None
    if len(stride_specs) != len(kernels):
        raise LoadError(
            f"--strides gives {len(stride_specs)}, but {len(kernels)} layers have a stride: {', '.join(weight_keys)}",
            f"give {len(kernels)}: {','.join(['2/1'] * len(kernels))}",
        )
    size = stack.start_size
    for key, kernel, stride_spec in zip(weight_keys, kernels, stride_specs, strict=True):
        size, before = transposed_conv_size(size, kernel, stride_spec), size
        if not 1 <= size <= MAX_IMAGE_SIZE:
            raise LoadError(
                f"--strides contradicts the weights: {key}, a {kernel}x{kernel} kernel with "
                f"{format_stride(stride_spec)}, turns size {before} into {size}",
                "correct --strides",
            )
    if config.image_size not in (None, size):
        raise LoadError(
            f"--strides leads to image size {size}, and --image-size is {config.image_size}", "give one of them"
        )
    spec = stack.build_spec(stride_specs, size)
    names = [key.removesuffix(".weight") for key in weight_keys]
    return replace(spec, assumptions=(_assume_strides(names, kernels, stride_specs, "flag"), *spec.assumptions))


def _assume_strides(
    names: Sequence[str], kernels: Sequence[int], stride_specs: Sequence[StrideSpec], source: str
) -> Assumption:
    note = describe_kernels(kernels)
    return Assumption("strides", format_strides(stride_specs), source, layers=tuple(names), note=note)


def _open_each_layer(
    names: list[str], kernels: list[int], options: list[tuple[StrideSpec, ...]], batchnorms: list[int]
) -> _OpenStrides:
    """One choice for each layer with a BatchNorm after it."""
    choices = tuple(
        OpenChoice(
            "strides",
            tuple(Choice(format_stride(stride_spec), describe_kernels([kernel])) for stride_spec in layer_options),
            batchnorm,
            prefer_default=True,
            layers=(name,),
        )
        for name, kernel, layer_options, batchnorm in zip(names, kernels, options, batchnorms, strict=False)
        if len(layer_options) > 1
    )

    def fix(indices: tuple[int, ...]) -> list[StrideSpec]:
        remaining = iter(indices)
        return [
            layer_options[next(remaining)] if len(layer_options) > 1 else layer_options[0] for layer_options in options
        ]

    return _OpenStrides(choices, fix)


def _open_together(
    names: list[str], kernels: list[int], paths: list[tuple[StrideSpec, ...]], batchnorms: list[int]
) -> _OpenStrides:
    """One choice for all layers together: no single one can change without changing the image size."""
    choices: tuple[OpenChoice, ...] = ()
    if len(paths) > 1:
        n = len(paths[0])
        note = describe_kernels(kernels[:n])
        options = tuple(Choice(format_strides(path), note) for path in paths)
        choices = (
            OpenChoice(
                "strides",
                options,
                batchnorms[0],
                prefer_default=True,
                last_batchnorm=batchnorms[-1],
                layers=tuple(names[:n]),
            ),
        )
    return _OpenStrides(choices, lambda indices: list(paths[indices[0] if indices else 0]))


def _next_batchnorm(layers: list[LayerWeights], index: int) -> int | None:
    """Which BatchNorm, counted from 0, is the first after a layer; None if there is none."""
    positions = [position for position, layer in enumerate(layers) if layer.kind == "norm"]
    return next((number for number, position in enumerate(positions) if position > index), None)


def transposed_stack_size(size: int, kernel_sizes: list[int], stride_specs: list[StrideSpec]) -> int:
    """The image size after these transposed convolutions."""
    for kernel, stride_spec in zip(kernel_sizes, stride_specs, strict=True):
        size = transposed_conv_size(size, kernel, stride_spec)
    return size


def stack_conv_layers(
    layers: list[LayerWeights],
    modules_between: list[int | None],
    is_transposed: list[bool],
    stride_specs: list[StrideSpec],
    config: AuditConfig,
) -> tuple[list[LayerSpec], int]:
    """Specs of convolutions and BatchNorm with activations between them, and the channels at the end.

    `stride_specs`: one per transposed convolution. Where the file does not tell what lies between two kernels, and no
    BatchNorm comes after them, pooling or upsampling by a function is possible there.
    """
    layer_specs: list[LayerSpec] = []
    is_open = config.hidden_norm is not None or (config.image_size is None and not config.strides)
    last_norm = max((index for index, layer in enumerate(layers) if layer.kind == "norm"), default=len(layers))
    open_norms = not any(layer.kind in ("norm", "affine") for layer in layers)
    channels, remaining = layers[0].shape[0], iter(stride_specs)
    for index, layer in enumerate(layers):
        if layer.keeps_channels:
            layer_specs.append(norm_layer_spec(layer, spatial=True))
        elif is_transposed[index]:
            layer_specs.append(transposed_conv_layer_spec(layer, next(remaining)))
            channels = layer.shape[1]
        else:
            layer_specs.append(conv_layer_spec(layer))
            channels = layer.shape[0]
        if index + 1 < len(layers):
            layer_specs += activation_layer_specs(
                layer, layers[index + 1], modules_between[index], open_norms=open_norms
            )
            is_unseen = index >= last_norm and modules_between[index] is None
            layer_specs += [LayerSpec("resize_after")] if is_open and is_unseen else []
    return layer_specs, channels
