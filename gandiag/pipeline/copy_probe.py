"""Searches all real samples for copies, beyond those that the metrics see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from gandiag.features.raw import PixelsExtractor
from gandiag.features.views import embed_batch, noise_seed_for
from gandiag.interfaces import Batch, MetricResult
from gandiag.metrics.copy_search import HashedRows, search_copies
from gandiag.metrics.memorization import MIN_SEARCHED
from gandiag.pipeline.session import READ_BATCH_SIZE, AuditSession
from gandiag.stats.exact_rows import hash_rows
from gandiag.stats.subset import SubsetSpec

THUMBNAIL_SIDE = 16
# Real samples searched at most: decoding images costs more than reading rows, and a network rarely copies exactly.
MAX_SEARCHED = {"image": 20_000, "network image": 5_000, "other": 50_000}


def measure_copies(session: AuditSession, results: Mapping[str, Mapping[Any, Any]]) -> MetricResult:
    """Shares of the generated samples that copy a real one, with every real sample searched, up to a limit."""
    real, context, output = session.real, session.plan.context, session.subject.output
    assert real is not None
    samples = results["fake"][SubsetSpec("samples", context.n)]
    if min(len(samples.indices), real.n) < MIN_SEARCHED:
        return MetricResult()
    kind = "image" if output.kind == "image" else "other"
    if kind == "image" and session.subject.sampler is not None:
        kind = "network image"
    limit = max(MAX_SEARCHED[kind], session.n_samples("real"))
    fake = _collect(session, [Batch(samples.values, samples.indices)], "fake")
    batches = real.iter_batches(READ_BATCH_SIZE, output=output, limit=min(limit, real.n))
    return MetricResult(search_copies(_collect(session, batches, "real"), fake, real.n))


def _collect(session: AuditSession, batches: Iterable[Batch], role: str) -> HashedRows:
    """The hashes of the samples, and rows to compare: thumbnails of images, features of the main view otherwise."""
    hashes: list[bytes] = []
    values: list[Tensor] = []
    output = session.subject.output
    for batch in batches:
        hashes += hash_rows(batch.samples)
        if output.kind == "image":
            values.append(PixelsExtractor(resolution=THUMBNAIL_SIDE)(batch.samples, output))
        else:
            view = session.plan.context.view
            embedded = embed_batch(batch, session.get_views([view]), output, noise_seed=noise_seed_for(role))
            values.append(embedded.features[view])
    return HashedRows(hashes, torch.cat(values).flatten(1))
