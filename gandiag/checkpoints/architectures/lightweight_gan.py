"""The generator of the package lightweight-gan: GE (or G) of its checkpoints, in every shape it has had since version 0.16.

Liu et al. 2021, "Towards Faster and Stabilized GAN Training for High-fidelity Few-shot Image Synthesis", section 3.1: gated
linear units, batch norm, and early maps that excite the channels of late ones. This package's ways: the first map is normalised
per pixel, excitation by global context (Cao et al. 2020) or by frequencies (Qin et al. 2021) reaches three layers on, attention
where asked for, noise since 0.21, pixel-shuffle upsampling since 1.0, outputs clamped to [0, 1].
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandiag.checkpoints.architectures.base import RebuiltGenerator, load_strict, require_shape
from gandiag.checkpoints.architectures.layers.linear_attention import LinearAttention, PreNorm
from gandiag.checkpoints.architectures.layers.noise_input import NoiseInput
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
from gandiag.interfaces import Assumption, LatentSpec, OutputSpec

_FAMILY = "family (lightweight-gan)"
_REACH = 3  # layers from where an excitation is made to where it acts
_LARGEST = 10
VersionTuple = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PackageRelease:
    """The version that wrote the file (empty where it does not say), and how it upsamples."""

    version: VersionTuple
    upsampling: str
    source: str


def rebuild(weights: Weights, config: AuditConfig) -> RebuiltGenerator:
    """NotThis unless the keys are initial_conv, layers.<n>.{0,1,2} and out_conv. LoadError for releases that are not rebuilt."""
    tensors = weights.tensors
    if not {"initial_conv.0.weight", "out_conv.weight"} <= set(tensors) or not {
        "layers.0.0.2.weight",
        "layers.0.0.2.1.weight",
    } & set(tensors):
        raise ArchitectureMismatch("")
    release = _release(tensors, weights.extra_settings)
    with torch.device("meta"):
        net = LightweightGan(tensors, release)
    check_output_shape(
        net, require_shape(tensors, "initial_conv.0.weight", 4)[0], (net.channels, net.resolution, net.resolution)
    )
    load_strict(net, tensors)
    prior, prior_source = (config.prior, "flag") if config.prior else ("normal", _FAMILY)
    span, span_source = (config.output_range, "flag") if config.output_range else ((0.0, 1.0), _FAMILY)
    dim = require_shape(tensors, "initial_conv.0.weight", 4)[0]
    kinds = {"global context": ".1.to_k.weight", "frequency channels": ".1.dct_weights"}
    excited = next(
        (kind for kind, key in kinds.items() if any(name.endswith(key) for name in tensors)),
        "none: the pictures are too small",
    )
    attended = [str(4 * 2**index) for index in range(len(net.layers)) if f"layers.{index}.2.norm.g" in tensors]
    said = (
        Assumption("latent size (--latent-dim)", str(dim), "shapes"),
        Assumption("latent prior (--prior)", prior, prior_source),
        Assumption(
            "image size (--image-size)",
            f"4 to {net.resolution} pixels, upsampled by {release.upsampling}",
            release.source,
        ),
        Assumption(
            "antialiasing",
            "a [1, 2, 1] blur behind every upsampling" if "layers.0.0.1.f" in tensors else "none",
            "shapes",
        ),
        Assumption("excitation", excited, "shapes"),
        *(
            [Assumption("attention", f"at {', '.join(attended)} pixels, heads of 64 channels", "shapes")]
            if attended
            else []
        ),
        Assumption(
            "output range (--output-range)",
            f"[{span[0]:g}, {span[1]:g}], clamped{'' if span == (0.0, 1.0) else ' to [0, 1]'}",
            span_source,
        ),
    )
    output = OutputSpec("image", (net.channels, net.resolution, net.resolution), (span[0], span[1]))
    return RebuiltGenerator("lightweight-gan", net, LatentSpec(dim, prior), output, assumptions=said)  # type: ignore[arg-type]


def _release(tensors: Mapping[str, Tensor], beside: Mapping[str, Any]) -> PackageRelease:
    """How maps are upsampled: the shapes tell most releases apart, the version that the file names the others."""
    told = re.match(r"\d{1,4}(\.\d{1,4}){0,3}", str(beside.get("version", "")))
    version = tuple(map(int, told[0].split("."))) if told else ()
    if version and version < (0, 16):
        raise _refused(f"from version {told and told[0]}, whose excitations are added", "lightweight-gan<0.16")
    if "layers.0.0.0.net.0.weight" in tensors:
        return PackageRelease(version, "pixel shuffle", "shapes")
    if not _noisy(tensors, 0):
        return PackageRelease(version, "nearest neighbours", "shapes")
    if "layers.0.0.2.weight" in tensors:
        return PackageRelease(version, "bilinear interpolation", "shapes")  # 0.21.0 to 0.21.2
    known = "file (version)" if version else _FAMILY
    return PackageRelease(version, "bilinear interpolation" if version == (0, 21, 3) else "nearest neighbours", known)


def _refused(what: str, package: str) -> LoadError:
    return LoadError(
        f"the file holds a lightweight-gan {what}, which gandiag does not rebuild",
        f"build it with its own code (pip install '{package}'): --model pkg.mod:factory [--init k=v]; or audit a folder of its samples",
    )


def _noisy(tensors: Mapping[str, Tensor], index: int) -> bool:
    return f"layers.{index}.0.3.weight" in tensors and f"layers.{index}.0.3.running_mean" not in tensors


class LightweightGan(nn.Module):
    """initial_conv, layers, out_conv: the names that the file has."""

    def __init__(self, tensors: Mapping[str, Tensor], release: PackageRelease) -> None:
        super().__init__()
        count = 1 + max(int(found[1]) for name in tensors if (found := re.match(r"layers\.(\d{1,3})\.", name)))
        if count > _LARGEST:
            raise ArchitectureMismatch(f"{count} layers would make pictures of {4 * 2**count} pixels")
        into, out, size, _ = require_shape(tensors, "initial_conv.0.weight", 4)
        self.resolution = size * 2**count
        self.initial_conv = nn.Sequential(nn.ConvTranspose2d(into, out, size), nn.BatchNorm2d(out), nn.GLU(1))
        self.layers = nn.ModuleList(UpsampleLayer(tensors, index, release) for index in range(count))
        self.channels, width, size, _ = require_shape(tensors, "out_conv.weight", 4)
        self.out_conv = nn.Conv2d(width, self.channels, size, padding=size // 2)

    def forward(self, z: Tensor) -> Tensor:
        x = F.normalize(self.initial_conv(z[:, :, None, None]), dim=1)  # (B, C, 4, 4)
        made: dict[int, Tensor] = {}
        for index, layer in enumerate(self.layers):
            x, excitation = layer(x)
            if excitation is not None:
                made[index + _REACH] = excitation
            x = x * made[index] if index in made else x
        out: Tensor = self.out_conv(x)
        return out.clamp(0, 1)


class UpsampleLayer(nn.Module):
    """Attention ("2"), the doubling itself ("0") and the excitation that it gives to a later layer ("1")."""

    def __init__(self, tensors: Mapping[str, Tensor], index: int, release: PackageRelease) -> None:
        super().__init__()
        path = f"layers.{index}."
        self.add_module("0", _doubling(tensors, index, release))
        self.has_excitation = f"{path}1.net.0.weight" in tensors
        self.has_attention = any(name.startswith(f"{path}2.") for name in tensors)
        if self.has_excitation:
            self.add_module(
                "1",
                FrequencyChannelAttention(tensors, f"{path}1.")
                if f"{path}1.dct_weights" in tensors
                else GlobalContext(tensors, f"{path}1."),
            )
        if self.has_attention:
            self.add_module("2", _attention(tensors, f"{path}2.", release.version))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.has_attention:
            x = x + self.get_submodule("2")(x)
        x = self.get_submodule("0")(x)
        return x, self.get_submodule("1")(x) if self.has_excitation else None


def _doubling(tensors: Mapping[str, Tensor], index: int, release: PackageRelease) -> nn.Sequential:
    """Upsampling, blur or nothing, convolution, noise or nothing, batch norm, gate."""
    path = f"layers.{index}.0."
    plain = f"{path}2.weight" in tensors
    out, into, size, _ = require_shape(tensors, f"{path}2.weight" if plain else f"{path}2.1.weight", 4)
    up: nn.Module
    if release.upsampling == "pixel shuffle":
        up = PixelShuffleUpsample(*require_shape(tensors, f"{path}0.net.0.weight", 4)[:2])
    else:
        smooth = release.upsampling.startswith("bilinear")
        up = (
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False) if smooth else nn.Upsample(scale_factor=2)
        )
    blur = Blur() if f"{path}1.f" in tensors else nn.Identity()
    conv = nn.Conv2d(into, out, size, padding=size // 2) if plain else SamePadConv2d(into, out, size)
    noise = [NoiseInjection(f"layers.{index}")] if _noisy(tensors, index) else []
    return nn.Sequential(up, blur, conv, *noise, nn.BatchNorm2d(out), nn.GLU(1))


class NoiseInjection(nn.Module):
    """One noise picture for all channels, times one learned number."""

    def __init__(self, noise_name: str) -> None:
        super().__init__()
        self.weight, self.noise = nn.Parameter(torch.empty(1)), NoiseInput(noise_name)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.weight * self.noise(x)
        return out


def _attention(tensors: Mapping[str, Tensor], path: str, version: VersionTuple) -> nn.Module:
    """Norm over channels, then linear attention, since 0.21.2 beside attention in a 3x3 window."""
    if version == (0, 21, 1) or (version and version < (0, 20, 6)) or f"{path}norm.g" not in tensors:
        named = ".".join(map(str, version))
        what = f"with the attention of version {named}" if named else "with attention from before version 0.20"
        raise _refused(
            f"{what}, which later releases have changed",
            f"lightweight-gan=={named}" if named else "lightweight-gan<0.20",
        )
    channels = require_shape(tensors, f"{path}norm.g", 4)[1]
    both = f"{path}fn.to_lin_q.weight" in tensors
    inner = require_shape(tensors, f"{path}fn.to_q.weight", 4)[0]
    if inner % 64:
        raise ArchitectureMismatch(f"{path}fn attends with {inner} channels, which are no heads of 64")
    return PreNorm(channels, LocalAndLinearAttention(channels, inner) if both else LinearAttention(channels, inner))
