"""A blueprint is a list of steps; `assemble` makes the module and loads every weight strictly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gandiag.contracts import Assumption, Output
from gandiag.errors import ConfigError
from gandiag.load.rebuild.geometry import written
from gandiag.load.rebuild.layers import Layer, NotThis


@dataclass(frozen=True, slots=True)
class Step:
    """A layer with its weights, or one of the modules without: "activation", "dropout", "unflatten" (to `size`), "upsample" (by `build`)."""

    kind: str
    layer: Layer | None = None
    build: Callable[[float], nn.Module] | None = None  # batch-norm eps -> module
    size: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Open:
    """What the shapes leave open of the layers. `options`: in words, the customary one first; `norm`: the batch norm right behind.

    `customary`: the other options are rare. `last`: the norm behind all the layers that it is about, where that is not the first one.
    """

    what: str
    options: tuple[str, ...]
    norm: int
    customary: bool = False
    last: int | None = None


@dataclass(frozen=True, slots=True)
class Blueprint:
    """What a family made of the weights. `inputs`: width of the first layer, labels included. `final`: tanh, sigmoid or none.

    `spatial`: latents carry two axes of size 1. `default`: the family's hidden activation. `known`: activations and eps are the file's.
    `open`: questions that a batch norm can answer; `remade` gives the blueprint of other answers, one option of each question,
    or raises NotThis where they lead nowhere.
    """

    family: str
    steps: tuple[Step, ...]
    inputs: int
    spatial: bool
    output: Output
    final: str
    assumptions: tuple[Assumption, ...] = ()
    default: str = "relu"
    known: bool = False
    open: tuple[Open, ...] = ()
    remade: Callable[[tuple[int, ...]], Blueprint] | None = None

    @property
    def layers(self) -> list[Layer]:
        return [step.layer for step in self.steps if step.layer is not None]

    @property
    def dropouts(self) -> int:
        """Modules without weights that may be dropout: the second one between two layers."""
        return sum(step.kind == "dropout" for step in self.steps)

    @property
    def activations(self) -> int:
        return sum(step.kind == "activation" for step in self.steps)


class Chain(nn.Module):
    """Layers one after another: (B, inputs) latents, labels included, to (B, *shape)."""

    def __init__(self, layers: nn.Sequential, inputs: tuple[int, ...], shape: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = layers
        self.inputs = inputs
        self.shape = shape

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.layers(z.reshape(len(z), *self.inputs))
        return out.reshape(len(z), *self.shape)  # (B, *shape)


def strides_of(module: nn.Module) -> tuple[str, ...]:
    """Of the transposed convolutions of a chain, or of the chain in a network, as --strides takes them. One that starts from a single pixel makes its
    kernel, whatever its stride, and is left out."""
    chain = getattr(module, "chain", module)
    if not isinstance(chain, Chain):
        return ()
    turned = [layer for layer in chain.layers if isinstance(layer, nn.ConvTranspose2d)][len(chain.inputs) == 3 :]
    return tuple(written((layer.stride[0], int(layer.padding[0]), layer.output_padding[0])) for layer in turned)


def assemble(blueprint: Blueprint, activation: str, eps: float, dropout: float = 0.0) -> Chain:
    """The network of a blueprint in eval mode, every weight used and of the right shape. NotThis names what disagrees."""
    modules: list[nn.Module] = []
    state: dict[str, Tensor] = {}
    with torch.device("meta"):
        for step in blueprint.steps:
            if step.layer is not None:
                state |= {f"{len(modules)}.{leaf}": tensor for leaf, tensor in _complete(step.layer).items()}
            modules.append(nn.Dropout(dropout) if step.kind == "dropout" else _module(step, activation, eps))
        modules.append(output_module(blueprint.final))
    layers = nn.Sequential(*modules)
    try:
        layers.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as wrong:
        raise NotThis(str(wrong).splitlines()[-1].strip()) from None
    inputs = (blueprint.inputs, 1, 1) if blueprint.spatial else (blueprint.inputs,)
    return Chain(layers, inputs, blueprint.output.shape).eval().requires_grad_(False)


def retuned(chain: Chain, blueprint: Blueprint, activation: str, eps: float, dropout: float) -> Chain:
    """The blueprint's own chain, changed in place to another activation, eps and dropout; its weights stay where they are."""
    for place, step in enumerate(blueprint.steps):
        if step.kind == "dropout":
            chain.layers[place] = nn.Dropout(dropout).eval()
        elif step.kind == "activation":
            chain.layers[place] = hidden_module(activation).eval()
        elif step.layer is not None and step.layer.kind == "norm":
            with torch.device("meta"):
                chain.layers[place].eps = _module(step, activation, eps).eps
    return chain


