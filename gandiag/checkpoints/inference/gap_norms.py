"""Layers without weights, which leave no trace in a state dict, as hypotheses for the gaps in it.

Norms, pooling and upsampling. The same kind is assumed in every gap that may hold one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandiag.config import HIDDEN_NORMS

# "-after": after the activation, as progressive GANs place it; the other norms come before it, pooling after it.
VECTOR_GAP_LAYERS = ("none", "layer", "pixel", "pixel-after", "layer-after")
IMAGE_GAP_LAYERS = HIDDEN_NORMS
RESIZING_LAYERS = ("avg-pool", "max-pool", "upsample")  # halve or double the maps
_EPS = 1e-8  # of PixelNorm (Karras et al. 2018)


class PixelNorm(nn.Module):
    """Divides the channels of (B, C, …) by their root mean square."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(1, keepdim=True) + _EPS)


class FixedLayerNorm(nn.Module):
    """LayerNorm over everything but the batch axis, without weights."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[1:])


class FixedInstanceNorm(nn.Module):
    """InstanceNorm of images, without weights; vectors and single pixels pass unchanged."""

    def forward(self, x: Tensor) -> Tensor:
        return F.instance_norm(x) if x.ndim == 4 and x.shape[2] * x.shape[3] > 1 else x


class Resize(nn.Module):
    """Halves the sides of maps by average or maximum pooling, or doubles them; vectors and single pixels pass."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[-1] < 2:
            return x
        if self.mode == "upsample":
            return F.interpolate(x, scale_factor=2)
        return F.avg_pool2d(x, 2) if self.mode == "avg-pool" else F.max_pool2d(x, 2)

    def extra_repr(self) -> str:
        """The mode."""
        return self.mode


def make_gap_norm(norm: str, position: str) -> nn.Module:
    """The module at a gap's "before" or "after" (the activation): identity unless the layer's place is there."""
    name, _, place = norm.partition("-")
    if norm in RESIZING_LAYERS:
        return Resize(norm) if position == "after" else nn.Identity()
    if (place or "before") != position:
        return nn.Identity()
    return {"instance": FixedInstanceNorm, "pixel": PixelNorm, "layer": FixedLayerNorm}.get(name, nn.Identity)()


def set_norm_groups(norm: nn.Module, name: str) -> None:
    """Let a GroupNorm be another norm with its gain and bias: "instance", "layer" or "group:N"."""
    assert isinstance(norm, nn.GroupNorm)
    kind, _, number = name.partition(":")
    norm.num_groups = {"layer": 1, "group": int(number or 1)}.get(kind, norm.num_channels)
