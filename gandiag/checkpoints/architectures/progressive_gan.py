"""The progressive GAN in the layout of pytorch_GAN_zoo, with the settings that its checkpoints store.

Karras et al. 2018, "Progressive Growing of GANs", section 4 and table 2: z and every feature map are normalized per
pixel, nearest-neighbor upsampling, two 3x3 convolutions per resolution, a 1x1 convolution to colors; weights are kept
at unit variance and scaled by He's constant when used. Specific to this library: the constant scales the bias too, z is
concatenated with the one-hot attributes before it is normalized, and while a resolution fades in, alpha is the weight
of the previous one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandiag.checkpoints.architectures.assumptions import (
    NORMALIZED_LATENT,
    assume_image,
    assume_latent,
    assume_resolution,
    format_shape,
)
from gandiag.checkpoints.architectures.base import RebuiltGenerator, load_strict, require_shape
from gandiag.checkpoints.architectures.shape_check import check_output_shape
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.interfaces import Assumption

_FAMILY = "pytorch_GAN_zoo"
_TANH_LOSSES = ("MSE", "DCGAN")  # with these the library adds a tanh; with WGANGP and Logistic it does not
_MAX_CLASSES = 1_000  # combinations of attribute values
_MAX_UPSAMPLINGS = 10


@dataclass(frozen=True, slots=True)
class ProGanConfig:
    """What the weights do not show.

    `attribute_sizes`: number of values per attribute, in the order of the one-hot parts.
    """

    negative_slope: float = 0.2
    equalized: bool = True
    alpha: float = 0.0
    use_tanh: bool = False
    attribute_sizes: tuple[int, ...] = ()


def rebuild(weights: Weights, config: AuditConfig) -> RebuiltGenerator:
    """A progressive GAN of pytorch_GAN_zoo.

    ArchitectureMismatch unless the keys are formatLayer, groupScale0, scaleLayers and toRGBLayers, each with an inner
    `module`.
    """
    tensors = weights.tensors
    if "formatLayer.module.weight" not in tensors or "toRGBLayers.0.module.weight" not in tensors:
        raise ArchitectureMismatch("")
    settings = _read_settings(weights.extra_settings.get("config"))
    gan_config = _make_config(settings, config)
    in_features = require_shape(tensors, "formatLayer.module.weight", 2)[1]
    latent_dim = in_features - sum(gan_config.attribute_sizes)
    if latent_dim < 1 or settings.get("noiseVectorDim", latent_dim) != latent_dim:
        raise ArchitectureMismatch(
            f"its first layer takes {in_features} values, but its settings give "
            f"{settings.get('noiseVectorDim', 'no')} latents and {sum(gan_config.attribute_sizes)} attribute values"
        )
    with torch.device("meta"):
        net = ProgressiveGan(tensors, gan_config)
    shape = (net.channels, net.resolution, net.resolution)
    check_output_shape(net, in_features, shape)  # latents and attributes enter as one vector
    load_strict(net, tensors)
    attributes_note = " after concatenation with the attributes" if gan_config.attribute_sizes else ""
    latent, latent_assumptions = assume_latent(
        latent_dim,
        config.prior,
        _FAMILY,
        prior_note=NORMALIZED_LATENT + attributes_note,
        file_entry="config" if "noiseVectorDim" in settings else "",
    )
    output, range_assumption = assume_image(shape, config.output_range, _FAMILY)
    classes = math.prod(gan_config.attribute_sizes) if gan_config.attribute_sizes else None
    assumptions = (
        *latent_assumptions,
        *_state_attributes(gan_config.attribute_sizes, settings.get("attribKeysOrder") or {}),
        assume_resolution(net.resolution, "nearest-neighbor upsampling"),
        *_state_settings(gan_config, settings),
        range_assumption,
    )
    return RebuiltGenerator(
        "PGAN (pytorch_GAN_zoo)", net, latent, output, classes, "index" if classes else None, assumptions
    )


def _read_settings(entry: Any) -> Mapping[str, Any]:
    """The plain attributes of the library's configuration object, which the file stores as `config`."""
    attributes = getattr(entry, "attributes", entry)
    return attributes if isinstance(attributes, Mapping) else {}


