"""Layers of lightweight-gan: upsampling, the two kinds of excitation, and attention."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandiag.checkpoints.architectures.base import require_shape
from gandiag.checkpoints.architectures.layers.linear_attention import (
    HEAD_DIM,
    DepthwiseSeparableConv,
    linear_attention,
    merge_heads,
    split_heads,
)
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch

_WINDOW = 3


class PixelShuffleUpsample(nn.Module):
    """A 1x1 convolution to four times the channels, SiLU, and pixel shuffle: every four channels become 2x2 pixels."""

    def __init__(self, out_channels: int, in_channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1), nn.SiLU(), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


class SamePadConv2d(nn.Sequential):
    """A convolution of even kernel size that keeps the resolution: one more row of zeros before than after."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        before = kernel_size // 2
        after = before - 1 if kernel_size % 2 == 0 else before
        padding = nn.ZeroPad2d((before, after, before, after))
        super().__init__(padding, nn.Conv2d(in_channels, out_channels, kernel_size))


def _make_gate(tensors: Mapping[str, Tensor], prefix: str) -> nn.Sequential:
    """Two 1x1 convolutions with leaky ReLU 0.1 between them, to factors in (0, 1)."""
    hidden, in_channels = require_shape(tensors, f"{prefix}net.0.weight", 4)[:2]
    out_channels = require_shape(tensors, f"{prefix}net.2.weight", 4)[0]
    return nn.Sequential(
        nn.Conv2d(in_channels, hidden, 1), nn.LeakyReLU(0.1), nn.Conv2d(hidden, out_channels, 1), nn.Sigmoid()
    )


class GlobalContext(nn.Module):
    """Pixels averaged by one attention map, then turned into a factor for every channel of a later layer."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__()
        self.to_k = nn.Conv2d(require_shape(tensors, f"{prefix}to_k.weight", 4)[1], 1, 1)
        self.net = _make_gate(tensors, prefix)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.to_k(x).flatten(2).softmax(-1)  # (B, 1, HW)
        out: Tensor = self.net((x.flatten(2) * weights).sum(-1)[:, :, None, None])  # (B, C', 1, 1)
        return out


class FrequencyChannelAttention(nn.Module):
    """Each channel's coefficient of one cosine basis function, whose values the file stores, turned into a factor."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__()
        shape = require_shape(tensors, f"{prefix}dct_weights", 4)
        if shape[0] != 1 or shape[2] != shape[3]:
            raise ArchitectureMismatch(f"{prefix}dct_weights is {shape}")
        self.register_buffer("dct_weights", torch.empty(shape))
        self.net = _make_gate(tensors, prefix)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net((x * self.get_buffer("dct_weights")).sum((2, 3), keepdim=True))  # (B, C', 1, 1)
        return out


class LocalAndLinearAttention(nn.Module):
    """Linear attention over all pixels (Shen et al. 2018), concatenated with attention in a 3x3 window per pixel."""

    def __init__(self, channels: int, inner_channels: int) -> None:
        super().__init__()
        self.to_lin_q = nn.Conv2d(channels, inner_channels, 1, bias=False)
        self.to_lin_kv = DepthwiseSeparableConv(channels, 2 * inner_channels)
        self.to_q = nn.Conv2d(channels, inner_channels, 1, bias=False)
        self.to_kv = nn.Conv2d(channels, 2 * inner_channels, 1, bias=False)
        self.to_out = nn.Conv2d(2 * inner_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        distant = F.gelu(linear_attention(self.to_lin_q(x), self.to_lin_kv(x)))
        out: Tensor = self.to_out(torch.cat([distant, self._attend_locally(x)], 1))
        return out

    def _attend_locally(self, x: Tensor) -> Tensor:
        """Attention in a 3x3 window; the zeros beyond the border take part in the softmax.

        One offset at a time: nine maps at once would need many gigabytes.
        """
        q = split_heads(self.to_q(x)) * HEAD_DIM**-0.5  # (B, heads, 64, HW)
        keys, values = (F.pad(part, (1, 1, 1, 1)) for part in self.to_kv(x).chunk(2, 1))
        windows = [
            (slice(row, row + x.shape[2]), slice(column, column + x.shape[3]))
            for row in range(_WINDOW)
            for column in range(_WINDOW)
        ]
        logits = [(q * split_heads(keys[:, :, rows, columns])).sum(2) for rows, columns in windows]
        weights = torch.stack(logits).softmax(0)  # (9, B, heads, HW)
        out = torch.zeros_like(q)
        for weight, (rows, columns) in zip(weights, windows, strict=True):
            out += weight[:, :, None] * split_heads(values[:, :, rows, columns])
        return merge_heads(out, x)
