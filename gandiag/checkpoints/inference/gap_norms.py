"""Normalization layers without weights, which leave no trace in a state dict, as hypotheses for the gaps in it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# "-after": after the activation, as progressive GANs place it; the others come before it.
GAP_NORMS = ("none", "instance", "pixel", "pixel-after", "layer")
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


def make_gap_norm(norm: str, position: str) -> nn.Module:
    """The module at a gap's "before" or "after" (the activation): identity unless the norm's place is there."""
    name, _, place = norm.partition("-")
    if (place or "before") != position:
        return nn.Identity()
    return {"instance": FixedInstanceNorm, "pixel": PixelNorm, "layer": FixedLayerNorm}.get(name, nn.Identity)()
