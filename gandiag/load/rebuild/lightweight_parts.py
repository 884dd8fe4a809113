"""Layers of lightweight-gan: its upsampling, its two kinds of excitation, and its attention."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandiag.load.rebuild.layers import NotThis
from gandiag.load.rebuild.linear_attention import HEAD, attended, heads, together
from gandiag.load.rebuild.ready import shape_of

_WINDOW = 3


class Shuffled(nn.Module):
    """A 1x1 convolution to four times the channels, SiLU, and each four of them as two by two pixels."""

    def __init__(self, out: int, into: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(into, out, 1), nn.SiLU(), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


class Widened(nn.Sequential):
    """A convolution of even size that keeps the side: one more zero before than behind."""

    def __init__(self, into: int, out: int, size: int) -> None:
        before = size // 2
        behind = before - 1 if size % 2 == 0 else before
        super().__init__(nn.ZeroPad2d((before, behind, before, behind)), nn.Conv2d(into, out, size))


def _gate(tensors: Mapping[str, Tensor], path: str) -> nn.Sequential:
    """Two 1x1 convolutions with leaky ReLU 0.1 between them, to factors in (0, 1)."""
    (hidden, into), out = shape_of(tensors, f"{path}net.0.weight", 4)[:2], shape_of(tensors, f"{path}net.2.weight", 4)[0]
    return nn.Sequential(nn.Conv2d(into, hidden, 1), nn.LeakyReLU(0.1), nn.Conv2d(hidden, out, 1), nn.Sigmoid())


class Context(nn.Module):
    """Global context: pixels weighted by one attention map, to a factor for every channel of a later layer."""

    def __init__(self, tensors: Mapping[str, Tensor], path: str) -> None:
        super().__init__()
        self.to_k = nn.Conv2d(shape_of(tensors, f"{path}to_k.weight", 4)[1], 1, 1)
        self.net = _gate(tensors, path)

    def forward(self, x: Tensor) -> Tensor:
        share = self.to_k(x).flatten(2).softmax(-1)  # (B, 1, HW)
        out: Tensor = self.net((x.flatten(2) * share).sum(-1)[:, :, None, None])  # (B, C', 1, 1)
        return out


class Frequencies(nn.Module):
    """Frequency channel attention: each channel's coefficient of one cosine, by weights that the file stores."""

    def __init__(self, tensors: Mapping[str, Tensor], path: str) -> None:
        super().__init__()
        shape = shape_of(tensors, f"{path}dct_weights", 4)
        if shape[0] != 1 or shape[2] != shape[3]:
            raise NotThis(f"{path}dct_weights is {shape}")
        self.register_buffer("dct_weights", torch.empty(shape))
        self.net = _gate(tensors, path)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net((x * self.get_buffer("dct_weights")).sum((2, 3), keepdim=True))  # (B, C', 1, 1)
        return out


class BothAttentions(nn.Module):
    """Linear attention over all pixels (Shen et al. 2018), and full attention of each pixel to its 3x3 neighbours, side by side."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.to_lin_q = nn.Conv2d(channels, inner, 1, bias=False)
        self.to_lin_kv = nn.Module()
        depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.to_lin_kv.net = nn.Sequential(depthwise, nn.Conv2d(channels, 2 * inner, 1, bias=False))
        self.to_q = nn.Conv2d(channels, inner, 1, bias=False)
        self.to_kv = nn.Conv2d(channels, 2 * inner, 1, bias=False)
        self.to_out = nn.Conv2d(2 * inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        keys_values: Tensor = self.to_lin_kv.net(x)  # type: ignore[operator]
        out: Tensor = self.to_out(torch.cat([F.gelu(attended(self.to_lin_q(x), keys_values)), self._nearby(x)], 1))
        return out

    def _nearby(self, x: Tensor) -> Tensor:
        """Zeros beyond the border take their share of attention too. One neighbour at a time: nine maps at once are many gigabytes."""
        q = heads(self.to_q(x)) * HEAD**-0.5  # (B, heads, 64, HW)
        keys, values = (F.pad(part, (1, 1, 1, 1)) for part in self.to_kv(x).chunk(2, 1))
        places = [(slice(i, i + x.shape[2]), slice(j, j + x.shape[3])) for i in range(_WINDOW) for j in range(_WINDOW)]
        share = torch.stack([(q * heads(keys[:, :, rows, columns])).sum(2) for rows, columns in places]).softmax(0)  # (9, B, heads, HW)
        out = torch.zeros_like(q)
        for part, (rows, columns) in zip(share, places, strict=True):
            out += part[:, :, None] * heads(values[:, :, rows, columns])
        return together(out, x)
