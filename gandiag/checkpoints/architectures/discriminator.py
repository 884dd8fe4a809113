"""Discriminators: chains of convolutions or linear layers from a sample to one value, from their weights alone.

What the weights leave open is said: strides (those that lead to the size of the last layer), the slope of the hidden activation, batch
norm's eps. A closing sigmoid needs no answer: the value before it is the logit either way. Only chains are rebuilt.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gandiag.checkpoints.architectures.mlp import has_activation_between
from gandiag.checkpoints.inference.conv_geometry import describe_strides
from gandiag.checkpoints.inference.layer_list import (
    ArchitectureMismatch,
    LayerWeights,
    count_modules_between,
    parse_layers,
)
from gandiag.checkpoints.inference.sequential import (
    LayerSpec,
    batchnorm_layer_spec,
    linear_layer_spec,
    make_hidden_activation,
)
from gandiag.checkpoints.norm_folding import fold_weight_norms
from gandiag.checkpoints.state_dict import Weights
from gandiag.interfaces import Assumption, OutputSpec

# kernel -> (stride, padding): those that halve or keep the side; a last kernel may also take all of it
_USUAL: Mapping[int, tuple[tuple[int, int], ...]] = {
    1: ((1, 0),),
    2: ((2, 0),),
    3: ((2, 1), (1, 1)),
    4: ((2, 1),),
    5: ((2, 2), (1, 2)),
    6: ((2, 2),),
    7: ((2, 3), (1, 3)),
}
ACTIVATION_CANDIDATES = ("leaky:0.2", "leaky:0.01", "relu", "leaky:0.1", "leaky:0.3")  # the customary one first
EPS_CANDIDATES = (1e-5, 0.8)
DROPOUT_CANDIDATES = (
    0.25,
    0.5,
    0.3,
)  # shares that a second module without weights may have dropped while the statistics were taken

StridePaddings = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class DiscriminatorSpec:
    """A discriminator up to what its weights leave open. `scale` multiplies the input, `pack` samples are judged together.

    `activations`, `epses`: the hypotheses, the customary one first; one of each where it is known.
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
        """Whether there is batch norm in it, whose statistics can contradict a reading."""
        return any(step.weights is not None and step.weights.kind == "norm" for step in self.layer_specs)

    @property
    def has_dropout(self) -> bool:
        """Whether there are modules in it that may be dropout: none of it is left in use, but its statistics were taken under it."""
        return any(step.kind == "dropout" for step in self.layer_specs)

    @property
    def n_parameters(self) -> int:
        """Trainable numbers."""
        kept = ("weight", "bias")
        return sum(
            entry.numel()
            for step in self.layer_specs
            if step.weights
            for leaf, entry in step.weights.tensors.items()
            if leaf in kept
        )


class SequentialDiscriminator(nn.Module):
    """Samples (B, *shape) to logits (B / pack,); several values of one sample (patches) are averaged."""

    def __init__(self, layers: nn.Sequential, input_shape: tuple[int, ...], input_scale: float, pack_size: int) -> None:
        super().__init__()
        self.layers, self.input_shape, self.input_scale, self.pack_size = layers, input_shape, input_scale, pack_size

    def forward(self, x: Tensor) -> Tensor:
        packs = len(x) // self.pack_size
        joined = x[: packs * self.pack_size].reshape(packs, *self.input_shape)
        verdicts: Tensor = self.layers(joined if self.input_scale == 1.0 else joined * self.input_scale)
        return verdicts.flatten(1).mean(1)  # (B / pack,)


def rebuild_discriminator(weights: Weights, output: OutputSpec) -> DiscriminatorSpec:
    """The discriminator of samples `output` that these weights are. NotThis with the reason where it is no chain, or several would fit."""
    weights = fold_weight_norms(weights)
    layers = parse_layers(weights)
    if not layers:
        raise ArchitectureMismatch("it holds no layers")
    spacing = count_modules_between(layers, weights.module_names)
    if layers[0].kind == "linear":
        return DiscriminatorSpec("mlp", _steps(layers, spacing, ()), (_flat(layers, output),))
    strides = _strides(layers, output)
    told = describe_strides(
        [layer.shape[2] for layer in _kernels(layers)], [(stride, padding, 0) for stride, padding in strides]
    )
    said = Assumption("D: strides and paddings", told, "shapes")
    return DiscriminatorSpec("convolutions", _steps(layers, spacing, strides), output.shape, assumptions=(said,))


