"""BigGAN-deep in the layout of the package pytorch-pretrained-biggan.

Brock et al. 2019, "Large Scale GAN Training for High Fidelity Natural Image Synthesis", appendix B: z joined to the class
embedding, bottleneck blocks whose norms take gain and bias from both, attention, tanh. Statistics of batch norm are stored
for 51 truncations; truncation 1 is used. Which blocks double the side is in config.json; without it, every second one.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandiag.checkpoints.architectures.base import RebuiltGenerator, load_strict, require_shape
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.state_dict import Weights
from gandiag.config import AuditConfig
from gandiag.interfaces import Assumption, LatentSpec, OutputSpec

_EPS = 1e-4
_BLOCK = (("bn_0", "conv_0"), ("bn_1", "conv_1"), ("bn_2", "conv_2"), ("bn_3", "conv_3"))


def rebuild(weights: Weights, config: AuditConfig) -> RebuiltGenerator:
    """NotThis unless the keys are embeddings, generator.gen_z, generator.layers.*; config.json beside the file is used."""
    tensors = weights.tensors
    if "embeddings.weight" not in tensors or "generator.gen_z.weight" not in tensors:
        raise ArchitectureMismatch("")
    embedded, classes = require_shape(tensors, "embeddings.weight", 2)
    dim = require_shape(tensors, "generator.gen_z.weight", 2)[1] - embedded
    count = 1 + max(int(name.split(".")[2]) for name in tensors if name.startswith("generator.layers."))
    blocks = [index for index in range(count) if f"generator.layers.{index}.bn_0.running_means" in tensors]
    told = weights.extra_settings.get("layers")
    rows = told if isinstance(told, list) and len(told) == len(blocks) else []
    known = bool(rows) and all(isinstance(entry, list) and len(entry) == 3 for entry in rows)
    doubled = [bool(entry[0]) for entry in rows] if known else [place % 2 == 1 for place in range(len(blocks))]
    given = weights.extra_settings.get("eps")
    stated = float(given) if isinstance(given, (int, float)) and 0 < given < 1 else None
    eps = _EPS if stated is None else stated
    with torch.device("meta"):
        net = BigGanDeep(tensors, dict(zip(blocks, doubled, strict=True)), eps)
    load_strict(net, tensors)
    side = 4 * 2 ** sum(doubled)
    places = ", ".join(str(index) for index, up in zip(blocks, doubled, strict=True) if up)
    source = "file (config.json)" if known else "family (BigGAN-deep)"
    said = (
        Assumption("latent size (--latent-dim)", str(dim), "shapes"),
        Assumption("latent prior (--prior)", "normal cut at 2", "family (BigGAN-deep)"),
        Assumption("classes (--classes)", f"{classes}, as one-hot vectors", "shapes"),
        Assumption("truncation", "1: the last of the stored statistics", "family (BigGAN-deep)"),
        Assumption(
            "batch-norm eps (--bn-eps)", f"{eps:g}", "family (BigGAN-deep)" if stated is None else "file (config.json)"
        ),
        Assumption("upsampling (--image-size)", f"4 to {side} pixels, in blocks {places}", source),
    )
    return RebuiltGenerator(
        "BigGAN-deep",
        net,
        LatentSpec(dim, "truncated"),
        OutputSpec("image", (3, side, side), (-1.0, 1.0)),
        classes,
        "onehot",
        said,
    )


class BigGanDeep(nn.Module):
    def __init__(self, tensors: Mapping[str, Tensor], upsample_by_block: Mapping[int, bool], eps: float) -> None:
        super().__init__()
        self.embeddings = _linear(tensors, "embeddings")
        self.generator = Generator(tensors, upsample_by_block, eps)

    def forward(self, z: Tensor, onehot: Tensor) -> Tensor:
        out: Tensor = self.generator(torch.cat([z, self.embeddings(onehot)], 1))
        return out


class Generator(nn.Module):
    def __init__(self, tensors: Mapping[str, Tensor], upsample_by_block: Mapping[int, bool], eps: float) -> None:
        super().__init__()
        self.gen_z = _linear(tensors, "generator.gen_z")
        heads = [f"generator.layers.{index}" for index in range(max(upsample_by_block) + 1)]
        self.layers = nn.ModuleList(
            BottleneckBlock(tensors, head, upsample=upsample_by_block[index], eps=eps)
            if index in upsample_by_block
            else SelfAttention(tensors, head)
            for index, head in enumerate(heads)
        )
        self.bn = ConditionalBatchNorm(tensors, "generator.bn", eps)
        self.conv_to_rgb = _conv(tensors, "generator.conv_to_rgb")

    def forward(self, conditioning: Tensor) -> Tensor:
        x = self.gen_z(conditioning)
        x = x.view(len(x), 4, 4, -1).permute(0, 3, 1, 2)  # channels last, as in the original
        for layer in self.layers:
            x = layer(x, conditioning)
        x = self.conv_to_rgb(F.relu(self.bn(x, conditioning)))
        return torch.tanh(x[:, :3])


class BottleneckBlock(nn.Module):
    """1x1, 3x3, 3x3, 1x1, with the first half of the channels on the shortcut where they are halved."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str, *, upsample: bool, eps: float) -> None:
        super().__init__()
        self.upsample = upsample
        for norm, conv in _BLOCK:
            setattr(self, norm, ConditionalBatchNorm(tensors, f"{prefix}.{norm}", eps))
            setattr(self, conv, _conv(tensors, f"{prefix}.{conv}"))

    def forward(self, x: Tensor, conditioning: Tensor) -> Tensor:
        y = x
        for place, (norm, conv) in enumerate(_BLOCK):
            y = F.relu(getattr(self, norm)(y, conditioning))
            y = F.interpolate(y, scale_factor=2) if self.upsample and place == 1 else y
            y = getattr(self, conv)(y)
        x = x[:, : y.shape[1]]
        return y + (F.interpolate(x, scale_factor=2) if self.upsample else x)


