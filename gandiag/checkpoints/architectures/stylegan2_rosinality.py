"""StyleGAN2 in the layout of rosinality's stylegan2-pytorch: files with g, g_ema, d, args and possibly latent_avg.

Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", with RGB skips. Specific to this code:
mapping layers are in one Sequential after a normalization, a modulated weight has a batch axis of 1, filters and fixed
noise images are stored as buffers; truncation is towards the mean of 4,096 mapped latents, or towards the file's
latent_avg.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gandiag.checkpoints.architectures.assumptions import NORMALIZED_LATENT, assume_image, assume_latent
from gandiag.checkpoints.architectures.base import RebuiltGenerator, load_strict, require_shape
from gandiag.checkpoints.architectures.layers.noise_input import NoiseInput
from gandiag.checkpoints.architectures.layers.stylegan2 import (
    UNBOUNDED_OUTPUT,
    EqualizedLinear,
    assume_own_w_avg,
    check_w_avg,
    infer_lr_multiplier,
    modulated_conv2d,
    normalize_2nd_moment,
    scaled_leaky_relu,
    upsample2d,
)
from gandiag.checkpoints.architectures.layers.truncation import Truncation
from gandiag.checkpoints.architectures.shape_check import infer_output_shape
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig
from gandiag.interfaces import Assumption

FAMILY = "StyleGAN2 (rosinality)"
_ORIGIN = "rosinality"
_W_AVG_SAMPLES = 4_096
_CHECK_SAMPLES = 512
_MAX_UPSAMPLINGS = 8


def rebuild(weights: Weights, config: AuditConfig) -> RebuiltGenerator:
    """A StyleGAN2 of rosinality's code.

    ArchitectureMismatch unless the keys are style.*, input.input, conv1.conv.modulation.*, convs.*, to_rgbs.*.
    """
    tensors = weights.tensors
    if "style.1.weight" not in tensors or "conv1.conv.modulation.weight" not in tensors:
        raise ArchitectureMismatch("")
    latent_dim = require_shape(tensors, "style.1.weight", 2)[1]
    n_layers = _count_mapping_layers(tensors)
    lr_multiplier = infer_lr_multiplier(tensors["style.1.weight"], weights.extra_settings.get("lr_mlp"), n_layers)
    with torch.device("meta"):
        net = StyleGan2(tensors, lr_multiplier.value)
    infer_output_shape(net, torch.empty(2, latent_dim, device="meta"))  # before styles are drawn
    load_strict(net, tensors)
    stored_mean = weights.extra_settings.get("latent_avg")
    if isinstance(stored_mean, Tensor) and stored_mean.numel() == latent_dim:
        net.w_avg = stored_mean.detach().float()
        w_avg = check_w_avg("latent_avg", net.w_avg, net.compute_w(_draw_latents(_CHECK_SAMPLES, latent_dim)))
    else:
        w_avg = assume_own_w_avg(_W_AVG_SAMPLES, "as this code computes it")
    latent, latent_assumptions = assume_latent(latent_dim, config.prior, _ORIGIN, prior_note=NORMALIZED_LATENT)
    shape = (net.channels, net.resolution, net.resolution)
    output, range_assumption = assume_image(shape, config.output_range, _ORIGIN, note=UNBOUNDED_OUTPUT)
    assumptions = (
        *latent_assumptions,
        lr_multiplier,
        w_avg,
        Assumption("synthesis", "RGB skips", "shapes", note=f"from 4 to {net.resolution} pixels"),
        range_assumption,
    )
    return RebuiltGenerator(FAMILY, net, latent, output, assumptions=assumptions)


def _count_mapping_layers(tensors: Mapping[str, Tensor]) -> int:
    return max(int(name.split(".")[1]) for name in tensors if re.match(r"style\.\d{1,4}\.weight$", name))


class StyleGan2(nn.Module):
    """forward(z (B, Z)): images (B, C, H, W).

    `w_avg`: the mean style, computed when first needed if the file has none.
    """

    def __init__(self, tensors: Mapping[str, Tensor], lr_multiplier: float) -> None:
        super().__init__()
        shapes = [require_shape(tensors, f"style.{i}.weight", 2) for i in range(1, 1 + _count_mapping_layers(tensors))]
        self.style = nn.Sequential(nn.Identity(), *(EqualizedLinear(shape, lr_multiplier) for shape in shapes))
        n_upsamplings = len({name.split(".")[1] for name in tensors if name.startswith("to_rgbs.")})
        if n_upsamplings > _MAX_UPSAMPLINGS:
            raise ArchitectureMismatch(
                f"{n_upsamplings} upsamplings would produce images of {4 * 2**n_upsamplings} pixels"
            )
        self.resolution = 4 * 2**n_upsamplings
        self.channels = require_shape(tensors, "to_rgb1.conv.weight", 5)[1]
        self.input = nn.Module()
        self.input.input = nn.Parameter(torch.empty(require_shape(tensors, "input.input", 4)))
        self.conv1, self.to_rgb1 = StyledConv(tensors, "conv1", 0, up=False), ToRgb(tensors, "to_rgb1", up=False)
        self._check_input_shape()
        self.convs = nn.ModuleList(
            StyledConv(tensors, f"convs.{index}", index + 1, up=index % 2 == 0) for index in range(2 * n_upsamplings)
        )
        self.to_rgbs = nn.ModuleList(ToRgb(tensors, f"to_rgbs.{index}", up=True) for index in range(n_upsamplings))
        self.noises = nn.Module()
        if "noises.noise_0" in tensors:  # early versions of this code did not store them
            for index in range(2 * n_upsamplings + 1):
                size = 4 * 2 ** ((index + 1) // 2)
                self.noises.register_buffer(f"noise_{index}", torch.empty(1, 1, size, size))
        self.psi = Truncation()
        self.w_avg: Tensor | None = None

    def _check_input_shape(self) -> None:
        weight_shape, input_shape = tuple(self.conv1.conv.weight.shape), tuple(self.input.get_parameter("input").shape)
        required = (1, weight_shape[2], 4, 4)
        if input_shape != required:
            raise ArchitectureMismatch(
                f"input.input is {input_shape}, but conv1.conv.weight {weight_shape} takes {required}"
            )

    def forward(self, z: Tensor) -> Tensor:
        w = self.psi(self.compute_w(z), lambda: self._mean_w(z))
        stored = dict(self.noises.named_buffers())
        x = self.conv1(self.input.get_parameter("input").expand(len(z), -1, -1, -1), w, stored.get("noise_0"))
        rgb: Tensor = self.to_rgb1(x, w)
        for index, to_rgb in enumerate(self.to_rgbs):
            for conv_index in (2 * index, 2 * index + 1):
                x = self.convs[conv_index](x, w, stored.get(f"noise_{conv_index + 1}"))
            rgb = to_rgb(x, w, rgb)
        return rgb

    def compute_w(self, z: Tensor) -> Tensor:
        """Styles (B, W), without truncation."""
        w = normalize_2nd_moment(z)
        for layer in list(self.style)[1:]:
            w = scaled_leaky_relu(layer(w))
        return w

    def _mean_w(self, z: Tensor) -> Tensor:
        if self.w_avg is None:
            self.w_avg = self.compute_w(_draw_latents(_W_AVG_SAMPLES, z.shape[1]).to(z)).mean(0).detach()
        return self.w_avg


def _draw_latents(n: int, dim: int) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(0))


class ModulatedConv(nn.Module):
    """`weight` (1, O, I, k, k), `modulation`, and `blur.kernel` (of sum 4) if it upsamples."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str, *, up: bool = False) -> None:
        super().__init__()
        shape = require_shape(tensors, f"{prefix}.weight", 5)
        if shape[0] != 1:
            raise ArchitectureMismatch(f"{prefix}.weight is {shape}, and its first axis must be 1")
        self.weight = nn.Parameter(torch.empty(shape))
        self.modulation = EqualizedLinear(require_shape(tensors, f"{prefix}.modulation.weight", 2))
        self.scale = 1 / math.sqrt(shape[2] * shape[3] * shape[4])
        self.blur = _make_kernel(tensors, f"{prefix}.blur.kernel") if up else None

    def forward(self, x: Tensor, w: Tensor, *, demodulate: bool) -> Tensor:
        blur = None if self.blur is None else self.blur.get_buffer("kernel") / 4
        return modulated_conv2d(x, self.weight[0] * self.scale, self.modulation(w), demodulate=demodulate, blur=blur)


