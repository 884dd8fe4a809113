"""StyleGAN2 in the layout of rosinality's stylegan2-pytorch: files with g, g_ema, d, args and perhaps latent_avg.

Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", with RGB skips. This code's ways: mapping layers
stand in one Sequential behind a normalisation, a modulated weight has a batch axis of 1, filters and fixed noise pictures are
stored as buffers; truncation is towards the mean of 4,096 mapped z, or towards the file's latent_avg.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gandiag.checkpoints.architectures.base import RebuiltGenerator, load_strict, require_shape
from gandiag.checkpoints.architectures.layers.noise_input import NoiseInput
from gandiag.checkpoints.architectures.layers.stylegan2 import (
    EqualizedLinear,
    check_w_avg,
    infer_lr_multiplier,
    infer_output_range,
    modulated_conv2d,
    normalize_2nd_moment,
    normalized_latent_prior,
    scaled_leaky_relu,
    upsample2d,
)
from gandiag.checkpoints.architectures.layers.truncation import Truncation
from gandiag.checkpoints.architectures.shape_check import infer_output_shape
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig
from gandiag.interfaces import Assumption, LatentSpec, OutputSpec

FAMILY = "StyleGAN2 (rosinality)"
_MEAN = 4_096
_FEW = 512


def rebuild(weights: Weights, config: AuditConfig) -> RebuiltGenerator:
    """NotThis unless the keys are style.*, input.input, conv1.conv.modulation.*, convs.*, to_rgbs.*."""
    tensors = weights.tensors
    if "style.1.weight" not in tensors or "conv1.conv.modulation.weight" not in tensors:
        raise ArchitectureMismatch("")
    dim = require_shape(tensors, "style.1.weight", 2)[1]
    rate, rate_told, rate_source = infer_lr_multiplier(tensors["style.1.weight"], weights.extra_settings.get("lr_mlp"))
    mean = weights.extra_settings.get("latent_avg")
    mean = mean.detach().float() if isinstance(mean, Tensor) and mean.numel() == dim else None
    with torch.device("meta"):
        net = StyleGan2(tensors, rate)
    shape = (net.channels, net.resolution, net.resolution)
    infer_output_shape(net, torch.empty(2, dim, device="meta"))  # before styles are drawn
    load_strict(net, tensors)
    net.w_avg = mean
    own = Assumption("mean style", f"the average of {_MEAN:,} mapped z, as this code takes it", "gandiag")
    mean_said = own if mean is None else check_w_avg("latent_avg", mean, net.compute_w(_draws(_FEW, dim)))
    prior, prior_said = normalized_latent_prior(config.prior, "z is", "rosinality")
    span, range_said = infer_output_range(config.output_range, "rosinality")
    said = (
        Assumption("latent size (--latent-dim)", str(dim), "shapes"),
        prior_said,
        Assumption("mapping", f"{len(net.style) - 1} layers, learning-rate factor {rate_told}", rate_source),
        mean_said,
        Assumption("synthesis", f"RGB skips from 4 to {net.resolution} pixels", "shapes"),
        range_said,
    )
    return RebuiltGenerator(FAMILY, net, LatentSpec(dim, prior), OutputSpec("image", shape, span), assumptions=said)


class StyleGan2(nn.Module):
    def __init__(self, tensors: Mapping[str, Tensor], lr_multiplier: float) -> None:
        super().__init__()
        count = 1 + max(int(name.split(".")[1]) for name in tensors if re.match(r"style\.\d{1,4}\.weight$", name))
        self.style = nn.Sequential(
            nn.Identity(),
            *(
                EqualizedLinear(require_shape(tensors, f"style.{index}.weight", 2), lr_multiplier)
                for index in range(1, count)
            ),
        )
        octaves = len({name.split(".")[1] for name in tensors if name.startswith("to_rgbs.")})
        if octaves > 8:
            raise ArchitectureMismatch(f"{octaves} doublings would make pictures of {4 * 2**octaves} pixels")
        self.resolution, self.channels = 4 * 2**octaves, require_shape(tensors, "to_rgb1.conv.weight", 5)[1]
        self.input = nn.Module()
        self.input.input = nn.Parameter(torch.empty(require_shape(tensors, "input.input", 4)))
        self.conv1, self.to_rgb1 = StyledConv(tensors, "conv1", 0, up=False), ToRgb(tensors, "to_rgb1", up=False)
        width, start = self.conv1.conv.weight.shape[2], tuple(self.input.input.shape)
        if start != (1, width, 4, 4):
            raise ArchitectureMismatch(
                f"input.input is {start}, and conv1.conv.weight {tuple(self.conv1.conv.weight.shape)} takes {(1, width, 4, 4)}"
            )
        self.convs = nn.ModuleList(
            StyledConv(tensors, f"convs.{index}", index + 1, up=index % 2 == 0) for index in range(2 * octaves)
        )
        self.to_rgbs = nn.ModuleList(ToRgb(tensors, f"to_rgbs.{index}", up=True) for index in range(octaves))
        self.noises = nn.Module()
        for index in (
            range(2 * octaves + 1) if "noises.noise_0" in tensors else ()
        ):  # early versions of this code did not keep them
            side = 4 * 2 ** ((index + 1) // 2)
            self.noises.register_buffer(f"noise_{index}", torch.empty(1, 1, side, side))
        self.psi = Truncation()
        self.w_avg: Tensor | None = None

    def forward(self, z: Tensor) -> Tensor:
        w = self.psi(self.compute_w(z), lambda: self._mean(z))
        stored = dict(self.noises.named_buffers())
        x = self.conv1(self.input.get_parameter("input").expand(len(z), -1, -1, -1), w, stored.get("noise_0"))
        rgb = self.to_rgb1(x, w)
        for index, to_rgb in enumerate(self.to_rgbs):
            for place in (2 * index, 2 * index + 1):
                x = self.convs[place](x, w, stored.get(f"noise_{place + 1}"))
            rgb = to_rgb(x, w, rgb)
        out: Tensor = rgb
        return out

    def compute_w(self, z: Tensor) -> Tensor:
        w = normalize_2nd_moment(z)
        for layer in list(self.style)[1:]:
            w = scaled_leaky_relu(layer(w))
        return w

    def _mean(self, z: Tensor) -> Tensor:
        if self.w_avg is None:
            self.w_avg = self.compute_w(_draws(_MEAN, z.shape[1]).to(z)).mean(0).detach()
        return self.w_avg


def _draws(n: int, dim: int) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(0))


class _Modulated(nn.Module):
    """`conv.weight` (1, O, I, k, k), `conv.modulation`, and `conv.blur.kernel` where the side is doubled (its sum is 4)."""

    def __init__(self, tensors: Mapping[str, Tensor], path: str, *, up: bool = False) -> None:
        super().__init__()
        shape = require_shape(tensors, f"{path}.weight", 5)
        if shape[0] != 1:
            raise ArchitectureMismatch(f"{path}.weight is {shape}")
        self.weight = nn.Parameter(torch.empty(shape))
        self.modulation = EqualizedLinear(require_shape(tensors, f"{path}.modulation.weight", 2))
        self.scale = 1 / math.sqrt(shape[2] * shape[3] * shape[4])
        self.blur = _kernel(tensors, f"{path}.blur.kernel") if up else None

    def forward(self, x: Tensor, w: Tensor, *, demodulate: bool) -> Tensor:
        blur = None if self.blur is None else self.blur.get_buffer("kernel") / 4
        return modulated_conv2d(x, self.weight[0] * self.scale, self.modulation(w), demodulate=demodulate, blur=blur)


class StyledConv(nn.Module):
    def __init__(self, tensors: Mapping[str, Tensor], prefix: str, noise_index: int, *, up: bool) -> None:
        super().__init__()
        self.conv, self.noise, self.activate = _Modulated(tensors, f"{prefix}.conv", up=up), nn.Module(), nn.Module()
        self.noise.weight = nn.Parameter(torch.empty(1))
        self.activate.bias = nn.Parameter(torch.empty(self.conv.weight.shape[1]))
        self.noise_input = NoiseInput(f"noise_{noise_index}")

    def forward(self, x: Tensor, w: Tensor, stored_noise: Tensor | None) -> Tensor:
        x = self.conv(x, w, demodulate=True)
        bias: Tensor = self.activate.get_parameter("bias")[:, None, None]
        return scaled_leaky_relu(x + self.noise.get_parameter("weight") * self.noise_input(x, stored_noise) + bias)


class ToRgb(nn.Module):
    def __init__(self, tensors: Mapping[str, Tensor], prefix: str, *, up: bool) -> None:
        super().__init__()
        self.conv = _Modulated(tensors, f"{prefix}.conv")
        self.bias = nn.Parameter(torch.empty(1, self.conv.weight.shape[1], 1, 1))
        self.upsample = _kernel(tensors, f"{prefix}.upsample.kernel") if up else None

    def forward(self, x: Tensor, w: Tensor, skip: Tensor | None = None) -> Tensor:
        out: Tensor = self.conv(x, w, demodulate=False) + self.bias
        if skip is None or self.upsample is None:
            return out
        return out + upsample2d(skip, self.upsample.get_buffer("kernel"))


def _kernel(tensors: Mapping[str, Tensor], name: str) -> nn.Module:
    holder = nn.Module()
    holder.register_buffer("kernel", torch.empty(require_shape(tensors, name, 2)))
    return holder
