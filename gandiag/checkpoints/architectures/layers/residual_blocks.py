"""Residual generators of BigGAN's line, from tensors under one set of names, whatever code wrote them.

    linear  [shared]  steps.0 … steps.N  [norm]  conv
    a step  is a block (conv1, conv2 or conv1 … conv4, each behind a norm bn1 …; [conv_sc] on the shortcut), attention
            (theta, phi, g, o, gamma), or a transposed convolution with its norm (deconv, bn)
    a norm  is bn.running_mean, bn.running_var with gain and bias: vectors, or maps of what the block is told (1 + gain)

Brock et al. 2019, "Large Scale GAN Training for High Fidelity Natural Image Synthesis", appendix B: nearest neighbours double the
side inside the block; of a hierarchical z every block gets its own piece beside the class; the deep variant tells all of z to all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandiag.checkpoints.architectures.base import require_shape
from gandiag.checkpoints.architectures.shape_check import infer_output_shape
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.inference.sequential import make_hidden_activation, make_output_activation

ConditioningKind = Literal["none", "shared", "onehot", "own"]
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True, slots=True)
class BlockConfig:
    """What shapes alone do not say. `told`: how a norm learns of the class: by one shared embedding, as a one-hot vector, by an
    embedding of its own, or not at all. `chunk`: latents of each piece, 0 for an undivided z; `joined`: the class stands before z
    and both go everywhere. `doubled`: places among the blocks behind which the side is twice as large. `last_eps`: of the last norm."""

    conditioning: ConditioningKind
    chunk_size: int = 0
    joint_conditioning: bool = False
    upsample_blocks: frozenset[int] = frozenset()
    eps: float = 1e-5
    final_eps: float = 1e-5
    activation: str = "relu"
    output_activation: str = "tanh"


class ResidualGenerator(nn.Module):
    """forward(z (B, dim), labels (B,) int64 or none): images (B, C, H, W)."""

    def __init__(self, tensors: Mapping[str, Tensor], config: BlockConfig, classes: int | None) -> None:
        super().__init__()
        self.config, self.classes = config, classes
        self.linear = make_linear(tensors, "linear")
        if config.conditioning == "shared":
            self.shared = make_embedding(tensors, "shared")
        self.steps = nn.ModuleList(_steps(tensors, config))
        if "norm.gain" in tensors:
            self.norm = ConditionalBatchNorm(tensors, "norm", config.final_eps, use_embeddings=False)
        self.act, self.output_activation = (
            make_hidden_activation(config.activation),
            make_output_activation(config.output_activation),
        )
        self.conv = make_conv(tensors, "conv")
        first: GeneratorLayer = self.steps[0]  # type: ignore[assignment]
        self.in_channels = first.in_channels

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        first, told = self._split(z, labels)
        x = self.linear(first)
        side = round((x.shape[1] / self.in_channels) ** 0.5)
        x = x.view(len(x), self.in_channels, side, side)  # (B, C, 4, 4)
        pieces = iter(told)
        for step in self.steps:
            x = step(x) if isinstance(step, SelfAttention) else step(x, next(pieces))
        if hasattr(self, "norm"):
            x = self.act(self.norm(x, None))
        out: Tensor = self.output_activation(self.conv(x))
        return out

    def _split(self, z: Tensor, labels: Tensor | None) -> tuple[Tensor, list[Tensor | None]]:
        """What the first map is given, and what the norms of every block are told."""
        design, blocks = self.config, sum(not isinstance(step, SelfAttention) for step in self.steps)
        label = self._label(labels)
        if design.joint_conditioning:
            whole = z if label is None else torch.cat([label, z], 1)
            return whole, [whole] * blocks
        if not design.chunk_size:
            return z, [label] * blocks
        first, *rest = torch.split(z, design.chunk_size, 1)  # each (B, chunk)
        return first, [piece if label is None else torch.cat([label, piece], 1) for piece in rest]

    def _label(self, labels: Tensor | None) -> Tensor | None:
        if labels is None or self.config.conditioning in ("none", "own"):
            return labels
        if self.config.conditioning == "shared":
            found: Tensor = self.shared(labels)
            return found
        return F.one_hot(labels, self.classes or 1).to(self.linear.weight)


class GeneratorLayer(nn.Module):
    """`width`: channels that go in."""

    in_channels: int


def _steps(tensors: Mapping[str, Tensor], design: BlockConfig) -> list[GeneratorLayer]:
    count = 1 + max((int(name.split(".")[1]) for name in tensors if name.startswith("steps.")), default=-1)
    made: list[GeneratorLayer] = []
    blocks = 0
    for head in (f"steps.{index}" for index in range(count)):
        if f"{head}.theta.weight" in tensors:
            made.append(SelfAttention(tensors, head))
        elif f"{head}.deconv.weight" in tensors:
            made.append(TransposedConvBlock(tensors, head, design))
        else:
            made.append(ResidualBlock(tensors, head, design, upsample=blocks in design.upsample_blocks))
            blocks += 1
    if not made:
        raise ArchitectureMismatch("it has no blocks")
    return made


class ResidualBlock(GeneratorLayer):
    """Norm, activation, convolution; twice, or four times with the side doubled before the second convolution."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str, config: BlockConfig, *, upsample: bool) -> None:
        super().__init__()
        self.upsample, self.act = upsample, make_hidden_activation(config.activation)
        self.n_layers = 4 if f"{prefix}.conv4.weight" in tensors else 2
        self.in_channels = require_shape(tensors, f"{prefix}.conv1.weight", 4)[1]
        for place in range(1, self.n_layers + 1):
            setattr(
                self,
                f"bn{place}",
                ConditionalBatchNorm(
                    tensors, f"{prefix}.bn{place}", config.eps, use_embeddings=config.conditioning == "own"
                ),
            )
            setattr(self, f"conv{place}", make_conv(tensors, f"{prefix}.conv{place}"))
        if f"{prefix}.conv_sc.weight" in tensors:
            self.conv_sc = make_conv(tensors, f"{prefix}.conv_sc")

    def forward(self, x: Tensor, conditioning: Tensor | None) -> Tensor:
        y = x
        for place in range(1, self.n_layers + 1):
            y = self.act(getattr(self, f"bn{place}")(y, conditioning))
            y = F.interpolate(y, scale_factor=2) if self.upsample and place == self.n_layers // 2 else y
            y = getattr(self, f"conv{place}")(y)
        x = F.interpolate(x, scale_factor=2) if self.upsample else x
        x = self.conv_sc(x) if hasattr(self, "conv_sc") else x[:, : y.shape[1]]
        return y + x


