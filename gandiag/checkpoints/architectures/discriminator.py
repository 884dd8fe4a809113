"""Rebuilds sequential discriminators (convolutions or linear layers, one output) from their weights alone.

What the weights do not contain is stated as an assumption: strides (those that lead to the size of the last layer), the
slope of the hidden activation, BatchNorm's eps. A final sigmoid does not matter: the value before it is the logit
either way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from gandiag.checkpoints.architectures.mlp import has_activation_between
from gandiag.checkpoints.inference.conv_geometry import describe_kernels, format_strides
from gandiag.checkpoints.inference.hyperparameters import EPS_CANDIDATES
from gandiag.checkpoints.inference.layer_list import (
    ArchitectureMismatch,
    LayerWeights,
    count_modules_between,
    parse_layers,
)
from gandiag.checkpoints.inference.layer_specs import (
    LayerSpec,
    batchnorm_layer_spec,
    linear_layer_spec,
    strided_conv_layer_spec,
)
from gandiag.checkpoints.inference.sequential import build_layers
from gandiag.checkpoints.norm_folding import fold_weight_norms
from gandiag.checkpoints.state_dict import Weights
from gandiag.interfaces import Assumption, OutputSpec

# kernel size -> (stride, padding): those that halve or keep the image size; a last kernel may also cover the whole map
_COMMON_STRIDES: Mapping[int, tuple[tuple[int, int], ...]] = {
    1: ((1, 0),),
    2: ((2, 0),),
    3: ((2, 1), (1, 1)),
    4: ((2, 1),),
    5: ((2, 2), (1, 2)),
    6: ((2, 2),),
    7: ((2, 3), (1, 3)),
}
ACTIVATION_CANDIDATES = ("leaky:0.2", "leaky:0.01", "relu", "leaky:0.1", "leaky:0.3")  # the default first
# Probabilities with which a second weightless module may have dropped values while the statistics were collected
DROPOUT_CANDIDATES = (0.25, 0.5, 0.3)
_MAX_PATHS = 4096  # combinations of strides that are followed

StridePaddings = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class DiscriminatorSpec:
    """A discriminator up to what its weights leave open.

    `input_scale` multiplies the input; `pack_size` samples are judged together. `activation_candidates`,
    `eps_candidates`: the default first; a single one where it is known.
    """

    family: str
    layer_specs: tuple[LayerSpec, ...]
    input_shape: tuple[int, ...]
    activation_candidates: tuple[str, ...] = ACTIVATION_CANDIDATES
    eps_candidates: tuple[float, ...] = EPS_CANDIDATES
    input_scale: float = 1.0
    pack_size: int = 1
    assumptions: tuple[Assumption, ...] = ()

    @property
    def has_batchnorm(self) -> bool:
        """Whether it has BatchNorm, whose statistics can contradict a candidate."""
        return any(layer.weights is not None and layer.weights.kind == "norm" for layer in self.layer_specs)

    @property
    def has_dropout(self) -> bool:
        """Whether some modules may be dropout: inactive at inference, active while the statistics were collected."""
        return any(layer.kind == "dropout" for layer in self.layer_specs)

    @property
    def n_parameters(self) -> int:
        """Number of trainable parameters."""
        return sum(
            tensor.numel()
            for layer in self.layer_specs
            if layer.weights
            for leaf, tensor in layer.weights.tensors.items()
            if leaf in ("weight", "bias")
        )


class SequentialDiscriminator(nn.Module):
    """Samples (B, *shape) to logits (B / pack_size,); several values of one sample (patches) are averaged."""

    def __init__(self, layers: nn.Sequential, input_shape: tuple[int, ...], input_scale: float, pack_size: int) -> None:
        super().__init__()
        self.layers, self.input_shape, self.input_scale, self.pack_size = layers, input_shape, input_scale, pack_size

    def forward(self, x: Tensor) -> Tensor:
        packs = len(x) // self.pack_size
        packed = x[: packs * self.pack_size].reshape(packs, *self.input_shape)
        logits: Tensor = self.layers(packed if self.input_scale == 1.0 else packed * self.input_scale)
        return logits.flatten(1).mean(1)  # (B / pack_size,)


def rebuild_discriminator(weights: Weights, output: OutputSpec) -> DiscriminatorSpec:
    """The discriminator of a generator with this output.

    ArchitectureMismatch where it is not sequential, or several would fit.
    """
    weights = fold_weight_norms(weights)
    layers = parse_layers(weights)
    if not layers:
        raise ArchitectureMismatch("it holds no layers")
    modules_between = count_modules_between(layers, weights.module_names)
    if layers[0].kind == "linear":
        width = _check_linear_stack(layers, output)
        return DiscriminatorSpec("mlp", _stack_layers(layers, modules_between, ()), (width,))
    strides = _infer_strides(layers, output)
    convs = _select_convs(layers)
    assumption = Assumption(
        "discriminator.strides",
        format_strides((stride, padding, 0) for stride, padding in strides),
        "shapes",
        note=describe_kernels([layer.shape[2] for layer in convs]),
    )
    layer_specs = _stack_layers(layers, modules_between, strides)
    return DiscriminatorSpec("convolutions", layer_specs, output.shape, assumptions=(assumption,))


def build_sequential_discriminator(
    spec: DiscriminatorSpec, activation: str, eps: float, dropout: float = 0.0
) -> SequentialDiscriminator:
    """The network of a spec in eval mode, with weights in memory of its own.

    ArchitectureMismatch where a weight does not fit.
    """
    layers = build_layers(spec.layer_specs, activation, eps, dropout, copy_weights=True)
    network = SequentialDiscriminator(layers, spec.input_shape, spec.input_scale, spec.pack_size)
    return network.eval().requires_grad_(False)


def _stack_layers(
    layers: list[LayerWeights], modules_between: Sequence[int | None], strides: StridePaddings
) -> tuple[LayerSpec, ...]:
    """Layers with at most one activation after each weighted layer; other weightless modules flatten or drop.

    The last layer has none.
    """
    layer_specs: list[LayerSpec] = [] if strides else [LayerSpec("flatten")]
    remaining, is_flat, needs_activation = list(strides), not strides, True
    for index, layer in enumerate(layers):
        if layer.kind == "linear" and not is_flat:
            layer_specs.append(LayerSpec("flatten"))
            is_flat = True
        if layer.kind == "norm":
            layer_specs.append(batchnorm_layer_spec(layer, spatial=not is_flat))
        elif is_flat:
            layer_specs.append(linear_layer_spec(layer))
        else:
            layer_specs.append(strided_conv_layer_spec(layer, *remaining.pop(0)))
        needs_activation = needs_activation or layer.kind != "norm"
        if index + 1 == len(layers) or not needs_activation:
            continue
        if has_activation_between(layer, layers[index + 1], modules_between[index]):
            layer_specs.append(LayerSpec("activation"))
            needs_activation = False
            if modules_between[index] == 2:
                layer_specs.append(LayerSpec("dropout", size=() if is_flat else (2,)))
    return tuple(layer_specs)


def _check_linear_stack(layers: list[LayerWeights], output: OutputSpec) -> int:
    """The width of a linear discriminator's input. ArchitectureMismatch unless it takes the generator's samples."""
    width = math.prod(output.shape)
    if layers[0].shape[1] != width:
        raise ArchitectureMismatch(
            f"its first layer takes {layers[0].shape[1]} values, but the generator's samples have {width}"
        )
    if any(layer.kind == "kernel" for layer in layers):
        raise ArchitectureMismatch("its linear layers are followed by convolutions")
    _check_widths(layers, width)
    return width


def _check_widths(layers: Sequence[LayerWeights], width: int) -> None:
    """ArchitectureMismatch unless each layer takes what the one before it outputs, down to one value."""
    for layer in layers:
        if layer.shape[-1 if layer.kind == "linear" else 0] != width:
            raise ArchitectureMismatch(
                f"{layer.weight_key} is {layer.shape}, which does not take the {width} values before it"
            )
        width = layer.shape[0]
    if width != 1:
        raise ArchitectureMismatch(f"it ends with {width} values; a discriminator has one output")


def _select_convs(layers: Sequence[LayerWeights]) -> list[LayerWeights]:
    return [layer for layer in layers if layer.kind == "kernel"]


def _infer_strides(layers: list[LayerWeights], output: OutputSpec) -> StridePaddings:
    """The one combination of common strides that leads from the image to the input size of the last layers."""
    if len(output.shape) != 3 or output.shape[1] != output.shape[2]:
        raise ArchitectureMismatch(
            f"its convolutions take square images, but the generator's samples are {output.shape}"
        )
    last_conv = max(index for index, layer in enumerate(layers) if layer.kind == "kernel")
    head = layers[last_conv + 1 :]
    channels = _check_channels(layers[: last_conv + 1], output.shape[0])
    first_linear = next((index for index, layer in enumerate(head) if layer.kind == "linear"), len(head))
    for layer in head[:first_linear]:  # BatchNorm after the last convolution
        if layer.shape[0] != channels:
            raise ArchitectureMismatch(
                f"{layer.name}.running_mean has {layer.shape[0]} entries after {channels} channels"
            )
    linear_part = head[first_linear:]
    if not linear_part and channels != 1:
        raise ArchitectureMismatch(f"it ends with {channels} channels; a discriminator has one output")
    final_size = _final_map_size(linear_part, channels) if linear_part else 1
    kernels = [layer.shape[2] for layer in _select_convs(layers)]
    reachable = _enumerate_paths(output.shape[1], kernels, covers_map=not linear_part)
    paths = [path for size, path in reachable if size == final_size]
    if len(paths) != 1:
        problem = (
            "several strides fit its kernels, and the weights do not tell which"
            if paths
            else "no common strides of its kernels lead to its last layer"
        )
        raise ArchitectureMismatch(
            f"{problem} (kernel sizes {', '.join(map(str, kernels))}; image size {output.shape[1]})"
        )
    return paths[0]


def _final_map_size(linear_part: Sequence[LayerWeights], channels: int) -> int:
    """Size of the feature map that the first linear layer takes.

    ArchitectureMismatch if it is not square or the layers do not match.
    """
    first = linear_part[0]
    size = math.isqrt(first.shape[1] // channels)
    if size < 1 or size * size * channels != first.shape[1]:
        raise ArchitectureMismatch(
            f"{first.weight_key} is {first.shape}, which does not take {channels} square feature maps"
        )
    _check_widths(linear_part, first.shape[1])
    return size


def _check_channels(layers: Sequence[LayerWeights], channels: int) -> int:
    """Channels after the convolutions. ArchitectureMismatch unless each takes what the one before it outputs."""
    for layer in layers:
        is_conv = layer.kind == "kernel"
        if (
            layer.kind == "linear"
            or layer.shape[1 if is_conv else 0] != channels
            or (is_conv and layer.shape[2] != layer.shape[3])
        ):
            raise ArchitectureMismatch(
                f"{layer.weight_key} is {layer.shape}, which does not take the {channels} channels before it"
            )
        channels = layer.shape[0]
    return channels


def _enumerate_paths(image_size: int, kernels: Sequence[int], *, covers_map: bool) -> list[tuple[int, StridePaddings]]:
    """Every combination of common strides, with the size it leads to.

    `covers_map`: the last kernel takes the whole remaining map.
    """
    reached: list[tuple[int, StridePaddings]] = [(image_size, ())]
    for index, kernel in enumerate(kernels):
        covers = covers_map and index + 1 == len(kernels)
        options = ((1, 0),) if covers else _COMMON_STRIDES.get(kernel, ())
        reached = [
            (next_size, (*path, option))
            for size, path in reached
            for option in options
            if (next_size := _conv_size(size, kernel, *option)) >= 1
        ]
        if len(reached) > _MAX_PATHS:
            raise ArchitectureMismatch(f"the strides of its {len(kernels)} convolutions have too many combinations")
    return reached


def _conv_size(input_size: int, kernel: int, stride: int, padding: int) -> int:
    return (input_size + 2 * padding - kernel) // stride + 1
