"""R3GAN: residual stages of grouped convolutions without normalization layers, from a learned 4x4 basis.

Huang et al. 2024, "The GAN is dead; long live the GAN! A Modern Baseline GAN", section 3.3 and table 6: z (concatenated
with an embedding of the class) scales a basis of 4x4 maps; stages of bottleneck blocks 1x1 - grouped kxk - 1x1, whose
biases sit in their two leaky ReLUs; between the stages interpolation by a low-pass filter, which the file stores; a 1x1
convolution to pixels, no tanh.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandiag.checkpoints.architectures.assumptions import assume_classes, assume_image, assume_latent
from gandiag.checkpoints.architectures.base import RebuiltGenerator, load_strict, require_shape
from gandiag.checkpoints.architectures.shape_check import check_output_shape
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.safe_pickle.modules import ModuleNode
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig
from gandiag.interfaces import Assumption

_FAMILY = "R3GAN"
_MAX_STAGES = 12  # 4 x 2^11 pixels


def rebuild(weights: Weights, config: AuditConfig) -> RebuiltGenerator:
    """An R3GAN generator; settings of a pickled network must agree with the shapes.

    ArchitectureMismatch unless the keys are [Model.]MainLayers.<stage>.Layers.<n>.*.
    """
    tensors = {name.removeprefix("Model."): tensor for name, tensor in weights.tensors.items()}
    if "MainLayers.0.Layers.0.Basis" not in tensors:
        raise ArchitectureMismatch("")
    with torch.device("meta"):
        net = R3Gan(tensors)
    shape = (net.channels, net.resolution, net.resolution)
    check_output_shape(net, net.latent_dim, shape, net.classes)
    load_strict(net, tensors)
    settings = {} if weights.structure is None else weights.structure.settings
    _check_settings(settings, {"z_dim": net.latent_dim, "c_dim": net.classes or 0, "img_resolution": net.resolution})
    latent, latent_assumptions = assume_latent(
        net.latent_dim,
        config.prior,
        _FAMILY,
        prior_note="z is not normalized",
        file_entry="z_dim" if "z_dim" in settings else "",
    )
    output, range_assumption = assume_image(
        shape, config.output_range, _FAMILY, note="without tanh: a few values lie outside"
    )
    assumptions = (
        *latent_assumptions,
        *assume_classes(net.classes, "as one-hot vectors, embedded and concatenated after z"),
        Assumption("image_size", net.resolution, "shapes", note=f"from 4 pixels in {len(net.MainLayers)} stages"),
        range_assumption,
        *_state_precision(weights.structure),
    )
    return RebuiltGenerator("R3GAN", net, latent, output, net.classes, "onehot" if net.classes else None, assumptions)


def _check_settings(settings: Mapping[str, Any], inferred: Mapping[str, int]) -> None:
    for name, value in inferred.items():
        if type(settings.get(name)) is int and settings[name] != value:
            raise ArchitectureMismatch(f"{name} is {settings[name]} in the file, but {value} by its shapes")


def _state_precision(structure: ModuleNode | None) -> tuple[Assumption, ...]:
    """Which stages run in bfloat16 according to a pickled network; gandiag runs them in float32."""
    if structure is None:
        return ()
    stages = [
        name.rpartition(".")[2]
        for name, node in structure.named_modules()
        if re.search(r"MainLayers\.\d+$", name) and "bfloat16" in str(node.settings.get("DataType"))
    ]
    if not stages:
        return ()
    note = f"throughout; the file runs stages {', '.join(stages)} in bfloat16"
    return (Assumption("precision", "float32", "gandiag", note=note),)


class R3Gan(nn.Module):
    """MainLayers, AggregationLayer and, with classes, EmbeddingLayer: the names of the file."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        count = 1 + max(int(name.split(".")[1]) for name in tensors if re.match(r"MainLayers\.\d{1,3}\.", name))
        self.resolution = 4 * 2 ** (count - 1)
        if count > _MAX_STAGES:
            raise ArchitectureMismatch(f"{count} stages would produce images of {self.resolution} pixels")
        self.MainLayers = nn.ModuleList(
            GeneratorStage(tensors, f"MainLayers.{index}.Layers.", is_first=index == 0) for index in range(count)
        )
        self.AggregationLayer = Convolution(tensors, "AggregationLayer")
        self.channels = self.AggregationLayer.Layer.out_channels
        self.classes: int | None = None
        in_features = require_shape(tensors, "MainLayers.0.Layers.0.LinearLayer.weight", 2)[1]
        embedding_dim = 0
        if "EmbeddingLayer.weight" in tensors:
            embedding_dim, self.classes = require_shape(tensors, "EmbeddingLayer.weight", 2)
            self.EmbeddingLayer = nn.Linear(self.classes, embedding_dim, bias=False)
        self.latent_dim = in_features - embedding_dim
        if self.latent_dim < 1:
            raise ArchitectureMismatch(
                f"the first layer takes {in_features} values, and the class embedding has {embedding_dim}: no latents"
            )

    def forward(self, z: Tensor, onehot: Tensor | None = None) -> Tensor:
        x = z if self.classes is None else torch.cat([z, self.EmbeddingLayer(onehot)], 1)
        for stage in self.MainLayers:
            x = stage(x)
        out: Tensor = self.AggregationLayer(x)  # (B, 3, H, W)
        return out


