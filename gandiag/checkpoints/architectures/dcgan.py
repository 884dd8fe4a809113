"""DCGAN and its kin: a stack of transposed convolutions on a 1x1 latent, with batch norm or without."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from gandiag.checkpoints.architectures.mlp import activation_layer_specs
from gandiag.checkpoints.inference.conv_geometry import (
    COMMON_STRIDES,
    MAX_IMAGE_SIZE,
    StrideSpec,
    describe_strides,
    enumerate_strides,
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
from gandiag.checkpoints.inference.output_activation import progressive_gan_activation, resolve_image_output
from gandiag.checkpoints.inference.sequential import (
    LayerSpec,
    OpenChoice,
    SequentialSpec,
    batchnorm_layer_spec,
    conv_layer_spec,
    transposed_conv_layer_spec,
)
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.interfaces import Assumption

_FLAGS = "(--image-size or --strides)"


def rebuild(weights: Weights, config: AuditConfig) -> SequentialSpec:
    """A chain that starts with ConvTranspose2d on (inputs, 1, 1). NotThis if a linear layer or anything unknown is in it."""
    layers = parse_layers(weights)
    if not layers or layers[0].kind != "kernel" or any(layer.kind == "linear" for layer in layers):
        raise ArchitectureMismatch("it is not made of convolutions alone")
    first = layers[0]
    spacing = count_modules_between(layers, weights.module_names)
    turned = _from_latents(layers)
    return build_transposed_spec(
        layers,
        turned,
        config,
        TransposedStack(
            first.shape[2],
            1,
            _finish(layers, spacing, turned, config, progressive_gan_activation(weights.extra_settings.get("config"))),
        ),
    )


def _from_latents(layers: list[LayerWeights]) -> list[bool]:
    """Which kernels are transposed, the first one among them: a convolution that takes as many channels as it makes would do nothing to one pixel."""
    first = layers[0]
    if first.shape[2] == first.shape[3] and first.accepts_out_channels(first.shape[1]):
        with contextlib.suppress(ArchitectureMismatch):
            return [True, *find_transposed_convs(layers[1:], first.shape[1])]
    turned = find_transposed_convs(layers, first.shape[0])
    if not turned[0]:
        raise ArchitectureMismatch(f"{first.weight_key} is {first.shape}: a convolution, which takes an image")
    return turned


def _finish(
    layers: list[LayerWeights],
    spacing: list[int | None],
    turned: list[bool],
    config: AuditConfig,
    told: tuple[str, str] | None,
) -> Callable[[list[StrideSpec], int], SequentialSpec]:
    def finish(geometry: list[StrideSpec], side: int) -> SequentialSpec:
        steps, channels = stack_conv_layers(layers, spacing, turned, [(1, 0, 0), *geometry])
        output, final, said = resolve_image_output((channels, side, side), spacing[-1], config, told)
        return SequentialSpec("transposed", tuple(steps), layers[0].shape[0], True, output, final, said)

    return finish


def find_transposed_convs(layers: list[LayerWeights], in_channels: int) -> list[bool]:
    """Which kernels are transposed, by chaining channels: ConvTranspose2d is (in, out, k, k), Conv2d (out, in, k, k).

    A square kernel fits both ways; even sizes are then transposed, as convolutions that keep the size have odd ones.
    """
    found = []
    for layer in layers:
        if layer.kind == "norm":
            if layer.shape[0] != in_channels:
                raise ArchitectureMismatch(
                    f"{layer.name}.running_mean has {layer.shape[0]} entries after {in_channels} channels"
                )
            found.append(False)
            continue
        into, out, kernel, other = layer.shape
        if kernel != other:
            raise ArchitectureMismatch(f"{layer.weight_key} is {layer.shape}: its kernel is not square")
        up = into == in_channels and (out != in_channels or kernel % 2 == 0)
        if (not up and (out != in_channels or kernel % 2 == 0)) or not layer.accepts_out_channels(out if up else into):
            raise ArchitectureMismatch(
                f"{layer.weight_key} is {layer.shape}, which does not take the {in_channels} channels before it"
            )
        in_channels = out if up else into
        found.append(up)
    return found


@dataclass(frozen=True, slots=True)
class TransposedStack:
    """Transposed kernels from a picture of `side`: of those in the list the first `given` are not open. `norms` stand before the list."""

    start_size: int
    n_fixed: int
    build_spec: Callable[[list[StrideSpec], int], SequentialSpec]
    previous_batchnorms: int = 0


def build_transposed_spec(
    layers: list[LayerWeights], is_transposed: list[bool], config: AuditConfig, stack: TransposedStack
) -> SequentialSpec:
    """The blueprint with customary strides and paddings, or those that lead to --image-size; each is an open question to the norm behind it.
    Those of --strides are none."""
    places = [index for index, up in enumerate(is_transposed) if up][stack.n_fixed :]
    kernels = [layers[index].shape[2] for index in places]
    if config.strides:
        return _given([layers[index].weight_key for index in places], kernels, config, stack)
    found = infer_strides(stack.start_size, kernels, config.image_size)
    if found is None:
        raise ArchitectureMismatch(
            f"kernels of size {', '.join(map(str, kernels))} have no customary stride; --strides 2/1,… gives each one's stride and padding"
        )
    planned, sides = found
    if len(planned) != len(kernels) or config.image_size not in (None, *sides):
        listed = ", ".join(map(str, sides[:12])) + (", …" if len(sides) > 12 else "")
        raise LoadError(
            f"--image-size {config.image_size} contradicts the weights: with the strides that gandiag tries their kernels lead to {listed}",
            f"remove it, or choose from: {listed}; for other strides, --strides 2/1,… (stride and padding of each)",
        )
    behind = [_norm_behind(layers, index) for index in places]
    shown = [norm + stack.previous_batchnorms for norm in behind if norm is not None]  # those without one come last
    options = [
        (chosen, *(other for other in COMMON_STRIDES[kernel] if other != chosen))
        for kernel, chosen in zip(kernels, planned, strict=True)
    ]
    given = options[: len(shown)]
    asked, fixings = (
        _strides([layers[place].name for place in places], kernels, given, shown)
        if config.image_size is None
        else _ways(kernels, enumerate_strides(stack.start_size, kernels, config.image_size, given), shown)
    )

    def remade(answers: tuple[int, ...]) -> SequentialSpec:
        fixed = fixings(answers)
        found = infer_strides(stack.start_size, kernels, config.image_size, fixed)
        if found is None or len(found[0]) != len(kernels):
            raise ArchitectureMismatch("no strides lead through its kernels")
        made = stack.build_spec(found[0], transposed_stack_size(stack.start_size, kernels, found[0]))
        rest = describe_strides(kernels[len(fixed) :], found[0][len(fixed) :])
        told = (
            (
                Assumption(
                    f"strides and paddings of the last layers {_FLAGS}",
                    rest,
                    "flag" if config.image_size else "default",
                ),
            )
            if rest
            else ()
        )
        return replace(made, assumptions=(*told, *made.assumptions), open_choices=asked, rebuild_with=remade)

    return remade((0,) * len(asked))


def _given(names: list[str], kernels: list[int], config: AuditConfig, start: TransposedStack) -> SequentialSpec:
    """The blueprint with the strides of --strides. LoadError where they are not one for each kernel, lead nowhere, or elsewhere than --image-size."""
    try:
        geometry = [parse_stride(part) for part in config.strides or ()]
    except ValueError:
        raise LoadError(
            f"--strides is {','.join(config.strides or ())}",
            "give stride/padding of each layer, or stride/padding/output padding: 2/1,2/1,1/0",
        ) from None
    if len(geometry) != len(kernels):
        raise LoadError(
            f"--strides gives {len(geometry)}, and the layers with a stride are {len(kernels)}: {', '.join(names)}",
            f"give {len(kernels)}: {','.join(['2/1'] * len(kernels))}",
        )
    side = start.start_size
    for name, kernel, one in zip(names, kernels, geometry, strict=True):
        side, before = transposed_conv_size(side, kernel, one), side
        if not 1 <= side <= MAX_IMAGE_SIZE:
            raise LoadError(
                f"--strides contradicts the weights: {name}, {describe_strides([kernel], [one])}, makes {side} pixels of {before}",
                "correct --strides",
            )
    if config.image_size not in (None, side):
        raise LoadError(
            f"--strides leads to {side} pixels, and --image-size is {config.image_size}", "give one of them"
        )
    made = start.build_spec(geometry, side)
    return replace(
        made,
        assumptions=(
            Assumption("strides and paddings (--strides)", describe_strides(kernels, geometry), "flag"),
            *made.assumptions,
        ),
    )


OpenStrides = tuple[
    tuple[OpenChoice, ...], Callable[[tuple[int, ...]], list[StrideSpec]]
]  # questions, and from their answers the layers' geometries


def _strides(
    names: list[str], kernels: list[int], options: list[tuple[StrideSpec, ...]], shown: list[int]
) -> OpenStrides:
    """One question for each layer with a norm behind it."""
    asked = tuple(
        OpenChoice(
            f"stride and padding of {name} {_FLAGS}",
            tuple(describe_strides([kernel], [one]) for one in given),
            norm,
            True,
        )
        for name, kernel, given, norm in zip(names, kernels, options, shown, strict=False)
        if len(given) > 1
    )

    def fixings(answers: tuple[int, ...]) -> list[StrideSpec]:
        left = iter(answers)
        return [given[next(left)] if len(given) > 1 else given[0] for given in options]

    return asked, fixings


def _ways(kernels: list[int], found: list[tuple[StrideSpec, ...]], shown: list[int]) -> OpenStrides:
    """One question for all layers together: alone, none of them could have another stride and the picture still its size."""
    told = tuple(describe_strides(kernels, path) for path in found)
    asked = (
        (OpenChoice(f"strides and paddings {_FLAGS}", told, shown[0], True, last_batchnorm=shown[-1]),)
        if len(found) > 1
        else ()
    )
    return asked, lambda answers: list(found[answers[0] if answers else 0])


def _norm_behind(layers: list[LayerWeights], index: int) -> int | None:
    """Which batch norm is the first behind a layer; None if there is none."""
    norms = [place for place, layer in enumerate(layers) if layer.kind == "norm"]
    return next((norm for norm, place in enumerate(norms) if place > index), None)


def transposed_stack_size(size: int, kernel_sizes: list[int], stride_specs: list[StrideSpec]) -> int:
    """The side after these transposed convolutions."""
    for kernel, chosen in zip(kernel_sizes, stride_specs, strict=True):
        size = transposed_conv_size(size, kernel, chosen)
    return size


def stack_conv_layers(
    layers: list[LayerWeights],
    modules_between: list[int | None],
    is_transposed: list[bool],
    stride_specs: list[StrideSpec],
) -> tuple[list[LayerSpec], int]:
    """Steps of kernels and norms with activations between them, and the channels at the end. One geometry per transposed kernel."""
    steps: list[LayerSpec] = []
    channels, strides = layers[0].shape[0], iter(stride_specs)
    for index, layer in enumerate(layers):
        if layer.kind == "norm":
            steps.append(batchnorm_layer_spec(layer, spatial=True))
        elif is_transposed[index]:
            steps.append(transposed_conv_layer_spec(layer, next(strides)))
            channels = layer.shape[1]
        else:
            steps.append(conv_layer_spec(layer))
            channels = layer.shape[0]
        if index + 1 < len(layers):
            steps += activation_layer_specs(layer, layers[index + 1], modules_between[index])
    return steps, channels
