"""Kept samples: the k smallest hashes of the index. Order-free, mergeable, and nested across sizes.

"samples" as the view keeps the raw samples; any other view keeps its features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gandiag.interfaces import Batch
from gandiag.sampling.index_order import hash_indices


@dataclass(frozen=True, slots=True)
class SubsetSpec:
    """Keep `k` samples of a view: the spec. Result: KeptSamples in index order."""

    view: str
    k: int

    def start(self) -> SubsetAccumulator:
        return SubsetAccumulator(self)


@dataclass(frozen=True, slots=True)
class SampleSubset:
    """`values` (k, ...) float32 on the CPU, `indices` (k,), `labels` (k,) or None; rows in index order."""

    values: Tensor
    indices: Tensor
    labels: Tensor | None


class SubsetAccumulator:
    """Bottom-k by index hash; exact under any batching, order and sharding."""

    def __init__(self, spec: SubsetSpec) -> None:
        self.spec = spec
        self._parts: list[SampleSubset] = []
        self._held = 0

    def update(self, batch: Batch) -> None:
        values = batch.samples if self.spec.view == "samples" else batch.features[self.spec.view]
        labels = None if batch.labels is None else batch.labels.cpu()
        self._parts.append(SampleSubset(values.detach().float().cpu(), batch.indices.cpu(), labels))
        self._held += len(batch.indices)
        if self._held > 2 * self.spec.k + 4096:
            self._parts = [self._smallest()]
            self._held = len(self._parts[0].indices)

    def merge(self, other: SubsetAccumulator) -> None:
        self._parts.extend(other._parts)
        self._held += other._held

    def result(self) -> SampleSubset:
        return self._smallest()

    def _smallest(self) -> SampleSubset:
        if not self._parts:
            return SampleSubset(torch.empty(0, 0), torch.empty(0, dtype=torch.int64), None)
        values = torch.cat([part.values for part in self._parts])  # (N, ...)
        indices = torch.cat([part.indices for part in self._parts])  # (N,)
        labels = (
            None
            if any(part.labels is None for part in self._parts)
            else torch.cat([part.labels for part in self._parts if part.labels is not None])
        )
        keep = torch.argsort(hash_indices(indices), stable=True)[: self.spec.k]
        keep = keep[torch.argsort(indices[keep])]  # (k,) back to index order
        return SampleSubset(values[keep], indices[keep], None if labels is None else labels[keep])
