"""Fits a global transformation of images of low order: a tone curve per channel and a gain per spatial frequency.

Gain, offset, gamma, white balance, contrast, blur, sharpening and resampling are of this kind. They are fitted to the
pooled distribution of the pixels and of the spectra, not image by image, and are applied to every image alike. The same
curve bends what lies inside each image and what lies between images, so it cannot pass for lost variety, which leaves
the inside of each image as it was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.optimize import least_squares
from torch import Tensor
from torch.nn import functional as F

from gandiag.features.image_statistics import to_gray

N_BINS = 256  # of the pixels' histograms
N_QUANTILES = 33
SATURATION = 0.012  # pixels this near to black or white may be clipped, and say nothing about a curve
MIN_INSIDE = 0.02  # share of the pixels that are not: with fewer there is no curve to fit
MIN_CONTRAST = 0.02  # range of their levels
PRIOR_WEIGHT = 0.003  # of the identity
CURVE_BOUNDS = ((-0.4, 0.4, 0.4), (0.4, 2.5, 2.5))  # of offset, gain and gamma: stronger curves lose variety
MAX_RINGS = 24  # of spatial frequency, up to the Nyquist frequency
MAX_FREQUENCY_GAIN = 4.0
UPPER_LEVELS = torch.linspace(0.5, 0.95, 10)
LOW_FREQUENCIES = 0.125  # of the rings, below which nothing is blurred or sharpened
POWER_FLOOR = 3e-7  # of the ring powers of images in [0, 1]: the noise of eight bits
PADDING = 8  # reflected pixels, so that a filter does not wrap around

CurveLaw = Literal["gain", "gamma", "contrast or offset", "white balance", "tone curve"]
CURVE_LAWS: tuple[CurveLaw, ...] = ("gain", "gamma", "contrast or offset", "white balance", "tone curve")


@dataclass(frozen=True, slots=True)
class Transformation:
    """`curves` (C, 3): offset, gain and gamma of each channel, x → offset + gain · x^gamma; None for none.

    `frequency_gain` (R,): of R rings of equal width up to the Nyquist frequency, before the curve; None for none.
    """

    curves: Tensor | None = None
    frequency_gain: Tensor | None = None

    @property
    def is_any(self) -> bool:
        return self.curves is not None or self.frequency_gain is not None

    def apply(self, images: Tensor) -> Tensor:
        """The transformed images (N, C, H, W) in [0, 1], clipped to [0, 1]."""
        if self.frequency_gain is not None:
            images = filter_images(images, self.frequency_gain)
        if self.curves is not None:
            offset, gain, gamma = self.curves.to(images)[:, :, None, None].unbind(1)
            images = (offset + gain * images.clamp(min=0) ** gamma).clamp(0, 1)
        return images


@dataclass(frozen=True, slots=True)
class ImageSummary:
    """What a transformation is fitted to, by image: `histogram` (N, C, N_BINS) and `log_power` (N, R)."""

    histogram: Tensor
    log_power: Tensor

    def subset(self, indices: Tensor) -> ImageSummary:
        return ImageSummary(self.histogram[indices], self.log_power[indices])

    def pixel_moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the pooled pixels of each channel, (C,) each."""
        share = self.histogram.double().sum(0)
        share = share / share.sum(1, keepdim=True)  # (C, N_BINS)
        level = torch.linspace(0, 1, N_BINS).double()
        mean = share @ level
        return mean, (share @ level.square() - mean.square()).clamp(min=0).sqrt()


def summarize_images(images: Tensor) -> ImageSummary:
    """The summary of images (N, C, H, W) in [0, 1]."""
    n, channels = images.shape[:2]
    bins = (images * (N_BINS - 1)).round().long().clamp(0, N_BINS - 1).flatten(2)  # (N, C, P)
    rows = torch.arange(n * channels)[:, None] * N_BINS + bins.reshape(n * channels, -1)
    histogram = rows.flatten().bincount(minlength=n * channels * N_BINS).view(n, channels, N_BINS)
    return ImageSummary(histogram.float(), _log_ring_power(images))


def fit_curves(real: ImageSummary, fake: ImageSummary, law: CurveLaw = "tone curve") -> Tensor | None:
    """The curve of each channel that carries the pooled real pixels to the generated ones, (C, 3); None without one.

    `law`: how many parameters it may have. One for all channels is fitted more exactly than three for each.
    """
    levels = []
    for channel in range(real.histogram.shape[1]):
        pair = _matched_quantiles(real.histogram[:, channel], fake.histogram[:, channel])
        if pair is None:
            return None
        levels.append(pair)
    if law == "tone curve":
        return torch.tensor(np.array([_fit_curve(*pair) for pair in levels])).float()
    if law == "white balance":
        return _make_curves([_fit_slope(*pair) for pair in levels], law)
    source, target = (np.concatenate(part) for part in zip(*levels, strict=True))
    if law == "contrast or offset":
        gain, offset = np.polyfit(source, target, 1)
        line = torch.tensor([[offset, gain, 1.0]]).float()
        return line.clamp(*torch.tensor(CURVE_BOUNDS).float()).repeat(len(levels), 1)
    slope = _fit_slope(source, target) if law == "gain" else _fit_slope(np.log(source), np.log(target))
    return _make_curves([slope] * len(levels), law)


