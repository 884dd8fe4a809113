"""Features of sounds: the log-mel spectrogram, averaged over a few spans of time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gandiag.errors import FeatureError
from gandiag.features.extractors import ExtractorRequest
from gandiag.interfaces import OutputSpec

N_BANDS = 40
MAX_SPANS = 16  # of time
_WINDOW_SECONDS, _HOP_SECONDS = 0.025, 0.010
_LOWEST_HERTZ = 30.0
_POWER_FLOOR = 1e-7  # added to the power of a full-scale sound: about what 16 bits resolve


@dataclass(frozen=True, slots=True)
class LogMelExtractor:
    """Sounds (B, C, T) or (B, T) as log10 power in 40 mel bands and at most 16 spans: (B, C 40 S) float32.

    Windows of 25 ms every 10 ms (Hann), bands from 30 Hz to half the rate, equally wide on the mel scale of
    O'Shaughnessy 1987. Phase and shifts of a few milliseconds do not show; loudness does.
    """

    output: OutputSpec
    sample_rate: int
    name: str = "logmel"
    cacheable: bool = True

    @property
    def fingerprint(self) -> str:
        return f"logmel@{self.sample_rate}:1"

    @property
    def dim(self) -> int:
        return math.prod(self.output.shape[:-1]) * N_BANDS * min(MAX_SPANS, self._n_frames(self.output.shape[-1]))

    def _n_frames(self, length: int) -> int:
        return 1 + length // self._hop

    @property
    def _hop(self) -> int:
        return max(1, round(_HOP_SECONDS * self.sample_rate))

    def __call__(self, samples: Tensor, output: OutputSpec) -> Tensor:
        length = output.shape[-1]
        sounds = samples.detach().float().cpu().reshape(-1, length)  # (B C, T)
        size = max(16, round(_WINDOW_SECONDS * self.sample_rate))
        window = torch.hann_window(size)
        spectrum = torch.stft(
            sounds, size, self._hop, window=window, center=True, pad_mode="constant", return_complex=True
        )  # (B C, F, frames)
        power = spectrum.abs().square() / window.sum().square()
        bands = mel_filters(spectrum.shape[1], self.sample_rate) @ power  # (B C, 40, frames)
        levels = (bands + _POWER_FLOOR).log10()
        spans = F.adaptive_avg_pool1d(levels, min(MAX_SPANS, levels.shape[2]))  # (B C, 40, S)
        features: Tensor = spans.reshape(len(samples), -1) / N_BANDS**0.5
        return features


def mel_filters(n_bins: int, sample_rate: int, n_bands: int = N_BANDS) -> Tensor:
    """Triangular bands over the bins of a spectrum, (n_bands, n_bins), each of sum 1."""
    top = sample_rate / 2
    low, high = (2595 * math.log10(1 + hertz / 700) for hertz in (min(_LOWEST_HERTZ, top / 2), top))
    edges = 700 * (10 ** (torch.linspace(low, high, n_bands + 2) / 2595) - 1)  # (n_bands + 2,)
    bins = torch.linspace(0, top, n_bins)
    left, center, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    filters = torch.minimum((bins - left) / (center - left), (right - bins) / (right - center)).clamp(min=0)
    nearest = torch.zeros_like(filters)  # a band between two bins takes the nearer one
    nearest[torch.arange(n_bands), (bins - center).abs().argmin(1)] = 1.0
    filters = torch.where(filters.sum(1, keepdim=True) > 0, filters, nearest)
    return filters / filters.sum(1, keepdim=True)


def create_log_mel(request: ExtractorRequest) -> LogMelExtractor:
    """The factory of "logmel"; the resolution of the name is the sampling rate."""
    if request.output.kind != "series":
        raise FeatureError("the features logmel need sounds", "use imagenet for images, identity for vectors")
    return LogMelExtractor(request.output, request.view.resolution or 16_000)
