"""Degrades real and generated images identically, so that low fidelity is not mistaken for missing diversity."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from gandiag.sampling.latents import derive_seed, sample_normal
from gandiag.sampling.stream_names import DEGRADATION

MAX_SIZE = 64  # resolution at which images are degraded: a level means the same for 64 and for 1,024 pixels
SHRINK_FACTORS = {1: 2, 2: 4}
NOISE_STD = {1: 0.1, 2: 0.2}  # for images in [-1, 1]


def degrade_images(images: Tensor, indices: Tensor, level: int, *, noise_seed: int = 0) -> Tensor:
    """Images (B, C, H, W) in [0, 1] at a degradation level: (B, C, h, w) in [0, 1], h, w <= 64.

    Level 0: unchanged. Level 1: reduced to half of a grid of at most 64 pixels and enlarged again, then Gaussian noise
    of standard deviation .1 (in units of [-1, 1]). Level 2: a quarter, and .2. The noise depends only on (noise_seed,
    index); give real and generated images different seeds, or sample i of both has the same noise.
    """
    if level == 0:
        return images
    height, width = images.shape[2:]
    scale = min(1.0, MAX_SIZE / min(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    factor = SHRINK_FACTORS[level]
    small_size = (max(1, round(size[0] / factor)), max(1, round(size[1] / factor)))
    small = F.interpolate(images, size=small_size, mode="bilinear", antialias=True)
    blurred = F.interpolate(small, size=size, mode="bilinear")
    noise = torch.empty(0)
    if len(images):
        noise = sample_normal(indices.cpu(), blurred[0].numel(), seed=derive_seed(noise_seed, DEGRADATION))
    noise = noise.reshape(blurred.shape).to(blurred.device)
    return blurred.add(noise, alpha=NOISE_STD[level] / 2).clamp(0, 1)
