"""R3GAN: residual stages of grouped convolutions without normalisation, from a learned 4x4 basis.

Huang et al. 2024, "The GAN is dead; long live the GAN! A Modern Baseline GAN", section 3.3 and table 6: z (joined to an embedding
of the class) scales a basis of 4x4 pictures; stages of bottleneck blocks 1x1 - grouped kxk - 1x1, whose biases sit in their two
leaky ReLUs; between the stages interpolation by a low-pass filter, which the file stores; a 1x1 convolution to pixels, no tanh.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandiag.checkpoints.architectures.base import RebuiltGenerator, load_strict, require_shape
from gandiag.checkpoints.architectures.shape_check import check_output_shape
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.safe_pickle.modules import ModuleNode
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig
from gandiag.interfaces import Assumption, LatentSpec, OutputSpec

_FAMILY = "family (R3GAN)"
_LARGEST = 12  # stages: 4 x 2^11 pixels


def rebuild(weights: Weights, config: AuditConfig) -> RebuiltGenerator:
    """NotThis unless the keys are [Model.]MainLayers.<stage>.Layers.<n>.*; settings of a pickled network must agree with the shapes."""
    tensors = {name.removeprefix("Model."): entry for name, entry in weights.tensors.items()}
    if "MainLayers.0.Layers.0.Basis" not in tensors:
        raise ArchitectureMismatch("")
    with torch.device("meta"):
        net = R3Gan(tensors)
    dim, classes, side = net.latent_dim, net.classes, net.resolution
    check_output_shape(net, dim, (net.channels, side, side), classes)
    load_strict(net, tensors)
    told = {} if weights.structure is None else weights.structure.settings
    _demand(told, {"z_dim": dim, "c_dim": classes or 0, "img_resolution": side})
    prior, prior_source = (config.prior, "flag") if config.prior else ("normal", _FAMILY)
    span, span_source = (config.output_range, "flag") if config.output_range else ((-1.0, 1.0), _FAMILY)
    said = (
        Assumption("latent size (--latent-dim)", str(dim), "file (z_dim), shapes" if "z_dim" in told else "shapes"),
        Assumption("latent prior (--prior)", f"{prior}; z enters as it is, without normalisation", prior_source),
        *(
            [Assumption("classes (--classes)", f"{classes}, as one-hot vectors, embedded and joined after z", "shapes")]
            if classes
            else []
        ),
        Assumption("image size (--image-size)", f"4 to {side} pixels in {len(net.MainLayers)} stages", "shapes"),
        Assumption(
            "output range (--output-range)",
            f"[{span[0]:g}, {span[1]:g}], without tanh: a few values lie outside",
            span_source,
        ),
        *_precision(weights.structure),
    )
    output = OutputSpec("image", (net.channels, side, side), (span[0], span[1]))
    return RebuiltGenerator("R3GAN", net, LatentSpec(dim, prior), output, classes, "onehot" if classes else None, said)  # type: ignore[arg-type]


def _demand(told: Mapping[str, Any], known: Mapping[str, int]) -> None:
    for name, value in known.items():
        if type(told.get(name)) is int and told[name] != value:
            raise ArchitectureMismatch(f"the file says {name} {told[name]}, and its shapes {value}")


def _precision(structure: ModuleNode | None) -> tuple[Assumption, ...]:
    """Which stages were trained in bfloat16, where a pickled network says so: they are run in float32."""
    if structure is None:
        return ()
    stages = [
        (name.rsplit(".", 1)[-1], part)
        for name, part in structure.named_modules()
        if re.search(r"MainLayers\.\d+$", name)
    ]
    halves = ", ".join(name for name, part in stages if "bfloat16" in str(part.settings.get("DataType")))
    return (
        (Assumption("precision", f"float32 throughout; the file runs stages {halves} in bfloat16", "gandiag"),)
        if halves
        else ()
    )


class R3Gan(nn.Module):
    """MainLayers, AggregationLayer and, with classes, EmbeddingLayer: the names that the file has."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        count = 1 + max(int(name.split(".")[1]) for name in tensors if re.match(r"MainLayers\.\d{1,3}\.", name))
        if count > _LARGEST:
            raise ArchitectureMismatch(f"{count} stages would make pictures of {4 * 2 ** (count - 1)} pixels")
        self.resolution = 4 * 2 ** (count - 1)
        self.MainLayers = nn.ModuleList(
            GeneratorStage(tensors, f"MainLayers.{index}.Layers.", is_first=index == 0) for index in range(count)
        )
        self.AggregationLayer = Convolution(tensors, "AggregationLayer")
        self.channels = self.AggregationLayer.Layer.out_channels
        self.classes: int | None = None
        inputs = require_shape(tensors, "MainLayers.0.Layers.0.LinearLayer.weight", 2)[1]
        embedded = 0
        if "EmbeddingLayer.weight" in tensors:
            embedded, self.classes = require_shape(tensors, "EmbeddingLayer.weight", 2)
            self.EmbeddingLayer = nn.Linear(self.classes, embedded, bias=False)
        self.latent_dim = inputs - embedded
        if self.latent_dim < 1:
            raise ArchitectureMismatch(f"the first layer takes {inputs} values, of which {embedded} embed the class")

    def forward(self, z: Tensor, onehot: Tensor | None = None) -> Tensor:
        x = z if self.classes is None else torch.cat([z, self.EmbeddingLayer(onehot)], 1)
        for stage in self.MainLayers:
            x = stage(x)
        out: Tensor = self.AggregationLayer(x)  # (B, 3, side, side)
        return out


