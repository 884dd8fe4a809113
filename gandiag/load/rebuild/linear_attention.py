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

from gandiag.load.rebuild.layers import NotThis
from gandiag.load.rebuild.ready import shape_of

_HEAD = 64
_EPS = 1e-5


class Attended(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x)); children "0" and "1", each with `fn.norm` and `fn.fn`."""

    def __init__(self, tensors: Mapping[str, Tensor], path: str) -> None:
        super().__init__()
        channels = shape_of(tensors, f"{path}.0.fn.norm.g", 4)[1]
        inner, hidden = shape_of(tensors, f"{path}.0.fn.fn.to_q.weight", 4)[0], shape_of(tensors, f"{path}.1.fn.fn.0.weight", 4)[0]
        if inner % _HEAD:
            raise NotThis(f"{path} attends with {inner} channels, which are no heads of {_HEAD}")
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
        self.fn = _Normed(channels, layer)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.fn(x)
        return out


class _Normed(nn.Module):
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
    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.to_q = nn.Conv2d(channels, inner, 1, bias=False)
        self.to_kv = nn.Module()
        self.to_kv.net = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False), nn.Conv2d(channels, 2 * inner, 1, bias=False))
        self.to_out = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        keys_values: Tensor = self.to_kv.net(x)  # type: ignore[operator]
        q, k, v = (part.reshape(len(x), -1, _HEAD, x.shape[2] * x.shape[3]) for part in (self.to_q(x), *keys_values.chunk(2, 1)))  # (B, heads, 64, positions)
        context = torch.einsum("bhdn,bhen->bhde", k.softmax(-1), v)
        seen = torch.einsum("bhde,bhdn->bhen", context, q.softmax(2) * _HEAD**-0.5)
        out: Tensor = self.to_out(F.gelu(seen.reshape(len(x), -1, *x.shape[2:])))
        return out
