"""One pass per source, real first: the union of what the metrics need, then every metric on what the passes left.

needs = union over metrics                  what to accumulate, per role; equal specs share one state
collect(batches, specs)                     walk one source once
measure(metrics, results)                   pure; a metric that raises becomes a measurement with status "error"
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from gandiag.errors import GandiagError
from gandiag.interfaces import Accumulator, Batch, Metric, MetricResult
from gandiag.record import Exhibit, Measurement

ProgressCallback = Callable[[str, int, int], None]
BatchFactory = Callable[[], Iterable[Batch]]


def no_progress(stage: str, done: int, total: int) -> None:
    """The progress callback that says nothing."""


@dataclass(slots=True)
class StageTimer:
    """Seconds per stage, in the order in which the stages began."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def collect_needs(metrics: Sequence[Metric]) -> dict[str, frozenset[Any]]:
    """Role -> every spec that some metric needs of it. The real role comes first."""
    found: dict[str, set[Any]] = {"real": set()}
    for metric in metrics:
        for role, specs in metric.needs().items():
            found.setdefault(role, set()).update(specs)
    return {role: frozenset(specs) for role, specs in found.items() if specs}


def required_views(specs: Iterable[Any]) -> tuple[str, ...]:
    """The feature views that these specs read, without the raw samples."""
    return tuple(sorted({spec.view for spec in specs} - {"samples"}))


def accumulate_batches(
    batches: Iterable[Batch], specs: Iterable[Any], on_batch: Callable[[int], None]
) -> dict[Any, Any]:
    """Walk one source once. Returns spec -> result; memory is that of the states."""
    states: dict[Any, Accumulator] = {spec: spec.start() for spec in specs}
    for batch in batches:
        for state in states.values():
            state.update(batch)
        on_batch(len(batch.indices))
    return {spec: state.result() for spec, state in states.items()}


def merge_accumulators(shards: Sequence[Mapping[Any, Accumulator]]) -> dict[Any, Any]:
    """States of the same specs from several ranks, merged in rank order; the result is that of one pass over everything."""
    first, *others = shards
    for shard in others:
        for spec, state in first.items():
            state.merge(shard[spec])
    return {spec: state.result() for spec, state in first.items()}


def run_sources(
    needs: Mapping[str, frozenset[Any]],
    streams: Mapping[str, tuple[BatchFactory, int]],
    *,
    timer: StageTimer,
    progress: ProgressCallback = no_progress,
) -> dict[str, dict[Any, Any]]:
    """Every source that is needed and exists, once, real first: role -> spec -> result.

    `streams`: role -> (a function that starts the stream, number of samples); roles without a stream are left out.
    """
    results: dict[str, dict[Any, Any]] = {}
    for role in sorted(needs, key=lambda name: (name != "real", name)):
        if role not in streams:
            continue
        start, total = streams[role]
        done = 0

        def tick(count: int, role: str = role, total: int = total) -> None:
            nonlocal done
            done += count
            progress(role, done, total)

        with timer.stage(f"pass: {role}"):
            results[role] = accumulate_batches(start(), needs[role], tick)
    return results


def run_metrics(
    metrics: Sequence[Metric],
    results: Mapping[str, Mapping[Any, Any]],
    *,
    timer: StageTimer,
    progress: ProgressCallback = no_progress,
) -> MetricResult:
    """Every metric on what the passes left. A metric that raises is recorded as an error and the others go on."""
    outcomes = []
    for done, metric in enumerate(metrics):
        progress("measuring", done, len(metrics))
        with timer.stage(f"measure: {metric.key}"):
            outcomes.append(run_safely(metric.key, lambda metric=metric: metric.measure(results)))  # type: ignore[misc]
    progress("measuring", len(metrics), len(metrics))
    return merge_results(outcomes)


def run_safely(key: str, run: Callable[[], MetricResult]) -> MetricResult:
    """`run()`, or an outcome that says why it failed."""
    try:
        return run()
    except GandiagError as problem:
        return MetricResult({key: Measurement.missing(problem.message, "error")})
    except MemoryError:
        return MetricResult({key: Measurement.missing("memory ran out", "error")})
    except Exception as bug:
        return MetricResult({key: Measurement.missing(f"{type(bug).__name__}: {bug}", "error")})


def merge_results(results: Iterable[MetricResult]) -> MetricResult:
    """Several outcomes as one; later sections of the same name extend earlier ones."""
    measurements: dict[str, Measurement] = {}
    sections: dict[str, Any] = {}
    exhibits: list[Exhibit] = []
    for outcome in results:
        measurements.update(outcome.measurements)
        for name, section in outcome.sections.items():
            old = sections.get(name)
            sections[name] = (
                {**old, **section} if isinstance(old, Mapping) and isinstance(section, Mapping) else section
            )
        exhibits.extend(outcome.exhibits)
    return MetricResult(measurements, sections, tuple(exhibits))
