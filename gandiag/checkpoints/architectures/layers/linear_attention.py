"""Attention of linear cost in the number of pixels, and the feed-forward layer behind it, as in stylegan2-pytorch.

Shen et al. 2018, "Efficient Attention: Attention with Linear Complexities", eq. 4: softmax over channels for queries
and over positions for keys, so that keys and values are combined first. Specific to this package: heads of 64 channels,
layer norm over channels before, GELU after, keys and values from a depthwise 3x3 convolution.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandiag.checkpoints.architectures.base import require_shape
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch

HEAD_DIM = 64
_EPS = 1e-5


class AttentionBlock(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x)); children "0" and "1", each with `fn.norm` and `fn.fn`."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__()
        channels = require_shape(tensors, f"{prefix}.0.fn.norm.g", 4)[1]
        inner = require_attention_channels(tensors, f"{prefix}.0.fn.fn.to_q.weight", prefix)
        hidden = require_shape(tensors, f"{prefix}.1.fn.fn.0.weight", 4)[0]
        feed_forward = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.LeakyReLU(0.2), nn.Conv2d(hidden, channels, 1))
        self.add_module("0", _Residual(channels, LinearAttention(channels, inner)))
        self.add_module("1", _Residual(channels, feed_forward))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.children():
            x = layer(x)
        return x


def require_attention_channels(tensors: Mapping[str, Tensor], query_weight: str, prefix: str) -> int:
    """Channels of queries, keys and values; ArchitectureMismatch unless they form heads of 64."""
    inner = require_shape(tensors, query_weight, 4)[0]
    if inner % HEAD_DIM:
        raise ArchitectureMismatch(
            f"the attention of {prefix} has {inner} channels, which is not a multiple of its head size {HEAD_DIM}"
        )
    return inner


class _Residual(nn.Module):
    def __init__(self, channels: int, layer: nn.Module) -> None:
        super().__init__()
        self.fn = PreNorm(channels, layer)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.fn(x)
        return out


class PreNorm(nn.Module):
    """A layer with a norm over the channels before it."""

    def __init__(self, channels: int, layer: nn.Module) -> None:
        super().__init__()
        self.fn, self.norm = layer, ChannelNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fn(self.norm(x))
        return out


class ChannelNorm(nn.Module):
    """Mean 0 and variance 1 over the channels of every pixel, then gain and bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.g, self.b = (nn.Parameter(torch.empty(1, channels, 1, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        var, mean = torch.var_mean(x, 1, unbiased=False, keepdim=True)
        return (x - mean) / (var + _EPS).sqrt() * self.g + self.b


class LinearAttention(nn.Module):
    """Linear attention with a depthwise convolution before keys and values and GELU before the output convolution."""

    def __init__(self, channels: int, inner_channels: int) -> None:
        super().__init__()
        self.to_q = nn.Conv2d(channels, inner_channels, 1, bias=False)
        self.to_kv = DepthwiseSeparableConv(channels, 2 * inner_channels)
        self.to_out = nn.Conv2d(inner_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.to_out(F.gelu(linear_attention(self.to_q(x), self.to_kv(x))))
        return out


class DepthwiseSeparableConv(nn.Module):
    """A depthwise 3x3 convolution and a 1x1 convolution, both without bias, under the name `net`."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            nn.Conv2d(channels, out_channels, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


def linear_attention(queries: Tensor, keys_values: Tensor) -> Tensor:
    """Equation 4, head by head: queries (B, C, H, W), keys and values concatenated (B, 2 C, H, W), to (B, C, H, W)."""
    q, k, v = (split_heads(part) for part in (queries, *keys_values.chunk(2, 1)))
    context = torch.einsum("bhdn,bhen->bhde", k.softmax(-1), v)
    return merge_heads(torch.einsum("bhde,bhdn->bhen", context, q.softmax(2) * HEAD_DIM**-0.5), queries)


def split_heads(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, heads, 64, HW)."""
    return x.reshape(len(x), -1, HEAD_DIM, x.shape[2] * x.shape[3])


def merge_heads(values: Tensor, like: Tensor) -> Tensor:
    """(B, heads, 64, HW) to (B, C, H, W), with H and W of `like`."""
    return values.reshape(len(like), -1, *like.shape[2:])
