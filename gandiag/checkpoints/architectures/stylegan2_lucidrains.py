"""StyleGAN2 in the layout of the package stylegan2-pytorch: S maps z to w, G makes pictures of w and of noise.

Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN": weights modulated by (1 + style) and demodulated.
This package's ways: z is normalised to length 1, bilinear upsampling and a [1, 2, 1] blur on the RGB path, one uniform noise
picture for all layers (transposed where it is added), linear attention before some blocks, outputs in [0, 1], truncation
towards the average of 2,000 mapped z. The mapping's learning-rate factor is not in the weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandiag.checkpoints.architectures.base import RebuiltGenerator, load_strict, require_shape
from gandiag.checkpoints.architectures.layers.linear_attention import AttentionBlock
from gandiag.checkpoints.architectures.layers.noise_input import NoiseInput
from gandiag.checkpoints.architectures.layers.stylegan2 import normalized_latent_prior
from gandiag.checkpoints.architectures.layers.truncation import Truncation
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig
from gandiag.interfaces import Assumption, LatentSpec, OutputSpec

_RATE = 0.1
_MEAN = 2_000


def rebuild(weights: Weights, config: AuditConfig) -> RebuiltGenerator:
    """NotThis unless the keys are S.net.* and G.blocks.*."""
    tensors = weights.tensors
    if "S.net.0.weight" not in tensors or "G.blocks.0.conv1.weight" not in tensors:
        raise ArchitectureMismatch("")
    told = weights.extra_settings.get("lr_mlp")
    rate = float(told) if isinstance(told, (int, float)) and 0 < told <= 1 else _RATE
    dim = require_shape(tensors, "S.net.0.weight", 2)[1]
    with torch.device("meta"):
        net = StyleGan2(tensors, rate)
    shape = (net.G.channels, net.G.resolution, net.G.resolution)
    load_strict(
        net,
        {
            **tensors,
            "picture": torch.rand(1, net.G.resolution, net.G.resolution, 1, generator=torch.Generator().manual_seed(0)),
        },
    )
    prior, prior_said = normalized_latent_prior(config.prior, "z is", "stylegan2-pytorch")
    said = (
        Assumption("latent size (--latent-dim)", str(dim), "shapes"),
        prior_said,
        Assumption(
            "learning-rate factor of the mapping",
            f"{rate:g}",
            "file (.config.json)" if rate == told else "family (stylegan2-pytorch)",
        ),
        Assumption(
            "mean style",
            f"the average of {_MEAN:,} mapped z, as the package takes it; its own sample sheets are drawn at psi 0.6",
            "gandiag",
        ),
        *(
            [
                Assumption(
                    "attention", f"before block{'s' if len(net.G.attns) > 1 else ''} {', '.join(net.G.attns)}", "shapes"
                )
            ]
            if net.G.attns
            else []
        ),
    )
    return RebuiltGenerator(
        "StyleGAN2 (stylegan2-pytorch)",
        net,
        LatentSpec(dim, prior),
        OutputSpec("image", shape, (0.0, 1.0)),
        assumptions=said,
    )


class StyleGan2(nn.Module):
    def __init__(self, tensors: Mapping[str, Tensor], lr_multiplier: float) -> None:
        super().__init__()
        self.S, self.G, self.psi, self.noise = (
            MappingNetwork(tensors, lr_multiplier),
            SynthesisNetwork(tensors),
            Truncation(),
            NoiseInput("picture", uniform=True),
        )
        self.register_buffer("picture", torch.empty(1, self.G.resolution, self.G.resolution, 1))

    def forward(self, z: Tensor) -> Tensor:
        noise = self.noise(
            z.new_empty(len(z), 1, self.G.resolution, self.G.resolution), self.get_buffer("picture")
        )  # (1 or B, 1, S, S)
        out: Tensor = self.G(self.psi(self.S(z), lambda: self._mean(z)), noise.movedim(1, 3))
        return out.clamp(0, 1)

    def _mean(self, z: Tensor) -> Tensor:
        rng = torch.Generator().manual_seed(0)
        mapped: Tensor = self.S(torch.randn(_MEAN, z.shape[1], generator=rng).to(z))
        return mapped.mean(0)


class MappingNetwork(nn.Module):
    """Normalise, then equal layers with leaky ReLU 0.2."""

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
            x = (
                F.linear(x, layer.weight * self.lr_multiplier, layer.bias * self.lr_multiplier)
                if isinstance(layer, nn.Linear)
                else layer(x)
            )
        return x


class SynthesisNetwork(nn.Module):
    """A learned 4x4 start (or one made of w), then blocks of two modulated convolutions and a growing RGB sum."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        count = 1 + max(int(name.split(".")[2]) for name in tensors if re.match(r"G\.blocks\.\d{1,3}\.", name))
        self.resolution, self.channels = (
            4 * 2 ** (count - 1),
            require_shape(tensors, "G.blocks.0.to_rgb.conv.weight", 4)[0],
        )
        if count > 10:
            raise ArchitectureMismatch(f"{count} blocks would make pictures of {self.resolution} pixels")
        if "G.to_initial_block.weight" in tensors:
            into, out = require_shape(tensors, "G.to_initial_block.weight", 4)[:2]
            self.to_initial_block: nn.Module | None = nn.ConvTranspose2d(into, out, 4, bias=False)
        else:
            self.to_initial_block = None
            self.initial_block = nn.Parameter(torch.empty(require_shape(tensors, "G.initial_block", 4)))
        width = require_shape(tensors, "G.initial_conv.weight", 4)[0]
        self.initial_conv = nn.Conv2d(width, width, 3, padding=1)
        attended = [index for index in range(count) if f"G.attns.{index}.0.fn.norm.g" in tensors]
        self.attns = nn.ModuleDict({str(index): AttentionBlock(tensors, f"G.attns.{index}") for index in attended})
        self.blocks = nn.ModuleList(
            SynthesisBlock(tensors, f"G.blocks.{index}.", is_first=index == 0, is_last=index == count - 1)
            for index in range(count)
        )

    def forward(self, w: Tensor, noise: Tensor) -> Tensor:
        x = (
            self.initial_block.expand(len(w), -1, -1, -1)
            if self.to_initial_block is None
            else self.to_initial_block(w[:, :, None, None])
        )
        x, rgb = self.initial_conv(x), torch.zeros(1)
        for index, block in enumerate(self.blocks):
            x = self.attns[str(index)](x) if str(index) in self.attns else x
            x, rgb = block(x, rgb, w, noise)
        return rgb


