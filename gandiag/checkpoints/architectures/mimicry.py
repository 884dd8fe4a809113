"""ResNet generators in the layout of the mimicry library (SNGAN, SSGAN, InfoMax-GAN, WGAN-GP, cGAN-PD, SAGAN).

Miyato et al. 2018, "Spectral Normalization for GANs", appendix B: a linear layer to (C, 4, 4), residual blocks that
double the resolution, BatchNorm, ReLU, a 3x3 convolution, tanh. With classes, gain and bias of BatchNorm are embeddings
(Miyato & Koyama 2018); SAGAN (Zhang et al. 2019) puts attention between the blocks. This library upsamples bilinearly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandiag.checkpoints.architectures.assumptions import assume_classes, assume_latent
from gandiag.checkpoints.architectures.base import (
    RebuiltGenerator,
    load_strict,
    require_shape,
    resolve_output_activation,
)
from gandiag.checkpoints.architectures.layers.attention import SelfAttention
from gandiag.checkpoints.architectures.layers.factory import make_conv, make_linear
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.inference.sequential import make_output_activation
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig
from gandiag.interfaces import Assumption

_FAMILY = "mimicry"


def rebuild(weights: Weights, config: AuditConfig) -> RebuiltGenerator:
    """A ResNet generator of mimicry.

    ArchitectureMismatch unless the keys are l1, block2 …, b<n>, c<n> and the shapes fit.
    """
    tensors = weights.tensors
    blocks = sorted({int(match[1]) for name in tensors if (match := re.match(r"block(\d+)\.c1\.", name))})
    if "l1.weight" not in tensors or not blocks or blocks != list(range(2, 2 + len(blocks))):
        raise ArchitectureMismatch("")
    features, latent_dim = require_shape(tensors, "l1.weight", 2)
    channels = require_shape(tensors, "block2.c1.weight", 4)[1]
    initial_size = round((features / channels) ** 0.5)
    if channels * initial_size**2 != features:
        raise ArchitectureMismatch(f"the {features} outputs of l1 cannot be reshaped to {channels} square maps")
    with torch.device("meta"):
        net = ResNetGenerator(tensors, blocks, initial_size)
    image_size = initial_size * 2 ** len(blocks)
    output, net.output_activation, output_assumption = resolve_output_activation(
        config.output_range, (net.image_channels, image_size, image_size), _FAMILY
    )
    load_strict(net, tensors)
    latent, latent_assumptions = assume_latent(latent_dim, config.prior, _FAMILY)
    upsampling_note = f"before every block, from {initial_size} to {image_size} pixels"
    assumptions = (
        *latent_assumptions,
        *assume_classes(net.classes, "as an index: each has its own gains and biases"),
        Assumption("interpolation", "bilinear", "family", _FAMILY, note=upsampling_note),
        output_assumption,
    )
    return RebuiltGenerator(
        "mimicry ResNet", net, latent, output, net.classes, "index" if net.classes else None, assumptions
    )


class ResNetGenerator(nn.Module):
    """l1, block2 … blockN, b<N+1>, c<N+1>, and attention after the block whose channels it has."""

    def __init__(self, tensors: Mapping[str, Tensor], block_indices: list[int], initial_size: int) -> None:
        super().__init__()
        self.l1, self.initial_size, self.output_activation = make_linear(tensors, "l1"), initial_size, "tanh"
        self.block_names = [f"block{index}" for index in block_indices]
        for name in self.block_names:
            self.add_module(name, ResidualBlock(tensors, name))
        last = block_indices[-1] + 1
        self.image_channels, channels = require_shape(tensors, f"c{last}.weight", 4)[:2]
        self.norm_name, self.conv_name = f"b{last}", f"c{last}"
        self.add_module(self.norm_name, nn.BatchNorm2d(channels))
        self.add_module(self.conv_name, make_conv(tensors, self.conv_name))
        self.attention_after = ""
        if "attn_block.gamma" in tensors:
            self.attn_block = SelfAttention(tensors, "attn_block")
            self.attention_after = self._find_attention_block(tensors, self.attn_block.in_channels)

    @property
    def classes(self) -> int | None:
        first = self.get_submodule(self.block_names[0])
        assert isinstance(first, ResidualBlock)
        return first.classes

    def _find_attention_block(self, tensors: Mapping[str, Tensor], channels: int) -> str:
        """The block before the attention: the one with its output channels; of several, the middle one if possible."""
        fitting = [name for name in self.block_names if tensors[f"{name}.c2.weight"].shape[0] == channels]
        if not fitting:
            raise ArchitectureMismatch(f"no block has the {channels} output channels that the attention takes")
        middle = self.block_names[(len(self.block_names) + 1) // 2 - 1]
        return middle if middle in fitting else fitting[len(fitting) // 2]

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self.l1(z).view(len(z), -1, self.initial_size, self.initial_size)
        for name in self.block_names:
            x = self.get_submodule(name)(x, labels)
            if name == self.attention_after:
                x = self.attn_block(x)
        x = self.get_submodule(self.conv_name)(F.relu(self.get_submodule(self.norm_name)(x)))
        out: Tensor = make_output_activation(self.output_activation)(x)
        return out


class ResidualBlock(nn.Module):
    """Norm, ReLU, upsample, convolution, norm, ReLU, convolution; a 1x1 convolution on the shortcut."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__()
        self.classes: int | None = None
        if f"{prefix}.b1.embed.weight" in tensors:
            self.classes = require_shape(tensors, f"{prefix}.b1.embed.weight", 2)[0]
        self.c1, self.c2 = make_conv(tensors, f"{prefix}.c1"), make_conv(tensors, f"{prefix}.c2")
        self.b1, self.b2 = (self._make_norm(conv.in_channels) for conv in (self.c1, self.c2))
        if f"{prefix}.c_sc.weight" in tensors:
            self.c_sc = make_conv(tensors, f"{prefix}.c_sc")

    def _make_norm(self, channels: int) -> nn.Module:
        return nn.BatchNorm2d(channels) if self.classes is None else ConditionalBatchNorm(channels, self.classes)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        conditioning = () if self.classes is None else (labels,)
        y = self.c1(_upsample(F.relu(self.b1(x, *conditioning))))
        y = self.c2(F.relu(self.b2(y, *conditioning)))
        shortcut = _upsample(x)
        out: Tensor = y + (self.c_sc(shortcut) if hasattr(self, "c_sc") else shortcut)
        return out


class ConditionalBatchNorm(nn.Module):
    """BatchNorm whose gain and bias are one embedding of the class, gains first."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.bn, self.embed = nn.BatchNorm2d(channels, affine=False), nn.Embedding(classes, 2 * channels)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        gain, bias = self.embed(labels)[:, :, None, None].chunk(2, 1)  # (B, C, 1, 1)
        out: Tensor = gain * self.bn(x) + bias
        return out


def _upsample(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
