"""Networks of StyleGAN3 and StyleGAN-XL: mapping, Fourier features and filtered layers, under the names of their files.

Karras et al. 2021, "Alias-Free Generative Adversarial Networks", section 3 and appendix F: features are signals in a
window wider than the image; every layer upsamples, applies leaky ReLU and downsamples through low-pass filters. The
filters are in the file, the size of a layer's output and its channels in its name; the factors of up- and downsampling
follow from the lengths of the filters, and the padding from factors and sizes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandiag.checkpoints.architectures.base import require_shape
from gandiag.checkpoints.architectures.layers.factory import make_embedding
from gandiag.checkpoints.architectures.layers.stylegan2 import EqualizedLinear, normalize_2nd_moment, scaled_leaky_relu
from gandiag.checkpoints.architectures.layers.truncation import Truncation
from gandiag.checkpoints.architectures.stylegan2_nvidia_layers import MappingNetwork, count_mapping_layers
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch

_LAYER_NAME = re.compile(r"synthesis\.(L(\d{1,3})_(\d{1,5})_(\d{1,5}))\.weight$")
_MAX_SIZE = 2_048
_OVERSAMPLING = 2  # of every activation
_BANDWIDTH = 2.0  # cycles per image that the Fourier features reach
_EPS = 1e-8


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """How one layer filters. `up`, `down`: factors; `padding`: zeros before and after, negative where it crops."""

    name: str
    out_size: int
    up: int
    down: int
    padding: tuple[int, int]


@dataclass(frozen=True, slots=True)
class SynthesisPlan:
    """All layers in order, and the first one's window: its size and samples per image."""

    layers: tuple[LayerPlan, ...]
    input_size: int
    input_rate: int

    @property
    def resolution(self) -> int:
        """Width and height of the image."""
        return self.layers[-1].out_size


def has_layers(tensors: Mapping[str, Tensor]) -> bool:
    """Whether any key is that of a StyleGAN3 layer."""
    return any(map(_LAYER_NAME.match, tensors))


def plan_synthesis(tensors: Mapping[str, Tensor]) -> SynthesisPlan:
    """Factors, sizes and padding of every layer, from names and filters.

    ArchitectureMismatch where they contradict each other.
    """
    matches = sorted(
        (match for name in tensors if (match := _LAYER_NAME.match(name))), key=lambda match: int(match.group(2))
    )
    numbers = [int(match[2]) for match in matches]  # a super-resolution stage of StyleGAN-XL leaves one out
    if len(set(numbers)) != len(numbers) or len(numbers) < 2 or numbers[-1] > len(numbers):
        raise ArchitectureMismatch("the layers synthesis.L0_…, L1_… are not numbered in a row")
    sizes = [int(match[3]) for match in matches]
    if max(sizes) > _MAX_SIZE:
        raise ArchitectureMismatch(f"its layers are up to {max(sizes)} pixels wide")
    taps = [_count_taps(tensors, f"synthesis.{match[1]}") for match in matches]
    filter_size = min((entry for pair in taps for entry in pair if entry > 1), default=1) // _OVERSAMPLING
    layers: list[LayerPlan] = []
    size, rate_ratio = sizes[0], 1.0
    for match, out_size, (up_taps, down_taps) in zip(matches, sizes, taps, strict=True):
        name = f"synthesis.{match[1]}"
        up, down = (_infer_factor(name, count, filter_size) for count in (up_taps, down_taps))
        kernel = require_shape(tensors, f"{name}.weight", 4)[2]
        total = (out_size - 1) * down + 1 - (size + kernel - 1) * up + up_taps + down_taps - 2
        before = (total + up) // 2
        layers.append(LayerPlan(match[1], out_size, up, down, (before, total - before)))
        size, rate_ratio = out_size, rate_ratio * up / down
    input_rate = sizes[-1] / rate_ratio
    if input_rate != int(input_rate) or not 1 <= input_rate <= sizes[0]:
        raise ArchitectureMismatch(
            f"its filters upsample {rate_ratio:g} times, and its layers lead from {sizes[0]} to {sizes[-1]} pixels"
        )
    return SynthesisPlan(tuple(layers), sizes[0], int(input_rate))


def _count_taps(tensors: Mapping[str, Tensor], prefix: str) -> tuple[int, int]:
    """The lengths of the filters before and after the activation; 1 where there is none."""
    counts = []
    for name in ("up_filter", "down_filter"):
        entry = tensors.get(f"{prefix}.{name}")
        if entry is not None and (entry.ndim not in (1, 2) or len(set(entry.shape)) != 1 or entry.shape[0] < 2):
            raise ArchitectureMismatch(f"{prefix}.{name} is {tuple(entry.shape)}, not a filter")
        counts.append(1 if entry is None else len(entry))
    if (counts[0] == 1) != (counts[1] == 1):
        raise ArchitectureMismatch(f"{prefix} holds one of its two filters")
    return counts[0], counts[1]


