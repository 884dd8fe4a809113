"""StyleGAN in the layout of rosinality's style-based-gan-pytorch: style.*, generator.progression.*, generator.to_rgb.*.

Karras et al. 2019, "A Style-Based Generator Architecture for Generative Adversarial Networks", section 2: a mapping, a
learned 4x4 constant, and per resolution two convolutions with noise, leaky ReLU and AdaIN (instance norm, then gain and
bias from the style). Specific to this code: weights are kept at unit variance and scaled by He's constant; below 128
pixels nearest-neighbor upsampling, from there transposed convolutions; a 3x3 blur after each. The file holds blocks up
to 1,024 pixels, however far training went: those that it never reached keep their initial zeros.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandiag.checkpoints.architectures.assumptions import NORMALIZED_LATENT, assume_image, assume_latent
from gandiag.checkpoints.architectures.base import RebuiltGenerator, load_strict, require_shape
from gandiag.checkpoints.architectures.layers.noise_input import NoiseInput
from gandiag.checkpoints.architectures.layers.stylegan2 import UNBOUNDED_OUTPUT, assume_own_w_avg
from gandiag.checkpoints.architectures.layers.truncation import Truncation
from gandiag.checkpoints.architectures.shape_check import infer_output_shape
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.interfaces import UNDECIDED, Assumption

_ORIGIN = "rosinality"
_MAX_BLOCKS = 10  # 2,048 pixels
_MAX_MAPPING_LAYERS = 64
_W_AVG_SAMPLES = 4_096


def rebuild(weights: Weights, config: AuditConfig) -> RebuiltGenerator:
    """A StyleGAN of rosinality's code.

    ArchitectureMismatch unless the keys are style.*, generator.progression.*, generator.to_rgb.*.
    """
    tensors = weights.tensors
    if "generator.progression.0.conv1.input" not in tensors:
        raise ArchitectureMismatch("")
    latent_dim = require_shape(tensors, "style.1.linear.weight_orig", 2)[1]
    n_blocks, size_assumption = _find_depth(tensors, config)
    with torch.device("meta"):
        net = StyleGan1(tensors, n_blocks)
    shape = infer_output_shape(net, torch.empty(2, latent_dim, device="meta"))
    load_strict(net, tensors)
    latent, latent_assumptions = assume_latent(latent_dim, config.prior, _ORIGIN, prior_note=NORMALIZED_LATENT)
    output, range_assumption = assume_image(shape, config.output_range, _ORIGIN, note=UNBOUNDED_OUTPUT)
    assumptions = (
        *latent_assumptions,
        size_assumption,
        assume_own_w_avg(_W_AVG_SAMPLES, "as this code computes it"),
        Assumption("alpha", 1.0, "family", _ORIGIN, note="the last resolution has faded in"),
        range_assumption,
    )
    return RebuiltGenerator("StyleGAN (rosinality)", net, latent, output, assumptions=assumptions)


def _find_depth(tensors: Mapping[str, Tensor], config: AuditConfig) -> tuple[int, Assumption]:
    """Number of blocks that are used: those whose color layer has left its initial zeros, or by --image-size.

    ArchitectureMismatch where blocks are missing; LoadError for a size without a block.
    """
    pattern = re.compile(r"generator\.to_rgb\.(\d{1,3})\.conv\.bias$")
    indices = sorted(int(match[1]) for name in tensors if (match := pattern.match(name)))
    if not indices or indices != list(range(len(indices))) or len(indices) > _MAX_BLOCKS:
        raise ArchitectureMismatch("generator.to_rgb.0, 1, … are not numbered in a row")
    sizes = [4 * 2**index for index in indices]
    if config.image_size is not None:
        if config.image_size not in sizes:
            raise LoadError(
                f"--image-size {config.image_size} contradicts the weights, which lead to {sizes[0]} … {sizes[-1]}",
                f"remove it, or choose from: {', '.join(map(str, sizes))}",
            )
        return sizes.index(config.image_size) + 1, Assumption("image_size", config.image_size, "flag")
    trained = [index for index in indices if bool(tensors[f"generator.to_rgb.{index}.conv.bias"].any())]
    last = trained[-1] if trained else indices[-1]
    note = "the largest whose color layer has left its initial zeros"
    if not trained:
        note = "no color layer has left its initial zeros: an untrained network"
    return last + 1, Assumption("image_size", sizes[last], "weights" if trained else UNDECIDED, note=note)


class StyleGan1(nn.Module):
    """forward(z (B, Z)): images (B, C, H, W). `n_blocks`: how many resolutions are used."""

    def __init__(self, tensors: Mapping[str, Tensor], n_blocks: int) -> None:
        super().__init__()
        pattern = re.compile(r"style\.(\d{1,3})\.linear\.weight_orig$")
        indices = sorted(int(match[1]) for name in tensors if (match := pattern.match(name)))
        if indices != list(range(1, 2 * len(indices), 2)) or len(indices) > _MAX_MAPPING_LAYERS:
            raise ArchitectureMismatch("its mapping layers are not style.1, style.3, …")
        layers: list[nn.Module] = [nn.Identity()]
        for index in indices:
            layers += [ScaledLinear(tensors, f"style.{index}"), nn.LeakyReLU(0.2)]
        self.style = nn.Sequential(*layers)
        self.generator = Synthesis(tensors, n_blocks)
        self.psi = Truncation()
        self.w_avg: Tensor | None = None

    def forward(self, z: Tensor) -> Tensor:
        w = self.psi(self.compute_w(z), lambda: self._mean_w(z))
        out: Tensor = self.generator(w)
        return out

    def compute_w(self, z: Tensor) -> Tensor:
        """Styles (B, W), without truncation."""
        out: Tensor = self.style(z / (z.square().mean(1, keepdim=True) + 1e-8).sqrt())
        return out

    def _mean_w(self, z: Tensor) -> Tensor:
        if self.w_avg is None:
            latents = torch.randn(_W_AVG_SAMPLES, z.shape[1], generator=torch.Generator().manual_seed(0))
            self.w_avg = self.compute_w(latents.to(z)).mean(0).detach()
        return self.w_avg


class Synthesis(nn.Module):
    """Blocks of 4, 8, … pixels, each with a color layer; only the last used one's is."""

    def __init__(self, tensors: Mapping[str, Tensor], n_blocks: int) -> None:
        super().__init__()
        count = sum(re.match(r"generator\.to_rgb\.\d+\.conv\.bias$", name) is not None for name in tensors)
        self.n_blocks = n_blocks
        self.progression = nn.ModuleList(
            StyledBlock(tensors, f"generator.progression.{index}", index) for index in range(count)
        )
        self.to_rgb = nn.ModuleList(ScaledConv(tensors, f"generator.to_rgb.{index}") for index in range(count))

    def forward(self, w: Tensor) -> Tensor:
        x = w.new_empty(len(w), 0)
        for block in self.progression[: self.n_blocks]:
            x = block(x, w)
        out: Tensor = self.to_rgb[self.n_blocks - 1](x)
        return out


