"""ResNet generators in the layout of the mimicry library (SNGAN, SSGAN, InfoMax-GAN, WGAN-GP, cGAN-PD, SAGAN).

Miyato et al. 2018, "Spectral Normalization for GANs", appendix B: a linear layer to (C, 4, 4), residual blocks that double
the side, batch norm, ReLU, a 3x3 convolution, tanh. With classes, batch norm's gain and bias are embeddings (Miyato & Koyama
2018); SAGAN (Zhang et al. 2019) puts attention between the blocks. This library upsamples bilinearly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandiag.checkpoints.architectures.base import (
    RebuiltGenerator,
    load_strict,
    require_shape,
    resolve_output_activation,
)
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.inference.sequential import make_output_activation
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig
from gandiag.interfaces import Assumption, LatentSpec


def rebuild(weights: Weights, config: AuditConfig) -> RebuiltGenerator:
    """NotThis unless the keys are l1, block2 …, b<n>, c<n> and shapes follow each other."""
    tensors = weights.tensors
    blocks = sorted({int(found[1]) for name in tensors if (found := re.match(r"block(\d+)\.c1\.", name))})
    if "l1.weight" not in tensors or not blocks or blocks != list(range(2, 2 + len(blocks))):
        raise ArchitectureMismatch("")
    flat, dim = require_shape(tensors, "l1.weight", 2)
    width = require_shape(tensors, "block2.c1.weight", 4)[1]
    side = round((flat / width) ** 0.5)
    if width * side * side != flat:
        raise ArchitectureMismatch(f"l1 has {flat} outputs, no square picture of {width} channels")
    with torch.device("meta"):
        net = ResNetGenerator(tensors, blocks, side)
    size = side * 2 ** len(blocks)
    output, net.output_activation, said = resolve_output_activation(
        config.output_range, (net.colours, size, size), "mimicry"
    )
    load_strict(net, tensors)
    told = (
        Assumption("latent size (--latent-dim)", str(dim), "shapes"),
        Assumption("latent prior (--prior)", config.prior or "normal", _source(config)),
        *(
            [
                Assumption(
                    "classes (--classes)", f"{net.classes}, as an index: each has gains and biases of its own", "shapes"
                )
            ]
            if net.classes
            else []
        ),
        Assumption("upsampling", f"bilinear, before every block: {side} to {size} pixels", "family (mimicry)"),
        said,
    )
    latent = LatentSpec(dim, config.prior or "normal")  # type: ignore[arg-type]
    return RebuiltGenerator("mimicry ResNet", net, latent, output, net.classes, "index" if net.classes else None, told)


def _source(config: AuditConfig) -> str:
    return "flag" if config.prior else "family (mimicry)"


class ResNetGenerator(nn.Module):
    """l1, block2 … blockN, b<N+1>, c<N+1>, and attention where its channels fit."""

    def __init__(self, tensors: Mapping[str, Tensor], block_indices: list[int], initial_size: int) -> None:
        super().__init__()
        flat, dim = tensors["l1.weight"].shape
        self.l1, self.initial_size, self.output_activation = (
            nn.Linear(dim, flat, bias="l1.bias" in tensors),
            initial_size,
            "tanh",
        )
        self.block_names = [f"block{index}" for index in block_indices]
        for name in self.block_names:
            setattr(
                self,
                name,
                ResidualBlock(
                    {
                        key.removeprefix(name + "."): entry
                        for key, entry in tensors.items()
                        if key.startswith(name + ".")
                    }
                ),
            )
        last = block_indices[-1] + 1
        self.colours, width = require_shape(tensors, f"c{last}.weight", 4)[:2]
        self.norm_name, self.conv_name = f"b{last}", f"c{last}"
        setattr(self, self.norm_name, nn.BatchNorm2d(width))
        setattr(self, self.conv_name, _conv(tensors[f"c{last}.weight"], f"c{last}.bias" in tensors))
        self.attention_after = ""
        if "attn_block.gamma" in tensors:
            self.attn_block = SelfAttention(tensors)
            self.attention_after = self._place(tensors, require_shape(tensors, "attn_block.theta.weight", 4)[1])

    @property
    def classes(self) -> int | None:
        first: ResidualBlock = getattr(self, self.block_names[0])
        return first.classes

    def _place(self, tensors: Mapping[str, Tensor], channels: int) -> str:
        """Behind the block with as many channels as attention has; the middle one where several have."""
        fitting = [name for name in self.block_names if tensors[f"{name}.c2.weight"].shape[0] == channels]
        if not fitting:
            raise ArchitectureMismatch(f"no block ends with the {channels} channels of the attention")
        middle = self.block_names[(len(self.block_names) + 1) // 2 - 1]
        return fitting[0] if len(fitting) == 1 else middle if middle in fitting else fitting[len(fitting) // 2]

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self.l1(z).view(len(z), -1, self.initial_size, self.initial_size)
        for name in self.block_names:
            x = getattr(self, name)(x, labels)
            if name == self.attention_after:
                x = self.attn_block(x)
        out: Tensor = make_output_activation(self.output_activation)(
            getattr(self, self.conv_name)(F.relu(getattr(self, self.norm_name)(x)))
        )
        return out


class ResidualBlock(nn.Module):
    """Norm, ReLU, upsample, convolution, norm, ReLU, convolution; a 1x1 convolution on the shortcut."""

    b1: nn.Module
    b2: nn.Module
    c1: nn.Module
    c2: nn.Module

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.classes = require_shape(tensors, "b1.embed.weight", 2)[0] if "b1.embed.weight" in tensors else None
        for norm, conv in (("b1", "c1"), ("b2", "c2")):
            width = require_shape(tensors, f"{conv}.weight", 4)[1]
            setattr(
                self, norm, nn.BatchNorm2d(width) if self.classes is None else ConditionalBatchNorm(width, self.classes)
            )
            setattr(self, conv, _conv(tensors[f"{conv}.weight"], f"{conv}.bias" in tensors))
        if "c_sc.weight" in tensors:
            require_shape(tensors, "c_sc.weight", 4)
            self.c_sc = _conv(tensors["c_sc.weight"], "c_sc.bias" in tensors)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        given = () if self.classes is None else (labels,)
        y = self.c1(_doubled(F.relu(self.b1(x, *given))))
        y = self.c2(F.relu(self.b2(y, *given)))
        shortcut = _doubled(x)
        out: Tensor = y + (self.c_sc(shortcut) if hasattr(self, "c_sc") else shortcut)
        return out


class ConditionalBatchNorm(nn.Module):
    """Batch norm whose gain and bias are the class's embedding, gains first."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.bn, self.embed = nn.BatchNorm2d(channels, affine=False), nn.Embedding(classes, 2 * channels)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        gain, bias = self.embed(labels)[:, :, None, None].chunk(2, 1)  # (B, C, 1, 1)
        out: Tensor = gain * self.bn(x) + bias
        return out


