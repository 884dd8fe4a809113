"""Convolutions with upsampling by 2 between them; where it happens and how it interpolates is not in the weights."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

from gandiag.checkpoints.architectures.mlp import has_activation_between, surround_with_norms
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch, LayerWeights
from gandiag.checkpoints.inference.layer_specs import (
    PIXEL_SHUFFLE_MODES,
    LayerSpec,
    conv_layer_spec,
    norm_layer_spec,
    upsample_layer_spec,
)
from gandiag.checkpoints.inference.output_activation import assume_last_gap, assume_no_resize, resolve_image_output
from gandiag.checkpoints.inference.sequential import Choice, OpenChoice, SequentialSpec
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.interfaces import Assumption

INTERPOLATION_MODES = ("nearest", "bilinear")
_MAX_DEFAULT_SIZE = 1024  # pixels that defaults may lead to
_MAX_LAYOUTS = 12  # ways to place the upsampling that are tried


@dataclass(frozen=True, slots=True)
class ConvStack:
    """The layers after the reshape, and the specs before it with their number of BatchNorm layers.

    `modules_before`: weightless modules before the first layer, without the reshape.
    """

    in_features: int
    linear_specs: tuple[LayerSpec, ...]
    layers: list[LayerWeights]
    modules_between: list[int | None]
    previous_batchnorms: int
    modules_before: int | None = 0

    def build_spec(self, layer_specs: list[LayerSpec], shape: tuple[int, ...], config: AuditConfig) -> SequentialSpec:
        """The spec of these layers after the linear ones."""
        output, activation, assumptions = resolve_image_output(shape, self.modules_between[-1], config)
        return SequentialSpec(
            "projected",
            (*self.linear_specs, *layer_specs),
            self.in_features,
            False,
            output,
            activation,
            (*assumptions, *assume_no_resize(self.modules_between[-1], config)),
        )

    @property
    def conv_indices(self) -> list[int]:
        """Indices of the convolutions."""
        return [index for index, layer in enumerate(self.layers) if layer.kind == "kernel"]

    @property
    def has_norms(self) -> bool:
        """Whether any layer of the file is a norm."""
        return self.previous_batchnorms > 0 or any(layer.kind in ("norm", "affine") for layer in self.layers)

    @property
    def batchnorms_after_conv(self) -> int:
        """Number of BatchNorm layers after the first convolution."""
        first = self.conv_indices[0]
        return sum(layer.kind == "norm" for layer in self.layers[first:])


@dataclass(frozen=True, slots=True)
class UpsampleLayout:
    """Upsampling before the layers with these indices, by this mode.

    `no_activation`: none after the first BatchNorm.
    """

    mode: str
    upsample_before: tuple[int, ...]
    no_activation: bool = False


@dataclass(frozen=True, slots=True)
class _Positions:
    """Where upsampling happens, without its mode."""

    upsample_before: tuple[int, ...]
    no_activation: bool = False


def find_pixel_shuffles(layers: list[LayerWeights], in_channels: int) -> tuple[int, ...]:
    """Indices of the layers before which a pixel shuffle quarters the channels.

    The index after the last layer is one of them where that layer outputs twelve channels: three of an image twice as
    large. Empty where the channels match without a shuffle. ArchitectureMismatch where they do not match at all.
    """
    indices = []
    for index, layer in enumerate(layers):
        if layer.kind == "kernel" and (
            layer.shape[2] != layer.shape[3]
            or layer.shape[2] % 2 == 0
            or not layer.accepts_out_channels(layer.shape[0])
        ):
            raise ArchitectureMismatch(
                f"{layer.weight_key} is {layer.shape}: not a convolution that keeps the image size"
            )
        if layer.kind == "prelu" and layer.accepts_channels(in_channels):
            continue
        layer_in = layer.shape[0] if layer.keeps_channels else layer.shape[1]
        if layer_in * 4 == in_channels and index > 0:
            indices.append(index)
        elif layer_in != in_channels:
            raise ArchitectureMismatch(f"{layer.name} takes {layer_in} channels after {in_channels}")
        in_channels = layer_in if layer.keeps_channels else layer.shape[0]
    return (*indices, len(layers)) if in_channels == 4 * 3 else tuple(indices)


def build_pixel_shuffle_spec(
    stack: ConvStack, start_size: int, shuffle_before: tuple[int, ...], config: AuditConfig
) -> SequentialSpec:
    """The spec of pixel shuffles that the shapes show; BatchNorm tells the order in which channels become pixels."""
    size = start_size * 2 ** len(shuffle_before)
    if config.image_size not in (None, size):
        raise LoadError(
            f"--image-size {config.image_size} contradicts the weights, whose pixel shuffles lead to {size}",
            "remove --image-size",
        )
    if config.upsampling in INTERPOLATION_MODES:
        raise LoadError(
            f"--upsampling {config.upsampling} contradicts the weights, which use pixel shuffle",
            f"remove it, or choose from: {', '.join(PIXEL_SHUFFLE_MODES)}",
        )
    # The shuffle is one of the modules between its layers.
    modules_between = [
        count - 1 if count and index + 1 in shuffle_before else count
        for index, count in enumerate(stack.modules_between)
    ]
    modes = (config.upsampling,) if config.upsampling else PIXEL_SHUFFLE_MODES
    layouts = [UpsampleLayout(mode, shuffle_before) for mode in modes]
    source = "flag" if config.upsampling else "default"
    return _build_spec(replace(stack, modules_between=modules_between), start_size, layouts, source, config)


def build_interpolation_spec(stack: ConvStack, start_size: int, config: AuditConfig) -> SequentialSpec:
    """The spec of the default layout; the others are an open choice where a BatchNorm follows a convolution.

    LoadError where nothing determines the image size.
    """
    if config.upsampling in PIXEL_SHUFFLE_MODES:
        raise LoadError(
            f"--upsampling {config.upsampling} contradicts the weights: the convolutions' channels match without a "
            "pixel shuffle",
            f"choose from: {', '.join(INTERPOLATION_MODES)}",
        )
    modes = (config.upsampling,) if config.upsampling else INTERPOLATION_MODES
    positions, source = _candidate_positions(stack, start_size, config)
    layouts = [
        UpsampleLayout(mode, entry.upsample_before, entry.no_activation)
        for entry in positions
        for mode in (modes if entry.upsample_before else modes[:1])
    ]
    sizes = {len(layout.upsample_before) for layout in layouts}
    if len(sizes) > 1 and not stack.batchnorms_after_conv and source == "default":
        raise LoadError(
            "the weights do not show where the image is upsampled", "give the size of the output: --image-size N"
        )
    return _build_spec(stack, start_size, layouts, source, config)


def _build_spec(
    stack: ConvStack, start_size: int, layouts: list[UpsampleLayout], source: str, config: AuditConfig
) -> SequentialSpec:
    """The spec of the first layout; the others are an open choice where a BatchNorm can tell them apart."""
    setting = "pixel_shuffle_order" if layouts[0].mode in PIXEL_SHUFFLE_MODES else "upsampling"
    options = tuple(Choice(layout.mode, _describe_layout(stack, start_size, layout)) for layout in layouts)
    last_batchnorm = stack.previous_batchnorms + sum(layer.kind == "norm" for layer in stack.layers) - 1
    open_choices: tuple[OpenChoice, ...] = ()
    if stack.batchnorms_after_conv and len(layouts) > 1:
        first_batchnorm = last_batchnorm + 1 - stack.batchnorms_after_conv
        open_choices = (OpenChoice(setting, options, first_batchnorm, last_batchnorm=last_batchnorm),)

    def rebuild_with(choices: tuple[int, ...]) -> SequentialSpec:
        index = choices[0] if choices else 0
        layout = layouts[index]
        size = start_size * 2 ** len(layout.upsample_before)
        out_channels = stack.layers[stack.conv_indices[-1]].shape[0]
        channels = out_channels // 4 if len(stack.layers) in layout.upsample_before else out_channels
        spec = stack.build_spec(_stack_layers(stack, layout), (channels, size, size), config)
        assumptions = spec.assumptions
        if not open_choices:
            choice = options[index]
            assumptions = (Assumption(setting, choice.value, source, note=choice.note), *assumptions)
        if layout.mode not in PIXEL_SHUFFLE_MODES:
            assumptions = (*assumptions, *_assume_last_upsampling(stack, layout, config))
        return replace(spec, assumptions=assumptions, open_choices=open_choices, rebuild_with=rebuild_with)

    return rebuild_with((0,) * len(open_choices))


def _assume_last_upsampling(stack: ConvStack, layout: UpsampleLayout, config: AuditConfig) -> tuple[Assumption, ...]:
    """What the last of two modules or more before the last convolution does, where no BatchNorm comes after them."""
    last = stack.conv_indices[-1]
    n_modules = stack.modules_before if last == 0 else stack.modules_between[last - 1]
    is_seen = any(layer.kind == "norm" for layer in stack.layers[last:])
    if is_seen or n_modules is None or n_modules < 2:
        return ()
    return assume_last_gap(n_modules, config, upsampled=last in layout.upsample_before)


def _describe_layout(stack: ConvStack, start_size: int, layout: UpsampleLayout) -> str:
    """ "before conv1, conv2; from 4 to 16 pixels"."""
    names = [*(layer.name for layer in stack.layers), "the output"]
    places = ", ".join(names[index] for index in layout.upsample_before) or "no layer"
    return f"before {places}; from {start_size} to {start_size * 2 ** len(layout.upsample_before)} pixels"


def _candidate_positions(stack: ConvStack, start_size: int, config: AuditConfig) -> tuple[list[_Positions], str]:
    """Every placement of the upsampling that fits, the default first; and the source of the placement."""
    convs, modules_between = stack.conv_indices, stack.modules_between
    no_activation = len(stack.layers) > 1 and stack.layers[0].kind == "norm" and modules_between[0] == 1
    modules = [stack.modules_before if index == 0 else modules_between[index - 1] for index in convs]
    # Two weightless modules before a convolution are an activation and an upsampling.
    shown = tuple(index for index, count in zip(convs, modules, strict=True) if (count or 0) >= 2)
    # Between a reshape and a single convolution there is nothing that names could show.
    between = modules[1:] or [None if convs[0] == 0 else modules[0]]
    from_file = bool(shown) or not any(count is None for count in between)
    if no_activation and 1 in convs:
        # One module between the first BatchNorm and its convolution: PyTorch-GAN's upsampling, or an activation.
        positions = [_Positions(tuple(sorted({*shown, 1})), True), _Positions(shown)]
    elif from_file and len(shown) > 1 and modules[-1] == 2 and max(count or 0 for count in modules) > 2:
        # The blocks before have a layer more than an activation and upsampling, and the last one may have that alone.
        positions = [_Positions(shown[:-1]), _Positions(shown)]
    elif from_file:
        positions = [_Positions(shown)]
    else:
        positions = _guess_positions(convs, stack.layers[0].kind == "norm")
    if config.image_size is None:
        positions = [entry for entry in positions if start_size * 2 ** len(entry.upsample_before) <= _MAX_DEFAULT_SIZE]
        too_few = bool(positions) and not from_file and len(positions[0].upsample_before) < len(convs) - 1
        if not positions or too_few:
            raise LoadError(
                f"the weights do not show where the image is upsampled: {len(convs)} convolutions on "
                f"{start_size}x{start_size} pixels",
                "give the size of the output: --image-size N",
            )
        return positions, "metadata" if from_file else "default"
    fitting = [entry for entry in positions if start_size * 2 ** len(entry.upsample_before) == config.image_size]
    if fitting:
        return fitting, "metadata" if from_file else "flag"
    return _positions_for_size(convs, start_size, config.image_size), "flag"


def _guess_positions(convs: list[int], starts_with_batchnorm: bool) -> list[_Positions]:
    """Likely positions where nothing tells: before every convolution but the last one is the default.

    Then before every convolution, or from the second one on; and PyTorch-GAN's layout, where a BatchNorm comes first.
    """
    runs = [
        tuple(convs[first : first + count])
        for count in range(len(convs), 0, -1)
        for first in (0, 1)
        if first + count <= len(convs)
    ]
    default = tuple(convs[:-1])
    guesses = [default, *(run for run in runs[:_MAX_LAYOUTS] if run != default), *([()] if default else [])]
    positions = [_Positions(guess) for guess in guesses]
    return [*positions, _Positions(default, True)] if starts_with_batchnorm and default else positions


def _positions_for_size(convs: list[int], start_size: int, image_size: int) -> list[_Positions]:
    """Every way to upsample as often as leads to --image-size, the earliest layers first."""
    times = max(0, (image_size // start_size).bit_length() - 1)
    if start_size * 2**times != image_size or times > len(convs):
        listed = ", ".join(str(start_size * 2**n) for n in range(len(convs) + 1))
        raise LoadError(
            f"--image-size {image_size} contradicts the weights, which lead to {listed}",
            f"remove it, or choose from: {listed}",
        )
    return [_Positions(chosen) for chosen in itertools.islice(itertools.combinations(convs, times), _MAX_LAYOUTS)]


def _stack_layers(stack: ConvStack, layout: UpsampleLayout) -> list[LayerSpec]:
    """Specs of the stack's layers with upsampling and activations between them."""
    layer_specs: list[LayerSpec] = []
    for index, layer in enumerate(stack.layers):
        if index in layout.upsample_before:
            layer_specs.append(upsample_layer_spec(layout.mode))
        is_bare = layout.no_activation and index == 0  # PyTorch-GAN: this BatchNorm alone has the usual eps
        if layer.keeps_channels:
            layer_specs.append(norm_layer_spec(layer, spatial=True, keep_default_eps=is_bare))
        else:
            layer_specs.append(conv_layer_spec(layer))
        if index + 1 == len(stack.layers) or is_bare:
            continue
        n_modules = stack.modules_between[index]
        if has_activation_between(layer, stack.layers[index + 1], n_modules):
            specs = [LayerSpec("activation")]
            extra = not stack.has_norms if n_modules is None else n_modules > 1 + (index + 1 in layout.upsample_before)
            layer_specs += surround_with_norms(specs) if extra else specs
    if len(stack.layers) in layout.upsample_before:
        layer_specs.append(upsample_layer_spec(layout.mode))
    return layer_specs