class StyledBlock(nn.Module):
    """A constant or upsampling with a convolution, then a convolution; noise, leaky ReLU and AdaIN after each."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str, index: int) -> None:
        super().__init__()
        self.conv1: nn.Module
        if index == 0:
            self.conv1 = ConstantInput(require_shape(tensors, f"{prefix}.conv1.input", 4))
        elif f"{prefix}.conv1.0.weight" in tensors:
            self.conv1 = nn.Sequential(FusedUpsample(tensors, f"{prefix}.conv1.0"), Blur(tensors, f"{prefix}.conv1.1"))
        else:
            conv = ScaledConv(tensors, f"{prefix}.conv1.1")
            self.conv1 = nn.Sequential(nn.Upsample(scale_factor=2), conv, Blur(tensors, f"{prefix}.conv1.2"))
        self.noise1, self.noise2 = (Noise(tensors, f"{prefix}.noise{n}", f"noise_{index}") for n in (1, 2))
        self.adain1, self.adain2 = (AdaptiveNorm(tensors, f"{prefix}.adain{n}") for n in (1, 2))
        self.conv2 = ScaledConv(tensors, f"{prefix}.conv2")

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        x = self.conv1(w if isinstance(self.conv1, ConstantInput) else x)
        x = self.adain1(F.leaky_relu(self.noise1(x), 0.2), w)
        out: Tensor = self.adain2(F.leaky_relu(self.noise2(self.conv2(x)), 0.2), w)
        return out


class ConstantInput(nn.Module):
    """The learned 4x4 maps, once for every style."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        if shape[0] != 1:
            raise ArchitectureMismatch(f"the constant input is {shape}, and its first axis must be 1")
        self.input = nn.Parameter(torch.empty(shape))

    def forward(self, w: Tensor) -> Tensor:
        return self.input.expand(len(w), -1, -1, -1)


