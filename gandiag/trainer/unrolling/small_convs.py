"""Convolutions of small images as matrix products, and batch norm as a few tensor operations.

torch's convolutions are made for large images: on 8 x 8 pixels they cost ten times their arithmetic, and their second derivatives
more. Here a convolution is the matrix of its kernel, and the `Stencil` says which entry stands where. The modules below are
torch's own with another `forward`: the same parameters under the same names, the same values to rounding.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear

MAX_MATRIX_ENTRIES = 1 << 15  # entries up to which the whole matrix of a convolution is cheaper than torch's


class ConvPattern(NamedTuple):
    """Where a kernel's entries stand in its matrix: `ones` (k · k, P, Q), for P pixels out and Q pixels in; `side` (h, w) out."""

    indicator: Tensor
    output_size: tuple[int, int]

    def to_matrix(self, kernel: Tensor) -> Tensor:
        """A kernel (O, I, k, k) as the matrix (O · P, I · Q) that multiplies flattened images; linear in the kernel."""
        out, into = kernel.shape[:2]
        taps, p, q = self.indicator.shape
        spread = kernel.reshape(out * into, taps) @ self.indicator.to(kernel.dtype).view(taps, p * q)
        return spread.view(out, into, p, q).transpose(1, 2).reshape(out * p, into * q)

    def to_kernel(self, matrix: Tensor, shape: torch.Size) -> Tensor:
        """The adjoint: from a derivative by the matrix to that by the kernel, (O, I, k, k)."""
        taps, p, q = self.indicator.shape
        spread = matrix.view(shape[0], p, shape[1], q).transpose(1, 2).reshape(shape[0] * shape[1], p * q)
        return (spread @ self.indicator.to(matrix.dtype).view(taps, p * q).T).view(shape)


@cache
def make_conv_pattern(kernel_size: int, stride: int, padding: int, height: int, width: int) -> ConvPattern:
    """The stencil of a square kernel on images of height x width."""
    pixels = torch.eye(height * width).view(height * width, 1, height, width)
    taps = torch.eye(kernel_size * kernel_size).view(kernel_size * kernel_size, 1, kernel_size, kernel_size)
    found = conv2d(pixels, taps, stride=stride, padding=padding)  # (Q, k k, h, w)
    return ConvPattern(found.flatten(2).permute(1, 2, 0).contiguous(), (found.shape[2], found.shape[3]))


def find_conv_pattern(conv: nn.Conv2d, height: int, width: int) -> ConvPattern | None:
    """A convolution's stencil where its settings are plain and its matrix is small; None elsewhere."""
    pairs = (conv.kernel_size, conv.stride, conv.padding)
    if (
        any(isinstance(pair, str) or len(set(pair)) > 1 for pair in pairs)
        or conv.groups != 1
        or set(conv.dilation) != {1}
        or conv.padding_mode != "zeros"
    ):
        return None
    size, stride, padding = conv.kernel_size[0], conv.stride[0], int(conv.padding[0])
    pixels = ((height + 2 * padding - size) // stride + 1) * ((width + 2 * padding - size) // stride + 1)
    if (
        min(height, width) + 2 * padding < size
        or pixels * conv.out_channels * conv.in_channels * height * width > MAX_MATRIX_ENTRIES
    ):
        return None
    return make_conv_pattern(size, stride, padding, height, width)


def repeat_per_pixel(values: Tensor, n_pixels: int) -> Tensor:
    """Numbers per channel (C,) beside flattened images, (C · P,)."""
    return values[:, None].expand(-1, n_pixels).reshape(-1)


class SmallConv2d(nn.Conv2d):
    """nn.Conv2d, which multiplies by the kernel's matrix where that is small."""

    def forward(self, x: Tensor) -> Tensor:
        found = find_conv_pattern(self, x.shape[2], x.shape[3])
        if found is None:
            return super().forward(x)
        bias = None if self.bias is None else repeat_per_pixel(self.bias, found.indicator.shape[1])
        return linear(x.flatten(1), found.to_matrix(self.weight), bias).view(-1, self.out_channels, *found.output_size)


class PixelConvTranspose2d(nn.ConvTranspose2d):
    """nn.ConvTranspose2d for a latent of one pixel that becomes the whole kernel: one product. Other images go torch's way."""

    def forward(self, x: Tensor, output_size: Any = None) -> Tensor:
        bare = set(self.padding) == set(self.output_padding) == {0} and set(self.dilation) == {1} and self.groups == 1
        if tuple(x.shape[2:]) != (1, 1) or not bare or output_size is not None:
            return super().forward(x, output_size)
        made = (x.flatten(1) @ self.weight.flatten(1)).view(-1, *self.weight.shape[1:])  # (B, O, k, k)
        return made if self.bias is None else made + self.bias[:, None, None]


class SmallBatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d; in training a few operations, whose second derivatives cost less than those of torch's own."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.momentum is None or self.running_mean is None:
            return super().forward(x)
        rows, pixels = x.flatten(1), x.shape[2] * x.shape[3]
        centred = rows - repeat_per_pixel(self._mean(rows), pixels)
        variance = self._mean(centred.square())
        with torch.no_grad():
            update_running_stats(self, self._mean(rows), variance, len(x) * pixels)
        scale = repeat_per_pixel(self.weight * (variance + self.eps).rsqrt(), pixels)
        return torch.addcmul(repeat_per_pixel(self.bias, pixels), centred, scale).view(x.shape)

    def _mean(self, rows: Tensor) -> Tensor:
        return rows.mean(0).view(self.num_features, -1).mean(1)  # (C,)


def update_running_stats(norm: nn.modules.batchnorm._BatchNorm, mean: Tensor, variance: Tensor, count: int) -> None:
    """Running statistics take a minibatch in, of `count` numbers per channel, as torch's batch norm does."""
    norm.running_mean.lerp_(mean, norm.momentum)  # type: ignore[union-attr, arg-type]
    norm.running_var.lerp_(variance * (count / (count - 1)), norm.momentum)  # type: ignore[union-attr, arg-type]
    norm.num_batches_tracked.add_(1)  # type: ignore[union-attr]
