"""Small convolutions as matrix products.

PyTorch's convolutions are built for large images: on 8 x 8 pixels they cost ten times their arithmetic, and their
second derivatives cost more still. A small convolution is cheaper as one product with the full matrix of its kernel; a
`ConvPattern` tells which kernel entry stands where in that matrix.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

MAX_MATRIX_ENTRIES = 1 << 15  # up to this size, the full matrix is cheaper than PyTorch's convolution


class ConvPattern(NamedTuple):
    """Positions of a kernel's entries in its matrix.

    `indicator` is (k · k, P, Q) for P output and Q input pixels, 1 where an entry applies; `output_size` is (h, w).
    """

    indicator: Tensor
    output_size: tuple[int, int]

    def to_matrix(self, kernel: Tensor) -> Tensor:
        """Return the matrix (O · P, I · Q) of a kernel (O, I, k, k), for flattened images. Linear in the kernel."""
        out, into = kernel.shape[:2]
        taps, p, q = self.indicator.shape
        spread = kernel.reshape(out * into, taps) @ self.indicator.to(kernel.dtype).view(taps, p * q)
        return spread.view(out, into, p, q).transpose(1, 2).reshape(out * p, into * q)

    def to_kernel(self, matrix: Tensor, shape: torch.Size) -> Tensor:
        """Map a derivative by the matrix to one by the kernel, (O, I, k, k): the adjoint of `to_matrix`."""
        taps, p, q = self.indicator.shape
        spread = matrix.view(shape[0], p, shape[1], q).transpose(1, 2).reshape(shape[0] * shape[1], p * q)
        return (spread @ self.indicator.to(matrix.dtype).view(taps, p * q).T).view(shape)


@cache
def make_conv_pattern(kernel_size: int, stride: int, padding: int, height: int, width: int) -> ConvPattern:
    """Return the pattern of a square kernel on images of height x width."""
    pixels = torch.eye(height * width).view(height * width, 1, height, width)
    taps = torch.eye(kernel_size * kernel_size).view(kernel_size * kernel_size, 1, kernel_size, kernel_size)
    response = conv2d(pixels, taps, stride=stride, padding=padding)  # (Q, k k, h, w)
    return ConvPattern(response.flatten(2).permute(1, 2, 0).contiguous(), (response.shape[2], response.shape[3]))


def find_conv_pattern(conv: nn.Conv2d, height: int, width: int) -> ConvPattern | None:
    """Return a convolution's pattern, or None if its settings are unusual or its matrix is too large."""
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
    """Repeat values per channel (C,) over the pixels of a flattened image, (C · P,)."""
    return values[:, None].expand(-1, n_pixels).reshape(-1)