def _make_curves(slopes: list[float], law: CurveLaw) -> Tensor:
    """Curves (C, 3) of gains, or of gammas, within the bounds."""
    at = 2 if law == "gamma" else 1
    curves = torch.tensor([[0.0, 1.0, 1.0]]).repeat(len(slopes), 1)
    curves[:, at] = torch.tensor(slopes).float().clamp(CURVE_BOUNDS[0][at], CURVE_BOUNDS[1][at])
    return curves


def _fit_slope(source: np.ndarray, target: np.ndarray) -> float:
    """The least-squares slope of a line through the origin."""
    return float((source * target).sum() / max((source * source).sum(), 1e-12))


def _fit_curve(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Offset, gain and gamma by least squares; near to none where the levels (Q,) do not tell them apart."""

    def residuals(curve: np.ndarray) -> np.ndarray:
        misfit = curve[0] + curve[1] * source ** curve[2] - target
        return np.append(misfit, PRIOR_WEIGHT * np.array([curve[0], *np.log(curve[1:])]))

    curve: np.ndarray = least_squares(residuals, (0.0, 1.0, 1.0), bounds=CURVE_BOUNDS).x
    return curve


def _matched_quantiles(real: Tensor, fake: Tensor) -> tuple[np.ndarray, np.ndarray] | None:
    """Levels (Q,) of the pooled real and generated pixels at equal shares, where neither is clipped; None without."""
    middles = np.linspace(0, 1, N_BINS)
    shares = []
    for histogram in (real, fake):
        cumulative = histogram.double().sum(0).cumsum(0)
        share = (cumulative / cumulative[-1]).numpy()
        shares.append(np.concatenate([[share[0] / 2], (share[1:] + share[:-1]) / 2]))
    lowest = max(float(np.interp(SATURATION, middles, share)) for share in shares)
    highest = min(float(np.interp(1 - SATURATION, middles, share)) for share in shares)
    if highest - lowest < MIN_INSIDE:
        return None
    margin = 0.02 * (highest - lowest)
    at = np.linspace(lowest + margin, highest - margin, N_QUANTILES)
    source, target = (np.interp(at, share, middles) for share in shares)
    return None if np.ptp(source) < MIN_CONTRAST else (source, target)


def fit_frequency_gain(real: ImageSummary, fake: ImageSummary) -> Tensor:
    """The gain of each ring of frequencies, from the log powers, (R,); that of the lowest rings is 1.

    From the upper half of the images in each ring, since flat images have no detail that could be blurred. What all
    rings have in common is contrast, which belongs to the curves.
    """
    log_gain = (_upper_mean(fake.log_power) - _upper_mean(real.log_power)) / 2  # (R,)
    log_gain = F.avg_pool1d(F.pad(log_gain[None], (1, 1), "replicate"), 3, 1)[0]
    n_low = max(1, round(LOW_FREQUENCIES * len(log_gain)))
    log_gain = log_gain - log_gain[:n_low].mean()
    log_gain[:n_low] = 0.0
    limit = math.log(MAX_FREQUENCY_GAIN)
    return log_gain.clamp(-2 * limit, limit).exp()


def _upper_mean(values: Tensor) -> Tensor:
    """Mean of the upper half of each column of (N, R), without the top twentieth, (R,)."""
    mean: Tensor = values.quantile(UPPER_LEVELS, dim=0).mean(0)
    return mean


def filter_images(images: Tensor, frequency_gain: Tensor) -> Tensor:
    """Images (N, C, H, W) with each frequency multiplied by the gain of its radius, clipped to [0, 1]."""
    height, width = images.shape[2:]
    pad = min(PADDING, height - 1, width - 1)
    padded = F.pad(images, (pad, pad, pad, pad), "reflect")
    radius = _frequency_radius(padded.shape[2], padded.shape[3])  # (H, W // 2 + 1) in units of Nyquist
    position = (radius * len(frequency_gain) - 0.5).clamp(0, len(frequency_gain) - 1)
    lower = position.floor().long()
    upper = (lower + 1).clamp(max=len(frequency_gain) - 1)
    gain = torch.lerp(frequency_gain[lower], frequency_gain[upper], position - lower)
    gain[0, 0] = 1.0
    spectrum = torch.fft.rfft2(padded) * gain
    filtered: Tensor = torch.fft.irfft2(spectrum, s=padded.shape[2:])
    return filtered[:, :, pad : pad + height, pad : pad + width].clamp(0, 1)


def _log_ring_power(images: Tensor) -> Tensor:
    """Log power of the luminance of images (N, C, H, W) in rings of equal width up to the Nyquist frequency, (N, R)."""
    gray = to_gray(images)
    height, width = gray.shape[1:]
    window = torch.hann_window(height, periodic=False)[:, None] * torch.hann_window(width, periodic=False)
    power = torch.fft.rfft2((gray - gray.mean((1, 2), keepdim=True)) * window).abs().square() / (height * width)
    n_rings = min(MAX_RINGS, min(height, width) // 2)
    ring = (_frequency_radius(height, width) * n_rings).long().clamp(max=n_rings).flatten()
    sums = torch.zeros(len(gray), n_rings + 1).index_add_(1, ring, power.flatten(1))
    counts = ring.bincount(minlength=n_rings + 1).clamp(min=1)
    return ((sums / counts)[:, :n_rings] + POWER_FLOOR).log()


def _frequency_radius(height: int, width: int) -> Tensor:
    """Radius of each frequency of a real transform in units of Nyquist, (H, W // 2 + 1)."""
    return 2 * torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None])
