"""What an image shows, one aspect at a time: colour, texture and layout as small feature matrices. Semantics is `imagenet`.

Each is a pure function of images (B, C, H, W) in [0, 1], C = 1 or 3, to (B, D) float32, the same for every batch size. A generator that has
lost half of its warm images loses half of `color` and little else, so that the view which sees a loss names it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

LAYOUT_SIZE = 8  # of the layout grid
N_FREQUENCY_BINS = 12  # radial frequency bins
MAX_SIZE = 32  # images are averaged down to this side first, small ones to half of theirs: an aspect hangs on no resolution, nor on faint noise or blur
CONTRAST_FLOOR = 0.02  # contrast, in intensity, below which there is no texture: noise of σ = .1 in a [−1, 1] image lies below it once pixels are averaged in fours

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def color_features(images: Tensor) -> Tensor:
    """Mean, spread and mutual covariance of the channels, and the quartiles of each: (B, 3C + C(C+1)/2), 15 for RGB, 4 for grey.

    Nothing about where a colour is. Square roots of the variances, so that all entries are in units of intensity.
    """
    small = _averaged(images).flatten(2)  # (B, C, P)
    mean = small.mean(2)  # (B, C)
    centred = small - mean[:, :, None]
    covariance = centred @ centred.transpose(1, 2) / small.shape[2]  # (B, C, C)
    rows, columns = torch.triu_indices(images.shape[1], images.shape[1])
    spread = covariance[:, rows, columns]
    ranks = torch.tensor([0.25, 0.75], device=images.device, dtype=small.dtype)
    quartiles = torch.quantile(small, ranks, dim=2).permute(1, 0, 2).flatten(1)  # (B, 2C)
    return torch.cat([mean, spread.sign() * spread.abs().sqrt(), quartiles], 1)


def texture_features(images: Tensor) -> Tensor:
    """Log power of the luminance in rings of equal width up to the Nyquist frequency, and the log energy of edges in both directions: (B, 14).

    Mean brightness is left out; contrast and roughness are in. Log powers start at FLOOR², so that flat images are finite and noise is not texture.
    """
    grey = to_gray(_averaged(images))  # (B, H, W)
    side = grey.shape[-1]
    window = torch.hann_window(side, periodic=False, device=grey.device)
    power = torch.fft.fft2((grey - grey.mean((1, 2), keepdim=True)) * window[:, None] * window).abs().square() / side**2
    frequency = torch.fft.fftfreq(side, device=grey.device)
    ring = (
        (torch.hypot(frequency[:, None], frequency[None]) * 2 * N_FREQUENCY_BINS).long().clamp(max=N_FREQUENCY_BINS)
    )  # (H, W), the corners beyond Nyquist last
    sums = torch.zeros(len(grey), N_FREQUENCY_BINS + 1, device=grey.device).index_add_(
        1, ring.flatten(), power.flatten(1)
    )
    counts = torch.bincount(ring.flatten(), minlength=N_FREQUENCY_BINS + 1).clamp(min=1)
    edges = torch.stack([grey.diff(dim=dim).square().mean((1, 2)) for dim in (1, 2)], 1)  # (B, 2)
    return torch.log(torch.cat([(sums / counts)[:, :N_FREQUENCY_BINS], edges], 1) + CONTRAST_FLOOR**2)


def layout_features(images: Tensor) -> Tensor:
    """The image averaged to 8 × 8, less its mean colour: where light and dark lie. (B, 64 C)."""
    small = F.adaptive_avg_pool2d(images, LAYOUT_SIZE)
    return (small - small.mean((2, 3), keepdim=True)).flatten(1)


def to_gray(images: Tensor) -> Tensor:
    """Grey values of images (B, C, H, W): (B, H, W). Channels that are no colours, of which there are not three, count alike."""
    if images.shape[1] != 3:
        return images.mean(1)
    weights = torch.tensor(_LUMA, device=images.device, dtype=images.dtype)
    return (images * weights[:, None, None]).sum(1)


ASPECTS = {"color": color_features, "texture": texture_features, "layout": layout_features}


def _averaged(images: Tensor) -> Tensor:
    side = min(MAX_SIZE, max(LAYOUT_SIZE, min(images.shape[2:]) // 2))
    return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