class GeneratorStage(nn.Module):
    """A transition (the basis, or a doubling of the side), then residual blocks."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str, *, is_first: bool) -> None:
        super().__init__()
        count = 1 + max(
            (int(found[1]) for name in tensors if (found := re.match(re.escape(prefix) + r"(\d{1,3})\.", name))),
            default=-1,
        )
        start = GenerativeBasis(tensors, f"{prefix}0.") if is_first else UpsampleLayer(tensors, f"{prefix}0.")
        self.Layers = nn.ModuleList(
            [start, *(ResidualBlock(tensors, f"{prefix}{index}.") for index in range(1, count))]
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.Layers:
            x = layer(x)
        return x


class GenerativeBasis(nn.Module):
    """One 4x4 picture a channel, scaled by a linear map of the latents."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__()
        out, into = require_shape(tensors, f"{prefix}LinearLayer.weight", 2)
        self.Basis = nn.Parameter(torch.empty(out, 4, 4))
        self.LinearLayer = nn.Linear(into, out, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.Basis * self.LinearLayer(z)[:, :, None, None]  # (B, C, 4, 4)
        return out


class UpsampleLayer(nn.Module):
    """A 1x1 convolution where the width changes, then zeros between the pixels and the low-pass filter over them."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__()
        self.LinearLayer = (
            Convolution(tensors, f"{prefix}LinearLayer") if f"{prefix}LinearLayer.Layer.weight" in tensors else None
        )
        taps = require_shape(tensors, f"{prefix}Resampler.Kernel", 2)
        if taps[0] != taps[1] or taps[0] % 2:
            raise ArchitectureMismatch(f"{prefix}Resampler.Kernel is {taps}, no square filter of even size")
        self.Resampler = InterpolativeUpsampler(taps[0])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.Resampler(x if self.LinearLayer is None else self.LinearLayer(x))
        return out


class InterpolativeUpsampler(nn.Module):
    """Interpolation to twice the side: each channel by itself, the filter's gain made up for the zeros."""

    def __init__(self, kernel_size: int) -> None:
        super().__init__()
        self.register_buffer("Kernel", torch.empty(kernel_size, kernel_size))

    def forward(self, x: Tensor) -> Tensor:
        kernel, channels = self.get_buffer("Kernel"), x.shape[1]
        weight = (4 * kernel).expand(channels, 1, -1, -1)
        return F.conv_transpose2d(x, weight, stride=2, padding=len(kernel) // 2 - 1, groups=channels)  # (B, C, 2H, 2W)


class ResidualBlock(nn.Module):
    """x + 1x1(lrelu(grouped kxk(lrelu(1x1(x) + b1)) + b2))."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__()
        self.LinearLayer1, self.LinearLayer2, self.LinearLayer3 = (
            Convolution(tensors, f"{prefix}LinearLayer{index}") for index in (1, 2, 3)
        )
        self.NonLinearity1, self.NonLinearity2 = (
            BiasedActivation(self.LinearLayer1.Layer.out_channels),
            BiasedActivation(self.LinearLayer2.Layer.out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.NonLinearity1(self.LinearLayer1(x))
        y = self.NonLinearity2(self.LinearLayer2(y))
        out: Tensor = x + self.LinearLayer3(y)
        return out


class BiasedActivation(nn.Module):
    """A bias a channel, then leaky ReLU 0.2, without gain."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.Bias = nn.Parameter(torch.empty(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x + self.Bias[:, None, None], 0.2)


class Convolution(nn.Module):
    """Same-size convolution without bias; how many groups, the kernel's own second axis says."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__()
        out, into, size, _ = require_shape(tensors, f"{prefix}.Layer.weight", 4)
        before = _width_before(tensors, prefix, into)
        if before % into or out % (before // into) or size % 2 == 0:
            raise ArchitectureMismatch(
                f"{prefix}.Layer.weight {(out, into, size)} takes no {before} channels in groups"
            )
        self.Layer = nn.Conv2d(before, out, size, padding=size // 2, groups=before // into, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.Layer(x)
        return out


def _width_before(tensors: Mapping[str, Tensor], path: str, into: int) -> int:
    """Channels that a convolution takes: only the second of a block is grouped, and it takes what the first one makes."""
    return (
        require_shape(tensors, f"{path.removesuffix('2')}1.Layer.weight", 4)[0]
        if path.endswith("LinearLayer2")
        else into
    )
