"""BigGAN-deep in the layout of the package pytorch-pretrained-biggan.

Brock et al. 2019, "Large Scale GAN Training for High Fidelity Natural Image Synthesis", appendix B: z concatenated with
the class embedding, bottleneck blocks whose norms take gain and bias from both, attention, tanh. BatchNorm statistics
are stored for 51 truncations; those of truncation 1 are used. Which blocks upsample is in config.json; without it,
every second one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandiag.checkpoints.architectures.base import RebuiltGenerator, load_strict, require_shape
from gandiag.checkpoints.architectures.layers.attention import AttentionNames, SelfAttention
from gandiag.checkpoints.architectures.layers.factory import make_conv, make_linear
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig
from gandiag.interfaces import Assumption, LatentSpec, OutputSpec

_FAMILY = "BigGAN-deep"
_EPS = 1e-4
_BLOCK = (("bn_0", "conv_0"), ("bn_1", "conv_1"), ("bn_2", "conv_2"), ("bn_3", "conv_3"))
_ATTENTION = AttentionNames("snconv1x1_theta", "snconv1x1_phi", "snconv1x1_g", "snconv1x1_o_conv")


def rebuild(weights: Weights, config: AuditConfig) -> RebuiltGenerator:
    """The generator of pytorch-pretrained-biggan; settings of a config.json beside the file are used.

    ArchitectureMismatch unless the keys are embeddings, generator.gen_z, generator.layers.*.
    """
    tensors = weights.tensors
    if "embeddings.weight" not in tensors or "generator.gen_z.weight" not in tensors:
        raise ArchitectureMismatch("")
    embedding_dim, classes = require_shape(tensors, "embeddings.weight", 2)
    latent_dim = require_shape(tensors, "generator.gen_z.weight", 2)[1] - embedding_dim
    count = 1 + max((int(name.split(".")[2]) for name in tensors if name.startswith("generator.layers.")), default=-1)
    blocks = [index for index in range(count) if f"generator.layers.{index}.bn_0.running_means" in tensors]
    if not blocks:
        raise ArchitectureMismatch("it has no blocks")
    upsampling = _read_upsampling(weights.extra_settings.get("layers"), len(blocks))
    upsample_by_block = dict(zip(blocks, upsampling or [index % 2 == 1 for index in range(len(blocks))], strict=True))
    stated_eps = _read_eps(weights.extra_settings.get("eps"))
    eps = _EPS if stated_eps is None else stated_eps
    with torch.device("meta"):
        net = BigGanDeep(tensors, upsample_by_block, eps)
    load_strict(net, tensors)
    upsampled = tuple(index for index, upsample in upsample_by_block.items() if upsample)
    image_size = 4 * 2 ** len(upsampled)
    assumptions = (
        Assumption("latent_dim", latent_dim, "shapes"),
        Assumption("prior", "truncated", "family", _FAMILY, note="normal, truncated at 2"),
        Assumption("classes", classes, "shapes", note="as one-hot vectors"),
        Assumption("truncation", 1.0, "family", _FAMILY, note="the last of the stored statistics"),
        _state("bn_eps", eps, is_stated=stated_eps is not None),
        _state("upsampling_blocks", upsampled, is_stated=upsampling is not None, note=f"from 4 to {image_size} pixels"),
    )
    latent = LatentSpec(latent_dim, "truncated")
    output = OutputSpec("image", (3, image_size, image_size), (-1.0, 1.0))
    return RebuiltGenerator("BigGAN-deep", net, latent, output, classes, "onehot", assumptions)


def _read_upsampling(layers: Any, n_blocks: int) -> list[bool] | None:
    """Which blocks upsample, by `layers` of config.json: [upsample, inputs, outputs] per block.

    None if it is not that.
    """
    if not isinstance(layers, list) or len(layers) != n_blocks:
        return None
    if not all(isinstance(row, list) and len(row) == 3 for row in layers):
        return None
    return [bool(row[0]) for row in layers]


def _read_eps(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and 0 < value < 1 else None


def _state(setting: str, value: Any, *, is_stated: bool, note: str = "") -> Assumption:
    source, origin = ("file", "config.json") if is_stated else ("family", _FAMILY)
    return Assumption(setting, value, source, origin, note=note)


class BigGanDeep(nn.Module):
    """forward(z (B, dim), one-hot labels (B, classes)): images (B, 3, H, W)."""

    def __init__(self, tensors: Mapping[str, Tensor], upsample_by_block: Mapping[int, bool], eps: float) -> None:
        super().__init__()
        self.embeddings = make_linear(tensors, "embeddings")
        self.generator = Generator(tensors, upsample_by_block, eps)

    def forward(self, z: Tensor, onehot: Tensor) -> Tensor:
        out: Tensor = self.generator(torch.cat([z, self.embeddings(onehot)], 1))
        return out


class Generator(nn.Module):
    """First layer, blocks and attention in the order of their indices, norm, convolution to colors, tanh."""

    def __init__(self, tensors: Mapping[str, Tensor], upsample_by_block: Mapping[int, bool], eps: float) -> None:
        super().__init__()
        self.gen_z = make_linear(tensors, "generator.gen_z")
        prefixes = [f"generator.layers.{index}" for index in range(max(upsample_by_block) + 1)]
        self.layers = nn.ModuleList(
            BottleneckBlock(tensors, prefix, upsample=upsample_by_block[index], eps=eps)
            if index in upsample_by_block
            else SelfAttention(tensors, prefix, _ATTENTION)
            for index, prefix in enumerate(prefixes)
        )
        self.bn = ConditionalBatchNorm(tensors, "generator.bn", eps)
        self.conv_to_rgb = make_conv(tensors, "generator.conv_to_rgb")

    def forward(self, conditioning: Tensor) -> Tensor:
        x = self.gen_z(conditioning)
        x = x.view(len(x), 4, 4, -1).permute(0, 3, 1, 2)  # channels last, as in the original
        for layer in self.layers:
            x = layer(x, conditioning)
        x = self.conv_to_rgb(F.relu(self.bn(x, conditioning)))
        return torch.tanh(x[:, :3])


class BottleneckBlock(nn.Module):
    """1x1, 3x3, 3x3, 1x1 convolutions; a block that halves the channels has the first half of its input as shortcut."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str, *, upsample: bool, eps: float) -> None:
        super().__init__()
        self.upsample = upsample
        for norm, conv in _BLOCK:
            self.add_module(norm, ConditionalBatchNorm(tensors, f"{prefix}.{norm}", eps))
            self.add_module(conv, make_conv(tensors, f"{prefix}.{conv}"))

    def forward(self, x: Tensor, conditioning: Tensor) -> Tensor:
        y = x
        for index, (norm, conv) in enumerate(_BLOCK):
            y = F.relu(self.get_submodule(norm)(y, conditioning))
            y = F.interpolate(y, scale_factor=2) if self.upsample and index == 1 else y
            y = self.get_submodule(conv)(y)
        x = x[:, : y.shape[1]]
        return y + (F.interpolate(x, scale_factor=2) if self.upsample else x)


