"""Specifications of sequential networks, and the modules built from them with every weight loaded strictly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from gandiag.checkpoints.inference.conv_geometry import format_stride
from gandiag.checkpoints.inference.gap_norms import (
    IMAGE_GAP_LAYERS,
    RESIZING_LAYERS,
    VECTOR_GAP_LAYERS,
    make_gap_norm,
    set_norm_groups,
)
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch, LayerWeights
from gandiag.checkpoints.inference.layer_specs import LayerSpec
from gandiag.errors import ConfigError, LoadError
from gandiag.interfaces import Assumption, OutputSpec

# Kinds of layer specs that stand for a layer without weights, by where it is relative to the activation
GAP_POSITIONS = {"norm_before": "before", "norm_after": "after", "resize_after": "after"}


@dataclass(frozen=True, slots=True)
class Choice:
    """One value of a setting, as its option takes it; `note`: what the value does not say."""

    value: Any
    note: str = ""


@dataclass(frozen=True, slots=True)
class OpenChoice:
    """A setting of the layers that the weight shapes leave open. `options`: the default first.

    `first_batchnorm`: the first BatchNorm that may tell the options apart; `last_batchnorm`: the one after all layers
    concerned, where that is another. `prefer_default`: the other options are uncommon. `layers`: names of the layers
    concerned.
    """

    setting: str
    options: tuple[Choice, ...]
    first_batchnorm: int
    prefer_default: bool = False
    last_batchnorm: int | None = None
    layers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SequentialSpec:
    """A sequential generator as an architecture reads it from the weights.

    `in_features`: width of the first layer, labels included. `latent_is_1x1`: latents have two axes of size 1.
    `output_activation`: tanh, sigmoid or none. `default_activation`: the architecture's usual hidden activation.
    `settings_from_file`: activations and eps are known. `open_choices`: settings that a BatchNorm can settle;
    `rebuild_with` gives the spec of other options, one index per open choice, or raises ArchitectureMismatch where they
    do not fit the weights. `variants`: other structures that the weights allow; `structure`: what sets this one apart;
    `structure_unseen`: no BatchNorm tells it from them. `affine_norms`: what its norms with gain and bias may be, the
    likeliest first, and `affine_assumption` about them.
    """

    family: str
    layer_specs: tuple[LayerSpec, ...]
    in_features: int
    latent_is_1x1: bool
    output: OutputSpec
    output_activation: str
    assumptions: tuple[Assumption, ...] = ()
    default_activation: str = "relu"
    settings_from_file: bool = False
    open_choices: tuple[OpenChoice, ...] = ()
    rebuild_with: Callable[[tuple[int, ...]], SequentialSpec] | None = None
    structure: str = ""
    structure_unseen: bool = False
    variants: tuple[SequentialSpec, ...] = ()
    affine_norms: tuple[str, ...] = ()
    affine_assumption: Assumption | None = None

    @property
    def weighted_layers(self) -> list[LayerWeights]:
        """The layers with weights, in order."""
        return [layer.weights for layer in self.layer_specs if layer.weights is not None]

    @property
    def has_batchnorm(self) -> bool:
        """Whether any layer is a BatchNorm."""
        return any(layer.kind == "norm" for layer in self.weighted_layers)

    @property
    def n_dropouts(self) -> int:
        """Number of weightless modules that may be dropout: the second one between two layers."""
        return sum(layer.kind == "dropout" for layer in self.layer_specs)

    @property
    def has_open_norms(self) -> bool:
        """Whether a gap between layers may hold a norm without weights."""
        return any(layer.kind in GAP_POSITIONS for layer in self.layer_specs)

    @property
    def gap_layers(self) -> tuple[str, ...]:
        """What such a gap may hold, "none" first."""
        if all(layer.kind == "resize_after" for layer in self.layer_specs if layer.kind in GAP_POSITIONS):
            return ("none", *RESIZING_LAYERS)
        has_maps = any(layer.kind == "kernel" for layer in self.weighted_layers)
        return IMAGE_GAP_LAYERS if has_maps else VECTOR_GAP_LAYERS

    @property
    def gap_batchnorms(self) -> tuple[int, int]:
        """The first and the last BatchNorm that see such a gap: the number of all where none does."""
        before, seen = 0, []
        for layer in self.layer_specs:
            before += layer.weights is not None and layer.weights.kind == "norm"
            seen += [before] if layer.kind in GAP_POSITIONS else []
        n_batchnorms = before
        visible = [index for index in seen if index < n_batchnorms] or [n_batchnorms]
        return visible[0], visible[-1]

    @property
    def n_unseen_modules(self) -> int:
        """Modules of a convolutional network's gap after the last BatchNorm, where gaps before it are seen; else 0."""
        n_batchnorms = sum(layer.kind == "norm" for layer in self.weighted_layers)
        first, _ = self.gap_batchnorms
        norms_before, n_modules = 0, 0
        for layer in self.layer_specs:
            norms_before += layer.weights is not None and layer.weights.kind == "norm"
            is_module = layer.kind in ("activation", "dropout") and norms_before == n_batchnorms
            n_modules = n_modules + is_module if layer.weights is None else n_modules
        is_open = any(kind == "kernel" for kind in (layer.kind for layer in self.weighted_layers))
        return n_modules if is_open and first < n_batchnorms and n_modules > 1 else 0

    @property
    def n_activations(self) -> int:
        """Number of hidden activations."""
        return sum(layer.kind == "activation" for layer in self.layer_specs)


