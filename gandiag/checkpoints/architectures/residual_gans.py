"""Residual generators of three public repositories, under the names of their files.

crcrpar/pytorch.sngan_projection (Miyato et al. 2018, "Spectral Normalization for GANs"): l1, block2 …, b<n>, conv<n>;
gains and biases of conditional norms are two embeddings. w86763777/pytorch-gan-collections: linear, blocks, output.
LMescheder/GAN_stability (Mescheder et al. 2018, "Which Training Methods for GANs do actually Converge?"): embedding,
fc, resnet or resnet_<i>_<j>, conv_img; no norms, the residual is scaled by 0.1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isqrt

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
from gandiag.checkpoints.architectures.layers.factory import make_conv, make_embedding, make_linear
from gandiag.checkpoints.architectures.shape_check import infer_output_shape
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.inference.sequential import make_output_activation
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig
from gandiag.interfaces import Assumption, LabelEncoding

_MAX_BLOCKS = 24
_MAX_SIZE = 4_096
_RESIDUAL_SCALE = 0.1  # of GAN_stability's blocks
_UPSAMPLED_LEVEL = 5  # GAN_stability's resnet3 upsamples after this one, its last; resnet4 has one level more


class ResidualGenerator(nn.Module):
    """What the three share: a first map of 4 pixels or so, blocks with upsampling, and an output activation.

    `classes`, `latent_dim`, `interpolation`: for the assumptions. `output_activation`: tanh unless asked otherwise.
    """

    classes: int | None = None
    latent_dim = 0
    interpolation = "nearest"
    output_activation = "tanh"

    def finish(self, x: Tensor) -> Tensor:
        """The output activation."""
        out: Tensor = make_output_activation(self.output_activation)(x)
        return out


def rebuild_projection(weights: Weights, config: AuditConfig) -> RebuiltGenerator:
    """A generator of pytorch.sngan_projection. ArchitectureMismatch unless the keys are l1, block2 …, conv<n>."""
    tensors = weights.tensors
    if "l1.weight" not in tensors or not any(re.match(r"conv\d+\.weight$", name) for name in tensors):
        raise ArchitectureMismatch("")
    with torch.device("meta"):
        net = ProjectionGenerator(tensors)
    return _finish(net, tensors, config, "SNGAN projection (crcrpar)", "sngan_projection")


def rebuild_collection(weights: Weights, config: AuditConfig) -> RebuiltGenerator:
    """A residual generator of pytorch-gan-collections. ArchitectureMismatch unless the keys are blocks.<n>.residual."""
    tensors = weights.tensors
    if "blocks.0.residual.3.weight" not in tensors:
        raise ArchitectureMismatch("")
    with torch.device("meta"):
        net = CollectionGenerator(tensors)
    return _finish(net, tensors, config, "ResNet (pytorch-gan-collections)", "pytorch-gan-collections")


def rebuild_stability(weights: Weights, config: AuditConfig) -> RebuiltGenerator:
    """A generator of GAN_stability. ArchitectureMismatch unless the keys are fc, embedding, resnet*, conv_img."""
    tensors = weights.tensors
    if not {"fc.weight", "embedding.weight", "conv_img.weight"} <= set(tensors):
        raise ArchitectureMismatch("")
    with torch.device("meta"):
        net = StabilityGenerator(tensors)
    return _finish(net, tensors, config, "ResNet (GAN_stability)", "GAN_stability")


def _finish(
    net: ResidualGenerator, tensors: Mapping[str, Tensor], config: AuditConfig, family: str, origin: str
) -> RebuiltGenerator:
    """Loads the weights; states what was assumed."""
    if net.latent_dim < 1:
        raise ArchitectureMismatch("its first layer takes no latent, only labels")
    labels = None if net.classes is None else torch.zeros(2, dtype=torch.long, device="meta")
    shape = infer_output_shape(net, torch.empty(2, net.latent_dim, device="meta"), labels)
    if len(shape) != 3 or shape[-1] > _MAX_SIZE:
        raise ArchitectureMismatch(f"it would output samples of {shape}")
    output, net.output_activation, output_assumption = resolve_output_activation(config.output_range, shape, origin)
    load_strict(net, tensors)
    latent, latent_assumptions = assume_latent(net.latent_dim, config.prior, origin)
    condition: LabelEncoding | None = "index" if net.classes else None
    assumptions = (
        *latent_assumptions,
        *assume_classes(net.classes, "as an index"),
        Assumption("interpolation", net.interpolation, "family", origin, note=f"to {shape[-1]} pixels"),
        output_assumption,
    )
    return RebuiltGenerator(family, net, latent, output, net.classes, condition, assumptions)


def _reshape_size(features: int, channels: int, name: str) -> int:
    """Width of the square maps that a linear layer's outputs become."""
    size = isqrt(features // channels)
    if size < 1 or size * size * channels != features:
        raise ArchitectureMismatch(f"the {features} outputs of {name} cannot be reshaped to {channels} square maps")
    return size


class ProjectionGenerator(ResidualGenerator):
    """l1, block2 … blockN, b<N+1>, conv<N+1>."""

    interpolation = "bilinear"

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        indices = sorted({int(match[1]) for name in tensors if (match := re.match(r"block(\d{1,3})\.c1\.", name))})
        if not indices or indices != list(range(2, 2 + len(indices))) or len(indices) > _MAX_BLOCKS:
            raise ArchitectureMismatch("its blocks are not block2, block3, … in a row")
        self.l1 = make_linear(tensors, "l1")
        self.latent_dim = self.l1.in_features
        self.block_names = [f"block{index}" for index in indices]
        blocks = [ProjectionBlock(tensors, name) for name in self.block_names]
        for name, block in zip(self.block_names, blocks, strict=True):
            self.add_module(name, block)
        self.classes, self.in_channels = blocks[0].classes, blocks[0].c1.in_channels
        self.initial_size = _reshape_size(self.l1.out_features, self.in_channels, "l1")
        last = indices[-1] + 1
        conv = make_conv(tensors, f"conv{last}")
        self.norm_name, self.conv_name = f"b{last}", f"conv{last}"
        self.add_module(self.norm_name, nn.BatchNorm2d(conv.in_channels))
        self.add_module(self.conv_name, conv)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self.l1(z).reshape(len(z), self.in_channels, self.initial_size, self.initial_size)
        for name in self.block_names:
            x = self.get_submodule(name)(x, labels)
        x = F.relu(self.get_submodule(self.norm_name)(x))
        return self.finish(self.get_submodule(self.conv_name)(x))


class ProjectionBlock(nn.Module):
    """Norm, ReLU, bilinear upsampling, convolution, norm, ReLU, convolution; a 1x1 convolution on the shortcut."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__()
        self.c1, self.c2 = make_conv(tensors, f"{prefix}.c1"), make_conv(tensors, f"{prefix}.c2")
        self.c_sc = make_conv(tensors, f"{prefix}.c_sc")
        table = f"{prefix}.b1.weights.weight"
        self.classes = require_shape(tensors, table, 2)[0] if table in tensors else None
        self.b1, self.b2 = (self._make_norm(conv.in_channels) for conv in (self.c1, self.c2))

    def _make_norm(self, channels: int) -> nn.Module:
        return nn.BatchNorm2d(channels) if self.classes is None else TwoTableNorm(channels, self.classes)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        conditioning = () if self.classes is None else (labels,)
        y = self.c1(_upsample_bilinear(F.relu(self.b1(x, *conditioning))))
        y = self.c2(F.relu(self.b2(y, *conditioning)))
        out: Tensor = self.c_sc(_upsample_bilinear(x)) + y
        return out


class TwoTableNorm(nn.BatchNorm2d):
    """BatchNorm whose gain and bias are two embeddings of the class."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__(channels, affine=False)
        self.weights, self.biases = nn.Embedding(classes, channels), nn.Embedding(classes, channels)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        gain, bias = self.weights(labels)[:, :, None, None], self.biases(labels)[:, :, None, None]  # (B, C, 1, 1)
        out: Tensor = gain * super().forward(x) + bias
        return out


def _upsample_bilinear(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class CollectionGenerator(ResidualGenerator):
    """linear, blocks (residual, shortcut), output (norm, ReLU, convolution, tanh)."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        count = 1 + max(int(match[1]) for name in tensors if (match := re.match(r"blocks\.(\d{1,3})\.", name)))
        if count > _MAX_BLOCKS:
            raise ArchitectureMismatch(f"it has {count} blocks")
        self.linear = make_linear(tensors, "linear")
        self.latent_dim = self.linear.in_features
        self.blocks = nn.ModuleList(CollectionBlock(tensors, f"blocks.{index}") for index in range(count))
        self.in_channels = require_shape(tensors, "blocks.0.residual.3.weight", 4)[1]
        self.initial_size = _reshape_size(self.linear.out_features, self.in_channels, "linear")
        conv = make_conv(tensors, "output.2")
        self.output = nn.Sequential(nn.BatchNorm2d(conv.in_channels), nn.ReLU(), conv)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self.linear(z).reshape(len(z), self.in_channels, self.initial_size, self.initial_size)
        for block in self.blocks:
            x = block(x)
        return self.finish(self.output(x))


class CollectionBlock(nn.Module):
    """Norm, ReLU, upsampling, convolution, norm, ReLU, convolution; upsampling and a 1x1 convolution beside them."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__()
        first, second = make_conv(tensors, f"{prefix}.residual.3"), make_conv(tensors, f"{prefix}.residual.6")
        self.residual = nn.Sequential(
            *(nn.BatchNorm2d(first.in_channels), nn.ReLU(), nn.Upsample(scale_factor=2), first),
            *(nn.BatchNorm2d(second.in_channels), nn.ReLU(), second),
        )
        self.shortcut = nn.Sequential(nn.Upsample(scale_factor=2), make_conv(tensors, f"{prefix}.shortcut.1"))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.residual(x) + self.shortcut(x)
        return out


class StabilityGenerator(ResidualGenerator):
    """embedding, fc, blocks with upsampling between them, conv_img.

    Blocks are numbered in `resnet` (an Upsample after each but the last), or named resnet_<level>_<n> with upsampling
    before every level but the first. The 7x7 variants take the class embedding as it is, the others its direction; one
    of them upsamples once more after the last block, which its number of levels shows.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.embedding, self.fc = make_embedding(tensors, "embedding"), make_linear(tensors, "fc")
        self.classes = self.embedding.num_embeddings
        self.latent_dim = self.fc.in_features - self.embedding.embedding_dim
        self.conv_img = make_conv(tensors, "conv_img")
        self.normalizes_class = self.conv_img.kernel_size[0] < 7
        self.resnet: nn.Sequential | None = None
        self.named_blocks: list[tuple[int, str]] = []
        if any(name.startswith("resnet.") for name in tensors):
            first = self._add_numbered(tensors)
        else:
            first = self._add_named(tensors)
        self.in_channels = first.conv_0.in_channels
        self.initial_size = _reshape_size(self.fc.out_features, self.in_channels, "fc")

    def _add_numbered(self, tensors: Mapping[str, Tensor]) -> StabilityBlock:
        indices = sorted({int(match[1]) for name in tensors if (match := re.match(r"resnet\.(\d{1,3})\.", name))})
        if indices != list(range(0, 2 * len(indices), 2)) or len(indices) > _MAX_BLOCKS:
            raise ArchitectureMismatch("its blocks are not resnet.0, resnet.2, … in a row")
        blocks = [StabilityBlock(tensors, f"resnet.{index}") for index in indices]
        modules: list[nn.Module] = []
        for block in blocks:
            modules += [block, nn.Upsample(scale_factor=2)]
        self.resnet = nn.Sequential(*modules[:-1])
        return blocks[0]

    def _add_named(self, tensors: Mapping[str, Tensor]) -> StabilityBlock:
        matches = {match[0]: match for name in tensors if (match := re.match(r"resnet_(\d{1,2})_(\d{1,2})", name))}
        keyed = sorted(matches, key=lambda name: (int(matches[name][1]), int(matches[name][2])))
        levels = sorted({int(matches[name][1]) for name in keyed})
        if not keyed or levels != list(range(len(levels))) or len(keyed) > _MAX_BLOCKS:
            raise ArchitectureMismatch("its blocks are not resnet_0_0, resnet_1_0, … in a row")
        for name in keyed:
            self.add_module(name, StabilityBlock(tensors, name))
        self.named_blocks = [(int(matches[name][1]), name) for name in keyed]
        first = self.get_submodule(keyed[0])
        assert isinstance(first, StabilityBlock)
        return first

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        embedded = self.embedding(labels)
        if self.normalizes_class:
            embedded = embedded / embedded.norm(dim=1, keepdim=True)
        x = self.fc(torch.cat([z, embedded], 1))
        x = x.reshape(len(z), self.in_channels, self.initial_size, self.initial_size)
        if self.resnet is not None:
            x = self.resnet(x)
        level = 0
        for next_level, name in self.named_blocks:
            x = x if next_level == level else F.interpolate(x, scale_factor=2)
            x, level = self.get_submodule(name)(x), next_level
        if self.named_blocks and not self.normalizes_class and level == _UPSAMPLED_LEVEL:
            x = F.interpolate(x, scale_factor=2)
        return self.finish(self.conv_img(F.leaky_relu(x, 0.2)))


class StabilityBlock(nn.Module):
    """x + 0.1 conv_1(lrelu(conv_0(lrelu(x)))); a 1x1 convolution on the shortcut where the channels change."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__()
        self.conv_0, self.conv_1 = make_conv(tensors, f"{prefix}.conv_0"), make_conv(tensors, f"{prefix}.conv_1")
        has_shortcut = f"{prefix}.conv_s.weight" in tensors
        self.conv_s = make_conv(tensors, f"{prefix}.conv_s") if has_shortcut else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv_1(F.leaky_relu(self.conv_0(F.leaky_relu(x, 0.2)), 0.2))
        out: Tensor = (x if self.conv_s is None else self.conv_s(x)) + _RESIDUAL_SCALE * y
        return out
