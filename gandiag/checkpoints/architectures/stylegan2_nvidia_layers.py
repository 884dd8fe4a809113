"""Networks of NVIDIA's StyleGAN2: mapping, synthesis blocks and their layers, under the names of its checkpoints.

Blocks output an image at every resolution (skip), add a shortcut (resnet), or do neither (orig): the shapes show which.
Labels are one-hot, embedded and normalized beside z.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from gandiag.checkpoints.architectures.base import require_shape
from gandiag.checkpoints.architectures.layers.noise_input import NoiseInput
from gandiag.checkpoints.architectures.layers.stylegan2 import (
    EqualizedLinear,
    modulated_conv2d,
    normalize_2nd_moment,
    scaled_leaky_relu,
    upsample2d,
)
from gandiag.checkpoints.architectures.layers.truncation import Truncation
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch

W_AVG_SAMPLES = 4_096  # mapped latents behind the mean style of a file that stores none
_MAX_RESOLUTION = 4_096


class StyleGan2(nn.Module):
    """forward(z (B, Z), one-hot labels (B, classes)): images (B, C, H, W)."""

    def __init__(self, tensors: Mapping[str, Tensor], lr_multiplier: float, clamp: float | None) -> None:
        super().__init__()
        self.mapping, self.synthesis = MappingNetwork(tensors, lr_multiplier), SynthesisNetwork(tensors, clamp)

    def forward(self, z: Tensor, onehot: Tensor | None = None) -> Tensor:
        out: Tensor = self.synthesis(self.mapping(z, onehot))
        return out


def count_mapping_layers(tensors: Mapping[str, Tensor]) -> int:
    """Fully connected layers of the mapping network."""
    return sum(name.startswith("mapping.fc") and name.endswith(".weight") for name in tensors)


class MappingNetwork(nn.Module):
    """Normalized z (and class embedding) through fully connected layers; truncation towards the mean style."""

    w_avg: Tensor

    def __init__(self, tensors: Mapping[str, Tensor], lr_multiplier: float) -> None:
        super().__init__()
        self.n_layers = count_mapping_layers(tensors)
        for index in range(self.n_layers):
            shape = require_shape(tensors, f"mapping.fc{index}.weight", 2)
            self.add_module(f"fc{index}", EqualizedLinear(shape, lr_multiplier))
        has_embedding = "mapping.embed.weight" in tensors
        embedding_shape = require_shape(tensors, "mapping.embed.weight", 2) if has_embedding else (0, 0)
        self.embed = EqualizedLinear(embedding_shape) if has_embedding else None
        self.classes = embedding_shape[1] or None
        self.z_dim = require_shape(tensors, "mapping.fc0.weight", 2)[1] - embedding_shape[0]
        if self.z_dim < 1:
            raise ArchitectureMismatch("its mapping takes no latent, only labels")
        self.has_w_avg, self.psi = "mapping.w_avg" in tensors, Truncation()
        if self.has_w_avg:
            w_dim = require_shape(tensors, f"mapping.fc{self.n_layers - 1}.weight", 2)[0]
            self.register_buffer("w_avg", torch.empty(w_dim))

    def forward(self, z: Tensor, onehot: Tensor | None = None) -> Tensor:
        out: Tensor = self.psi(self.compute_w(z, onehot), self._mean_w)
        return out

    def _mean_w(self) -> Tensor:
        return self.w_avg if self.has_w_avg else self.sample_w(W_AVG_SAMPLES).mean(0)

    def compute_w(self, z: Tensor, onehot: Tensor | None = None) -> Tensor:
        """Styles (B, W), without truncation."""
        w = normalize_2nd_moment(z)
        if self.embed is not None and onehot is not None:
            w = torch.cat([w, normalize_2nd_moment(self.embed(onehot))], 1)
        for index in range(self.n_layers):
            w = scaled_leaky_relu(self.get_submodule(f"fc{index}")(w))
        return w

    def sample_w(self, n: int) -> Tensor:
        """Styles (n, W) of a fixed draw, cycling through the classes."""
        weight = self.get_parameter("fc0.weight")
        latents = torch.randn(n, self.z_dim, generator=torch.Generator().manual_seed(0)).to(weight)
        onehot = None if self.classes is None else torch.eye(self.classes)[torch.arange(n) % self.classes].to(weight)
        return self.compute_w(latents, onehot)


class SynthesisNetwork(nn.Module):
    """Blocks of 4, 8, … pixels.

    One style goes to every layer, so the original's broadcast of w needs no layer count.
    """

    def __init__(self, tensors: Mapping[str, Tensor], clamp: float | None) -> None:
        super().__init__()
        resolutions = list(_block_resolutions(tensors))
        if not resolutions:
            raise ArchitectureMismatch("synthesis.b4.conv1.weight is missing")
        self.resolution = resolutions[-1]
        blocks = [SynthesisBlock(tensors, resolution, clamp) for resolution in resolutions]
        for resolution, block in zip(resolutions, blocks, strict=True):
            self.add_module(f"b{resolution}", block)
        self.architecture = _identify_architecture(blocks)
        self.channels = require_shape(tensors, f"synthesis.b{self.resolution}.torgb.weight", 4)[0]

    def forward(self, w: Tensor) -> Tensor:
        x, rgb = w.new_empty(0), None
        for block in self.children():
            x, rgb = block(x, rgb, w)
        assert isinstance(rgb, Tensor)  # the last block outputs an image
        return rgb


def _block_resolutions(tensors: Mapping[str, Tensor]) -> Iterator[int]:
    resolution = 4
    while f"synthesis.b{resolution}.conv1.weight" in tensors and resolution <= _MAX_RESOLUTION:
        yield resolution
        resolution *= 2


def _identify_architecture(blocks: list[SynthesisBlock]) -> str:
    """skip, resnet or orig, by which blocks output images and have shortcuts."""
    has_torgb = [block.torgb is not None for block in blocks]
    if not has_torgb[-1] or (any(has_torgb[:-1]) and not all(has_torgb)):
        raise ArchitectureMismatch("its blocks output images neither at every resolution nor at the last alone")
    if any(block.skip is not None for block in blocks):
        return "resnet"
    return "skip" if all(has_torgb) else "orig"


class SynthesisBlock(nn.Module):
    """Two modulated convolutions, the first of which upsamples; at 4 pixels, a learned constant and one convolution."""

    resample_filter: Tensor

    def __init__(self, tensors: Mapping[str, Tensor], resolution: int, clamp: float | None) -> None:
        super().__init__()
        prefix = f"synthesis.b{resolution}"
        self.register_buffer("resample_filter", _empty_filter(tensors, prefix))
        if resolution == 4:
            self.const: nn.Parameter | None = nn.Parameter(torch.empty(require_shape(tensors, f"{prefix}.const", 3)))
            self.conv0 = None
        else:
            self.const = None
            self.conv0 = SynthesisLayer(tensors, f"{prefix}.conv0", resolution, up=True, clamp=clamp)
        self.conv1 = SynthesisLayer(tensors, f"{prefix}.conv1", resolution, up=False, clamp=clamp)
        required = (self.conv1.weight.shape[1], 4, 4)
        if self.const is not None and self.const.shape != required:
            raise ArchitectureMismatch(
                f"{prefix}.const is {tuple(self.const.shape)}, but {prefix}.conv1.weight "
                f"{tuple(self.conv1.weight.shape)} takes {required}"
            )
        self.torgb = ToRgb(tensors, f"{prefix}.torgb", clamp) if f"{prefix}.torgb.weight" in tensors else None
        self.skip = SkipConv(tensors, f"{prefix}.skip") if f"{prefix}.skip.weight" in tensors else None

    def forward(self, x: Tensor, rgb: Tensor | None, w: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.const is not None:
            x = self.conv1(self.const.expand(len(w), -1, -1, -1), w)
        else:
            assert self.conv0 is not None
            gain = 1.0 if self.skip is None else math.sqrt(0.5)
            shortcut = None if self.skip is None else gain * self.skip(x)
            x = self.conv1(self.conv0(x, w), w, gain)
            x = x if shortcut is None else x + shortcut
        rgb = None if rgb is None else upsample2d(rgb, 4 * self.resample_filter)
        if self.torgb is not None:
            block_rgb = self.torgb(x, w)
            rgb = block_rgb if rgb is None else rgb + block_rgb
        return x, rgb


class SynthesisLayer(nn.Module):
    """A modulated 3x3 convolution, noise, bias, leaky ReLU, clamp.

    Demodulation makes the scale of the weight irrelevant.
    """

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
        self.register_buffer("resample_filter", _empty_filter(tensors, prefix))
        self.noise = NoiseInput(prefix) if f"{prefix}.noise_strength" in tensors else None
        if self.noise is not None:
            self.register_buffer("noise_const", torch.empty(resolution, resolution))
            self.noise_strength = nn.Parameter(torch.empty(()))

    def forward(self, x: Tensor, w: Tensor, gain: float = 1.0) -> Tensor:
        x = modulated_conv2d(x, self.weight, self.affine(w), blur=self.resample_filter if self.up else None)
        if self.noise is not None:
            x = x + self.noise(x, self.noise_const) * self.noise_strength
        return _clamp(gain * scaled_leaky_relu(x + self.bias[:, None, None]), self.clamp, gain)


class ToRgb(nn.Module):
    """A modulated 1x1 convolution to colors, without demodulation; bias, clamp."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str, clamp: float | None) -> None:
        super().__init__()
        shape = require_shape(tensors, f"{prefix}.weight", 4)
        self.weight, self.bias = nn.Parameter(torch.empty(shape)), nn.Parameter(torch.empty(shape[0]))
        self.clamp = clamp
        self.affine = EqualizedLinear(require_shape(tensors, f"{prefix}.affine.weight", 2))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        style = self.affine(w) / math.sqrt(self.weight[0].numel())
        out = modulated_conv2d(x, self.weight, style, demodulate=False)
        return _clamp(out + self.bias[:, None, None], self.clamp)


class SkipConv(nn.Module):
    """A 1x1 convolution without bias, then upsampling by 2."""

    resample_filter: Tensor

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(require_shape(tensors, f"{prefix}.weight", 4)))
        self.register_buffer("resample_filter", _empty_filter(tensors, prefix))

    def forward(self, x: Tensor) -> Tensor:
        low_res = nn.functional.conv2d(x, self.weight / math.sqrt(self.weight[0].numel()))
        return upsample2d(low_res, 4 * self.resample_filter)


def _empty_filter(tensors: Mapping[str, Tensor], prefix: str) -> Tensor:
    shape = require_shape(tensors, f"{prefix}.resample_filter", 2)
    if shape[0] != shape[1]:
        raise ArchitectureMismatch(f"{prefix}.resample_filter is {shape}, not square")
    return torch.empty(shape)


def _clamp(x: Tensor, clamp: float | None, gain: float = 1.0) -> Tensor:
    return x if clamp is None else x.clamp(-clamp * gain, clamp * gain)