def _infer_factor(name: str, taps: int, filter_size: int) -> int:
    if taps == 1:
        return 1
    if filter_size < 1 or taps % filter_size:
        raise ArchitectureMismatch(f"{name} has a filter of {taps} taps, and others {filter_size} per sample")
    return taps // filter_size


class StyleGan3(nn.Module):
    """forward(z (B, Z), labels): images (B, C, H, W). Labels are one-hot, or indices in StyleGAN-XL."""

    def __init__(
        self, tensors: Mapping[str, Tensor], lr_multiplier: float, clamp: float | None, output_scale: float
    ) -> None:
        super().__init__()
        make_mapping = PretrainedMapping if "mapping.embed_proj.weight" in tensors else MappingNetwork
        self.mapping: PretrainedMapping | MappingNetwork = make_mapping(tensors, lr_multiplier)
        self.synthesis = SynthesisNetwork(tensors, clamp, output_scale)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        out: Tensor = self.synthesis(self.mapping(z, labels))
        return out


class PretrainedMapping(nn.Module):
    """StyleGAN-XL: the class is a pretrained embedding, projected to the size of z; every class has its mean style."""

    w_avg: Tensor

    def __init__(self, tensors: Mapping[str, Tensor], lr_multiplier: float) -> None:
        super().__init__()
        self.embed = make_embedding(tensors, "mapping.embed")
        self.embed_proj = EqualizedLinear(require_shape(tensors, "mapping.embed_proj.weight", 2))
        self.n_layers = count_mapping_layers(tensors)
        for index in range(self.n_layers):
            shape = require_shape(tensors, f"mapping.fc{index}.weight", 2)
            self.add_module(f"fc{index}", EqualizedLinear(shape, lr_multiplier))
        self.z_dim = require_shape(tensors, "mapping.fc0.weight", 2)[1] - self.embed_proj.weight.shape[0]
        self.classes, w_dim = require_shape(tensors, "mapping.w_avg", 2)
        if self.z_dim < 1:
            raise ArchitectureMismatch("its mapping takes no latent, only labels")
        self.psi = Truncation()
        self.register_buffer("w_avg", torch.empty(self.classes, w_dim))

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        embedded = scaled_leaky_relu(self.embed_proj(self.embed(labels)))
        w = torch.cat([normalize_2nd_moment(z), normalize_2nd_moment(embedded)], 1)
        for index in range(self.n_layers):
            w = scaled_leaky_relu(self.get_submodule(f"fc{index}")(w))
        out: Tensor = self.psi(w, lambda: self.w_avg[labels])  # (B, W)
        return out


class SynthesisNetwork(nn.Module):
    """Fourier features, then layers; the last one makes colors."""

    def __init__(self, tensors: Mapping[str, Tensor], clamp: float | None, output_scale: float) -> None:
        super().__init__()
        self.plan, self.output_scale = plan_synthesis(tensors), output_scale
        self.resolution = self.plan.resolution
        self.input = FourierFeatures(tensors, self.plan.input_size, self.plan.input_rate)
        for layer in self.plan.layers:
            is_torgb = layer is self.plan.layers[-1]
            self.add_module(layer.name, FilteredLayer(tensors, layer, clamp, is_torgb=is_torgb))
        self.channels = require_shape(tensors, f"synthesis.{self.plan.layers[-1].name}.weight", 4)[0]

    def forward(self, w: Tensor) -> Tensor:
        x: Tensor = self.input(w)
        for layer in self.plan.layers:
            x = self.get_submodule(layer.name)(x, w)
        return x * self.output_scale


class FourierFeatures(nn.Module):
    """Sines of fixed frequencies and phases, rotated and shifted by the style, mixed by a 1x1 map."""

    transform: Tensor
    freqs: Tensor
    phases: Tensor

    def __init__(self, tensors: Mapping[str, Tensor], size: int, rate: int) -> None:
        super().__init__()
        self.size, self.rate = size, rate
        self.weight = nn.Parameter(torch.empty(require_shape(tensors, "synthesis.input.weight", 2)))
        channels = self.weight.shape[1]
        self.affine = EqualizedLinear(require_shape(tensors, "synthesis.input.affine.weight", 2))
        if self.affine.weight.shape[0] != 4:
            raise ArchitectureMismatch("synthesis.input.affine does not output a rotation and a shift")
        self.register_buffer("transform", torch.empty(3, 3))
        self.register_buffer("freqs", torch.empty(channels, 2))
        self.register_buffer("phases", torch.empty(channels))

    def forward(self, w: Tensor) -> Tensor:
        motion = self.affine(w)  # (B, 4): cosine, sine, shifts along x and y
        motion = motion / motion[:, :2].norm(dim=1, keepdim=True)
        cos, sin, shift = motion[:, 0], motion[:, 1], motion[:, 2:]
        rotation = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)  # (B, 2, 2)
        linear = rotation @ self.transform[:2, :2]
        offset = (rotation @ (self.transform[:2, 2] - shift)[:, :, None]).squeeze(2)  # (B, 2)
        phases = self.phases + offset @ self.freqs.T  # (B, C)
        freqs = self.freqs @ linear  # (B, C, 2)
        damping = (freqs.norm(dim=2) - _BANDWIDTH) / (self.rate / 2 - _BANDWIDTH)
        places = ((torch.arange(self.size, device=w.device) + 0.5) / self.size - 0.5) * self.size / self.rate
        waves_x, waves_y = (freqs[:, :, axis, None] * places for axis in (0, 1))  # (B, C, S)
        angles = waves_x[:, :, None, :] + waves_y[:, :, :, None] + phases[:, :, None, None]
        x = torch.sin(2 * math.pi * angles) * (1 - damping).clamp(0, 1)[:, :, None, None]  # (B, C, S, S)
        mixing = self.weight / math.sqrt(self.weight.shape[1])
        return F.conv2d(x, mixing[:, :, None, None])