class ConditionalBatchNorm(nn.Module):
    """Batch norm with the statistics of truncation 1; gain 1 + scale(z, class) and bias from the same, or plain ones."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str, eps: float) -> None:
        super().__init__()
        shape = require_shape(tensors, f"{prefix}.running_means", 2)
        self.eps = eps
        self.register_buffer("running_means", torch.empty(shape))
        self.register_buffer("running_vars", torch.empty(shape))
        if f"{prefix}.scale.weight" in tensors:
            self.scale, self.offset = _linear(tensors, f"{prefix}.scale"), _linear(tensors, f"{prefix}.offset")
        else:
            self.weight, self.bias = nn.Parameter(torch.empty(shape[1])), nn.Parameter(torch.empty(shape[1]))

    def forward(self, x: Tensor, conditioning: Tensor) -> Tensor:
        mean, var = self.get_buffer("running_means")[-1], self.get_buffer("running_vars")[-1]
        if not hasattr(self, "scale"):
            return F.batch_norm(x, mean, var, self.weight, self.bias, False, 0.0, self.eps)
        gain, bias = 1 + self.scale(conditioning)[:, :, None, None], self.offset(conditioning)[:, :, None, None]
        out: Tensor = (x - mean[:, None, None]) / (var[:, None, None] + self.eps).sqrt() * gain + bias
        return out


class SelfAttention(nn.Module):
    """SAGAN's, with keys and values at half the side."""

    snconv1x1_theta: nn.Module
    snconv1x1_phi: nn.Module
    snconv1x1_g: nn.Module
    snconv1x1_o_conv: nn.Module

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__()
        for name in ("theta", "phi", "g", "o_conv"):
            setattr(self, f"snconv1x1_{name}", _conv(tensors, f"{prefix}.snconv1x1_{name}"))
        self.gamma = nn.Parameter(torch.empty(require_shape(tensors, f"{prefix}.gamma", 1)))

    def forward(self, x: Tensor, conditioning: Tensor) -> Tensor:
        query = self.snconv1x1_theta(x).flatten(2)
        key, value = (F.max_pool2d(part(x), 2).flatten(2) for part in (self.snconv1x1_phi, self.snconv1x1_g))
        weights = torch.bmm(query.transpose(1, 2), key).softmax(-1)
        seen = torch.bmm(value, weights.transpose(1, 2)).view(len(x), -1, *x.shape[2:])
        out: Tensor = x + self.gamma * self.snconv1x1_o_conv(seen)
        return out


def _linear(tensors: Mapping[str, Tensor], path: str) -> nn.Linear:
    out, into = require_shape(tensors, f"{path}.weight", 2)
    return nn.Linear(into, out, bias=f"{path}.bias" in tensors)


def _conv(tensors: Mapping[str, Tensor], path: str) -> nn.Conv2d:
    out, into, kernel, _ = require_shape(tensors, f"{path}.weight", 4)
    return nn.Conv2d(into, out, kernel, padding=kernel // 2, bias=f"{path}.bias" in tensors)
