"""Makes one pass over each source, real data first, then computes every metric from the accumulated results.

collect_needs(metrics)                   the union of what the metrics need, by role; equal specs share one accumulator
run_sources(needs, streams)              one pass over each source: role -> spec -> result
run_metrics(metrics, results)            every metric; one that raises becomes a measurement with status "error"
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from gandiag.errors import GandiagError
from gandiag.interfaces import Accumulator, Batch, Metric, MetricResult
from gandiag.record import Exhibit, Measurement

ProgressCallback = Callable[[str, int, int], None]
BatchFactory = Callable[[], Iterable[Batch]]


def no_progress(stage: str, done: int, total: int) -> None:
    """Default progress callback: does nothing."""


@dataclass(slots=True)
class StageTimer:
    """Seconds per stage, in the order in which the stages started."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def collect_needs(metrics: Sequence[Metric]) -> dict[str, frozenset[Any]]:
    """Role -> all specs that any metric needs. The real role comes first."""
    needs: dict[str, set[Any]] = {"real": set()}
    for metric in metrics:
        for role, specs in metric.needs().items():
            needs.setdefault(role, set()).update(specs)
    return {role: frozenset(specs) for role, specs in needs.items() if specs}


def required_views(specs: Iterable[Any]) -> tuple[str, ...]:
    """The feature views that these specs read, other than the raw samples."""
    return tuple(sorted({spec.view for spec in specs} - {"samples"}))


def accumulate_batches(
    batches: Iterable[Batch], specs: Iterable[Any], on_batch: Callable[[int], None]
) -> dict[Any, Any]:
    """One pass over one source: spec -> result. Memory is that of the accumulators."""
    accumulators: dict[Any, Accumulator] = {spec: spec.start() for spec in specs}
    for batch in batches:
        for accumulator in accumulators.values():
            accumulator.update(batch)
        on_batch(len(batch.indices))
    return {spec: accumulator.result() for spec, accumulator in accumulators.items()}


def merge_accumulators(shards: Sequence[Mapping[Any, Accumulator]]) -> dict[Any, Any]:
    """Merge the accumulators of several ranks, in rank order. The result equals that of one pass over all samples."""
    first, *others = shards
    for shard in others:
        for spec, accumulator in first.items():
            accumulator.merge(shard[spec])
    return {spec: accumulator.result() for spec, accumulator in first.items()}


def run_sources(
    needs: Mapping[str, frozenset[Any]],
    streams: Mapping[str, tuple[BatchFactory, int]],
    *,
    timer: StageTimer,
    progress: ProgressCallback = no_progress,
) -> dict[str, dict[Any, Any]]:
    """One pass over every source that is needed and exists, real first: role -> spec -> result.

    `streams`: role -> (a function that starts the stream, number of samples); roles without a stream are skipped.
    """
    results: dict[str, dict[Any, Any]] = {}
    for role in sorted(needs, key=lambda name: (name != "real", name)):
        if role not in streams:
            continue
        start, total = streams[role]
        n_done = 0

        def report_batch(count: int, role: str = role, total: int = total) -> None:
            nonlocal n_done
            n_done += count
            progress(role, n_done, total)

        with timer.stage(f"pass: {role}"):
            results[role] = accumulate_batches(start(), needs[role], report_batch)
    return results


def run_metrics(
    metrics: Sequence[Metric],
    results: Mapping[str, Mapping[Any, Any]],
    *,
    timer: StageTimer,
    progress: ProgressCallback = no_progress,
) -> MetricResult:
    """Compute every metric from the results of the passes.

    One that raises is recorded as an error; the others continue.
    """
    outcomes = []
    for n_done, metric in enumerate(metrics):
        progress("measuring", n_done, len(metrics))
        with timer.stage(f"measure: {metric.key}"):
            outcomes.append(run_safely(metric.key, partial(metric.measure, results)))
    progress("measuring", len(metrics), len(metrics))
    return merge_results(outcomes)


def run_safely(key: str, run: Callable[[], MetricResult]) -> MetricResult:
    """The result of `run()`, or a measurement `key` with status "error" and the reason."""
    try:
        return run()
    except GandiagError as problem:
        return MetricResult({key: Measurement.missing(problem.message, "error")})
    except MemoryError:
        return MetricResult({key: Measurement.missing("memory ran out", "error")})
    except Exception as bug:
        return MetricResult({key: Measurement.missing(f"{type(bug).__name__}: {bug}", "error")})


def merge_results(results: Iterable[MetricResult]) -> MetricResult:
    """Combine several results; a later section extends an earlier one of the same name."""
    measurements: dict[str, Measurement] = {}
    sections: dict[str, Any] = {}
    exhibits: list[Exhibit] = []
    for result in results:
        measurements.update(result.measurements)
        for name, section in result.sections.items():
            earlier = sections.get(name)
            if isinstance(earlier, Mapping) and isinstance(section, Mapping):
                section = {**earlier, **section}
            sections[name] = section
        exhibits.extend(result.exhibits)
    return MetricResult(measurements, sections, tuple(exhibits))