class SequentialGenerator(nn.Module):
    """Layers in sequence: (B, inputs) latents, labels included, to (B, *shape).

    `layer_names`: of every layer in the file, "" for those without weights.
    """

    def __init__(
        self,
        layers: nn.Sequential,
        input_shape: tuple[int, ...],
        output_shape: tuple[int, ...],
        layer_names: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.layer_names = layer_names
        self.layers = layers
        self.input_shape = input_shape
        self.output_shape = output_shape

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.layers(z.reshape(len(z), *self.input_shape))
        return out.reshape(len(z), *self.output_shape)  # (B, *shape)


def build_with_variants(
    builders: Sequence[tuple[str, Callable[[], SequentialSpec]]], *, unseen: bool = False
) -> SequentialSpec:
    """The first spec that fits, with the others as its variants. `builders`: what sets each apart, and how to build it.
    `unseen`: no BatchNorm tells them apart.

    Raises what the first raised where none fits.
    """
    specs, errors = [], []
    for structure, build in builders:
        try:
            specs.append(replace(build(), structure=structure, structure_unseen=unseen))
        except (ArchitectureMismatch, LoadError) as error:
            errors.append(error)
    if not specs or (unseen and errors and isinstance(errors[0], LoadError)):
        raise errors[0]
    return replace(specs[0], variants=tuple(specs[1:]))


def format_module_strides(module: nn.Module) -> tuple[str, ...]:
    """The strides of a network's transposed convolutions as --strides takes them; empty unless it is sequential.

    A layer that starts from a single pixel is left out: it outputs its kernel, whatever its stride.
    """
    generator = getattr(module, "chain", module)
    if not isinstance(generator, SequentialGenerator):
        return ()
    transposed = [layer for layer in generator.layers if isinstance(layer, nn.ConvTranspose2d)]
    return tuple(
        format_stride((layer.stride[0], int(layer.padding[0]), layer.output_padding[0]))
        for layer in transposed[len(generator.input_shape) == 3 :]
    )


def build_sequential_generator(
    spec: SequentialSpec, activation: str, eps: float, dropout: float = 0.0, *, norm: str = "none"
) -> SequentialGenerator:
    """The network of a spec in eval mode, sharing the weights' memory. `norm`: in the gaps that may hold one.

    ArchitectureMismatch where a weight does not fit.
    """
    final = make_output_activation(spec.output_activation)
    layers = build_layers(spec.layer_specs, activation, eps, dropout, final=final)
    _fill_gaps(layers, spec, norm)
    input_shape = (spec.in_features, 1, 1) if spec.latent_is_1x1 else (spec.in_features,)
    names = (*("" if layer.weights is None else layer.weights.name for layer in spec.layer_specs), "")
    shape = spec.output.shape
    if norm in RESIZING_LAYERS and spec.has_open_norms:
        shape = _run_for_shape(layers.eval(), input_shape)
    return SequentialGenerator(layers, input_shape, shape, names).eval().requires_grad_(False)


def _fill_gaps(layers: nn.Sequential, spec: SequentialSpec, norm: str) -> None:
    """Put the norm into the gaps that may hold one; or, where norms have gain and bias, let these be that norm."""
    has_affine = any(layer.kind == "affine_norm" for layer in spec.layer_specs)
    for index, layer in enumerate(spec.layer_specs):
        if layer.kind in GAP_POSITIONS:
            layers[index] = make_gap_norm("none" if has_affine else norm, GAP_POSITIONS[layer.kind])
        elif layer.kind == "affine_norm":
            set_norm_groups(layers[index], norm)


def _run_for_shape(layers: nn.Sequential, input_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of one output. ArchitectureMismatch where the layers do not fit each other."""
    try:
        with torch.no_grad():
            return tuple(layers(torch.zeros(1, *input_shape)).shape[1:])
    except RuntimeError as error:
        raise ArchitectureMismatch(str(error).splitlines()[0]) from None


def build_layers(
    layer_specs: Sequence[LayerSpec],
    activation: str,
    eps: float,
    dropout: float,
    *,
    final: nn.Module | None = None,
    copy_weights: bool = False,
) -> nn.Sequential:
    """The layers as nn.Sequential, every weight used and of the right shape. ArchitectureMismatch names what disagrees.

    `final`: a module after the last layer. `copy_weights`: float32 copies of the weights, with batch counts reset to 0,
    in place of the tensors themselves.
    """
    modules: list[nn.Module] = []
    state: dict[str, Tensor] = {}
    with torch.device("meta"):
        for index, layer in enumerate(layer_specs):
            if layer.weights is not None:
                tensors = _layer_state(layer.weights, copy_weights)
                state |= {f"{index}.{leaf}": tensor for leaf, tensor in tensors.items()}
            modules.append(_build_module(layer, activation, eps, dropout))
    layers = nn.Sequential(*modules, *([] if final is None else [final]))
    try:
        layers.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as mismatch:
        raise ArchitectureMismatch(str(mismatch).splitlines()[-1].strip()) from None
    return layers


def _layer_state(layer: LayerWeights, copy: bool) -> Mapping[str, Tensor]:
    """A layer's state dict. Checkpoints of torch < 0.4.1 have no num_batches_tracked."""
    tensors = {leaf: tensor.float().clone() for leaf, tensor in layer.tensors.items()} if copy else layer.tensors
    if layer.kind == "norm" and (copy or "num_batches_tracked" not in tensors):
        return {**tensors, "num_batches_tracked": torch.tensor(0, device="cpu")}
    return tensors


def _build_module(layer: LayerSpec, activation: str, eps: float, dropout: float) -> nn.Module:
    if layer.kind == "activation":
        return make_hidden_activation(activation)
    if layer.kind == "dropout":
        return nn.Dropout2d(dropout) if layer.size else nn.Dropout(dropout)
    if layer.kind == "flatten":
        return nn.Flatten()
    if layer.kind in GAP_POSITIONS:
        return nn.Identity()
    if layer.kind == "unflatten":
        return nn.Unflatten(1, layer.size)
    if layer.build is None:
        raise ArchitectureMismatch(f"{layer.kind!r} is not a kind of layer")
    return layer.build(eps)


def set_hyperparameters(
    generator: SequentialGenerator,
    spec: SequentialSpec,
    activation: str,
    eps: float,
    dropout: float,
    *,
    norm: str = "none",
) -> SequentialGenerator:
    """Change a spec's own network in place to other settings; its weights stay, and so does its output's shape."""
    _fill_gaps(generator.layers, spec, norm)
    for index, layer in enumerate(spec.layer_specs):
        if layer.kind in ("dropout", "activation"):
            generator.layers[index] = _build_module(layer, activation, eps, dropout).eval()
        elif layer.weights is not None and layer.weights.kind == "norm":
            with torch.device("meta"):
                generator.layers[index].eps = _build_module(layer, activation, eps, dropout).eps
    return generator


HIDDEN_ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "swish": nn.SiLU,
    "softplus": nn.Softplus,
    "none": nn.Identity,
}


def make_hidden_activation(text: str) -> nn.Module:
    """An activation by name; leaky takes its slope: leaky:0.2. ConfigError for others."""
    name, _, slope = text.lower().partition(":")
    if name in ("leaky", "leakyrelu", "leaky_relu", "lrelu"):
        try:
            return nn.LeakyReLU(float(slope or 0.2))
        except ValueError:
            raise ConfigError(
                f"--activation is {text!r}: {slope!r} is not a number", "give the slope as in leaky:0.2"
            ) from None
    if name not in HIDDEN_ACTIVATIONS or slope:
        raise ConfigError(f"--activation is {text!r}", f"choose from: leaky:0.2, {', '.join(HIDDEN_ACTIVATIONS)}")
    return HIDDEN_ACTIVATIONS[name]()


def make_output_activation(name: str) -> nn.Module:
    """The output activation: tanh, sigmoid or none."""
    modules: dict[str, nn.Module] = {"tanh": nn.Tanh(), "sigmoid": nn.Sigmoid(), "none": nn.Identity()}
    return modules[name]
