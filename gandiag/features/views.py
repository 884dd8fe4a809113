"""A view is an extractor at a resolution and behind a level of glass; a batch is embedded once per view."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from gandiag.errors import FeatureError
from gandiag.features.degradation import degrade_images
from gandiag.features.extractor_request import ExtractorRequest
from gandiag.features.extractors import Extractor, create_extractor
from gandiag.features.view_names import parse_view_name
from gandiag.interfaces import Batch, OutputSpec
from gandiag.sampling.preprocessing import to_unit_range


@dataclass(frozen=True, slots=True)
class FeatureView:
    """`name` is what metrics ask for; `extractor` is shared between levels."""

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
) -> tuple[FeatureView, ...]:
    """The views called `names` for samples of `output`, each extractor built once. FeatureError for the first that fails."""
    built: dict[Any, Extractor] = {}
    views = []
    for name in names:
        parsed = parse_view_name(name)
        if parsed.level and output.kind != "image":
            raise FeatureError(
                f"{name} degrades images, and these samples are {output.kind}s", f"use {parsed.with_level(0)}"
            )
        request = ExtractorRequest(parsed.with_level(0), output, torch.device(device), download, inception_weights)
        if request.view not in built:
            built[request.view] = create_extractor(request)
        views.append(FeatureView(name, built[request.view], parsed.level))
    return tuple(views)


def embed_batch(
    batch: Batch, views: Sequence[FeatureView | Extractor], output: OutputSpec, *, noise_seed: int = 0
) -> Batch:
    """The batch with every view filled that it lacks: views[name] (B, D) float32 on the CPU.

    `salt`: a number per source (`salt_of`), so that the noise of the degraded views differs between real and generated
    samples of the same index.
    """
    found = dict(batch.features)
    panes: dict[int, Any] = {}
    for view in views:
        if view.name in found:
            continue
        level, extractor = (view.level, view.extractor) if isinstance(view, FeatureView) else (0, view)
        if not level:
            found[view.name] = extractor(batch.samples, output)
            continue
        if level not in panes:
            panes[level] = degrade_images(
                to_unit_range(batch.samples, output), batch.indices, level, noise_seed=noise_seed
            )
        found[view.name] = extractor(panes[level], OutputSpec("image", tuple(panes[level].shape[1:]), (0.0, 1.0)))
    return replace(batch, features=found)


def noise_seed_for(role: str) -> int:
    """The glass noise of a role: 0 for the real data, 1 for everything generated."""
    return 0 if role == "real" else 1