def _make_config(settings: Mapping[str, Any], config: AuditConfig) -> ProGanConfig:
    slope, alpha, equalized = (settings.get(name) for name in ("leakyReluLeak", "alpha", "equalizedlR"))
    sizes = _read_attribute_sizes(settings.get("attribKeysOrder"))
    if not sizes and config.classes is not None:
        sizes = (config.classes,)
    if math.prod(sizes) > _MAX_CLASSES:
        raise LoadError(
            f"the generator takes {len(sizes)} attributes of {', '.join(map(str, sizes))} values: "
            f"{math.prod(sizes):,} classes, more than gandiag audits",
            "audit a folder of its samples",
        )
    return ProGanConfig(
        negative_slope=float(slope) if isinstance(slope, (int, float)) and 0 <= slope < 1 else 0.2,
        equalized=equalized if isinstance(equalized, bool) else True,
        alpha=float(alpha) if isinstance(alpha, (int, float)) and 0 <= alpha <= 1 else 0.0,
        use_tanh=settings.get("lossCriterion") in _TANH_LOSSES,
        attribute_sizes=sizes,
    )


def _read_attribute_sizes(entry: Any) -> tuple[int, ...]:
    """{"Gender": {"order": 0, "values": ["M", "W"]}, …}: the number of values of each attribute, by order.

    ArchitectureMismatch for a non-empty mapping of another form.
    """
    if not isinstance(entry, Mapping) or not entry:
        return ()
    attributes = [(row.get("order"), row.get("values")) for row in entry.values() if isinstance(row, Mapping)]
    sizes = {
        order: len(values)
        for order, values in attributes
        if isinstance(order, int) and isinstance(values, (list, tuple, set, Mapping))
    }
    if sorted(sizes) != list(range(len(entry))) or not all(sizes.values()):
        raise ArchitectureMismatch("its attributes (attribKeysOrder) do not state how many values each has")
    return tuple(sizes[order] for order in sorted(sizes))


def _state_attributes(sizes: tuple[int, ...], attributes: Mapping[str, Any]) -> tuple[Assumption, ...]:
    """The classes, which are combinations of attribute values; nothing for an unconditional generator."""
    if not sizes:
        return ()
    encoding = "concatenated after z as one-hot vectors"
    if not attributes:
        return (Assumption("classes", math.prod(sizes), "flag", note=encoding),)
    names = ", ".join(sorted(map(str, attributes), key=lambda name: attributes[name]["order"]))
    note = f"{format_shape(sizes)} values of {names}; {encoding}"
    return (Assumption("classes", math.prod(sizes), "file", "config", note=note),)


def _state_settings(gan_config: ProGanConfig, settings: Mapping[str, Any]) -> tuple[Assumption, ...]:
    def state(setting: str, value: Any, stored_name: str, note: str) -> Assumption:
        source, origin = ("file", "config") if stored_name in settings else ("family", _FAMILY)
        return Assumption(setting, value, source, origin, note=note)

    fade_note = "weight of the previous resolution: the last one was still fading in"
    loss = settings.get("lossCriterion")
    return (
        state("alpha", gan_config.alpha, "alpha", fade_note if gan_config.alpha else "no resolution is fading in"),
        state(
            "weight_scale",
            "equalized" if gan_config.equalized else "as stored",
            "equalizedlR",
            "He's constant at run time" if gan_config.equalized else "",
        ),
        state("negative_slope", gan_config.negative_slope, "leakyReluLeak", "leaky ReLU"),
        state(
            "final_activation",
            "tanh" if gan_config.use_tanh else None,
            "lossCriterion",
            "as with WGAN-GP" if loss is None else f"loss {loss}",
        ),
    )


