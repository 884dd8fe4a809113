"""Frosted glass: blur and noise on real and generated images alike, so that faults of fidelity stop looking like lost variety."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from gandiag.sampling.latents import derive_seed, sample_normal

MAX_SIZE = 64  # the finest grid that is looked through the glass: a level means the same for 64 and for 1,024 pixels
SHRINK_FACTORS = {1: 2, 2: 4}
NOISE_STD = {1: 0.1, 2: 0.2}  # standard deviation, for images in [-1, 1]


def degrade_images(images: Tensor, indices: Tensor, level: int, *, noise_seed: int = 0) -> Tensor:
    """Images (B, C, H, W) in [0, 1] behind `level` panes of glass: (B, C, h, w) in [0, 1], h, w <= 64.

    Level 0: unchanged. Level 1: reduced to half of a grid of at most 64 pixels and enlarged again, then Gaussian noise of
    standard deviation .1 (in units of [-1, 1]); level 2: a quarter, and .2. The noise is a function of (salt, index) only;
    give real and generated images different salts, or sample i of both carries the same noise.
    """
    if level == 0:
        return images
    height, width = images.shape[2:]
    shrink = min(1.0, MAX_SIZE / min(height, width))
    grid = (max(1, round(height * shrink)), max(1, round(width * shrink)))
    small = (max(1, round(grid[0] / SHRINK_FACTORS[level])), max(1, round(grid[1] / SHRINK_FACTORS[level])))
    blurred = F.interpolate(
        F.interpolate(images, size=small, mode="bilinear", antialias=True), size=grid, mode="bilinear"
    )
    noise = (
        sample_normal(indices.cpu(), blurred[0].numel(), seed=derive_seed(noise_seed, "frosted glass"))
        if len(images)
        else torch.empty(0)
    )
    return blurred.add(noise.reshape(blurred.shape).to(blurred.device), alpha=NOISE_STD[level] / 2).clamp(0, 1)
