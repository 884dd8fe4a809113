"""StyleGAN2 in the layout of NVIDIA's PyTorch code (stylegan2-ada-pytorch, and StyleGAN2 of stylegan3): mapping.* and synthesis.b*.

Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data" (ADA), on the StyleGAN2 of Karras et al. 2020,
"Analyzing and Improving the Image Quality of StyleGAN". A block shows its picture at once (skip), adds a shortcut (resnet), or
neither (orig): the shapes say which. Labels are one-hot, embedded and normalised beside z. What tensors do not say (the
learning-rate factor of the mapping, the clamp of convolutions) a network pickle says itself. All arithmetic is in float32,
where the original halves the precision of large layers on a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gandiag.checkpoints.architectures.base import RebuiltGenerator, load_strict, require_shape
from gandiag.checkpoints.architectures.layers.noise_input import NoiseInput
from gandiag.checkpoints.architectures.layers.stylegan2 import (
    EqualizedLinear,
    check_w_avg,
    infer_lr_multiplier,
    infer_output_range,
    modulated_conv2d,
    normalize_2nd_moment,
    normalized_latent_prior,
    scaled_leaky_relu,
    upsample2d,
)
from gandiag.checkpoints.architectures.layers.truncation import Truncation
from gandiag.checkpoints.architectures.shape_check import infer_output_shape
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.safe_pickle.modules import ModuleNode
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig
from gandiag.interfaces import Assumption, LatentSpec, OutputSpec

FAMILY = "StyleGAN2 (NVIDIA)"
_CLAMP = 256.0  # what train.py of stylegan2-ada-pytorch sets
_MEAN = 4_096
_FEW = 512
_LARGEST = 4_096


def rebuild(weights: Weights, config: AuditConfig) -> RebuiltGenerator:
    """NotThis unless the keys are mapping.fc*, synthesis.b4.const, synthesis.b*.conv1.*."""
    tensors = weights.tensors
    if "mapping.fc0.weight" not in tensors or "synthesis.b4.conv1.affine.weight" not in tensors:
        raise ArchitectureMismatch("")
    told = _told(weights.structure)
    rate, rate_told, rate_source = infer_lr_multiplier(
        tensors["mapping.fc0.weight"], told.get("rate", weights.extra_settings.get("lr_multiplier"))
    )
    beside = weights.extra_settings.get("conv_clamp")
    told |= {"clamp": float(beside)} if "clamp" not in told and isinstance(beside, (int, float)) and beside > 0 else {}
    clamp = told.get("clamp", _CLAMP)
    with torch.device("meta"):
        net = StyleGan2(tensors, rate, clamp)
    shape = (net.synthesis.channels, net.synthesis.resolution, net.synthesis.resolution)
    z, classes = net.mapping.z_dim, net.mapping.classes
    infer_output_shape(
        net.mapping, *(torch.empty(2, size, device="meta") for size in (z, classes) if size)
    )  # before styles are drawn
    load_strict(net, tensors)
    own = Assumption("mean style", f"the average of {_MEAN:,} mapped z", "gandiag")
    mean_said = check_w_avg("w_avg", net.mapping.w_avg, net.mapping.sample_w(_FEW)) if net.mapping.has_w_avg else own
    shown = "no clamp" if clamp is None else f"convolutions clamped at {clamp:g}"
    prior, prior_said = normalized_latent_prior(
        config.prior, "z and the class's embedding are" if classes else "z is", "NVIDIA"
    )
    span, range_said = infer_output_range(config.output_range, "NVIDIA")
    said = (
        Assumption("latent size (--latent-dim)", str(z), "shapes"),
        prior_said,
        *([Assumption("classes (--classes)", f"{classes}, as one-hot vectors", "shapes")] if classes else []),
        Assumption("mapping", f"{net.mapping.n_layers} layers, learning-rate factor {rate_told}", rate_source),
        mean_said,
        Assumption(
            "synthesis", f"{net.synthesis.architecture} architecture to {net.synthesis.resolution} pixels", "shapes"
        ),
        Assumption("arithmetic", f"float32 throughout, {shown}", "file" if "clamp" in told else "family (NVIDIA)"),
        range_said,
    )
    return RebuiltGenerator(
        FAMILY,
        net,
        LatentSpec(z, prior),
        OutputSpec("image", shape, span),
        classes,
        "onehot" if classes else None,
        said,
    )


def _told(structure: ModuleNode | None) -> dict[str, Any]:
    """What a network pickle says of itself beside its tensors. NotThis for settings that change the arithmetic otherwise."""
    if structure is None:
        return {}
    nodes = dict(structure.named_modules())
    first, layer = nodes.get("mapping.fc0"), nodes.get("synthesis.b4.conv1")
    found: dict[str, Any] = {}
    if first is not None and isinstance(first.settings.get("bias_gain"), (int, float)):
        found["rate"] = first.settings["bias_gain"]
    if layer is not None and "conv_clamp" in layer.settings:
        clamp = layer.settings["conv_clamp"]
        found["clamp"] = float(clamp) if isinstance(clamp, (int, float)) else None
    for name, node in nodes.items():
        way = node.settings.get("activation")
        usual = "lrelu" if name.startswith("mapping.fc") or name.endswith((".conv0", ".conv1")) else "linear"
        if isinstance(way, str) and way != usual:
            raise ArchitectureMismatch(f"{name} has the activation {way[:20]}, not {usual}")
    return found


class StyleGan2(nn.Module):
    def __init__(self, tensors: Mapping[str, Tensor], lr_multiplier: float, clamp: float | None) -> None:
        super().__init__()
        self.mapping, self.synthesis = MappingNetwork(tensors, lr_multiplier), SynthesisNetwork(tensors, clamp)

    def forward(self, z: Tensor, onehot: Tensor | None = None) -> Tensor:
        out: Tensor = self.synthesis(self.mapping(z, onehot))
        return out


class MappingNetwork(nn.Module):
    """Normalised z (and normalised class embedding) through equal layers; drawn towards the mean style by psi."""

    w_avg: Tensor

    def __init__(self, tensors: Mapping[str, Tensor], lr_multiplier: float) -> None:
        super().__init__()
        self.n_layers = sum(name.startswith("mapping.fc") and name.endswith(".weight") for name in tensors)
        for index in range(self.n_layers):
            self.add_module(
                f"fc{index}", EqualizedLinear(require_shape(tensors, f"mapping.fc{index}.weight", 2), lr_multiplier)
            )
        embedded, classes = (
            require_shape(tensors, "mapping.embed.weight", 2) if "mapping.embed.weight" in tensors else (0, 0)
        )
        self.embed = EqualizedLinear((embedded, classes)) if classes else None
        self.z_dim, self.classes = require_shape(tensors, "mapping.fc0.weight", 2)[1] - embedded, classes or None
        if self.z_dim < 1:
            raise ArchitectureMismatch("its mapping takes no latent, only labels")
        self.has_w_avg, self.psi = "mapping.w_avg" in tensors, Truncation()
        if self.has_w_avg:
            self.register_buffer(
                "w_avg", torch.empty(require_shape(tensors, f"mapping.fc{self.n_layers - 1}.weight", 2)[0])
            )

    def forward(self, z: Tensor, onehot: Tensor | None = None) -> Tensor:
        out: Tensor = self.psi(
            self.compute_w(z, onehot), lambda: self.w_avg if self.has_w_avg else self.sample_w(_MEAN).mean(0)
        )
        return out

    def compute_w(self, z: Tensor, onehot: Tensor | None = None) -> Tensor:
        w = normalize_2nd_moment(z)
        if self.embed is not None and onehot is not None:
            w = torch.cat([w, normalize_2nd_moment(self.embed(onehot))], 1)
        for index in range(self.n_layers):
            w = scaled_leaky_relu(self.get_submodule(f"fc{index}")(w))
        return w  # (B, W)

    def sample_w(self, n: int) -> Tensor:
        """Styles (n, W) of a fixed draw, the classes in turn."""
        place = self.get_parameter("fc0.weight")
        latents = torch.randn(n, self.z_dim, generator=torch.Generator().manual_seed(0)).to(place)
        onehot = None if self.classes is None else torch.eye(self.classes)[torch.arange(n) % self.classes].to(place)
        return self.compute_w(latents, onehot)


class SynthesisNetwork(nn.Module):
    """Blocks of 4, 8, … pixels. A style goes to every layer, so that the original's broadcast of w needs no counting."""

    def __init__(self, tensors: Mapping[str, Tensor], clamp: float | None) -> None:
        super().__init__()
        sides = list(_sides(tensors))
        if not sides:
            raise ArchitectureMismatch("synthesis.b4.conv1.weight is missing")
        self.resolution = sides[-1]
        for side in sides:
            self.add_module(f"b{side}", SynthesisBlock(tensors, side, clamp))
        blocks = [self.get_submodule(f"b{side}") for side in sides]
        shown = [block.torgb is not None for block in blocks]
        if not shown[-1] or (any(shown[:-1]) and not all(shown)):
            raise ArchitectureMismatch("its blocks show pictures neither at every size nor at the last alone")
        self.architecture = (
            "resnet" if any(block.skip is not None for block in blocks) else "skip" if all(shown) else "orig"
        )
        self.channels = require_shape(tensors, f"synthesis.b{self.resolution}.torgb.weight", 4)[0]

    def forward(self, w: Tensor) -> Tensor:
        x, rgb = w.new_empty(0), None
        for block in self.children():
            x, rgb = block(x, rgb, w)
        assert isinstance(rgb, Tensor)  # the last block shows a picture
        return rgb


