"""A blueprint is a list of steps; `assemble` makes the module and loads every weight strictly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gandiag.checkpoints.inference.conv_geometry import format_stride
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch, LayerWeights
from gandiag.errors import ConfigError
from gandiag.interfaces import Assumption, OutputSpec


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """A layer with its weights, or one of the modules without: "activation", "dropout", "unflatten" (to `size`), "upsample" (by `build`)."""

    kind: str
    weights: LayerWeights | None = None
    build: Callable[[float], nn.Module] | None = None  # batch-norm eps -> module
    size: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class OpenChoice:
    """What the shapes leave open of the layers. `options`: in words, the customary one first; `norm`: the batch norm right behind.

    `customary`: the other options are rare. `last`: the norm behind all the layers that it is about, where that is not the first one.
    """

    setting: str
    options: tuple[str, ...]
    first_batchnorm: int
    prefer_default: bool = False
    last_batchnorm: int | None = None


@dataclass(frozen=True, slots=True)
class SequentialSpec:
    """What a family made of the weights. `inputs`: width of the first layer, labels included. `final`: tanh, sigmoid or none.

    `spatial`: latents carry two axes of size 1. `default`: the family's hidden activation. `known`: activations and eps are the file's.
    `open`: questions that a batch norm can answer; `remade` gives the blueprint of other answers, one option of each question,
    or raises NotThis where they lead nowhere.
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

    @property
    def weighted_layers(self) -> list[LayerWeights]:
        return [step.weights for step in self.layer_specs if step.weights is not None]

    @property
    def n_dropouts(self) -> int:
        """Modules without weights that may be dropout: the second one between two layers."""
        return sum(step.kind == "dropout" for step in self.layer_specs)

    @property
    def n_activations(self) -> int:
        return sum(step.kind == "activation" for step in self.layer_specs)


