"""The engine: union of needs, one pass per source, real data first, independence of batching, order and sharding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from gandiag.errors import SourceError
from gandiag.interfaces import Batch, Metric, MetricResult
from gandiag.pipeline.engine import (
    StageTimer,
    accumulate_batches,
    collect_needs,
    merge_accumulators,
    required_views,
    run_metrics,
    run_sources,
)
from gandiag.record import Measurement
from gandiag.sampling.latents import hash_indices
from gandiag.stats.resampling import estimate_by_halves
from gandiag.stats.splits import make_split, split_indices
from gandiag.stats.subset import SubsetSpec


def batches(values: Tensor, size: int, order: Tensor | None = None) -> Iterator[Batch]:
    order = torch.arange(len(values)) if order is None else order
    for rows in order.split(size):
        yield Batch(values[rows], rows, rows % 3, {"identity": values[rows]})


@dataclass(frozen=True)
class Mean:
    key: str = "mean"

    def needs(self) -> dict[str, frozenset[Any]]:
        return {"fake": frozenset({SubsetSpec("identity", 50)}), "real": frozenset({SubsetSpec("identity", 80)})}

    def measure(self, results: Any) -> MetricResult:
        return MetricResult({self.key: Measurement(float(results["fake"][SubsetSpec("identity", 50)].values.mean()))})


@dataclass(frozen=True)
class Broken:
    key: str = "broken"
    error: Exception = field(default_factory=lambda: ValueError("no"))

    def needs(self) -> dict[str, frozenset[Any]]:
        return {"fake": frozenset({SubsetSpec("identity", 50)})}

    def measure(self, results: Any) -> MetricResult:
        raise self.error


VALUES = torch.randn(200, 4, generator=torch.Generator().manual_seed(1))


def test_needs_are_a_union_by_role() -> None:
    needs = collect_needs([Mean(), Broken(), Mean("again")])
    assert needs == {"real": frozenset({SubsetSpec("identity", 80)}), "fake": frozenset({SubsetSpec("identity", 50)})}
    assert required_views({SubsetSpec("identity", 1), SubsetSpec("samples", 2)}) == ("identity",)


def test_one_pass_per_source_and_real_data_first() -> None:
    started: list[str] = []

    def stream(role: str) -> Iterator[Batch]:
        started.append(role)
        yield from batches(VALUES, 64)

    streams = {role: (lambda role=role: stream(role), 200) for role in ("fake", "real")}
    events: list[tuple[str, int, int]] = []
    timer = StageTimer()
    results = run_sources(collect_needs([Mean()]), streams, timer=timer, progress=lambda *event: events.append(event))
    assert started == ["real", "fake"] and list(results) == ["real", "fake"]
    assert events[-1] == ("fake", 200, 200) and list(timer.seconds) == ["pass: real", "pass: fake"]


@pytest.mark.parametrize("size", [1, 7, 64, 200])
def test_a_subset_does_not_depend_on_batching_or_order(size: int) -> None:
    spec = SubsetSpec("identity", 50)
    whole = accumulate_batches(batches(VALUES, 200), {spec}, lambda count: None)[spec]
    shuffled = torch.randperm(200, generator=torch.Generator().manual_seed(size))
    again = accumulate_batches(batches(VALUES, size, shuffled), {spec}, lambda count: None)[spec]
    assert (
        torch.equal(whole.indices, again.indices)
        and torch.equal(whole.values, again.values)
        and torch.equal(whole.labels, again.labels)
    )
    assert torch.equal(whole.indices, hash_indices(torch.arange(200)).argsort()[:50].sort().values)


def test_shards_merge_to_the_whole() -> None:
    spec = SubsetSpec("identity", 50)
    shards = []
    for rank in range(3):
        state = spec.start()
        for batch in batches(VALUES, 16, torch.arange(rank, 200, 3)):
            state.update(batch)
        shards.append({spec: state})
    merged, whole = (
        merge_accumulators(shards)[spec],
        accumulate_batches(batches(VALUES, 64), {spec}, lambda count: None)[spec],
    )
    assert torch.equal(merged.indices, whole.indices) and torch.equal(merged.values, whole.values)


def test_a_smaller_subset_is_inside_a_larger_one() -> None:
    sizes = {
        k: accumulate_batches(batches(VALUES, 32), {SubsetSpec("identity", k)}, lambda count: None)[
            SubsetSpec("identity", k)
        ]
        for k in (20, 50)
    }
    assert set(sizes[20].indices.tolist()) <= set(sizes[50].indices.tolist())


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("no"), "ValueError: no"),
        (SourceError("83 real samples are too few", "give more"), "83 real samples are too few"),
        (MemoryError(), "memory ran out"),
    ],
)
def test_a_metric_that_raises_becomes_an_error_and_the_others_continue(error: Exception, reason: str) -> None:
    metrics: list[Metric] = [Broken(error=error), Mean()]
    results = run_sources(collect_needs(metrics), {"fake": (lambda: batches(VALUES, 64), 200)}, timer=StageTimer())
    found = run_metrics(metrics, results, timer=StageTimer()).measurements
    assert found["broken"].status == "error" and found["broken"].reason == reason and found["broken"].value is None
    assert found["mean"].status == "ok"


def test_halves_are_disjoint_and_a_trio_is_cut_to_the_smaller_side() -> None:
    a, b = split_indices(101, 50)
    assert len(a) == len(b) == 50 and not set(a.tolist()) & set(b.tolist())
    kept = {
        k: accumulate_batches(batches(VALUES, 64), {SubsetSpec("identity", k)}, lambda count: None)[
            SubsetSpec("identity", k)
        ]
        for k in (60, 100)
    }
    found = make_split(kept[60], kept[100])
    assert len(found.reference) == len(found.heldout) == len(found.fake) == 30 and (found.n_real, found.n_fake) == (
        60,
        100,
    )


def test_half_sampling_estimates_the_spread_at_n() -> None:
    """The standard error of a mean is sigma / sqrt(n); 400 half-samples estimate it to 3.5 %, and 11 % are 3 sigma."""
    rows = torch.randn(900, generator=torch.Generator().manual_seed(0))
    found = estimate_by_halves(lambda part: float(part.mean()), rows, replicates=400)
    assert (found.high - found.low) / 2 / 1.96 == pytest.approx(float(rows.std()) / 30, rel=0.11)
