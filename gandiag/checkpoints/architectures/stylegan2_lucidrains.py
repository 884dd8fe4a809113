"""StyleGAN2 in the layout of the package stylegan2-pytorch: S maps z to w, G generates images from w and noise.

Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN": weights modulated by (1 + style) and
demodulated. Specific to this package: z is normalized to length 1, bilinear upsampling and a [1, 2, 1] blur on the RGB
path, one uniform noise image for all layers (transposed where it is added), linear attention before some blocks,
outputs in [0, 1], truncation towards the mean of 2,000 mapped latents. The mapping's learning-rate multiplier is not in
the weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandiag.checkpoints.architectures.assumptions import NORMALIZED_LATENT, assume_latent
from gandiag.checkpoints.architectures.base import RebuiltGenerator, load_strict, require_shape
from gandiag.checkpoints.architectures.layers.linear_attention import AttentionBlock
from gandiag.checkpoints.architectures.layers.noise_input import NoiseInput
from gandiag.checkpoints.architectures.layers.stylegan2 import assume_own_w_avg
from gandiag.checkpoints.architectures.layers.truncation import Truncation
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig
from gandiag.interfaces import Assumption, OutputSpec

_ORIGIN = "stylegan2-pytorch"
_DEFAULT_LR_MULTIPLIER = 0.1
_W_AVG_SAMPLES = 2_000
_MAX_BLOCKS = 10


def rebuild(weights: Weights, config: AuditConfig) -> RebuiltGenerator:
    """A StyleGAN2 of the package stylegan2-pytorch. ArchitectureMismatch unless the keys are S.net.* and G.blocks.*."""
    tensors = weights.tensors
    if "S.net.0.weight" not in tensors or "G.blocks.0.conv1.weight" not in tensors:
        raise ArchitectureMismatch("")
    lr_multiplier = _read_lr_multiplier(weights)
    latent_dim = require_shape(tensors, "S.net.0.weight", 2)[1]
    with torch.device("meta"):
        net = StyleGan2(tensors, lr_multiplier.value)
    resolution = net.G.resolution
    # The package draws new noise per call; here one fixed image stands in for it unless --noise random.
    picture = torch.rand(1, resolution, resolution, 1, generator=torch.Generator().manual_seed(0))
    load_strict(net, {**tensors, "picture": picture})
    latent, latent_assumptions = assume_latent(latent_dim, config.prior, _ORIGIN, prior_note=NORMALIZED_LATENT)
    w_avg_note = "as the package computes it; its own sample grids are drawn at psi 0.6"
    attended = tuple(int(index) for index in net.G.attns)
    attention = Assumption("attention", attended, "shapes", note="indices of the blocks that it precedes")
    assumptions = (
        *latent_assumptions,
        lr_multiplier,
        assume_own_w_avg(_W_AVG_SAMPLES, w_avg_note),
        *((attention,) if attended else ()),
    )
    output = OutputSpec("image", (net.G.channels, resolution, resolution), (0.0, 1.0))
    return RebuiltGenerator("StyleGAN2 (stylegan2-pytorch)", net, latent, output, assumptions=assumptions)


def _read_lr_multiplier(weights: Weights) -> Assumption:
    value = weights.extra_settings.get("lr_mlp")
    if isinstance(value, (int, float)) and 0 < value <= 1:
        return Assumption("lr_multiplier", float(value), "file", ".config.json")
    return Assumption("lr_multiplier", _DEFAULT_LR_MULTIPLIER, "family", _ORIGIN)


class StyleGan2(nn.Module):
    """forward(z (B, Z)): images (B, C, H, W) in [0, 1]. `picture`: the noise image that all layers share."""

    def __init__(self, tensors: Mapping[str, Tensor], lr_multiplier: float) -> None:
        super().__init__()
        self.S, self.G = MappingNetwork(tensors, lr_multiplier), SynthesisNetwork(tensors)
        self.psi, self.noise = Truncation(), NoiseInput("picture", uniform=True)
        self.register_buffer("picture", torch.empty(1, self.G.resolution, self.G.resolution, 1))

    def forward(self, z: Tensor) -> Tensor:
        like = z.new_empty(len(z), 1, self.G.resolution, self.G.resolution)
        noise = self.noise(like, self.get_buffer("picture"))  # (1 or B, 1, H, W)
        out: Tensor = self.G(self.psi(self.S(z), lambda: self._mean_w(z)), noise.movedim(1, 3))
        return out.clamp(0, 1)

    def _mean_w(self, z: Tensor) -> Tensor:
        rng = torch.Generator().manual_seed(0)
        mapped: Tensor = self.S(torch.randn(_W_AVG_SAMPLES, z.shape[1], generator=rng).to(z))
        return mapped.mean(0)


class MappingNetwork(nn.Module):
    """Normalization, then linear layers of one width with leaky ReLU 0.2."""

    def __init__(self, tensors: Mapping[str, Tensor], lr_multiplier: float) -> None:
        super().__init__()
        self.lr_multiplier = lr_multiplier
        indices = sorted(int(name.split(".")[2]) for name in tensors if re.match(r"S\.net\.\d{1,2}\.weight$", name))
        width = require_shape(tensors, "S.net.0.weight", 2)[0]
        self.net = nn.Sequential(
            *(nn.Linear(width, width) if index in indices else nn.LeakyReLU(0.2) for index in range(indices[-1] + 2))
        )

    def forward(self, z: Tensor) -> Tensor:
        x = F.normalize(z, dim=1)
        for layer in self.net:
            if isinstance(layer, nn.Linear):
                x = F.linear(x, layer.weight * self.lr_multiplier, layer.bias * self.lr_multiplier)
            else:
                x = layer(x)
        return x


class SynthesisNetwork(nn.Module):
    """A 4x4 input, learned or computed from w, then blocks of two modulated convolutions that add to an RGB image."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        count = 1 + max(int(name.split(".")[2]) for name in tensors if re.match(r"G\.blocks\.\d{1,3}\.", name))
        self.resolution = 4 * 2 ** (count - 1)
        self.channels = require_shape(tensors, "G.blocks.0.to_rgb.conv.weight", 4)[0]
        if count > _MAX_BLOCKS:
            raise ArchitectureMismatch(f"{count} blocks would produce images of {self.resolution} pixels")
        if "G.to_initial_block.weight" in tensors:
            in_channels, out_channels = require_shape(tensors, "G.to_initial_block.weight", 4)[:2]
            self.to_initial_block: nn.Module | None = nn.ConvTranspose2d(in_channels, out_channels, 4, bias=False)
        else:
            self.to_initial_block = None
            self.initial_block = nn.Parameter(torch.empty(require_shape(tensors, "G.initial_block", 4)))
        channels = require_shape(tensors, "G.initial_conv.weight", 4)[0]
        self.initial_conv = nn.Conv2d(channels, channels, 3, padding=1)
        attended = [index for index in range(count) if f"G.attns.{index}.0.fn.norm.g" in tensors]
        self.attns = nn.ModuleDict({str(index): AttentionBlock(tensors, f"G.attns.{index}") for index in attended})
        self.blocks = nn.ModuleList(
            SynthesisBlock(tensors, f"G.blocks.{index}.", is_first=index == 0, is_last=index == count - 1)
            for index in range(count)
        )

    def forward(self, w: Tensor, noise: Tensor) -> Tensor:
        if self.to_initial_block is None:
            x = self.initial_block.expand(len(w), -1, -1, -1)
        else:
            x = self.to_initial_block(w[:, :, None, None])
        x, rgb = self.initial_conv(x), torch.zeros(1)
        for index, block in enumerate(self.blocks):
            x = self.attns[str(index)](x) if str(index) in self.attns else x
            x, rgb = block(x, rgb, w, noise)
        return rgb