class SequentialGenerator(nn.Module):
    """Layers one after another: (B, inputs) latents, labels included, to (B, *shape)."""

    def __init__(self, layers: nn.Sequential, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = layers
        self.input_shape = input_shape
        self.output_shape = output_shape

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.layers(z.reshape(len(z), *self.input_shape))
        return out.reshape(len(z), *self.output_shape)  # (B, *shape)


def format_module_strides(module: nn.Module) -> tuple[str, ...]:
    """Of the transposed convolutions of a chain, or of the chain in a network, as --strides takes them. One that starts from a single pixel makes its
    kernel, whatever its stride, and is left out."""
    chain = getattr(module, "chain", module)
    if not isinstance(chain, SequentialGenerator):
        return ()
    turned = [layer for layer in chain.layers if isinstance(layer, nn.ConvTranspose2d)][len(chain.input_shape) == 3 :]
    return tuple(format_stride((layer.stride[0], int(layer.padding[0]), layer.output_padding[0])) for layer in turned)


def build_sequential_generator(
    spec: SequentialSpec, activation: str, eps: float, dropout: float = 0.0
) -> SequentialGenerator:
    """The network of a blueprint in eval mode, every weight used and of the right shape. NotThis names what disagrees."""
    modules: list[nn.Module] = []
    state: dict[str, Tensor] = {}
    with torch.device("meta"):
        for step in spec.layer_specs:
            if step.weights is not None:
                state |= {f"{len(modules)}.{leaf}": tensor for leaf, tensor in _complete(step.weights).items()}
            modules.append(nn.Dropout(dropout) if step.kind == "dropout" else _module(step, activation, eps))
        modules.append(make_output_activation(spec.output_activation))
    layers = nn.Sequential(*modules)
    try:
        layers.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as wrong:
        raise ArchitectureMismatch(str(wrong).splitlines()[-1].strip()) from None
    inputs = (spec.in_features, 1, 1) if spec.latent_is_1x1 else (spec.in_features,)
    return SequentialGenerator(layers, inputs, spec.output.shape).eval().requires_grad_(False)


def set_hyperparameters(
    generator: SequentialGenerator, spec: SequentialSpec, activation: str, eps: float, dropout: float
) -> SequentialGenerator:
    """The blueprint's own chain, changed in place to another activation, eps and dropout; its weights stay where they are."""
    for place, step in enumerate(spec.layer_specs):
        if step.kind == "dropout":
            generator.layers[place] = nn.Dropout(dropout).eval()
        elif step.kind == "activation":
            generator.layers[place] = make_hidden_activation(activation).eval()
        elif step.weights is not None and step.weights.kind == "norm":
            with torch.device("meta"):
                generator.layers[place].eps = _module(step, activation, eps).eps
    return generator


PIXEL_SHUFFLE_MODES = ("pixel-shuffle", "depth-to-space")


class DepthToSpace(nn.Module):
    """Pixel shuffle in the order of other frameworks, (B, 4 C, H, W) -> (B, C, 2 H, 2 W): four blocks of C channels, one for each pixel."""

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        blocks = x.reshape(batch, 4, channels // 4, height, width).transpose(1, 2)
        return nn.functional.pixel_shuffle(blocks.reshape(batch, channels, height, width), 2)


def _complete(layer: LayerWeights) -> Mapping[str, Tensor]:
    """Checkpoints of torch < 0.4.1 have no num_batches_tracked."""
    if layer.kind == "norm" and "num_batches_tracked" not in layer.tensors:
        return {**layer.tensors, "num_batches_tracked": torch.tensor(0, device="cpu")}
    return layer.tensors


def _module(step: LayerSpec, activation: str, eps: float) -> nn.Module:
    if step.kind == "activation":
        return make_hidden_activation(activation)
    if step.kind == "unflatten":
        return nn.Unflatten(1, step.size)
    if step.build is None:
        raise ArchitectureMismatch(f"there is no step called {step.kind!r}")
    return step.build(eps)


HIDDEN_ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "silu": nn.SiLU,
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
            raise ConfigError(f"--activation is {text!r}: {slope!r} is no slope", "write it as leaky:0.2") from None
    if name not in HIDDEN_ACTIVATIONS or slope:
        raise ConfigError(f"--activation is {text!r}", f"choose from: leaky:0.2, {', '.join(HIDDEN_ACTIVATIONS)}")
    return HIDDEN_ACTIVATIONS[name]()


def make_output_activation(name: str) -> nn.Module:
    """The output activation: tanh, sigmoid or none."""
    modules: dict[str, nn.Module] = {"tanh": nn.Tanh(), "sigmoid": nn.Sigmoid(), "none": nn.Identity()}
    return modules[name]


# layers to modules


def linear_layer_spec(layer: LayerWeights) -> LayerSpec:
    out, inputs = layer.shape
    return LayerSpec("layer", layer, lambda eps: nn.Linear(inputs, out, bias="bias" in layer.tensors))


def batchnorm_layer_spec(layer: LayerWeights, spatial: bool, *, keep_default_eps: bool = False) -> LayerSpec:
    """`ordinary`: this norm keeps the usual eps where the others have the mistaken 0.8."""
    make = nn.BatchNorm2d if spatial else nn.BatchNorm1d
    affine = "weight" in layer.tensors
    return LayerSpec(
        "layer",
        layer,
        lambda eps: make(layer.shape[0], eps=1e-5 if keep_default_eps and eps == 0.8 else eps, affine=affine),
    )


def conv_layer_spec(layer: LayerWeights) -> LayerSpec:
    out, inputs, kernel, _ = layer.shape
    return LayerSpec(
        "layer", layer, lambda eps: nn.Conv2d(inputs, out, kernel, padding=kernel // 2, bias="bias" in layer.tensors)
    )


def upsample_layer_spec(mode: str) -> LayerSpec:
    """Doubling of the side: "nearest" or "bilinear"; "pixel-shuffle" or "depth-to-space", which take four channels for one."""
    if mode in PIXEL_SHUFFLE_MODES:
        return LayerSpec(
            "upsample", None, lambda eps: nn.PixelShuffle(2) if mode == PIXEL_SHUFFLE_MODES[0] else DepthToSpace()
        )
    return LayerSpec(
        "upsample",
        None,
        lambda eps: nn.Upsample(scale_factor=2, mode=mode, align_corners=False if mode == "bilinear" else None),
    )


def transposed_conv_layer_spec(layer: LayerWeights, stride_spec: tuple[int, int, int]) -> LayerSpec:
    inputs, out, kernel, _ = layer.shape
    stride, padding, extra = stride_spec
    bias = "bias" in layer.tensors
    return LayerSpec(
        "layer", layer, lambda eps: nn.ConvTranspose2d(inputs, out, kernel, stride, padding, extra, bias=bias)
    )