def _sides(tensors: Mapping[str, Tensor]) -> Iterator[int]:
    side = 4
    while f"synthesis.b{side}.conv1.weight" in tensors and side <= _LARGEST:
        yield side
        side *= 2


class SynthesisBlock(nn.Module):
    """Two modulated convolutions, the first of which doubles the side; a constant start in the block of 4 pixels."""

    resample_filter: Tensor

    def __init__(self, tensors: Mapping[str, Tensor], resolution: int, clamp: float | None) -> None:
        super().__init__()
        path = f"synthesis.b{resolution}"
        self.register_buffer("resample_filter", _filter(tensors, path))
        self.const = nn.Parameter(torch.empty(require_shape(tensors, f"{path}.const", 3))) if resolution == 4 else None
        self.conv0 = (
            None if resolution == 4 else SynthesisLayer(tensors, f"{path}.conv0", resolution, up=True, clamp=clamp)
        )
        self.conv1 = SynthesisLayer(tensors, f"{path}.conv1", resolution, up=False, clamp=clamp)
        if self.const is not None and self.const.shape != (self.conv1.weight.shape[1], 4, 4):
            raise ArchitectureMismatch(
                f"{path}.const is {tuple(self.const.shape)}, and {path}.conv1.weight {tuple(self.conv1.weight.shape)} takes "
                f"{(self.conv1.weight.shape[1], 4, 4)}"
            )
        self.torgb = ToRgb(tensors, f"{path}.torgb", clamp) if f"{path}.torgb.weight" in tensors else None
        self.skip = SkipConv(tensors, f"{path}.skip") if f"{path}.skip.weight" in tensors else None

    def forward(self, x: Tensor, rgb: Tensor | None, w: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.const is not None:
            x = self.conv1(self.const.expand(len(w), -1, -1, -1), w)
        else:
            assert self.conv0 is not None
            gain = 1.0 if self.skip is None else math.sqrt(0.5)
            side = None if self.skip is None else gain * self.skip(x)
            x = self.conv1(self.conv0(x, w), w, gain)
            x = x if side is None else x + side
        rgb = None if rgb is None else upsample2d(rgb, 4 * self.resample_filter)
        if self.torgb is not None:
            shown = self.torgb(x, w)
            rgb = shown if rgb is None else rgb + shown
        return x, rgb


class SynthesisLayer(nn.Module):
    """A modulated 3x3 convolution, noise, bias, leaky ReLU, a clamp. Demodulation makes the weight's own size immaterial."""

    resample_filter: Tensor
    noise_const: Tensor

    def __init__(
        self, tensors: Mapping[str, Tensor], prefix: str, resolution: int, *, up: bool, clamp: float | None
    ) -> None:
        super().__init__()
        shape = require_shape(tensors, f"{prefix}.weight", 4)
        self.up, self.clamp = up, clamp
        self.weight, self.bias = nn.Parameter(torch.empty(shape)), nn.Parameter(torch.empty(shape[0]))
        self.affine = EqualizedLinear(require_shape(tensors, f"{prefix}.affine.weight", 2))
        self.register_buffer("resample_filter", _filter(tensors, prefix))
        self.noise = NoiseInput(prefix) if f"{prefix}.noise_strength" in tensors else None
        if self.noise is not None:
            self.register_buffer("noise_const", torch.empty(resolution, resolution))
            self.noise_strength = nn.Parameter(torch.empty(()))

    def forward(self, x: Tensor, w: Tensor, gain: float = 1.0) -> Tensor:
        x = modulated_conv2d(x, self.weight, self.affine(w), blur=self.resample_filter if self.up else None)
        if self.noise is not None:
            x = x + self.noise(x, self.noise_const) * self.noise_strength
        return _clamped(gain * scaled_leaky_relu(x + self.bias[:, None, None]), self.clamp, gain)


class ToRgb(nn.Module):
    def __init__(self, tensors: Mapping[str, Tensor], prefix: str, clamp: float | None) -> None:
        super().__init__()
        shape = require_shape(tensors, f"{prefix}.weight", 4)
        self.weight, self.bias, self.clamp = (
            nn.Parameter(torch.empty(shape)),
            nn.Parameter(torch.empty(shape[0])),
            clamp,
        )
        self.affine = EqualizedLinear(require_shape(tensors, f"{prefix}.affine.weight", 2))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        style = self.affine(w) / math.sqrt(self.weight[0].numel())
        return _clamped(
            modulated_conv2d(x, self.weight, style, demodulate=False) + self.bias[:, None, None], self.clamp
        )


class SkipConv(nn.Module):
    """1x1 without bias, then twice the side."""

    resample_filter: Tensor

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(require_shape(tensors, f"{prefix}.weight", 4)))
        self.register_buffer("resample_filter", _filter(tensors, prefix))

    def forward(self, x: Tensor) -> Tensor:
        thin = nn.functional.conv2d(x, self.weight / math.sqrt(self.weight[0].numel()))
        return upsample2d(thin, 4 * self.resample_filter)


def _filter(tensors: Mapping[str, Tensor], path: str) -> Tensor:
    shape = require_shape(tensors, f"{path}.resample_filter", 2)
    if shape[0] != shape[1]:
        raise ArchitectureMismatch(f"{path}.resample_filter is {shape}")
    return torch.empty(shape)


def _clamped(x: Tensor, clamp: float | None, gain: float = 1.0) -> Tensor:
    return x if clamp is None else x.clamp(-clamp * gain, clamp * gain)
