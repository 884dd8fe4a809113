"""Extractors by name: samples (B, …) in, features (B, D) out."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from gandiag.contracts import Output
from gandiag.errors import FeatureError, PluginError
from gandiag.features.names import ViewName
from gandiag.features.request import Request
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
    def __call__(self, samples: Tensor, output: Output) -> Tensor: ...


FIDELITY = (
    "inception-v3-compat", "inception-v3-compat/logits", "vgg16",
    "clip-rn50", "clip-rn101", "clip-rn50x4", "clip-rn50x16", "clip-rn50x64", "clip-vit-b-32", "clip-vit-b-16", "clip-vit-l-14", "clip-vit-l-14-336px",
    "dinov2-vit-s-14", "dinov2-vit-b-14", "dinov2-vit-l-14", "dinov2-vit-g-14",
)

EXTRACTORS = Registry("features", {
    "identity": "gandiag.features.plain:identity",
    "pixels": "gandiag.features.plain:pixels",
    "series": "gandiag.features.series:series",
    "imagenet": "gandiag.features.imagenet:imagenet",
    **{name: "gandiag.features.functions:aspect" for name in ("color", "texture", "layout")},
    **{name: "gandiag.features.fidelity:fidelity" for name in FIDELITY},
})  # name -> factory(Request) -> Extractor


def default_features(output: Output) -> str:
    """imagenet for images, identity for vectors, series for series."""
    return {"image": "imagenet", "vector": "identity", "series": "series"}[output.kind]


def make(request: Request) -> Extractor:
    """The extractor that a request names. FeatureError where it is unknown, not installed, offline, or of another kind."""
    try:
        factory = EXTRACTORS.get(request.view.base)
    except PluginError as unknown:
        raise FeatureError(unknown.what, unknown.hint) from None
    extractor = factory(request)
    if not isinstance(extractor, Extractor):
        raise PluginError(f"the features plug-in {request.view.base!r} made a {type(extractor).__name__} without name, dim, fingerprint or call",
                          "see gandiag.features.extractors.Extractor")
    return extractor


__all__ = ["EXTRACTORS", "FIDELITY", "Extractor", "Request", "ViewName", "default_features", "make"]
