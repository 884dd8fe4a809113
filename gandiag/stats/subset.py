"""Kept samples: the k smallest hashes of the index. Order-free, mergeable, and nested across sizes.

"samples" as the view keeps the raw samples; any other view keeps its features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gandiag.contracts import Batch
from gandiag.sample.order import index_hash


@dataclass(frozen=True, slots=True)
class Kept:
    """Keep `k` samples of a view: the spec. Result: KeptSamples in index order."""

    view: str
    k: int

    def start(self) -> KeptState:
        return KeptState(self)


@dataclass(frozen=True, slots=True)
class KeptSamples:
    """`values` (k, ...) float32 on the CPU, `indices` (k,), `labels` (k,) or None; rows in index order."""

    values: Tensor
    indices: Tensor
    labels: Tensor | None


class KeptState:
    """Bottom-k by index hash; exact under any batching, order and sharding."""

    def __init__(self, spec: Kept) -> None:
        self.spec = spec
        self._parts: list[KeptSamples] = []
        self._held = 0

    def update(self, batch: Batch) -> None:
        values = batch.samples if self.spec.view == "samples" else batch.views[self.spec.view]
        labels = None if batch.labels is None else batch.labels.cpu()
        self._parts.append(KeptSamples(values.detach().float().cpu(), batch.indices.cpu(), labels))
        self._held += len(batch.indices)
        if self._held > 2 * self.spec.k + 4096:
            self._parts = [self._smallest()]
            self._held = len(self._parts[0].indices)

    def merge(self, other: KeptState) -> None:
        self._parts.extend(other._parts)
        self._held += other._held

    def result(self) -> KeptSamples:
        return self._smallest()

    def _smallest(self) -> KeptSamples:
        if not self._parts:
            return KeptSamples(torch.empty(0, 0), torch.empty(0, dtype=torch.int64), None)
        values = torch.cat([part.values for part in self._parts])  # (N, ...)
        indices = torch.cat([part.indices for part in self._parts])  # (N,)
        labels = None if any(part.labels is None for part in self._parts) else torch.cat([part.labels for part in self._parts if part.labels is not None])
        keep = torch.argsort(index_hash(indices), stable=True)[: self.spec.k]
        keep = keep[torch.argsort(indices[keep])]  # (k,) back to index order
        return KeptSamples(values[keep], indices[keep], None if labels is None else labels[keep])