class ProgressiveGan(nn.Module):
    """formatLayer, groupScale0, scaleLayers, toRGBLayers: the names of the file."""

    def __init__(self, tensors: Mapping[str, Tensor], config: ProGanConfig) -> None:
        super().__init__()
        self.config = config
        features, in_features = require_shape(tensors, "formatLayer.module.weight", 2)
        self.formatLayer = EqualizedLayer(nn.Linear(in_features, features), config.equalized)
        n_upsamplings = _count_indices(tensors, "scaleLayers.")
        if features % 16 or n_upsamplings > _MAX_UPSAMPLINGS:
            raise ArchitectureMismatch(
                f"formatLayer has {features} outputs, followed by {n_upsamplings} scaleLayers: no known image size"
            )
        self.resolution = 4 * 2**n_upsamplings
        self.groupScale0 = _make_convs(tensors, "groupScale0.", config)
        self.scaleLayers = nn.ModuleList(
            _make_convs(tensors, f"scaleLayers.{index}.", config) for index in range(n_upsamplings)
        )
        self.toRGBLayers = _make_convs(tensors, "toRGBLayers.", config)
        if len(self.toRGBLayers) != n_upsamplings + 1:
            raise ArchitectureMismatch(
                f"it has {len(self.toRGBLayers)} toRGBLayers for {n_upsamplings + 1} resolutions"
            )
        self.channels = require_shape(tensors, f"toRGBLayers.{n_upsamplings}.module.weight", 4)[0]

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        x = _normalize_pixels(z if labels is None else torch.cat([z, self._encode_labels(labels).to(z)], 1))
        x = F.leaky_relu(self.formatLayer(x), self.config.negative_slope).view(len(z), -1, 4, 4)
        x = self._apply_convs(self.groupScale0, _normalize_pixels(x))
        previous = x
        for layers in self.scaleLayers:
            previous = x
            x = self._apply_convs(layers, F.interpolate(x, scale_factor=2, mode="nearest"))
        out: Tensor = self.toRGBLayers[-1](x)
        if self.config.alpha > 0 and len(self.scaleLayers):
            coarse = F.interpolate(self.toRGBLayers[-2](previous), scale_factor=2, mode="nearest")
            out = self.config.alpha * coarse + (1 - self.config.alpha) * out
        return out.tanh() if self.config.use_tanh else out  # (B, C, H, W)

    def _apply_convs(self, layers: nn.Module, x: Tensor) -> Tensor:
        for layer in layers.children():
            x = _normalize_pixels(F.leaky_relu(layer(x), self.config.negative_slope))
        return x

    def _encode_labels(self, labels: Tensor) -> Tensor:
        """A class is a combination of attribute values, the last attribute varying fastest: (B,) to (B, all values)."""
        parts = []
        for size in reversed(self.config.attribute_sizes):
            parts.append(F.one_hot(labels % size, size))
            labels = labels // size
        return torch.cat(parts[::-1], 1)


class EqualizedLayer(nn.Module):
    """A layer whose output, bias included, is scaled by He's constant (2 / inputs)^1/2."""

    def __init__(self, layer: nn.Conv2d | nn.Linear, equalized: bool) -> None:
        super().__init__()
        self.module = layer
        self.gain = math.sqrt(2 / layer.weight[0].numel()) if equalized else 1.0

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.module(x) * self.gain
        return out


def _make_convs(tensors: Mapping[str, Tensor], prefix: str, config: ProGanConfig) -> nn.ModuleList:
    """<prefix>0.module, <prefix>1.module, …"""
    convs = []
    for index in range(_count_indices(tensors, prefix)):
        out_channels, in_channels, size, _ = require_shape(tensors, f"{prefix}{index}.module.weight", 4)
        conv = nn.Conv2d(in_channels, out_channels, size, padding=size // 2)
        convs.append(EqualizedLayer(conv, config.equalized))
    return nn.ModuleList(convs)


def _count_indices(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """One more than the largest <n> in keys <prefix><n>.*; 0 without such keys."""
    pattern = re.compile(re.escape(prefix) + r"(\d{1,3})\.")
    return 1 + max((int(match[1]) for name in tensors if (match := pattern.match(name))), default=-1)


def _normalize_pixels(x: Tensor) -> Tensor:
    """The channels of every pixel to mean square 1."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()