class TransposedConvBlock(GeneratorLayer):
    """A 4x4 transposed convolution that doubles the side, norm, activation."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str, config: BlockConfig) -> None:
        super().__init__()
        self.in_channels, out, kernel, _ = require_shape(tensors, f"{prefix}.deconv.weight", 4)
        self.deconv = nn.ConvTranspose2d(self.in_channels, out, kernel, 2, 1, bias=f"{prefix}.deconv.bias" in tensors)
        self.bn, self.act = (
            ConditionalBatchNorm(tensors, f"{prefix}.bn", config.eps, use_embeddings=False),
            make_hidden_activation(config.activation),
        )

    def forward(self, x: Tensor, conditioning: Tensor | None) -> Tensor:
        out: Tensor = self.act(self.bn(self.deconv(x), conditioning))
        return out


class ConditionalBatchNorm(nn.Module):
    """Batch norm, then gain and bias: of its own, or 1 + gain and bias as maps of what it is told; `told`: by embeddings."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str, eps: float, *, use_embeddings: bool) -> None:
        super().__init__()
        width = require_shape(tensors, f"{prefix}.bn.running_mean", 1)[0]
        self.bn = nn.BatchNorm2d(width, eps, affine=False)
        self.is_conditional = f"{prefix}.gain.weight" in tensors
        for name in ("gain", "bias"):
            if not self.is_conditional:
                setattr(self, name, nn.Parameter(torch.empty(require_shape(tensors, f"{prefix}.{name}", 1))))
            elif use_embeddings:
                setattr(self, name, make_embedding(tensors, f"{prefix}.{name}"))
            else:
                setattr(self, name, make_linear(tensors, f"{prefix}.{name}"))

    def forward(self, x: Tensor, conditioning: Tensor | None) -> Tensor:
        gain, bias = (
            (1 + self.gain(conditioning), self.bias(conditioning))
            if self.is_conditional
            else (self.gain[None], self.bias[None])
        )  # type: ignore[operator, index]
        out: Tensor = self.bn(x) * gain[:, :, None, None] + bias[:, :, None, None]
        return out


class SelfAttention(GeneratorLayer):
    """Self-attention (Zhang et al. 2019) with keys and values at half the side."""

    theta: nn.Module
    phi: nn.Module
    g: nn.Module
    o: nn.Module

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__()
        self.in_channels = require_shape(tensors, f"{prefix}.theta.weight", 4)[1]
        for name in ("theta", "phi", "g", "o"):
            setattr(self, name, make_conv(tensors, f"{prefix}.{name}"))
        if f"{prefix}.gamma" not in tensors:
            raise ArchitectureMismatch(f"{prefix}.gamma is missing")
        self.gamma = nn.Parameter(torch.empty(tensors[f"{prefix}.gamma"].shape))

    def forward(self, x: Tensor) -> Tensor:
        query = self.theta(x).flatten(2)  # (B, C/8, HW)
        key, value = (F.max_pool2d(part(x), 2).flatten(2) for part in (self.phi, self.g))
        weights = torch.bmm(query.transpose(1, 2), key).softmax(-1)  # (B, HW, HW/4)
        seen = torch.bmm(value, weights.transpose(1, 2)).view(len(x), -1, *x.shape[2:])
        out: Tensor = x + self.gamma * self.o(seen)
        return out


def make_conv(tensors: Mapping[str, Tensor], prefix: str) -> nn.Conv2d:
    """A convolution that keeps the side."""
    out, into, kernel, _ = require_shape(tensors, f"{prefix}.weight", 4)
    return nn.Conv2d(into, out, kernel, padding=kernel // 2, bias=f"{prefix}.bias" in tensors)


def make_linear(tensors: Mapping[str, Tensor], prefix: str) -> nn.Linear:
    out, into = require_shape(tensors, f"{prefix}.weight", 2)
    return nn.Linear(into, out, bias=f"{prefix}.bias" in tensors)


def make_embedding(tensors: Mapping[str, Tensor], prefix: str) -> nn.Embedding:
    rows, width = require_shape(tensors, f"{prefix}.weight", 2)
    return nn.Embedding(rows, width)


def add_batch_counters(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, and the counter that torch's batch norm keeps beside its statistics wherever the file has none."""
    heads = [name.removesuffix("running_mean") for name in tensors if name.endswith("bn.running_mean")]
    return {**{f"{head}num_batches_tracked": torch.zeros((), dtype=torch.long) for head in heads}, **tensors}


def infer_image_shape(generator: ResidualGenerator, latent_dim: int) -> tuple[int, ...]:
    """The shape of one output, while the network is still on the meta device. NotThis where layers do not fit."""
    labels = None if generator.classes is None else torch.zeros(2, dtype=torch.long, device="meta")
    return infer_output_shape(generator, torch.empty(2, latent_dim, device="meta"), labels)
