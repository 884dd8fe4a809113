"""Keeps a subset of the samples: those with the k smallest index hashes.

The subset does not depend on the order of the samples, can be merged across shards, and smaller subsets are contained
in larger ones. The view "samples" keeps the raw samples; any other view keeps its features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gandiag.interfaces import Batch
from gandiag.sampling.latents import hash_indices


@dataclass(frozen=True, slots=True)
class SubsetSpec:
    """Keep `k` samples of a view. The result is a SampleSubset in index order."""

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
    """Keeps the k rows with the smallest index hashes; exact under any batching, order and sharding."""

    def __init__(self, spec: SubsetSpec) -> None:
        self.spec = spec
        self._parts: list[SampleSubset] = []
        self._n_rows = 0

    def update(self, batch: Batch) -> None:
        values = batch.samples if self.spec.view == "samples" else batch.features[self.spec.view]
        labels = None if batch.labels is None else batch.labels.cpu()
        self._parts.append(SampleSubset(values.detach().float().cpu(), batch.indices.cpu(), labels))
        self._n_rows += len(batch.indices)
        if self._n_rows > 2 * self.spec.k + 4096:
            self._parts = [self._smallest()]
            self._n_rows = len(self._parts[0].indices)

    def merge(self, other: SubsetAccumulator) -> None:
        self._parts.extend(other._parts)
        self._n_rows += other._n_rows

    def result(self) -> SampleSubset:
        return self._smallest()

    def _smallest(self) -> SampleSubset:
        if not self._parts:
            return SampleSubset(torch.empty(0, 0), torch.empty(0, dtype=torch.int64), None)
        values = torch.cat([part.values for part in self._parts])  # (N, ...)
        indices = torch.cat([part.indices for part in self._parts])  # (N,)
        part_labels = [part.labels for part in self._parts if part.labels is not None]
        labels = torch.cat(part_labels) if len(part_labels) == len(self._parts) else None
        keep = torch.argsort(hash_indices(indices), stable=True)[: self.spec.k]
        keep = keep[torch.argsort(indices[keep])]  # (k,) back to index order
        return SampleSubset(values[keep], indices[keep], None if labels is None else labels[keep])
