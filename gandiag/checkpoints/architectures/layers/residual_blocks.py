"""Residual generators of the BigGAN line, built from tensors under one set of names, whichever code wrote them.

    linear  [shared]  steps.0 … steps.N  [norm]  conv
    a step  is a block (conv1, conv2 or conv1 … conv4, each preceded by a norm bn1 …; [conv_sc] on the shortcut),
            attention (theta, phi, g, o, gamma), or a transposed convolution with its norm (deconv, bn)
    a norm  is bn.running_mean, bn.running_var with gain and bias: vectors, or linear maps of the block's
            conditioning (1 + gain)

Brock et al. 2019, "Large Scale GAN Training for High Fidelity Natural Image Synthesis", appendix B: nearest-neighbor
upsampling inside the block; with a hierarchical z every block gets its own chunk beside the class; the deep variant
conditions every block on all of z.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandiag.checkpoints.architectures.base import require_shape
from gandiag.checkpoints.architectures.layers.attention import SelfAttention
from gandiag.checkpoints.architectures.layers.factory import make_conv, make_embedding, make_linear
from gandiag.checkpoints.architectures.shape_check import infer_output_shape
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.inference.sequential import make_hidden_activation, make_output_activation

ConditioningKind = Literal["none", "shared", "onehot", "own"]


@dataclass(frozen=True, slots=True)
class BlockConfig:
    """What the shapes alone do not show.

    `conditioning`: how a norm receives the class: by one shared embedding, as a one-hot vector, by an embedding of its
    own, or not at all. `chunk_size`: latents per chunk, 0 for an undivided z. `joint_conditioning`: the class is
    concatenated before z, and both go everywhere. `upsample_blocks`: indices of the blocks that double the resolution.
    `eps`: of the norms in blocks; `final_eps`: of the last norm.
    """

    conditioning: ConditioningKind
    chunk_size: int = 0
    joint_conditioning: bool = False
    upsample_blocks: frozenset[int] = frozenset()
    eps: float = 1e-5
    final_eps: float = 1e-5
    activation: str = "relu"
    output_activation: str = "tanh"


class ResidualGenerator(nn.Module):
    """forward(z (B, dim), labels (B,) int64 or None): images (B, C, H, W)."""

    def __init__(self, tensors: Mapping[str, Tensor], config: BlockConfig, classes: int | None) -> None:
        super().__init__()
        self.config, self.classes = config, classes
        self.linear = make_linear(tensors, "linear")
        if config.conditioning == "shared":
            self.shared = make_embedding(tensors, "shared")
        steps = _make_steps(tensors, config)
        self.steps = nn.ModuleList(steps)
        if "norm.gain" in tensors:
            self.norm = ConditionalBatchNorm(tensors, "norm", config.final_eps, use_embeddings=False)
        self.act = make_hidden_activation(config.activation)
        self.output_activation = make_output_activation(config.output_activation)
        self.conv = make_conv(tensors, "conv")
        self.in_channels = steps[0].in_channels

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        first_input, block_inputs = self._split_inputs(z, labels)
        x = self.linear(first_input)
        resolution = round((x.shape[1] / self.in_channels) ** 0.5)
        x = x.view(len(x), self.in_channels, resolution, resolution)  # (B, C, 4, 4)
        remaining = iter(block_inputs)
        for step in self.steps:
            x = step(x) if isinstance(step, SelfAttention) else step(x, next(remaining))
        if hasattr(self, "norm"):
            x = self.act(self.norm(x, None))
        out: Tensor = self.output_activation(self.conv(x))
        return out

    def _split_inputs(self, z: Tensor, labels: Tensor | None) -> tuple[Tensor, list[Tensor | None]]:
        """The input of the first linear layer, and the conditioning of every block."""
        n_blocks = sum(not isinstance(step, SelfAttention) for step in self.steps)
        label = self._encode_label(labels)
        if self.config.joint_conditioning:
            joint = z if label is None else torch.cat([label, z], 1)
            return joint, [joint] * n_blocks
        if not self.config.chunk_size:
            return z, [label] * n_blocks
        first, *rest = torch.split(z, self.config.chunk_size, 1)  # each (B, chunk)
        return first, [chunk if label is None else torch.cat([label, chunk], 1) for chunk in rest]

    def _encode_label(self, labels: Tensor | None) -> Tensor | None:
        if labels is None or self.config.conditioning in ("none", "own"):
            return labels
        if self.config.conditioning == "shared":
            embedded: Tensor = self.shared(labels)
            return embedded
        return F.one_hot(labels, self.classes or 1).to(self.linear.weight)


def _make_steps(
    tensors: Mapping[str, Tensor], config: BlockConfig
) -> list[ResidualBlock | TransposedConvBlock | SelfAttention]:
    count = 1 + max((int(name.split(".")[1]) for name in tensors if name.startswith("steps.")), default=-1)
    steps: list[ResidualBlock | TransposedConvBlock | SelfAttention] = []
    n_blocks = 0
    for prefix in (f"steps.{index}" for index in range(count)):
        if f"{prefix}.theta.weight" in tensors:
            steps.append(SelfAttention(tensors, prefix))
        elif f"{prefix}.deconv.weight" in tensors:
            steps.append(TransposedConvBlock(tensors, prefix, config))
        else:
            steps.append(ResidualBlock(tensors, prefix, config, upsample=n_blocks in config.upsample_blocks))
            n_blocks += 1
    if not steps:
        raise ArchitectureMismatch("it has no blocks")
    return steps


class ResidualBlock(nn.Module):
    """Norm, activation, convolution; two of each, or four.

    With `upsample` the resolution is doubled before the first of two convolutions, or before the second of four.
    """

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str, config: BlockConfig, *, upsample: bool) -> None:
        super().__init__()
        self.upsample, self.act = upsample, make_hidden_activation(config.activation)
        self.n_layers = 4 if f"{prefix}.conv4.weight" in tensors else 2
        self.in_channels = require_shape(tensors, f"{prefix}.conv1.weight", 4)[1]
        use_embeddings = config.conditioning == "own"
        for index in range(1, self.n_layers + 1):
            norm = ConditionalBatchNorm(tensors, f"{prefix}.bn{index}", config.eps, use_embeddings=use_embeddings)
            self.add_module(f"bn{index}", norm)
            self.add_module(f"conv{index}", make_conv(tensors, f"{prefix}.conv{index}"))
        if f"{prefix}.conv_sc.weight" in tensors:
            self.conv_sc = make_conv(tensors, f"{prefix}.conv_sc")

    def forward(self, x: Tensor, conditioning: Tensor | None) -> Tensor:
        y = x
        for index in range(1, self.n_layers + 1):
            y = self.act(self.get_submodule(f"bn{index}")(y, conditioning))
            y = F.interpolate(y, scale_factor=2) if self.upsample and index == self.n_layers // 2 else y
            y = self.get_submodule(f"conv{index}")(y)
        x = F.interpolate(x, scale_factor=2) if self.upsample else x
        x = self.conv_sc(x) if hasattr(self, "conv_sc") else x[:, : y.shape[1]]
        return y + x


class TransposedConvBlock(nn.Module):
    """A 4x4 transposed convolution that doubles the resolution, norm, activation."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str, config: BlockConfig) -> None:
        super().__init__()
        self.in_channels, out, kernel, _ = require_shape(tensors, f"{prefix}.deconv.weight", 4)
        self.deconv = nn.ConvTranspose2d(self.in_channels, out, kernel, 2, 1, bias=f"{prefix}.deconv.bias" in tensors)
        self.bn = ConditionalBatchNorm(tensors, f"{prefix}.bn", config.eps, use_embeddings=False)
        self.act = make_hidden_activation(config.activation)

    def forward(self, x: Tensor, conditioning: Tensor | None) -> Tensor:
        out: Tensor = self.act(self.bn(self.deconv(x), conditioning))
        return out


