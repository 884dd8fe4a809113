"""Attention that is linear in the number of pixels, and the feed-forward layer behind it, as stylegan2-pytorch puts them between blocks.

Shen et al. 2018, "Efficient Attention: Attention with Linear Complexities", eq. 4: softmax over channels for queries and over
positions for keys, so that keys and values are joined first. This package's ways: heads of 64 channels, layer norm over
channels before, GELU behind, keys and values from a depth-wise 3x3 convolution.
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
        inner, hidden = (
            require_shape(tensors, f"{prefix}.0.fn.fn.to_q.weight", 4)[0],
            require_shape(tensors, f"{prefix}.1.fn.fn.0.weight", 4)[0],
        )
        if inner % HEAD_DIM:
            raise ArchitectureMismatch(f"{prefix} attends with {inner} channels, which are no heads of {HEAD_DIM}")
        forward = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.LeakyReLU(0.2), nn.Conv2d(hidden, channels, 1))
        for name, layer in (("0", LinearAttention(channels, inner)), ("1", forward)):
            self.add_module(name, _Residual(channels, layer))

    def forward(self, x: Tensor) -> Tensor:
        for part in self.children():
            x = part(x)
        return x


class _Residual(nn.Module):
    def __init__(self, channels: int, layer: nn.Module) -> None:
        super().__init__()
        self.fn = PreNorm(channels, layer)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.fn(x)
        return out


class PreNorm(nn.Module):
    """A layer behind a norm over the channels."""

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
    def __init__(self, channels: int, inner_channels: int) -> None:
        super().__init__()
        self.to_q = nn.Conv2d(channels, inner_channels, 1, bias=False)
        self.to_kv = nn.Module()
        self.to_kv.net = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            nn.Conv2d(channels, 2 * inner_channels, 1, bias=False),
        )
        self.to_out = nn.Conv2d(inner_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        keys_values: Tensor = self.to_kv.net(x)  # type: ignore[operator]
        out: Tensor = self.to_out(F.gelu(linear_attention(self.to_q(x), keys_values)))
        return out


def linear_attention(queries: Tensor, keys_values: Tensor) -> Tensor:
    """Equation 4, head by head: queries (B, C, H, W), keys and values side by side (B, 2 C, H, W), to (B, C, H, W)."""
    q, k, v = (split_heads(part) for part in (queries, *keys_values.chunk(2, 1)))
    context = torch.einsum("bhdn,bhen->bhde", k.softmax(-1), v)
    return merge_heads(torch.einsum("bhde,bhdn->bhen", context, q.softmax(2) * HEAD_DIM**-0.5), queries)


def split_heads(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, heads, 64, HW)."""
    return x.reshape(len(x), -1, HEAD_DIM, x.shape[2] * x.shape[3])


def merge_heads(values: Tensor, like: Tensor) -> Tensor:
    """(B, heads, 64, HW) to (B, C, H, W) of the size of x."""
    return values.reshape(len(like), -1, *like.shape[2:])
