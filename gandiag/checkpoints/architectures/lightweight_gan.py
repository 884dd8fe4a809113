"""The generator of the package lightweight-gan: GE (or G) of its checkpoints, in every form since version 0.16.

Liu et al. 2021, "Towards Faster and Stabilized GAN Training for High-fidelity Few-shot Image Synthesis", section 3.1:
gated linear units, BatchNorm, and early maps that excite the channels of late ones. Specific to this package: the first
map is normalized per pixel, excitation by global context (Cao et al. 2020) or by frequencies (Qin et al. 2021) acts
three layers later, optional attention, noise since 0.21, pixel-shuffle upsampling since 1.0, outputs clamped to [0, 1].
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandiag.checkpoints.architectures.assumptions import assume_image, assume_latent, assume_resolution
from gandiag.checkpoints.architectures.base import RebuiltGenerator, load_strict, require_shape
from gandiag.checkpoints.architectures.layers.linear_attention import (
    HEAD_DIM,
    LinearAttention,
    PreNorm,
    require_attention_channels,
)
from gandiag.checkpoints.architectures.layers.noise_input import NoiseInjection
from gandiag.checkpoints.architectures.lightweight_gan_layers import (
    FrequencyChannelAttention,
    GlobalContext,
    LocalAndLinearAttention,
    PixelShuffleUpsample,
    SamePadConv2d,
)
from gandiag.checkpoints.architectures.shape_check import check_output_shape
from gandiag.checkpoints.architectures.stylegan2_lucidrains import Blur
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.interfaces import Assumption

_FAMILY = "lightweight-gan"
_EXCITATION_DISTANCE = 3  # layers between the map that an excitation is computed from and the map that it scales
_MAX_LAYERS = 10
_UPSAMPLING = {
    "pixel-shuffle": "pixel shuffle",
    "bilinear": "bilinear interpolation",
    "nearest": "nearest-neighbor upsampling",
}
VersionTuple = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PackageRelease:
    """The version that wrote the file (empty if unknown), how it upsamples, and where that is known from."""

    version: VersionTuple
    upsampling: str
    source: str
    origin: str = ""


def rebuild(weights: Weights, config: AuditConfig) -> RebuiltGenerator:
    """A generator of lightweight-gan. LoadError for releases that gandiag does not rebuild.

    ArchitectureMismatch unless the keys are initial_conv, layers.<n>.{0,1,2} and out_conv.
    """
    tensors = weights.tensors
    has_ends = {"initial_conv.0.weight", "out_conv.weight"} <= set(tensors)
    if not has_ends or not {"layers.0.0.2.weight", "layers.0.0.2.1.weight"} & set(tensors):
        raise ArchitectureMismatch("")
    release = _identify_release(tensors, weights.extra_settings)
    with torch.device("meta"):
        net = LightweightGan(tensors, release)
    latent_dim = require_shape(tensors, "initial_conv.0.weight", 4)[0]
    shape = (net.channels, net.resolution, net.resolution)
    check_output_shape(net, latent_dim, shape)
    load_strict(net, tensors)
    latent, latent_assumptions = assume_latent(latent_dim, config.prior, _FAMILY)
    is_default_range = config.output_range in (None, (0.0, 1.0))
    output, range_assumption = assume_image(
        shape,
        config.output_range,
        _FAMILY,
        default=(0.0, 1.0),
        note="clamped" if is_default_range else "clamped to [0, 1]",
    )
    assumptions = (
        *latent_assumptions,
        assume_resolution(net.resolution, _UPSAMPLING[release.upsampling], release.source, release.origin),
        *_state_options(tensors, len(net.layers)),
        range_assumption,
    )
    return RebuiltGenerator("lightweight-gan", net, latent, output, assumptions=assumptions)


def _state_options(tensors: Mapping[str, Tensor], n_layers: int) -> tuple[Assumption, ...]:
    """Antialiasing, excitation and attention, as the keys show them."""
    if "layers.0.0.1.f" in tensors:
        antialiasing = Assumption("antialiasing", "blur", "shapes", note="[1, 2, 1] after every upsampling")
    else:
        antialiasing = Assumption("antialiasing", None, "shapes")
    if any(name.endswith(".1.to_k.weight") for name in tensors):
        excitation = Assumption("excitation", "global context", "shapes")
    elif any(name.endswith(".1.dct_weights") for name in tensors):
        excitation = Assumption("excitation", "frequency channels", "shapes")
    else:
        excitation = Assumption("excitation", None, "shapes", note="the images are too small")
    attended = tuple(4 * 2**index for index in range(n_layers) if f"layers.{index}.2.norm.g" in tensors)
    if not attended:
        return antialiasing, excitation
    note = f"resolutions in pixels; heads of {HEAD_DIM} channels"
    return antialiasing, excitation, Assumption("attention", attended, "shapes", note=note)


def _identify_release(tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> PackageRelease:
    """How maps are upsampled: most releases differ in shapes, the others in the version that the file states."""
    match = re.match(r"\d{1,4}(\.\d{1,4}){0,3}", str(settings.get("version", "")))
    version = tuple(map(int, match[0].split("."))) if match else ()
    if match and version < (0, 16):
        raise _unsupported_release(f"from version {match[0]}, whose excitations are added", "lightweight-gan<0.16")
    if "layers.0.0.0.net.0.weight" in tensors:
        return PackageRelease(version, "pixel-shuffle", "shapes")
    if not _has_noise(tensors, 0):
        return PackageRelease(version, "nearest", "shapes")
    if "layers.0.0.2.weight" in tensors:
        return PackageRelease(version, "bilinear", "shapes")  # 0.21.0 to 0.21.2
    if not version:
        return PackageRelease(version, "nearest", "family", _FAMILY)
    return PackageRelease(version, "bilinear" if version == (0, 21, 3) else "nearest", "file", "version")


def _unsupported_release(description: str, requirement: str) -> LoadError:
    return LoadError(
        f"the file holds a lightweight-gan {description}, which gandiag does not rebuild",
        f"build it with its own code (pip install '{requirement}'): --model pkg.mod:factory [--init k=v]; "
        "or audit a folder of its samples",
    )


def _has_noise(tensors: Mapping[str, Tensor], index: int) -> bool:
    return f"layers.{index}.0.3.weight" in tensors and f"layers.{index}.0.3.running_mean" not in tensors


class LightweightGan(nn.Module):
    """initial_conv, layers, out_conv: the names of the file."""

    def __init__(self, tensors: Mapping[str, Tensor], release: PackageRelease) -> None:
        super().__init__()
        count = 1 + max(int(match[1]) for name in tensors if (match := re.match(r"layers\.(\d{1,3})\.", name)))
        if count > _MAX_LAYERS:
            raise ArchitectureMismatch(f"{count} layers would produce images of {4 * 2**count} pixels")
        latent_dim, out_channels, size, _ = require_shape(tensors, "initial_conv.0.weight", 4)
        self.resolution = size * 2**count
        first_conv = nn.ConvTranspose2d(latent_dim, out_channels, size)
        self.initial_conv = nn.Sequential(first_conv, nn.BatchNorm2d(out_channels), nn.GLU(1))
        self.layers = nn.ModuleList(UpsampleLayer(tensors, index, release) for index in range(count))
        self.channels, in_channels, size, _ = require_shape(tensors, "out_conv.weight", 4)
        self.out_conv = nn.Conv2d(in_channels, self.channels, size, padding=size // 2)

    def forward(self, z: Tensor) -> Tensor:
        x = F.normalize(self.initial_conv(z[:, :, None, None]), dim=1)  # (B, C, 4, 4)
        excitations: dict[int, Tensor] = {}
        for index, layer in enumerate(self.layers):
            x, excitation = layer(x)
            if excitation is not None:
                excitations[index + _EXCITATION_DISTANCE] = excitation
            x = x * excitations[index] if index in excitations else x
        out: Tensor = self.out_conv(x)
        return out.clamp(0, 1)


class UpsampleLayer(nn.Module):
    """Attention ("2"), then upsampling ("0"), and the excitation that it passes to a later layer ("1")."""

    def __init__(self, tensors: Mapping[str, Tensor], index: int, release: PackageRelease) -> None:
        super().__init__()
        prefix = f"layers.{index}."
        self.add_module("0", _make_upsampling_block(tensors, index, release))
        self.has_excitation = f"{prefix}1.net.0.weight" in tensors
        self.has_attention = any(name.startswith(f"{prefix}2.") for name in tensors)
        if self.has_excitation:
            use_frequencies = f"{prefix}1.dct_weights" in tensors
            excitation = FrequencyChannelAttention if use_frequencies else GlobalContext
            self.add_module("1", excitation(tensors, f"{prefix}1."))
        if self.has_attention:
            self.add_module("2", _make_attention(tensors, f"{prefix}2.", release.version))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.has_attention:
            x = x + self.get_submodule("2")(x)
        x = self.get_submodule("0")(x)
        return x, self.get_submodule("1")(x) if self.has_excitation else None


def _make_upsampling_block(tensors: Mapping[str, Tensor], index: int, release: PackageRelease) -> nn.Sequential:
    """Upsampling, blur or nothing, convolution, noise or nothing, BatchNorm, gate."""
    prefix = f"layers.{index}.0."
    is_plain_conv = f"{prefix}2.weight" in tensors
    conv_weight = f"{prefix}2.weight" if is_plain_conv else f"{prefix}2.1.weight"
    out_channels, in_channels, size, _ = require_shape(tensors, conv_weight, 4)
    upsample: nn.Module
    if release.upsampling == "pixel-shuffle":
        upsample = PixelShuffleUpsample(*require_shape(tensors, f"{prefix}0.net.0.weight", 4)[:2])
    elif release.upsampling == "bilinear":
        upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    else:
        upsample = nn.Upsample(scale_factor=2)
    blur = Blur() if f"{prefix}1.f" in tensors else nn.Identity()
    if is_plain_conv:
        conv: nn.Module = nn.Conv2d(in_channels, out_channels, size, padding=size // 2)
    else:
        conv = SamePadConv2d(in_channels, out_channels, size)
    noise = [NoiseInjection(f"layers.{index}")] if _has_noise(tensors, index) else []
    return nn.Sequential(upsample, blur, conv, *noise, nn.BatchNorm2d(out_channels), nn.GLU(1))


def _make_attention(tensors: Mapping[str, Tensor], prefix: str, version: VersionTuple) -> nn.Module:
    """Norm over channels, then linear attention; since 0.21.2 concatenated with attention in a 3x3 window."""
    is_outdated = version == (0, 21, 1) or (version and version < (0, 20, 6))
    if is_outdated or f"{prefix}norm.g" not in tensors:
        number = ".".join(map(str, version))
        attention = f"the attention of version {number}" if number else "attention from before version 0.20"
        raise _unsupported_release(
            f"with {attention}, which later releases have changed",
            f"lightweight-gan=={number}" if number else "lightweight-gan<0.20",
        )
    channels = require_shape(tensors, f"{prefix}norm.g", 4)[1]
    inner = require_attention_channels(tensors, f"{prefix}fn.to_q.weight", f"{prefix}fn")
    layer = LocalAndLinearAttention if f"{prefix}fn.to_lin_q.weight" in tensors else LinearAttention
    return PreNorm(channels, layer(channels, inner))