class ConditionalBatchNorm(nn.Module):
    """BatchNorm with statistics of truncation 1. Gain 1 + scale(z, class), bias offset(z, class); or both learned."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str, eps: float) -> None:
        super().__init__()
        shape = require_shape(tensors, f"{prefix}.running_means", 2)
        self.eps = eps
        self.register_buffer("running_means", torch.empty(shape))
        self.register_buffer("running_vars", torch.empty(shape))
        if f"{prefix}.scale.weight" in tensors:
            self.scale = make_linear(tensors, f"{prefix}.scale")
            self.offset = make_linear(tensors, f"{prefix}.offset")
        else:
            self.weight, self.bias = nn.Parameter(torch.empty(shape[1])), nn.Parameter(torch.empty(shape[1]))

    def forward(self, x: Tensor, conditioning: Tensor) -> Tensor:
        mean, var = self.get_buffer("running_means")[-1], self.get_buffer("running_vars")[-1]
        if not hasattr(self, "scale"):
            return F.batch_norm(x, mean, var, self.weight, self.bias, False, 0.0, self.eps)
        gain, bias = 1 + self.scale(conditioning)[:, :, None, None], self.offset(conditioning)[:, :, None, None]
        out: Tensor = (x - mean[:, None, None]) / (var[:, None, None] + self.eps).sqrt() * gain + bias
        return out
