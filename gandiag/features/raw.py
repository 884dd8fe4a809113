"""Features without a network: the values themselves, and downscaled images."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from gandiag.features.extractors import ExtractorRequest
from gandiag.interfaces import OutputSpec
from gandiag.sampling.preprocessing import match_channels, to_unit_range


@dataclass(frozen=True, slots=True)
class IdentityExtractor:
    """The sample itself, flattened: (B, D) in data units.

    Axes are not scaled separately; the metrics divide by one scalar of the real data.
    """

    output: OutputSpec
    name: str = "identity"
    fingerprint: str = "identity:1"
    cacheable: bool = False  # cheaper to compute than to read

    @property
    def dim(self) -> int:
        return math.prod(self.output.shape)

    def __call__(self, samples: Tensor, output: OutputSpec) -> Tensor:
        return samples.detach().float().flatten(1).cpu()  # (B, D)


@dataclass(frozen=True, slots=True)
class PixelsExtractor:
    """The image averaged to `resolution`² RGB pixels, flattened: (B, 3 resolution²) in [0, 1].

    Sensitive to color and layout, not to texture.
    """

    name: str = "pixels"
    resolution: int = 8
    cacheable: bool = False

    @property
    def dim(self) -> int:
        return 3 * self.resolution**2

    @property
    def fingerprint(self) -> str:
        return f"pixels@{self.resolution}:1"

    def __call__(self, samples: Tensor, output: OutputSpec) -> Tensor:
        pixels = F.adaptive_avg_pool2d(to_unit_range(samples.detach(), output), self.resolution)
        return match_channels(pixels, 3).flatten(1).cpu()  # (B, D)


def create_identity(request: ExtractorRequest) -> IdentityExtractor:
    """The factory of "identity"."""
    return IdentityExtractor(request.output)


def create_pixels(request: ExtractorRequest) -> PixelsExtractor:
    """The factory of "pixels" and "pixels@resolution"."""
    request.require_images()
    return PixelsExtractor(request.view.base, request.view.resolution or 8)
