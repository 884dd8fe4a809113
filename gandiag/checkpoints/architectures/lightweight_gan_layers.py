"""Layers of lightweight-gan: its upsampling, its two kinds of excitation, and its attention."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandiag.checkpoints.architectures.base import require_shape
from gandiag.checkpoints.architectures.layers.linear_attention import (
    HEAD_DIM,
    linear_attention,
    merge_heads,
    split_heads,
)
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch

_WINDOW = 3


class PixelShuffleUpsample(nn.Module):
    """A 1x1 convolution to four times the channels, SiLU, and each four of them as two by two pixels."""

    def __init__(self, out_channels: int, in_channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1), nn.SiLU(), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


class SamePadConv2d(nn.Sequential):
    """A convolution of even size that keeps the side: one more zero before than behind."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        before = kernel_size // 2
        behind = before - 1 if kernel_size % 2 == 0 else before
        super().__init__(
            nn.ZeroPad2d((before, behind, before, behind)), nn.Conv2d(in_channels, out_channels, kernel_size)
        )


def _gate(tensors: Mapping[str, Tensor], path: str) -> nn.Sequential:
    """Two 1x1 convolutions with leaky ReLU 0.1 between them, to factors in (0, 1)."""
    (hidden, into), out = (
        require_shape(tensors, f"{path}net.0.weight", 4)[:2],
        require_shape(tensors, f"{path}net.2.weight", 4)[0],
    )
    return nn.Sequential(nn.Conv2d(into, hidden, 1), nn.LeakyReLU(0.1), nn.Conv2d(hidden, out, 1), nn.Sigmoid())


class GlobalContext(nn.Module):
    """Global context: pixels weighted by one attention map, to a factor for every channel of a later layer."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__()
        self.to_k = nn.Conv2d(require_shape(tensors, f"{prefix}to_k.weight", 4)[1], 1, 1)
        self.net = _gate(tensors, prefix)

    def forward(self, x: Tensor) -> Tensor:
        share = self.to_k(x).flatten(2).softmax(-1)  # (B, 1, HW)
        out: Tensor = self.net((x.flatten(2) * share).sum(-1)[:, :, None, None])  # (B, C', 1, 1)
        return out


class FrequencyChannelAttention(nn.Module):
    """Frequency channel attention: each channel's coefficient of one cosine, by weights that the file stores."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__()
        shape = require_shape(tensors, f"{prefix}dct_weights", 4)
        if shape[0] != 1 or shape[2] != shape[3]:
            raise ArchitectureMismatch(f"{prefix}dct_weights is {shape}")
        self.register_buffer("dct_weights", torch.empty(shape))
        self.net = _gate(tensors, prefix)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net((x * self.get_buffer("dct_weights")).sum((2, 3), keepdim=True))  # (B, C', 1, 1)
        return out


class LocalAndLinearAttention(nn.Module):
    """Linear attention over all pixels (Shen et al. 2018), and full attention of each pixel to its 3x3 neighbours, side by side."""

    def __init__(self, channels: int, inner_channels: int) -> None:
        super().__init__()
        self.to_lin_q = nn.Conv2d(channels, inner_channels, 1, bias=False)
        self.to_lin_kv = nn.Module()
        depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.to_lin_kv.net = nn.Sequential(depthwise, nn.Conv2d(channels, 2 * inner_channels, 1, bias=False))
        self.to_q = nn.Conv2d(channels, inner_channels, 1, bias=False)
        self.to_kv = nn.Conv2d(channels, 2 * inner_channels, 1, bias=False)
        self.to_out = nn.Conv2d(2 * inner_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        keys_values: Tensor = self.to_lin_kv.net(x)  # type: ignore[operator]
        out: Tensor = self.to_out(
            torch.cat([F.gelu(linear_attention(self.to_lin_q(x), keys_values)), self._nearby(x)], 1)
        )
        return out

    def _nearby(self, x: Tensor) -> Tensor:
        """Zeros beyond the border take their share of attention too. One neighbour at a time: nine maps at once are many gigabytes."""
        q = split_heads(self.to_q(x)) * HEAD_DIM**-0.5  # (B, heads, 64, HW)
        keys, values = (F.pad(part, (1, 1, 1, 1)) for part in self.to_kv(x).chunk(2, 1))
        places = [(slice(i, i + x.shape[2]), slice(j, j + x.shape[3])) for i in range(_WINDOW) for j in range(_WINDOW)]
        share = torch.stack([(q * split_heads(keys[:, :, rows, columns])).sum(2) for rows, columns in places]).softmax(
            0
        )  # (9, B, heads, HW)
        out = torch.zeros_like(q)
        for part, (rows, columns) in zip(share, places, strict=True):
            out += part[:, :, None] * split_heads(values[:, :, rows, columns])
        return merge_heads(out, x)
