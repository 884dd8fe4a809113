"""Self-attention over feature maps, shared by SAGAN, the BigGAN line, mimicry and StudioGAN.

Zhang et al. 2019, "Self-Attention Generative Adversarial Networks", equations 1 to 3: each position is weighted by the
softmax of the unscaled dot products of queries and keys. Brock et al. 2019 (BigGAN) max-pool keys and values to half
the resolution and map the result back to all channels by a fourth 1x1 convolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandiag.checkpoints.architectures.layers.factory import make_conv
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch


class AttentionNames(NamedTuple):
    """What a library calls the four 1x1 convolutions; `output` is empty where it has none."""

    query: str
    key: str
    value: str
    output: str = ""


BIGGAN_NAMES = AttentionNames("theta", "phi", "g", "o")


class SelfAttention(nn.Module):
    """x + gamma * attention(x). `pool`: keys and values at half the resolution, as BigGAN has it."""

    def __init__(
        self, tensors: Mapping[str, Tensor], prefix: str, names: AttentionNames = BIGGAN_NAMES, *, pool: bool = True
    ) -> None:
        super().__init__()
        self.names, self.pool = names, pool
        for name in names:
            if name:
                self.add_module(name, make_conv(tensors, f"{prefix}.{name}"))
        gamma = tensors.get(f"{prefix}.gamma")
        if gamma is None or gamma.numel() == 0:
            raise ArchitectureMismatch(f"{prefix}.gamma is {'missing' if gamma is None else tuple(gamma.shape)}")
        self.gamma = nn.Parameter(torch.empty(gamma.shape))
        self.in_channels = tensors[f"{prefix}.{names.query}.weight"].shape[1]

    def forward(self, x: Tensor, conditioning: Tensor | None = None) -> Tensor:
        """x (B, C, H, W); `conditioning` is accepted like that of the blocks around and not used."""
        query = self._project(self.names.query, x).flatten(2)  # (B, C/8, HW)
        key, value = (self._project(name, x) for name in (self.names.key, self.names.value))
        if self.pool:
            key, value = F.max_pool2d(key, 2), F.max_pool2d(value, 2)
        weights = torch.bmm(query.transpose(1, 2), key.flatten(2)).softmax(
            -1
        )  # (B, HW, HW/4), without pooling (B, HW, HW)
        attended = torch.bmm(value.flatten(2), weights.transpose(1, 2)).view(len(x), -1, *x.shape[2:])
        if self.names.output:
            attended = self._project(self.names.output, attended)
        return x + self.gamma * attended

    def _project(self, name: str, x: Tensor) -> Tensor:
        projected: Tensor = self.get_submodule(name)(x)
        return projected