class FilteredLayer(nn.Module):
    """A modulated convolution that widens the window, bias, then leaky ReLU between two resampling filters."""

    magnitude_ema: Tensor
    up_filter: Tensor
    down_filter: Tensor

    def __init__(self, tensors: Mapping[str, Tensor], plan: LayerPlan, clamp: float | None, *, is_torgb: bool) -> None:
        super().__init__()
        prefix = f"synthesis.{plan.name}"
        self.plan, self.clamp, self.is_torgb = plan, clamp, is_torgb
        self.weight = nn.Parameter(torch.empty(require_shape(tensors, f"{prefix}.weight", 4)))
        self.bias = nn.Parameter(torch.empty(len(self.weight)))
        self.affine = EqualizedLinear(require_shape(tensors, f"{prefix}.affine.weight", 2))
        self.register_buffer("magnitude_ema", torch.empty(()))
        for name in ("up_filter", "down_filter"):
            if f"{prefix}.{name}" in tensors:
                self.register_buffer(name, torch.empty(tensors[f"{prefix}.{name}"].shape))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        style = self.affine(w)
        if x.shape[1] != self.weight.shape[1] or style.shape[1] != x.shape[1]:
            raise RuntimeError(f"{x.shape[1]} channels for a weight of {tuple(self.weight.shape)}")
        gain = self.magnitude_ema.rsqrt()
        weight: Tensor = self.weight
        if self.is_torgb:
            gain = gain / math.sqrt(weight[0].numel())
        else:
            weight = weight * weight.square().mean((1, 2, 3), keepdim=True).rsqrt()
            style = normalize_2nd_moment(style)
            norms = style.square() @ weight.square().sum((2, 3)).T  # (B, O)
            gain = gain * (norms + _EPS).rsqrt()[:, :, None, None]
        x = F.conv2d(x * style[:, :, None, None], weight, padding=weight.shape[-1] - 1) * gain
        return self._activate(x + self.bias[:, None, None])

    def _activate(self, x: Tensor) -> Tensor:
        if self.plan.up > 1:
            x = upsample(x, self.up_filter, self.plan.up, self.plan.padding)
        elif any(self.plan.padding):
            x = F.pad(x, self.plan.padding * 2)
        x = x if self.is_torgb else scaled_leaky_relu(x)
        x = x if self.clamp is None else x.clamp(-self.clamp, self.clamp)
        return downsample(x, self.down_filter, self.plan.down) if self.plan.down > 1 else x


def upsample(x: Tensor, kernel: Tensor, factor: int, padding: tuple[int, int]) -> Tensor:
    """`factor` times as many samples, padded and filtered: (N · factor + padding - taps + 1) of them."""
    taps, size = len(kernel), x.shape[-1]
    before, after = padding
    for part in _split_kernel(kernel * factor**kernel.ndim):  # a transposed convolution adds no padding
        stride = (factor if part.shape[0] > 1 else 1, factor if part.shape[1] > 1 else 1)
        x = F.conv_transpose2d(x, part.expand(x.shape[1], 1, *part.shape), stride=stride, groups=x.shape[1])
    length = size * factor + before + after - taps + 1
    cropped = before - (taps - 1)
    return F.pad(x, (cropped, length - cropped - x.shape[-1]) * 2)


def downsample(x: Tensor, kernel: Tensor, factor: int) -> Tensor:
    """Filtered, without padding; then every `factor`-th sample."""
    for part in _split_kernel(kernel.flip(tuple(range(kernel.ndim)))):
        stride = (factor if part.shape[0] > 1 else 1, factor if part.shape[1] > 1 else 1)
        x = F.conv2d(x, part.expand(x.shape[1], 1, *part.shape), stride=stride, groups=x.shape[1])
    return x


def _split_kernel(kernel: Tensor) -> tuple[Tensor, ...]:
    """A filter (k, k) as it is; (k,) as one along each axis."""
    return (kernel,) if kernel.ndim == 2 else (kernel[:, None], kernel[None, :])
