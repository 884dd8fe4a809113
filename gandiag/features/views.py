"""A view is an extractor at a resolution and behind a level of glass; a batch is embedded once per view."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from gandiag.contracts import Batch, Output
from gandiag.errors import FeatureError
from gandiag.features.extractors import Extractor, make
from gandiag.features.glass import degrade
from gandiag.features.names import parse
from gandiag.features.request import Request
from gandiag.sample.fit import unit_range


@dataclass(frozen=True, slots=True)
class View:
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


def make_views(names: Iterable[str], output: Output, *, device: str | torch.device = "cpu", download: bool = False,
               inception_weights: str | None = None) -> tuple[View, ...]:
    """The views called `names` for samples of `output`, each extractor built once. FeatureError for the first that fails."""
    built: dict[Any, Extractor] = {}
    views = []
    for name in names:
        parsed = parse(name)
        if parsed.level and output.kind != "image":
            raise FeatureError(f"{name} degrades images, and these samples are {output.kind}s", f"use {parsed.at(0)}")
        request = Request(parsed.at(0), output, torch.device(device), download, inception_weights)
        if request.view not in built:
            built[request.view] = make(request)
        views.append(View(name, built[request.view], parsed.level))
    return tuple(views)


def embed(batch: Batch, views: Sequence[View | Extractor], output: Output, *, salt: int = 0) -> Batch:
    """The batch with every view filled that it lacks: views[name] (B, D) float32 on the CPU.

    `salt`: a number per source (`salt_of`), so that the noise of the degraded views differs between real and generated
    samples of the same index.
    """
    found = dict(batch.views)
    panes: dict[int, Any] = {}
    for view in views:
        if view.name in found:
            continue
        level, extractor = (view.level, view.extractor) if isinstance(view, View) else (0, view)
        if not level:
            found[view.name] = extractor(batch.samples, output)
            continue
        if level not in panes:
            panes[level] = degrade(unit_range(batch.samples, output), batch.indices, level, salt=salt)
        found[view.name] = extractor(panes[level], Output("image", tuple(panes[level].shape[1:]), (0.0, 1.0)))
    return replace(batch, views=found)


def salt_of(role: str) -> int:
    """The glass noise of a role: 0 for the real data, 1 for everything generated."""
    return 0 if role == "real" else 1
