"""The progressive GAN in the layout of pytorch_GAN_zoo, with what its checkpoints say of themselves.

Karras et al. 2018, "Progressive Growing of GANs", section 4 and table 2: z and every feature map are normalised per pixel,
nearest-neighbour doubling, two 3x3 convolutions a scale, a 1x1 convolution to colours; weights are kept at unit variance and
scaled by He's constant where they are used. This library's ways: the constant scales the bias too, z is joined to the one-hot
attributes before it is normalised, and while a scale fades in, alpha is the share of the scale before it.
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

from gandiag.checkpoints.architectures.base import RebuiltGenerator, load_strict, require_shape
from gandiag.checkpoints.architectures.shape_check import check_output_shape
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.interfaces import Assumption, LatentSpec, OutputSpec

_FAMILY, _FILE = "family (pytorch_GAN_zoo)", "file (config)"
_TANH = ("MSE", "DCGAN")  # losses behind which the library puts a tanh; WGANGP and Logistic have none
_MOST = 1_000  # combinations of attribute values


@dataclass(frozen=True, slots=True)
class ProGanConfig:
    """What the weights do not show. `attributes`: how many values each attribute has, in the order of the one-hot parts."""

    negative_slope: float = 0.2
    equalized: bool = True
    alpha: float = 0.0
    use_tanh: bool = False
    attribute_sizes: tuple[int, ...] = ()


def rebuild(weights: Weights, config: AuditConfig) -> RebuiltGenerator:
    """NotThis unless the keys are formatLayer, groupScale0, scaleLayers and toRGBLayers, each with an inner `module`."""
    tensors = weights.tensors
    if "formatLayer.module.weight" not in tensors or "toRGBLayers.0.module.weight" not in tensors:
        raise ArchitectureMismatch("")
    told = _told(weights.extra_settings.get("config"))
    setup = _setup(told, config)
    inputs = require_shape(tensors, "formatLayer.module.weight", 2)[1]
    dim = inputs - sum(setup.attribute_sizes)
    if dim < 1 or told.get("noiseVectorDim", dim) != dim:
        settings = f"{told.get('noiseVectorDim')} latents and {sum(setup.attribute_sizes)} attribute values"
        raise ArchitectureMismatch(f"its first layer takes {inputs} values, its settings say {settings}")
    with torch.device("meta"):
        net = ProgressiveGan(tensors, setup)
    check_output_shape(
        net, inputs, (net.channels, net.resolution, net.resolution)
    )  # latents and attributes enter as one vector
    load_strict(net, tensors)
    prior, prior_source = (config.prior, "flag") if config.prior else ("normal", _FAMILY)
    joined = " (joined to the attributes before)" if setup.attribute_sizes else ""
    span, span_source = (config.output_range, "flag") if config.output_range else ((-1.0, 1.0), _FAMILY)
    output = OutputSpec("image", (net.channels, net.resolution, net.resolution), (span[0], span[1]))
    classes = math.prod(setup.attribute_sizes) if setup.attribute_sizes else None
    said = (
        Assumption(
            "latent size (--latent-dim)", str(dim), "file (config), shapes" if "noiseVectorDim" in told else "shapes"
        ),
        Assumption(
            "latent prior (--prior)",
            f"{prior}, of which only the direction matters: z is normalised{joined}",
            prior_source,
        ),
        *_said(setup, told, net),
        Assumption("output range (--output-range)", f"[{span[0]:g}, {span[1]:g}]", span_source),
    )
    return RebuiltGenerator(
        "PGAN (pytorch_GAN_zoo)", net, LatentSpec(dim, prior), output, classes, "index" if classes else None, said
    )  # type: ignore[arg-type]


def _told(entry: Any) -> Mapping[str, Any]:
    """The library's configuration object among the file's entries: its plain attributes."""
    found = getattr(entry, "attributes", entry)
    return found if isinstance(found, Mapping) else {}


def _setup(told: Mapping[str, Any], config: AuditConfig) -> ProGanConfig:
    leak, alpha, equalised, loss = (
        told.get(name) for name in ("leakyReluLeak", "alpha", "equalizedlR", "lossCriterion")
    )
    attributes = _attributes(told.get("attribKeysOrder"))
    if not attributes and config.classes is not None:
        attributes = (config.classes,)
    if math.prod(attributes) > _MOST:
        what = f"the generator takes {len(attributes)} attributes of {', '.join(map(str, attributes))} values: {math.prod(attributes):,} classes"
        raise LoadError(f"{what}, more than gandiag audits", "audit a folder of its samples")
    return ProGanConfig(
        float(leak) if isinstance(leak, (int, float)) and 0 <= leak < 1 else 0.2,
        equalised if isinstance(equalised, bool) else True,
        float(alpha) if isinstance(alpha, (int, float)) and 0 <= alpha <= 1 else 0.0,
        loss in _TANH,
        attributes,
    )


def _attributes(entry: Any) -> tuple[int, ...]:
    """{"Gender": {"order": 0, "values": ["M", "W"]}, …}: how many values each has, by order. NotThis for anything else."""
    if not isinstance(entry, Mapping) or not entry:
        return ()
    rows = [(part.get("order"), part.get("values")) for part in entry.values() if isinstance(part, Mapping)]
    counts = {
        order: len(values)
        for order, values in rows
        if isinstance(order, int) and isinstance(values, (list, tuple, set, Mapping))
    }
    if sorted(counts) != list(range(len(entry))) or not all(counts.values()):
        raise ArchitectureMismatch("its attributes (attribKeysOrder) do not say how many values each has")
    return tuple(counts[order] for order in sorted(counts))


def _said(setup: ProGanConfig, told: Mapping[str, Any], net: ProgressiveGan) -> tuple[Assumption, ...]:
    def source(name: str) -> str:
        return _FILE if name in told else _FAMILY

    attributes = told.get("attribKeysOrder") or {}
    named = (
        f", of {', '.join(sorted(map(str, attributes), key=lambda name: attributes[name]['order']))}"
        if attributes
        else ""
    )
    sizes = "x".join(map(str, setup.attribute_sizes))
    blend = (
        "0: no scale is fading in"
        if setup.alpha == 0
        else f"{setup.alpha:g} of the scale before the last one, which was still fading in"
    )
    final = f"{'tanh' if setup.use_tanh else 'none'} ({'loss ' + str(told['lossCriterion']) if 'lossCriterion' in told else 'as with WGAN-GP'})"
    return (
        *(
            [
                Assumption(
                    "classes (--classes)", f"{sizes}{named}, joined one-hot after z", _FILE if attributes else "flag"
                )
            ]
            if sizes
            else []
        ),
        Assumption(
            "image size (--image-size)", f"4 to {net.resolution} pixels, doubled by nearest neighbours", "shapes"
        ),
        Assumption("blending of scales (alpha)", blend, source("alpha")),
        Assumption(
            "weight scale", "He's constant at run time" if setup.equalized else "as stored", source("equalizedlR")
        ),
        Assumption("hidden activation", f"leaky:{setup.negative_slope:g}", source("leakyReluLeak")),
        Assumption("output activation", final, source("lossCriterion")),
    )


class ProgressiveGan(nn.Module):
    """formatLayer, groupScale0, scaleLayers, toRGBLayers: the names that the file has."""

    def __init__(self, tensors: Mapping[str, Tensor], config: ProGanConfig) -> None:
        super().__init__()
        self.config = config
        flat, inputs = require_shape(tensors, "formatLayer.module.weight", 2)
        self.formatLayer = EqualizedLayer(nn.Linear(inputs, flat), config.equalized)
        scales = 1 + max(
            (int(name.split(".")[1]) for name in tensors if re.match(r"scaleLayers\.\d{1,3}\.", name)), default=-1
        )
        if flat % 16 or scales > 10:
            raise ArchitectureMismatch(
                f"formatLayer has {flat} outputs and {scales} scales follow, which make no pictures of a known size"
            )
        self.resolution = 4 * 2**scales
        self.groupScale0 = _convolutions(tensors, "groupScale0.", config)
        self.scaleLayers = nn.ModuleList(
            _convolutions(tensors, f"scaleLayers.{index}.", config) for index in range(scales)
        )
        self.toRGBLayers = _convolutions(tensors, "toRGBLayers.", config)
        if len(self.toRGBLayers) != scales + 1:
            raise ArchitectureMismatch(f"it has {len(self.toRGBLayers)} layers to colours for {scales + 1} scales")
        self.channels = require_shape(tensors, f"toRGBLayers.{scales}.module.weight", 4)[0]

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        x = _normalised(z if labels is None else torch.cat([z, self._onehot(labels).to(z)], 1))
        x = _normalised(F.leaky_relu(self.formatLayer(x), self.config.negative_slope).view(len(z), -1, 4, 4))
        x = self._scale(self.groupScale0, x)
        before = x
        for layers in self.scaleLayers:
            before = x
            x = self._scale(layers, F.interpolate(x, scale_factor=2, mode="nearest"))
        out: Tensor = self.toRGBLayers[-1](x)
        if self.config.alpha > 0 and len(self.scaleLayers):
            coarse = F.interpolate(self.toRGBLayers[-2](before), scale_factor=2, mode="nearest")
            out = self.config.alpha * coarse + (1 - self.config.alpha) * out
        return out.tanh() if self.config.use_tanh else out  # (B, C, side, side)

    def _scale(self, layers: nn.Module, x: Tensor) -> Tensor:
        for layer in layers.children():
            x = _normalised(F.leaky_relu(layer(x), self.config.negative_slope))
        return x

    def _onehot(self, labels: Tensor) -> Tensor:
        """A class is a combination of attribute values, the last attribute counting fastest: (B,) to (B, all values)."""
        parts = []
        for size in reversed(self.config.attribute_sizes):
            parts.append(F.one_hot(labels % size, size))
            labels = labels // size
        return torch.cat(parts[::-1], 1)


class EqualizedLayer(nn.Module):
    """A layer whose result, bias and all, is scaled by He's constant (2 / inputs)^1/2."""

    def __init__(self, layer: nn.Conv2d | nn.Linear, equalized: bool) -> None:
        super().__init__()
        self.module = layer
        self.gain = math.sqrt(2 / layer.weight[0].numel()) if equalized else 1.0

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.module(x) * self.gain
        return out


def _convolutions(tensors: Mapping[str, Tensor], path: str, setup: ProGanConfig) -> nn.ModuleList:
    """path0.module, path1.module, …"""
    count = 1 + max(
        (int(found[1]) for name in tensors if (found := re.match(re.escape(path) + r"(\d{1,3})\.", name))), default=-1
    )
    made = []
    for index in range(count):
        out, into, size, _ = require_shape(tensors, f"{path}{index}.module.weight", 4)
        made.append(EqualizedLayer(nn.Conv2d(into, out, size, padding=size // 2), setup.equalized))
    return nn.ModuleList(made)


def _normalised(x: Tensor) -> Tensor:
    """Every pixel's channels to mean square 1."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()