SHUFFLES = ("pixel-shuffle", "depth-to-space")


class DepthToSpace(nn.Module):
    """Pixel shuffle in the order of other frameworks, (B, 4 C, H, W) -> (B, C, 2 H, 2 W): four blocks of C channels, one for each pixel."""

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        blocks = x.reshape(batch, 4, channels // 4, height, width).transpose(1, 2)
        return nn.functional.pixel_shuffle(blocks.reshape(batch, channels, height, width), 2)


def _complete(layer: Layer) -> Mapping[str, Tensor]:
    """Checkpoints of torch < 0.4.1 have no num_batches_tracked."""
    if layer.kind == "norm" and "num_batches_tracked" not in layer.tensors:
        return {**layer.tensors, "num_batches_tracked": torch.tensor(0, device="cpu")}
    return layer.tensors


def _module(step: Step, activation: str, eps: float) -> nn.Module:
    if step.kind == "activation":
        return hidden_module(activation)
    if step.kind == "unflatten":
        return nn.Unflatten(1, step.size)
    if step.build is None:
        raise NotThis(f"there is no step called {step.kind!r}")
    return step.build(eps)


HIDDEN: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "gelu": nn.GELU, "elu": nn.ELU, "selu": nn.SELU,
    "silu": nn.SiLU, "swish": nn.SiLU, "softplus": nn.Softplus, "none": nn.Identity,
}


def hidden_module(text: str) -> nn.Module:
    """An activation by name; leaky takes its slope: leaky:0.2. ConfigError for others."""
    name, _, slope = text.lower().partition(":")
    if name in ("leaky", "leakyrelu", "leaky_relu", "lrelu"):
        try:
            return nn.LeakyReLU(float(slope or 0.2))
        except ValueError:
            raise ConfigError(f"--activation is {text!r}: {slope!r} is no slope", "write it as leaky:0.2") from None
    if name not in HIDDEN or slope:
        raise ConfigError(f"--activation is {text!r}", f"choose from: leaky:0.2, {', '.join(HIDDEN)}")
    return HIDDEN[name]()


def output_module(name: str) -> nn.Module:
    """The output activation: tanh, sigmoid or none."""
    modules: dict[str, nn.Module] = {"tanh": nn.Tanh(), "sigmoid": nn.Sigmoid(), "none": nn.Identity()}
    return modules[name]


# layers to modules

def linear_step(layer: Layer) -> Step:
    out, inputs = layer.shape
    return Step("layer", layer, lambda eps: nn.Linear(inputs, out, bias="bias" in layer.tensors))


def norm_step(layer: Layer, spatial: bool, *, ordinary: bool = False) -> Step:
    """`ordinary`: this norm keeps the usual eps where the others have the mistaken 0.8."""
    make = nn.BatchNorm2d if spatial else nn.BatchNorm1d
    affine = "weight" in layer.tensors
    return Step("layer", layer, lambda eps: make(layer.shape[0], eps=1e-5 if ordinary and eps == 0.8 else eps, affine=affine))


def conv_step(layer: Layer) -> Step:
    out, inputs, kernel, _ = layer.shape
    return Step("layer", layer, lambda eps: nn.Conv2d(inputs, out, kernel, padding=kernel // 2, bias="bias" in layer.tensors))


def upsample_step(mode: str) -> Step:
    """Doubling of the side: "nearest" or "bilinear"; "pixel-shuffle" or "depth-to-space", which take four channels for one."""
    if mode in SHUFFLES:
        return Step("upsample", None, lambda eps: nn.PixelShuffle(2) if mode == SHUFFLES[0] else DepthToSpace())
    return Step("upsample", None, lambda eps: nn.Upsample(scale_factor=2, mode=mode, align_corners=False if mode == "bilinear" else None))


def transposed_step(layer: Layer, geometry: tuple[int, int, int]) -> Step:
    inputs, out, kernel, _ = layer.shape
    stride, padding, extra = geometry
    bias = "bias" in layer.tensors
    return Step("layer", layer, lambda eps: nn.ConvTranspose2d(inputs, out, kernel, stride, padding, extra, bias=bias))