class SynthesisBlock(nn.Module):
    def __init__(self, tensors: Mapping[str, Tensor], prefix: str, *, is_first: bool, is_last: bool) -> None:
        super().__init__()
        self.is_first = is_first
        for index in (1, 2):
            shape = require_shape(tensors, f"{prefix}conv{index}.weight", 4)
            out, into = shape[:2]
            setattr(self, f"conv{index}", ModulatedConv2d(shape))
            setattr(
                self,
                f"to_style{index}",
                nn.Linear(require_shape(tensors, f"{prefix}to_style{index}.weight", 2)[1], into),
            )
            setattr(self, f"to_noise{index}", nn.Linear(1, out))
        self.to_rgb = ToRgb(tensors, f"{prefix}to_rgb.", is_last=is_last)

    def forward(self, x: Tensor, rgb: Tensor, w: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        x = x if self.is_first else F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        noise = noise[:, : x.shape[2], : x.shape[3]]
        for index in (1, 2):
            conv, style, add = (getattr(self, f"{part}{index}") for part in ("conv", "to_style", "to_noise"))
            x = F.leaky_relu(
                conv(x, style(w)) + add(noise).permute(0, 3, 2, 1), 0.2
            )  # (B, C, W, H): the package adds it transposed
        return x, self.to_rgb(x, None if self.is_first else rgb, w)


class ToRgb(nn.Module):
    def __init__(self, tensors: Mapping[str, Tensor], prefix: str, *, is_last: bool) -> None:
        super().__init__()
        shape = require_shape(tensors, f"{prefix}conv.weight", 4)
        self.conv = ModulatedConv2d(shape, demodulate=False)
        self.to_style = nn.Linear(require_shape(tensors, f"{prefix}to_style.weight", 2)[1], shape[1])
        self.upsample = None if is_last else nn.ModuleList([nn.Identity(), Blur()])

    def forward(self, x: Tensor, skip: Tensor | None, w: Tensor) -> Tensor:
        out: Tensor = self.conv(x, self.to_style(w))
        out = out if skip is None else out + skip
        if self.upsample is None:
            return out
        blurred: Tensor = self.upsample[1](F.interpolate(out, scale_factor=2, mode="bilinear", align_corners=False))
        return blurred


class Blur(nn.Module):
    """[1, 2, 1] both ways, summing to one, with reflected borders."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("f", torch.empty(3))

    def forward(self, x: Tensor) -> Tensor:
        f: Tensor = self.get_buffer("f")
        kernel = (f[:, None] * f[None]) / f.sum().square()
        channels = x.shape[1]
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), kernel.expand(channels, 1, 3, 3), groups=channels)


class ModulatedConv2d(nn.Module):
    """A convolution whose input channels are scaled by 1 + style, and whose outputs are brought back to unit size."""

    def __init__(self, shape: tuple[int, ...], *, demodulate: bool = True) -> None:
        super().__init__()
        self.weight, self.demodulate = nn.Parameter(torch.empty(shape)), demodulate

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        weight = self.weight[None] * (style[:, None, :, None, None] + 1)  # (B, out, in, k, k)
        if self.demodulate:
            weight = weight * torch.rsqrt(weight.square().sum((2, 3, 4), keepdim=True) + 1e-8)
        n, out = weight.shape[:2]
        made = F.conv2d(x.reshape(1, -1, *x.shape[2:]), weight.flatten(0, 1), padding=weight.shape[-1] // 2, groups=n)
        return made.view(n, out, *made.shape[2:])
