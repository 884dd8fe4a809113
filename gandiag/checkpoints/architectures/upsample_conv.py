"""Convolutions with doublings of the side between them: where they stand and how they interpolate is not in the weights."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

from gandiag.checkpoints.architectures.mlp import has_activation_between
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch, LayerWeights
from gandiag.checkpoints.inference.output_activation import resolve_image_output
from gandiag.checkpoints.inference.sequential import (
    PIXEL_SHUFFLE_MODES,
    LayerSpec,
    OpenChoice,
    SequentialSpec,
    batchnorm_layer_spec,
    conv_layer_spec,
    upsample_layer_spec,
)
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.interfaces import Assumption

INTERPOLATION_MODES = ("nearest", "bilinear")
_WHAT = "upsampling (--upsampling, --image-size)"
_ORDER = "order of shuffled pixels (--upsampling)"
_LARGEST = 1024  # pixels that custom may lead to
_MANY = 12  # ways to place the doublings that are tried


@dataclass(frozen=True, slots=True)
class ConvStack:
    """What stands behind the reshape, and the steps in front of it with their batch norms."""

    in_features: int
    linear_specs: tuple[LayerSpec, ...]
    layers: list[LayerWeights]
    modules_between: list[int | None]
    previous_batchnorms: int
    modules_before: int | None = 0  # modules without weights in front of the first layer, the reshape not among them

    def build_spec(self, layer_specs: list[LayerSpec], shape: tuple[int, ...], config: AuditConfig) -> SequentialSpec:
        """The blueprint of these steps."""
        output, final, said = resolve_image_output(shape, self.modules_between[-1], config)
        return SequentialSpec(
            "projected", (*self.linear_specs, *layer_specs), self.in_features, False, output, final, said
        )

    @property
    def conv_indices(self) -> list[int]:
        return [index for index, layer in enumerate(self.layers) if layer.kind == "kernel"]


@dataclass(frozen=True, slots=True)
class UpsampleLayout:
    """One reading: doublings before these layers, by this interpolation. `bare`: no activation behind the first norm."""

    mode: str
    upsample_before: tuple[int, ...]
    no_activation: bool = False


def find_pixel_shuffles(layers: list[LayerWeights], in_channels: int) -> tuple[int, ...]:
    """The layers that take a quarter of the channels that the convolution before them makes: pixels are shuffled in between.

    The place behind the last layer is one of them where that makes twelve channels, which are three of a picture twice as large.
    Empty where the channels follow each other as they are. NotThis where neither explains them.
    """
    found = []
    for index, layer in enumerate(layers):
        if layer.kind == "kernel" and (
            layer.shape[2] != layer.shape[3]
            or layer.shape[2] % 2 == 0
            or not layer.accepts_out_channels(layer.shape[0])
        ):
            raise ArchitectureMismatch(f"{layer.weight_key} is {layer.shape}: no convolution that keeps the side")
        takes = layer.shape[0] if layer.kind == "norm" else layer.shape[1]
        if takes * 4 == in_channels and index > 0:
            found.append(index)
        elif takes != in_channels:
            raise ArchitectureMismatch(f"{layer.name} takes {takes} channels after {in_channels}")
        in_channels = takes if layer.kind == "norm" else layer.shape[0]
    return (*found, len(layers)) if in_channels == 4 * 3 else tuple(found)


def build_pixel_shuffle_spec(
    stack: ConvStack, start_size: int, shuffle_before: tuple[int, ...], config: AuditConfig
) -> SequentialSpec:
    """Doublings that the shapes show; batch norm tells in which order the pixels are taken from the channels."""
    size = start_size * 2 ** len(shuffle_before)
    if config.image_size not in (None, size):
        raise LoadError(
            f"--image-size {config.image_size} contradicts the weights, whose pixel shuffles lead to {size}",
            "remove --image-size",
        )
    if config.upsampling in INTERPOLATION_MODES:
        raise LoadError(
            f"--upsampling {config.upsampling} contradicts the weights, which shuffle pixels",
            f"remove it, or choose from: {', '.join(PIXEL_SHUFFLE_MODES)}",
        )
    spacing = [
        gap - 1 if gap and index + 1 in shuffle_before else gap for index, gap in enumerate(stack.modules_between)
    ]  # the shuffle is one of the modules there
    ways = [
        UpsampleLayout(mode, shuffle_before)
        for mode in ((config.upsampling,) if config.upsampling else PIXEL_SHUFFLE_MODES)
    ]
    return _told(
        replace(stack, modules_between=spacing), start_size, ways, "flag" if config.upsampling else "default", config
    )


def build_interpolation_spec(stack: ConvStack, start_size: int, config: AuditConfig) -> SequentialSpec:
    """The blueprint of the customary way; the others are an open question where a batch norm stands behind a convolution.

    LoadError where nothing says how large the picture becomes.
    """
    if config.upsampling in PIXEL_SHUFFLE_MODES:
        raise LoadError(
            f"--upsampling {config.upsampling} contradicts the weights, whose channels follow each other",
            f"choose from: {', '.join(INTERPOLATION_MODES)}",
        )
    modes = (config.upsampling,) if config.upsampling else INTERPOLATION_MODES
    found, source = _places(stack, start_size, config)
    ways = [
        UpsampleLayout(mode, doubled, bare) for doubled, bare in found for mode in (modes if doubled else modes[:1])
    ]
    if len({len(way.upsample_before) for way in ways}) > 1 and not _norms(stack) and source == "default":
        raise LoadError(
            "the weights do not say where the picture is upsampled", "give the size of the output: --image-size N"
        )
    return _told(stack, start_size, ways, source, config)


def _norms(body: ConvStack) -> list[int]:
    return [index for index, layer in enumerate(body.layers) if layer.kind == "norm" and index > body.conv_indices[0]]


def _told(body: ConvStack, side: int, ways: list[UpsampleLayout], source: str, config: AuditConfig) -> SequentialSpec:
    """The blueprint of the first way; a question about the others, where a norm can answer it."""
    norms = _norms(body)
    what = _ORDER if ways[0].mode in PIXEL_SHUFFLE_MODES else _WHAT
    names = [*(layer.name for layer in body.layers), "the output"]
    told = [
        f"{way.mode}, before {', '.join(names[i] for i in way.upsample_before) or 'no layer'}: {side} to {side * 2 ** len(way.upsample_before)} pixels"
        for way in ways
    ]
    deepest = body.previous_batchnorms + sum(layer.kind == "norm" for layer in body.layers) - 1
    asked = (
        (OpenChoice(what, tuple(told), deepest + 1 - len(norms), last_batchnorm=deepest),)
        if norms and len(ways) > 1
        else ()
    )

    def remade(answers: tuple[int, ...]) -> SequentialSpec:
        chosen = answers[0] if answers else 0
        way = ways[chosen]
        size = side * 2 ** len(way.upsample_before)
        channels = body.layers[body.conv_indices[-1]].shape[0] // (4 if len(body.layers) in way.upsample_before else 1)
        made = body.build_spec(_steps(body, way), (channels, size, size), config)
        settled = () if asked else (Assumption(what, told[chosen], source),)
        return replace(made, assumptions=(*settled, *made.assumptions), open_choices=asked, rebuild_with=remade)

    return remade((0,) * len(asked))


def _places(body: ConvStack, side: int, config: AuditConfig) -> tuple[list[tuple[tuple[int, ...], bool]], str]:
    """(layers with a doubling before them, bare) of every way that fits, the customary one first; and who said so."""
    kernels, spacing = body.conv_indices, body.modules_between
    bare = len(body.layers) > 1 and body.layers[0].kind == "norm" and spacing[0] == 1
    room = [body.modules_before if i == 0 else spacing[i - 1] for i in kernels]
    seen = tuple(i for i, modules in zip(kernels, room, strict=True) if (modules or 0) >= 2)
    between = room[1:] or [
        None if kernels[0] == 0 else room[0]
    ]  # nothing stands between a reshape and a lone convolution that names could show
    known = not any(modules is None for modules in between)
    # One module between the first norm and its convolution: PyTorch-GAN's doubling, or an activation.
    if bare and 1 in kernels:
        ways = [(tuple(sorted({*seen, 1})), True), (seen, False)]
    else:
        ways = [(seen, False)] if seen or known else _anywhere(kernels, body.layers[0].kind == "norm")
    ways = [way for way in ways if config.image_size is not None or side * 2 ** len(way[0]) <= _LARGEST]
    if not ways or (config.image_size is None and not (seen or known) and len(ways[0][0]) < len(kernels) - 1):
        raise LoadError(
            f"the weights do not say where the picture is upsampled: {len(kernels)} convolutions and {side} pixels",
            "give the size of the output: --image-size N",
        )
    if config.image_size is None:
        return ways, "metadata" if seen or known else "default"
    fitting = [way for way in ways if side * 2 ** len(way[0]) == config.image_size]
    return (
        (fitting, "metadata" if seen or known else "flag")
        if fitting
        else (_by_size(kernels, side, config.image_size), "flag")
    )


def _anywhere(kernels: list[int], normed: bool) -> list[tuple[tuple[int, ...], bool]]:
    """Before every convolution but the one that makes the picture, or before that too, or from the second one on; or as PyTorch-GAN
    has it, where a norm comes first."""
    starts = [
        tuple(kernels[begin : begin + count])
        for count in range(len(kernels), 0, -1)
        for begin in (0, 1)
        if begin + count <= len(kernels)
    ]
    usual = tuple(kernels[:-1])
    ways = [
        (doubled, False)
        for doubled in [usual, *(start for start in starts[:_MANY] if start != usual), *([()] if usual else [])]
    ]
    return [*ways, (usual, True)] if normed and usual else ways


def _by_size(kernels: list[int], side: int, size: int) -> list[tuple[tuple[int, ...], bool]]:
    """Every way to double as often as leads to --image-size, the earliest layers first."""
    times = max(0, (size // side).bit_length() - 1)
    if side * 2**times != size or times > len(kernels):
        listed = ", ".join(str(side * 2**n) for n in range(len(kernels) + 1))
        raise LoadError(
            f"--image-size {size} contradicts the weights, which lead to {listed}",
            f"remove it, or choose from: {listed}",
        )
    return [(doubled, False) for doubled in itertools.islice(itertools.combinations(kernels, times), _MANY)]


def _steps(body: ConvStack, way: UpsampleLayout) -> list[LayerSpec]:
    steps: list[LayerSpec] = []
    for index, layer in enumerate(body.layers):
        if index in way.upsample_before:
            steps.append(upsample_layer_spec(way.mode))
        taken = way.no_activation and index == 0  # PyTorch-GAN: this norm alone has the usual eps
        steps.append(
            batchnorm_layer_spec(layer, spatial=True, keep_default_eps=taken)
            if layer.kind == "norm"
            else conv_layer_spec(layer)
        )
        if (
            index + 1 < len(body.layers)
            and not taken
            and has_activation_between(layer, body.layers[index + 1], body.modules_between[index])
        ):
            steps.append(LayerSpec("activation"))
    if len(body.layers) in way.upsample_before:
        steps.append(upsample_layer_spec(way.mode))
    return steps