def build_sequential_discriminator(
    spec: DiscriminatorSpec, activation: str, eps: float, dropout: float = 0.0
) -> SequentialDiscriminator:
    """The network in eval mode, every weight used and of the right shape, in memory of its own. NotThis names what disagrees."""
    modules: list[nn.Module] = []
    state: dict[str, Tensor] = {}
    with torch.device("meta"):
        for step in spec.layer_specs:
            if step.weights is not None:
                state |= {
                    f"{len(modules)}.{leaf}": tensor.float().clone() for leaf, tensor in step.weights.tensors.items()
                }
            if step.weights is not None and step.weights.kind == "norm":
                state[f"{len(modules)}.num_batches_tracked"] = torch.tensor(0, device="cpu")
            modules.append(
                _module(step, activation, eps)
                if step.kind != "dropout"
                else nn.Dropout2d(dropout)
                if step.size
                else nn.Dropout(dropout)
            )
    layers = nn.Sequential(*modules)
    try:
        layers.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as wrong:
        raise ArchitectureMismatch(str(wrong).splitlines()[-1].strip()) from None
    return (
        SequentialDiscriminator(layers, spec.input_shape, spec.input_scale, spec.pack_size).eval().requires_grad_(False)
    )


def _module(step: LayerSpec, activation: str, eps: float) -> nn.Module:
    if step.kind == "activation":
        return make_hidden_activation(activation)
    if step.kind == "flatten":
        return nn.Flatten()
    assert step.build is not None
    return step.build(eps)


def _steps(layers: list[LayerWeights], spacing: Sequence[int | None], strides: StridePaddings) -> tuple[LayerSpec, ...]:
    """Layers with activations between them, one behind each map at most: what else stands there flattens, or drops. The last one has none."""
    steps: list[LayerSpec] = [] if strides else [LayerSpec("flatten")]
    left, flat, linear = list(strides), not strides, True
    for index, layer in enumerate(layers):
        if layer.kind == "linear" and not flat:
            steps, flat = [*steps, LayerSpec("flatten")], True
        steps.append(
            batchnorm_layer_spec(layer, spatial=not flat)
            if layer.kind == "norm"
            else linear_layer_spec(layer)
            if flat
            else strided_conv_layer_spec(layer, *left.pop(0))
        )
        linear = linear or layer.kind != "norm"
        if index + 1 < len(layers) and linear and has_activation_between(layer, layers[index + 1], spacing[index]):
            steps.append(LayerSpec("activation"))
            linear = False
            steps += [LayerSpec("dropout", size=() if flat else (2,))] if spacing[index] == 2 else []
    return tuple(steps)


def strided_conv_layer_spec(layer: LayerWeights, stride: int, padding: int) -> LayerSpec:
    """A convolution that halves, or keeps, the side."""
    out, inputs, kernel, _ = layer.shape
    return LayerSpec(
        "layer", layer, lambda eps: nn.Conv2d(inputs, out, kernel, stride, padding, bias="bias" in layer.tensors)
    )


def _flat(layers: list[LayerWeights], output: OutputSpec) -> int:
    width = math.prod(output.shape)
    if layers[0].shape[1] != width:
        raise ArchitectureMismatch(
            f"its first layer takes {layers[0].shape[1]} values, and the generator makes {width}"
        )
    if any(layer.kind == "kernel" for layer in layers):
        raise ArchitectureMismatch("convolutions follow its linear layers")
    _chained(layers, width)
    return width


