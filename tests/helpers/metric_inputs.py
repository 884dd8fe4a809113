"""What the engine hands to a metric, made from rows at hand; and seeded normal draws."""

from __future__ import annotations

import torch
from torch import Tensor

from gandiag.stats.subset import SampleSubset, SubsetSpec


def draw(*shape: int, seed: int = 0) -> Tensor:
    """N(0, 1) in float32."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def kept(rows: Tensor) -> SampleSubset:
    return SampleSubset(rows, torch.arange(len(rows)), None)


def results(real: Tensor | None, fake: Tensor, n: int, view: str = "v") -> dict[str, dict[SubsetSpec, SampleSubset]]:
    """Both roles of one view; without real data only "fake"."""
    found = {"fake": {SubsetSpec(view, n): kept(fake)}}
    return found if real is None else {"real": {SubsetSpec(view, 2 * n): kept(real)}, **found}