def _he_scale(weight: Tensor) -> float:
    return math.sqrt(2 / (weight.shape[1] * weight[0][0].numel()))


class ScaledLinear(nn.Module):
    """`linear.weight_orig`, scaled by He's constant, and `linear.bias`."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__()
        shape = require_shape(tensors, f"{prefix}.linear.weight_orig", 2)
        self.linear = _make_holder(weight_orig=shape, bias=shape[:1])

    def forward(self, x: Tensor) -> Tensor:
        weight = self.linear.get_parameter("weight_orig")
        return F.linear(x, weight * _he_scale(weight), self.linear.get_parameter("bias"))


class ScaledConv(nn.Module):
    """`conv.weight_orig`, scaled by He's constant, and `conv.bias`; it keeps the resolution."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__()
        shape = require_shape(tensors, f"{prefix}.conv.weight_orig", 4)
        self.conv = _make_holder(weight_orig=shape, bias=shape[:1])

    def forward(self, x: Tensor) -> Tensor:
        weight = self.conv.get_parameter("weight_orig")
        scaled = weight * _he_scale(weight)
        return F.conv2d(x, scaled, self.conv.get_parameter("bias"), padding=weight.shape[-1] // 2)


def _make_holder(**shapes: tuple[int, ...]) -> nn.Module:
    holder = nn.Module()
    for name, shape in shapes.items():
        holder.register_parameter(name, nn.Parameter(torch.empty(shape)))
    return holder


class FusedUpsample(nn.Module):
    """A transposed convolution by the kernel averaged over four shifts: upsampling and convolution in one."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__()
        shape = require_shape(tensors, f"{prefix}.weight", 4)
        self.weight, self.bias = nn.Parameter(torch.empty(shape)), nn.Parameter(torch.empty(shape[1]))

    def forward(self, x: Tensor) -> Tensor:
        inputs, _, kernel, _ = self.weight.shape
        weight = F.pad(self.weight * math.sqrt(2 / (inputs * kernel * kernel)), (1, 1, 1, 1))
        weight = (weight[:, :, 1:, 1:] + weight[:, :, :-1, 1:] + weight[:, :, 1:, :-1] + weight[:, :, :-1, :-1]) / 4
        return F.conv_transpose2d(x, weight, self.bias, stride=2, padding=kernel // 2)


class Blur(nn.Module):
    """The file's 3x3 filter over every channel."""

    weight: Tensor

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__()
        shape = require_shape(tensors, f"{prefix}.weight", 4)
        self.register_buffer("weight", torch.empty(shape))
        self.register_buffer("weight_flip", torch.empty(shape))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, padding=self.weight.shape[-1] // 2, groups=x.shape[1])


class Noise(nn.Module):
    """One noise image for all channels, times a weight per channel. Both layers of a block share the image."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str, noise_name: str) -> None:
        super().__init__()
        self.weight_orig = nn.Parameter(torch.empty(require_shape(tensors, f"{prefix}.weight_orig", 4)))
        self.noise_input = NoiseInput(noise_name)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.weight_orig * _he_scale(self.weight_orig) * self.noise_input(x)
        return out


class AdaptiveNorm(nn.Module):
    """Instance norm, then a gain and a bias per channel from the style, gains first."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__()
        self.style = ScaledLinear(tensors, f"{prefix}.style")

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        gain, bias = self.style(w)[:, :, None, None].chunk(2, 1)  # (B, C, 1, 1)
        out: Tensor = gain * F.instance_norm(x) + bias
        return out