def _chained(layers: Sequence[LayerWeights], width: int) -> None:
    """NotThis unless each layer takes what the one before it gives, down to one value."""
    for layer in layers:
        if layer.shape[-1 if layer.kind == "linear" else 0] != width:
            raise ArchitectureMismatch(
                f"{layer.weight_key} is {layer.shape}, which does not take the {width} values before it"
            )
        width = layer.shape[0]
    if width != 1:
        raise ArchitectureMismatch(f"it ends with {width} values, and a judge of samples gives one")


def _kernels(layers: Sequence[LayerWeights]) -> list[LayerWeights]:
    return [layer for layer in layers if layer.kind == "kernel"]


def _strides(layers: list[LayerWeights], output: OutputSpec) -> StridePaddings:
    """The one customary geometry that leads from the image to what the last layers take."""
    if len(output.shape) != 3 or output.shape[1] != output.shape[2]:
        raise ArchitectureMismatch(f"its convolutions take square images, and the generator makes {output.shape}")
    head = [layer for layer in layers[_last_kernel(layers) + 1 :]]
    channels = _channels(layers[: _last_kernel(layers) + 1], output.shape[0])
    kernels, maps = [layer.shape[2] for layer in _kernels(layers)], [layer for layer in head if layer.kind == "linear"]
    for layer in head[: head.index(maps[0])] if maps else head:  # norms of the last kernel
        if layer.shape[0] != channels:
            raise ArchitectureMismatch(
                f"{layer.name}.running_mean has {layer.shape[0]} entries after {channels} channels"
            )
    if maps:
        side = math.isqrt(maps[0].shape[1] // channels)
        if side < 1 or side * side * channels != maps[0].shape[1]:
            raise ArchitectureMismatch(
                f"{maps[0].weight_key} is {maps[0].shape}, which takes no square of {channels} channels"
            )
        _chained(head[head.index(maps[0]) :], maps[0].shape[1])
        found = [path for end, path in _paths(output.shape[1], kernels, whole=False) if end == side]
    elif channels == 1:
        found = [path for end, path in _paths(output.shape[1], kernels, whole=True) if end == 1]
    else:
        raise ArchitectureMismatch(f"it ends with {channels} channels, and a judge of samples gives one value")
    if len(found) != 1:
        what = (
            "several strides fit its kernels, and the weights do not say which"
            if found
            else "no customary strides of its kernels lead to its last layer"
        )
        raise ArchitectureMismatch(f"{what} (kernels {', '.join(map(str, kernels))}, side {output.shape[1]})")
    return found[0]


def _last_kernel(layers: Sequence[LayerWeights]) -> int:
    return max(index for index, layer in enumerate(layers) if layer.kind == "kernel")


def _channels(layers: Sequence[LayerWeights], channels: int) -> int:
    for layer in layers:
        kernel = layer.kind == "kernel"
        if (
            layer.kind == "linear"
            or layer.shape[1 if kernel else 0] != channels
            or (kernel and layer.shape[2] != layer.shape[3])
        ):
            raise ArchitectureMismatch(
                f"{layer.weight_key} is {layer.shape}, which does not take the {channels} channels before it"
            )
        channels = layer.shape[0]
    return channels


def _paths(side: int, kernels: Sequence[int], *, whole: bool) -> list[tuple[int, StridePaddings]]:
    """Every customary geometry of these kernels, and the side it ends with. `whole`: the last kernel takes the picture that is left."""
    reached: list[tuple[int, StridePaddings]] = [(side, ())]
    for place, kernel in enumerate(kernels):
        options = ((1, 0),) if whole and place + 1 == len(kernels) else _USUAL.get(kernel, ())
        reached = [
            (after, (*path, option))
            for at, path in reached
            for option in options
            if (after := _after(at, kernel, *option)) >= 1
        ]
        if len(reached) > 4096:
            raise ArchitectureMismatch(f"{len(kernels)} convolutions leave too many strides open")
    return reached


def _after(side: int, kernel: int, stride: int, padding: int) -> int:
    return (side + 2 * padding - kernel) // stride + 1