class GeneratorStage(nn.Module):
    """A transition (the basis, or upsampling), then residual blocks."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str, *, is_first: bool) -> None:
        super().__init__()
        pattern = re.compile(re.escape(prefix) + r"(\d{1,3})\.")
        count = 1 + max((int(match[1]) for name in tensors if (match := pattern.match(name))), default=-1)
        transition = GenerativeBasis(tensors, f"{prefix}0.") if is_first else UpsampleLayer(tensors, f"{prefix}0.")
        blocks = [ResidualBlock(tensors, f"{prefix}{index}.") for index in range(1, count)]
        self.Layers = nn.ModuleList([transition, *blocks])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.Layers:
            x = layer(x)
        return x


class GenerativeBasis(nn.Module):
    """One 4x4 map per channel, scaled by a linear map of the latents."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__()
        out_features, in_features = require_shape(tensors, f"{prefix}LinearLayer.weight", 2)
        self.Basis = nn.Parameter(torch.empty(out_features, 4, 4))
        self.LinearLayer = nn.Linear(in_features, out_features, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.Basis * self.LinearLayer(z)[:, :, None, None]  # (B, C, 4, 4)
        return out


class UpsampleLayer(nn.Module):
    """A 1x1 convolution if the channels change, then zeros between the pixels and the low-pass filter over them."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__()
        has_conv = f"{prefix}LinearLayer.Layer.weight" in tensors
        self.LinearLayer = Convolution(tensors, f"{prefix}LinearLayer") if has_conv else None
        shape = require_shape(tensors, f"{prefix}Resampler.Kernel", 2)
        if shape[0] != shape[1] or shape[0] % 2:
            raise ArchitectureMismatch(f"{prefix}Resampler.Kernel is {shape}, not a square filter of even size")
        self.Resampler = InterpolativeUpsampler(shape[0])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.Resampler(x if self.LinearLayer is None else self.LinearLayer(x))
        return out


class InterpolativeUpsampler(nn.Module):
    """Interpolation to twice the resolution, channel by channel; the filter is scaled by 4 to make up for the zeros."""

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
        self.NonLinearity1 = BiasedActivation(self.LinearLayer1.Layer.out_channels)
        self.NonLinearity2 = BiasedActivation(self.LinearLayer2.Layer.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.NonLinearity1(self.LinearLayer1(x))
        y = self.NonLinearity2(self.LinearLayer2(y))
        out: Tensor = x + self.LinearLayer3(y)
        return out


class BiasedActivation(nn.Module):
    """One bias per channel, then leaky ReLU 0.2, without gain."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.Bias = nn.Parameter(torch.empty(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x + self.Bias[:, None, None], 0.2)


class Convolution(nn.Module):
    """A convolution without bias that keeps the resolution; the second axis of its weight shows the groups."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__()
        out_channels, group_channels, size, _ = require_shape(tensors, f"{prefix}.Layer.weight", 4)
        in_channels = _input_channels(tensors, prefix, group_channels)
        groups = in_channels // group_channels
        if in_channels % group_channels or out_channels % groups or size % 2 == 0:
            raise ArchitectureMismatch(
                f"{prefix}.Layer.weight {(out_channels, group_channels, size)} does not divide {in_channels} channels"
            )
        self.Layer = nn.Conv2d(in_channels, out_channels, size, padding=size // 2, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.Layer(x)
        return out


def _input_channels(tensors: Mapping[str, Tensor], prefix: str, group_channels: int) -> int:
    """Only the second convolution of a block is grouped, and its input channels are the outputs of the first."""
    if not prefix.endswith("LinearLayer2"):
        return group_channels
    return require_shape(tensors, f"{prefix.removesuffix('2')}1.Layer.weight", 4)[0]
