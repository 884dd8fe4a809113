"""Cheap functions of images as extractors: the aspects color, texture and layout."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gandiag.features.extractor_request import ExtractorRequest
from gandiag.features.image_statistics import ASPECTS
from gandiag.interfaces import OutputSpec
from gandiag.sampling.preprocessing import to_unit_range

ASPECT_VERSION = 2  # of the aspects: raise it when one of them changes


class ImageFunctionExtractor:
    """A function of images, (B, C, H, W) in [0, 1] -> (B, D), as an extractor. `version`: raise it when the function changes."""

    cacheable = False  # not worth a place in the cache

    def __init__(
        self, name: str, function: Callable[[Tensor], Tensor], output: OutputSpec, version: int = ASPECT_VERSION
    ) -> None:
        self.name, self._function = name, function
        self.fingerprint = f"{name}:{version}"
        self.dim = function(torch.zeros(1, *output.shape)).shape[1]

    def __call__(self, samples: Tensor, output: OutputSpec) -> Tensor:
        return self._function(to_unit_range(samples.detach(), output)).float().cpu()  # (B, D)


def create_aspect(request: ExtractorRequest) -> ImageFunctionExtractor:
    """The factory behind the names in ASPECTS."""
    request.require_images()
    return ImageFunctionExtractor(request.view.base, ASPECTS[request.view.base], request.output)
