"""Features of time series: standardized shape, log spectrum, level and scale."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gandiag.errors import FeatureError
from gandiag.features.extractors import ExtractorRequest
from gandiag.interfaces import OutputSpec

_MAX_POINTS = 128  # longer series are averaged to this many points
_MAX_BANDS = 32
_POWER_FLOOR = 1e-4  # added to the power of a standardized series


@dataclass(frozen=True, slots=True)
class SeriesExtractor:
    """Each channel as (shape, log spectrum, level): (B, C (P + Q + 2)) float32, P <= 128 points and Q <= 32 bands.

    Shape: the series less its mean over its standard deviation, averaged to P points. Spectrum: log power of that,
    averaged in Q bands of equal width. Level: asinh of the mean, and log of the standard deviation. The three blocks
    are divided by the square root of their lengths, so that each has about the same weight. A phase shift changes the
    shape but not the spectrum.
    """

    output: OutputSpec
    name: str = "series"
    fingerprint: str = "series:1"
    cacheable: bool = False

    @property
    def dim(self) -> int:
        channels, length = _channels_and_length(self.output)
        return channels * (min(length, _MAX_POINTS) + min(length // 2, _MAX_BANDS) + 2)

    def __call__(self, samples: Tensor, output: OutputSpec) -> Tensor:
        channels, length = _channels_and_length(output)
        x = samples.detach().float().cpu().reshape(len(samples), channels, length)
        mean, std = x.mean(2, keepdim=True), x.std(2, keepdim=True, correction=0)
        standardized = (x - mean) / std.clamp_min(1e-12)
        n_points, n_bands = min(length, _MAX_POINTS), min(length // 2, _MAX_BANDS)
        shape = F.adaptive_avg_pool1d(standardized, n_points) / n_points**0.5  # (B, C, P)
        spectrum = torch.fft.rfft(standardized, dim=2).abs().square()[:, :, 1:] / length
        if n_bands:
            spectrum = F.adaptive_avg_pool1d(spectrum, n_bands).add(_POWER_FLOOR).log10() / n_bands**0.5  # (B, C, Q)
        level = torch.cat([torch.asinh(mean), std.clamp_min(1e-12).log10()], 2) / 2**0.5  # (B, C, 2)
        return torch.cat([shape, spectrum, level], 2).flatten(1)  # (B, D)


def create_series(request: ExtractorRequest) -> SeriesExtractor:
    """The factory of "series"."""
    if request.output.kind == "image":
        raise FeatureError("the features series do not apply to images", "use imagenet or pixels")
    return SeriesExtractor(request.output)


def _channels_and_length(output: OutputSpec) -> tuple[int, int]:
    """(channels, length); the last axis is time."""
    return math.prod(output.shape[:-1]), output.shape[-1]