class ConditionalBatchNorm(nn.Module):
    """BatchNorm, then gain and bias: learned vectors, or 1 + gain and bias computed from the conditioning.

    `use_embeddings`: the conditioning is the class index, looked up in two embeddings of the norm's own.
    """

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str, eps: float, *, use_embeddings: bool) -> None:
        super().__init__()
        channels = require_shape(tensors, f"{prefix}.bn.running_mean", 1)[0]
        self.bn = nn.BatchNorm2d(channels, eps, affine=False)
        self.is_conditional = f"{prefix}.gain.weight" in tensors
        for name in ("gain", "bias"):
            if not self.is_conditional:
                shape = require_shape(tensors, f"{prefix}.{name}", 1)
                self.register_parameter(name, nn.Parameter(torch.empty(shape)))
            elif use_embeddings:
                self.add_module(name, make_embedding(tensors, f"{prefix}.{name}"))
            else:
                self.add_module(name, make_linear(tensors, f"{prefix}.{name}"))

    def forward(self, x: Tensor, conditioning: Tensor | None) -> Tensor:
        if self.is_conditional:
            gain = 1 + self.get_submodule("gain")(conditioning)  # (B, C)
            bias = self.get_submodule("bias")(conditioning)
        else:
            gain, bias = self.get_parameter("gain")[None], self.get_parameter("bias")[None]  # (1, C)
        out: Tensor = self.bn(x) * gain[:, :, None, None] + bias[:, :, None, None]
        return out


def add_batch_counters(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, with torch's `num_batches_tracked` added to BatchNorm statistics that lack it."""
    heads = [name.removesuffix("running_mean") for name in tensors if name.endswith("bn.running_mean")]
    return {**{f"{head}num_batches_tracked": torch.zeros((), dtype=torch.long) for head in heads}, **tensors}


def infer_image_shape(generator: ResidualGenerator, latent_dim: int) -> tuple[int, ...]:
    """The shape of one output, while the network is still on the meta device.

    ArchitectureMismatch if its layers do not fit.
    """
    labels = None if generator.classes is None else torch.zeros(2, dtype=torch.long, device="meta")
    return infer_output_shape(generator, torch.empty(2, latent_dim, device="meta"), labels)
