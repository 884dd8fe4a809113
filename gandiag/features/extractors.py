"""Extractors by name: samples (B, …) in, features (B, D) out."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from gandiag.errors import FeatureError, PluginError
from gandiag.features.extractor_request import ExtractorRequest
from gandiag.features.view_names import ViewName
from gandiag.interfaces import OutputSpec
from gandiag.registry import Registry


@runtime_checkable
class Extractor(Protocol):
    """Samples in the range that `output` declares -> (B, dim) float32 on the CPU, the same whatever the batch (1e-4).

    `name`: the registry's. `fingerprint`: changes whenever the features do (weights, resolution, version of the code).
    """

    @property
    def name(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def fingerprint(self) -> str: ...
    def __call__(self, samples: Tensor, output: OutputSpec) -> Tensor: ...


TORCH_FIDELITY_NAMES = (
    "inception-v3-compat",
    "inception-v3-compat/logits",
    "vgg16",
    "clip-rn50",
    "clip-rn101",
    "clip-rn50x4",
    "clip-rn50x16",
    "clip-rn50x64",
    "clip-vit-b-32",
    "clip-vit-b-16",
    "clip-vit-l-14",
    "clip-vit-l-14-336px",
    "dinov2-vit-s-14",
    "dinov2-vit-b-14",
    "dinov2-vit-l-14",
    "dinov2-vit-g-14",
)

EXTRACTORS = Registry(
    "features",
    {
        "identity": "gandiag.features.raw:create_identity",
        "pixels": "gandiag.features.raw:create_pixels",
        "series": "gandiag.features.time_series:create_series",
        "imagenet": "gandiag.features.imagenet:create_imagenet",
        **{name: "gandiag.features.image_functions:create_aspect" for name in ("color", "texture", "layout")},
        **{name: "gandiag.features.torch_fidelity:create_torch_fidelity" for name in TORCH_FIDELITY_NAMES},
    },
)  # name -> factory(Request) -> Extractor


def default_features(output: OutputSpec) -> str:
    """imagenet for images, identity for vectors, series for series."""
    return {"image": "imagenet", "vector": "identity", "series": "series"}[output.kind]


def create_extractor(request: ExtractorRequest) -> Extractor:
    """The extractor that a request names. FeatureError where it is unknown, not installed, offline, or of another kind."""
    try:
        factory = EXTRACTORS.get(request.view.base)
    except PluginError as unknown:
        raise FeatureError(unknown.message, unknown.hint) from None
    extractor = factory(request)
    if not isinstance(extractor, Extractor):
        raise PluginError(
            f"the features plug-in {request.view.base!r} made a {type(extractor).__name__} without name, dim, fingerprint or call",
            "see gandiag.features.extractors.Extractor",
        )
    return extractor


__all__ = [
    "EXTRACTORS",
    "TORCH_FIDELITY_NAMES",
    "Extractor",
    "ExtractorRequest",
    "ViewName",
    "create_extractor",
    "default_features",
]
