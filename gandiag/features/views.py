"""Views: extractors at a resolution and a degradation level. Embeds each batch once per view."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gandiag.errors import FeatureError
from gandiag.features.degradation import degrade_images
from gandiag.features.extractors import Extractor, ExtractorRequest, create_extractor
from gandiag.features.view_names import ViewName, parse_view_name
from gandiag.interfaces import Batch, OutputSpec
from gandiag.sampling.preprocessing import to_unit_range
from gandiag.sampling.tables.encoder import TableEncoder


@dataclass(frozen=True, slots=True)
class FeatureView:
    """`name`: the name that metrics use. `extractor`: shared between degradation levels."""

    name: str
    extractor: Extractor
    level: int = 0

    @property
    def dim(self) -> int:
        return self.extractor.dim

    @property
    def fingerprint(self) -> str:
        return self.extractor.fingerprint + (f"+{self.level}:1" if self.level else "")


def make_views(
    names: Iterable[str],
    output: OutputSpec,
    *,
    device: str | torch.device = "cpu",
    download: bool = False,
    inception_weights: str | None = None,
    encoder: TableEncoder | None = None,
) -> tuple[FeatureView, ...]:
    """The views called `names` for samples of `output`; each extractor is built once.

    FeatureError for the first that fails.
    """
    extractors: dict[ViewName, Extractor] = {}
    views = []
    for name in names:
        view = parse_view_name(name)
        if view.level and output.kind != "image":
            raise FeatureError(
                f"{name} degrades images, and these samples are {output.kind}s", f"use {view.with_level(0)}"
            )
        request = ExtractorRequest(
            view.with_level(0), output, torch.device(device), download, inception_weights, encoder
        )
        if request.view not in extractors:
            extractors[request.view] = create_extractor(request)
        views.append(FeatureView(name, extractors[request.view], view.level))
    return tuple(views)


def embed_batch(
    batch: Batch, views: Sequence[FeatureView | Extractor], output: OutputSpec, *, noise_seed: int = 0
) -> Batch:
    """The batch with the features of every view added: (B, D) float32 on the CPU. Existing ones are kept.

    `noise_seed`: one number per source (`noise_seed_for`), so that the noise of the degraded views differs between real
    and generated samples of the same index.
    """
    features = dict(batch.features)
    degraded: dict[int, Tensor] = {}
    for view in views:
        if view.name in features:
            continue
        level, extractor = (view.level, view.extractor) if isinstance(view, FeatureView) else (0, view)
        if not level:
            features[view.name] = extractor(batch.samples, output)
            continue
        if level not in degraded:
            images = to_unit_range(batch.samples, output)
            degraded[level] = degrade_images(images, batch.indices, level, noise_seed=noise_seed)
        images = degraded[level]
        features[view.name] = extractor(images, OutputSpec("image", tuple(images.shape[1:]), (0.0, 1.0)))
    return replace(batch, features=features)


def noise_seed_for(role: str) -> int:
    """The seed of a role's degradation noise: 0 for the real data, 1 for everything generated."""
    return 0 if role == "real" else 1