class SelfAttention(nn.Module):
    """Self-attention of SAGAN as BigGAN writes it: keys and values at half the side."""

    theta: nn.Module
    phi: nn.Module
    g: nn.Module
    o: nn.Module

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name in ("theta", "phi", "g", "o"):
            require_shape(tensors, f"attn_block.{name}.weight", 4)
            setattr(self, name, _conv(tensors[f"attn_block.{name}.weight"], f"attn_block.{name}.bias" in tensors))
        self.gamma = nn.Parameter(torch.empty(tensors["attn_block.gamma"].shape))

    def forward(self, x: Tensor) -> Tensor:
        query = self.theta(x).flatten(2)  # (B, C/8, HW)
        key, value = (F.max_pool2d(part(x), 2).flatten(2) for part in (self.phi, self.g))
        weights = torch.bmm(query.transpose(1, 2), key).softmax(-1)  # (B, HW, HW/4)
        seen = torch.bmm(value, weights.transpose(1, 2)).view(len(x), -1, *x.shape[2:])
        out: Tensor = x + self.gamma * self.o(seen)
        return out


def _conv(weight: Tensor, bias: bool) -> nn.Conv2d:
    out, into, kernel, _ = weight.shape
    return nn.Conv2d(into, out, kernel, padding=kernel // 2, bias=bias)


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
