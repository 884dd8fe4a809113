"""Small hand-crafted image features, one aspect each: color, texture and layout.

The fourth aspect, semantics, is that of the features `imagenet`.

Each is a pure function of images (B, C, H, W) in [0, 1], C = 1 or 3, to (B, D) float32, the same for every batch size.
A generator that has lost half of its warm images loses half of `color` and little else, so the view that shows a loss
also names it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from gandiag.features.extractors import ExtractorRequest
from gandiag.interfaces import OutputSpec
from gandiag.sampling.preprocessing import to_unit_range

LAYOUT_SIZE = 8  # of the layout grid
N_FREQUENCY_BINS = 12  # radial
# Images are first averaged down to this size, small ones to half of their own. Aspects then depend neither on the
# resolution nor on faint noise or blur.
MAX_SIZE = 32
# Contrast, in intensity, below which there is no texture. Noise of σ = .1 in a [−1, 1] image is below it once pixels
# are averaged in fours.
CONTRAST_FLOOR = 0.02
ASPECT_VERSION = 2  # of the aspects: increment it when one of them changes

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def color_features(images: Tensor) -> Tensor:
    """Mean, covariance and quartiles of the channels: (B, 3C + C(C+1)/2), 15 for RGB, 4 for grayscale.

    Contains nothing about the position of a color. Square roots of the (co)variances, so all entries are in units of
    intensity.
    """
    pixels = _downscale(images).flatten(2)  # (B, C, P)
    mean = pixels.mean(2)  # (B, C)
    centered = pixels - mean[:, :, None]
    covariance = centered @ centered.transpose(1, 2) / pixels.shape[2]  # (B, C, C)
    rows, columns = torch.triu_indices(images.shape[1], images.shape[1])
    upper = covariance[:, rows, columns]
    levels = torch.tensor([0.25, 0.75], device=images.device, dtype=pixels.dtype)
    quartiles = torch.quantile(pixels, levels, dim=2).permute(1, 0, 2).flatten(1)  # (B, 2C)
    return torch.cat([mean, upper.sign() * upper.abs().sqrt(), quartiles], 1)


def texture_features(images: Tensor) -> Tensor:
    """Log power of the luminance in frequency rings, and log edge energy in both directions: (B, 14).

    Rings have equal width up to the Nyquist frequency. Mean brightness is left out; contrast and roughness are in. Log
    powers start at CONTRAST_FLOOR², so flat images are finite and noise is not texture.
    """
    gray = to_gray(_downscale(images))  # (B, H, W)
    size = gray.shape[-1]
    window = torch.hann_window(size, periodic=False, device=gray.device)
    windowed = (gray - gray.mean((1, 2), keepdim=True)) * window[:, None] * window
    power = torch.fft.fft2(windowed).abs().square() / size**2
    frequency = torch.fft.fftfreq(size, device=gray.device)
    radius = torch.hypot(frequency[:, None], frequency[None]) * 2 * N_FREQUENCY_BINS
    ring = radius.long().clamp(max=N_FREQUENCY_BINS).flatten()  # (H W,), the corners beyond Nyquist last
    sums = torch.zeros(len(gray), N_FREQUENCY_BINS + 1, device=gray.device).index_add_(1, ring, power.flatten(1))
    counts = torch.bincount(ring, minlength=N_FREQUENCY_BINS + 1).clamp(min=1)
    edges = torch.stack([gray.diff(dim=dim).square().mean((1, 2)) for dim in (1, 2)], 1)  # (B, 2)
    return torch.log(torch.cat([(sums / counts)[:, :N_FREQUENCY_BINS], edges], 1) + CONTRAST_FLOOR**2)


def layout_features(images: Tensor) -> Tensor:
    """The image averaged to 8 × 8, less its mean color: the positions of light and dark. (B, 64 C)."""
    grid = F.adaptive_avg_pool2d(images, LAYOUT_SIZE)
    return (grid - grid.mean((2, 3), keepdim=True)).flatten(1)


def to_gray(images: Tensor) -> Tensor:
    """Gray values of images (B, C, H, W): (B, H, W). Unless there are three channels, all of them count alike."""
    if images.shape[1] != 3:
        return images.mean(1)
    weights = torch.tensor(_LUMA, device=images.device, dtype=images.dtype)
    return (images * weights[:, None, None]).sum(1)


def _downscale(images: Tensor) -> Tensor:
    size = min(MAX_SIZE, max(LAYOUT_SIZE, min(images.shape[2:]) // 2))
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False)


ASPECTS = {"color": color_features, "texture": texture_features, "layout": layout_features}


class ImageFunctionExtractor:
    """A function of images, (B, C, H, W) in [0, 1] -> (B, D), as an extractor.

    `version`: increment it when the function changes.
    """

    cacheable = False  # cheaper to compute than to read

    def __init__(
        self, name: str, function: Callable[[Tensor], Tensor], output: OutputSpec, version: int = ASPECT_VERSION
    ) -> None:
        self.name, self._function = name, function
        self.fingerprint = f"{name}:{version}"
        self.dim = function(torch.zeros(1, *output.shape)).shape[1]

    def __call__(self, samples: Tensor, output: OutputSpec) -> Tensor:
        return self._function(to_unit_range(samples.detach(), output)).float().cpu()  # (B, D)


def create_aspect(request: ExtractorRequest) -> ImageFunctionExtractor:
    """The factory of the names in ASPECTS."""
    request.require_images()
    return ImageFunctionExtractor(request.view.base, ASPECTS[request.view.base], request.output)