class SynthesisBlock(nn.Module):
    """Bilinear upsampling except in the first block, then two modulated convolutions with noise and leaky ReLU."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str, *, is_first: bool, is_last: bool) -> None:
        super().__init__()
        self.is_first = is_first
        for index in (1, 2):
            shape = require_shape(tensors, f"{prefix}conv{index}.weight", 4)
            out_channels, in_channels = shape[:2]
            w_dim = require_shape(tensors, f"{prefix}to_style{index}.weight", 2)[1]
            self.add_module(f"conv{index}", ModulatedConv2d(shape))
            self.add_module(f"to_style{index}", nn.Linear(w_dim, in_channels))
            self.add_module(f"to_noise{index}", nn.Linear(1, out_channels))
        self.to_rgb = ToRgb(tensors, f"{prefix}to_rgb.", is_last=is_last)

    def forward(self, x: Tensor, rgb: Tensor, w: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        x = x if self.is_first else F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        noise = noise[:, : x.shape[2], : x.shape[3]]
        for index in (1, 2):
            names = (f"conv{index}", f"to_style{index}", f"to_noise{index}")
            conv, to_style, to_noise = (self.get_submodule(name) for name in names)
            transposed = to_noise(noise).permute(0, 3, 2, 1)  # (B, C, W, H): the package adds it transposed
            x = F.leaky_relu(conv(x, to_style(w)) + transposed, 0.2)
        return x, self.to_rgb(x, None if self.is_first else rgb, w)


class ToRgb(nn.Module):
    """A modulated 1x1 convolution to colors, added to the image so far; then upsampling and blur, except at the end."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str, *, is_last: bool) -> None:
        super().__init__()
        shape = require_shape(tensors, f"{prefix}conv.weight", 4)
        self.conv = ModulatedConv2d(shape, demodulate=False)
        w_dim = require_shape(tensors, f"{prefix}to_style.weight", 2)[1]
        self.to_style = nn.Linear(w_dim, shape[1])
        self.upsample = None if is_last else nn.ModuleList([nn.Identity(), Blur()])

    def forward(self, x: Tensor, skip: Tensor | None, w: Tensor) -> Tensor:
        out: Tensor = self.conv(x, self.to_style(w))
        out = out if skip is None else out + skip
        if self.upsample is None:
            return out
        blurred: Tensor = self.upsample[1](F.interpolate(out, scale_factor=2, mode="bilinear", align_corners=False))
        return blurred


class Blur(nn.Module):
    """The filter [1, 2, 1] on both axes, scaled to sum 1, with reflected borders."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("f", torch.empty(3))

    def forward(self, x: Tensor) -> Tensor:
        f: Tensor = self.get_buffer("f")
        kernel = (f[:, None] * f[None]) / f.sum().square()
        channels = x.shape[1]
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), kernel.expand(channels, 1, 3, 3), groups=channels)


class ModulatedConv2d(nn.Module):
    """A convolution with input channels scaled by 1 + style, and outputs scaled back to unit variance."""

    def __init__(self, shape: tuple[int, ...], *, demodulate: bool = True) -> None:
        super().__init__()
        self.weight, self.demodulate = nn.Parameter(torch.empty(shape)), demodulate

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        weight = self.weight[None] * (style[:, None, :, None, None] + 1)  # (B, out, in, k, k)
        if self.demodulate:
            weight = weight * torch.rsqrt(weight.square().sum((2, 3, 4), keepdim=True) + 1e-8)
        n, out_channels = weight.shape[:2]
        out = F.conv2d(x.reshape(1, -1, *x.shape[2:]), weight.flatten(0, 1), padding=weight.shape[-1] // 2, groups=n)
        return out.view(n, out_channels, *out.shape[2:])
