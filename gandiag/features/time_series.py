"""Features of series: standardised shape, log spectrum, level and scale."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gandiag.errors import FeatureError
from gandiag.features.extractor_request import ExtractorRequest
from gandiag.interfaces import OutputSpec

_POINTS = 128  # a longer series is averaged to this many
_BANDS = 32
_FLOOR = 1e-4  # of the power of a standardised series: below it is silence


@dataclass(frozen=True, slots=True)
class SeriesExtractor:
    """Each channel as (shape, log spectrum, level): (B, C (P + Q + 2)) float32, P <= 128 points and Q <= 32 bands.

    Shape: the series less its mean over its standard deviation, averaged to P points. Spectrum: log power of that, averaged in
    Q bands of equal width. Level: asinh of the mean, and log of the standard deviation. The three blocks are divided by the
    root of their lengths, so that each weighs about the same. A phase shift moves the shape and leaves the spectrum.
    """

    output: OutputSpec
    name: str = "series"
    fingerprint: str = "series:1"
    cacheable: bool = False

    @property
    def dim(self) -> int:
        channels, length = _sizes(self.output)
        return channels * (min(length, _POINTS) + min(length // 2, _BANDS) + 2)

    def __call__(self, samples: Tensor, output: OutputSpec) -> Tensor:
        channels, length = _sizes(output)
        x = samples.detach().float().cpu().reshape(len(samples), channels, length)
        mean, spread = x.mean(2, keepdim=True), x.std(2, keepdim=True, correction=0)
        standard = (x - mean) / spread.clamp_min(1e-12)
        points, bands = min(length, _POINTS), min(length // 2, _BANDS)
        shape = F.adaptive_avg_pool1d(standard, points) / points**0.5  # (B, C, P)
        power = torch.fft.rfft(standard, dim=2).abs().square()[:, :, 1:] / length
        spectrum = F.adaptive_avg_pool1d(power, bands).add(_FLOOR).log10() / bands**0.5 if bands else power  # (B, C, Q)
        level = torch.cat([torch.asinh(mean), spread.clamp_min(1e-12).log10()], 2) / 2**0.5  # (B, C, 2)
        return torch.cat([shape, spectrum, level], 2).flatten(1)  # (B, D)


def create_series(request: ExtractorRequest) -> SeriesExtractor:
    """The factory behind "series"."""
    if request.output.kind == "image":
        raise FeatureError("the features series do not apply to images", "use imagenet or pixels")
    return SeriesExtractor(request.output)


def _sizes(output: OutputSpec) -> tuple[int, int]:
    """(channels, length); the last axis is time."""
    length = output.shape[-1]
    channels = 1
    for axis in output.shape[:-1]:
        channels *= axis
    return channels, length
