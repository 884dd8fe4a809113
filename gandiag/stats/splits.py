"""Equal-sized splits: a reference half and a held-out half of the real data, and as many generated samples.

Every comparison is made between the reference half and the generated samples. Its floor is the same comparison between
the reference half and the held-out half.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gandiag.sampling.latents import hash_indices
from gandiag.stats.subset import SampleSubset, SubsetSpec


@dataclass(frozen=True, slots=True)
class RealFakeSplit:
    """`reference`, `heldout`, `fake`: (n, D) float32 each, in one view. `n_real`, `n_fake`: rows before the cut."""

    reference: Tensor
    heldout: Tensor
    fake: Tensor
    n_real: int
    n_fake: int

    @property
    def n(self) -> int:
        return len(self.fake)

    def flat_rows(self) -> tuple[Tensor, Tensor, Tensor]:
        """Reference, held-out and generated rows with all feature axes flattened, (n, D) each."""
        return self.reference.flatten(1), self.heldout.flatten(1), self.fake.flatten(1)


def split_indices(n_real: int, n: int, indices: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Two disjoint sets of `n` positions of real rows, (n,) each, determined by the samples' indices alone."""
    order = torch.argsort(hash_indices(torch.arange(n_real) if indices is None else indices), stable=True)
    return order[0 : 2 * n : 2].sort().values, order[1 : 2 * n : 2].sort().values


def make_split(real: SampleSubset, fake: SampleSubset) -> RealFakeSplit:
    """Cut real halves and generated samples to n = min(n_fake, n_real // 2) rows each."""
    n = min(len(fake.indices), len(real.indices) // 2)
    reference, heldout = split_indices(len(real.indices), n, real.indices)
    chosen = torch.argsort(hash_indices(fake.indices), stable=True)[:n].sort().values
    return RealFakeSplit(
        real.values[reference], real.values[heldout], fake.values[chosen], len(real.indices), len(fake.indices)
    )


def split_needs(view: str, n: int) -> Mapping[str, frozenset[SubsetSpec]]:
    """What a split needs from the engine: n generated and 2n real samples of one view."""
    return {"real": frozenset({SubsetSpec(view, 2 * n)}), "fake": frozenset({SubsetSpec(view, n)})}


def split_from_results(results: Mapping[str, Mapping[Any, Any]], view: str, n: int) -> RealFakeSplit | None:
    """The split in one view, or None without real data."""
    if "real" not in results:
        return None
    return make_split(results["real"][SubsetSpec(view, 2 * n)], results["fake"][SubsetSpec(view, n)])
