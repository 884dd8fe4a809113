"""Extractors by name: samples (B, …) in, features (B, D) out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from gandiag.errors import FeatureError, PluginError
from gandiag.features.view_names import ViewName
from gandiag.interfaces import OutputSpec
from gandiag.registry import Registry
from gandiag.sampling.tables.encoder import TableEncoder


@dataclass(frozen=True, slots=True)
class ExtractorRequest:
    """What an extractor's factory receives.

    `view`: the parsed name. `output`: the format of the samples. `download`: whether the network may be used.
    `encoder`: of columns, fitted to the real data, for the features "table".
    """

    view: ViewName
    output: OutputSpec
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    download: bool = False
    inception_weights: str | None = None
    encoder: TableEncoder | None = None

    def require_images(self) -> None:
        """FeatureError unless the samples are images."""
        if self.output.kind != "image":
            raise FeatureError(
                f"the features {self.view} need images, and these samples are {self.output.kind}s",
                "use identity for vectors, series for series",
            )


@runtime_checkable
class Extractor(Protocol):
    """Samples in the range that `output` declares -> (B, dim) float32 on the CPU, independent of the batch to 1e-4.

    `name`: that in the registry. `fingerprint`: changes whenever the features do (weights, resolution, code version).
    """

    @property
    def name(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def fingerprint(self) -> str: ...
    def __call__(self, samples: Tensor, output: OutputSpec) -> Tensor: ...


IMAGE_STATISTICS_NAMES = ("color", "texture", "layout")  # the keys of `image_statistics.ASPECTS`
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

# name -> factory(ExtractorRequest) -> Extractor
EXTRACTORS = Registry(
    "features",
    {
        "identity": "gandiag.features.raw:create_identity",
        "pixels": "gandiag.features.raw:create_pixels",
        "series": "gandiag.features.time_series:create_series",
        "logmel": "gandiag.features.log_mel:create_log_mel",
        "table": "gandiag.features.table:create_table",
        "imagenet": "gandiag.features.imagenet:create_imagenet",
        **{name: "gandiag.features.image_statistics:create_aspect" for name in IMAGE_STATISTICS_NAMES},
        **{name: "gandiag.features.torch_fidelity:create_torch_fidelity" for name in TORCH_FIDELITY_NAMES},
    },
)


def default_features(output: OutputSpec) -> str:
    """imagenet for images, identity for vectors, series for series, table for tables."""
    return {"image": "imagenet", "vector": "identity", "series": "series", "table": "table"}[output.kind]


def create_extractor(request: ExtractorRequest) -> Extractor:
    """The requested extractor. FeatureError if it is unknown, not installed, offline, or for another kind of sample."""
    try:
        factory = EXTRACTORS.get(request.view.base)
    except PluginError as error:
        raise FeatureError(error.message, error.hint) from None
    extractor = factory(request)
    if not isinstance(extractor, Extractor):
        raise PluginError(
            f"the features plug-in {request.view.base!r} returned a {type(extractor).__name__} "
            "without name, dim, fingerprint or __call__",
            "see gandiag.features.extractors.Extractor",
        )
    return extractor