class StyledConv(nn.Module):
    """A modulated 3x3 convolution, noise, bias, leaky ReLU."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str, noise_index: int, *, up: bool) -> None:
        super().__init__()
        self.conv = ModulatedConv(tensors, f"{prefix}.conv", up=up)
        self.noise, self.activate = nn.Module(), nn.Module()
        self.noise.weight = nn.Parameter(torch.empty(1))
        self.activate.bias = nn.Parameter(torch.empty(self.conv.weight.shape[1]))
        self.noise_input = NoiseInput(f"noise_{noise_index}")

    def forward(self, x: Tensor, w: Tensor, stored_noise: Tensor | None) -> Tensor:
        x = self.conv(x, w, demodulate=True)
        bias: Tensor = self.activate.get_parameter("bias")[:, None, None]
        return scaled_leaky_relu(x + self.noise.get_parameter("weight") * self.noise_input(x, stored_noise) + bias)


class ToRgb(nn.Module):
    """A modulated 1x1 convolution to colors, added to the upsampled image of the previous resolution."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str, *, up: bool) -> None:
        super().__init__()
        self.conv = ModulatedConv(tensors, f"{prefix}.conv")
        self.bias = nn.Parameter(torch.empty(1, self.conv.weight.shape[1], 1, 1))
        self.upsample = _make_kernel(tensors, f"{prefix}.upsample.kernel") if up else None

    def forward(self, x: Tensor, w: Tensor, skip: Tensor | None = None) -> Tensor:
        out: Tensor = self.conv(x, w, demodulate=False) + self.bias
        if skip is None or self.upsample is None:
            return out
        return out + upsample2d(skip, self.upsample.get_buffer("kernel"))


def _make_kernel(tensors: Mapping[str, Tensor], name: str) -> nn.Module:
    module = nn.Module()
    module.register_buffer("kernel", torch.empty(require_shape(tensors, name, 2)))
    return module
