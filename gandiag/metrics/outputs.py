"""Output statistics: extremes, saturation and constant channels. They have no floor: the data play no part in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gandiag.interfaces import Metric, MetricResult, Needs
from gandiag.metrics.registry import MetricContext
from gandiag.sampling.output_checks import OutputCheck, output_measurements


@dataclass(frozen=True, slots=True)
class OutputStatistics:
    """`output_min`, `output_max`, `saturated`, `constant_channels` over every generated sample, in one pass."""

    value_range: tuple[float, float] | None = None
    key: str = "outputs"

    def needs(self) -> Needs:
        return {"fake": frozenset({OutputCheck(self.value_range)})}

    def measure(self, results: Any) -> MetricResult:
        return MetricResult(output_measurements(results["fake"][OutputCheck(self.value_range)]))


def create_output_metrics(context: MetricContext) -> Sequence[Metric]:
    """The factory of "outputs"."""
    if context.output.kind == "table":  # encoded rows: their extremes say nothing about the table
        return []
    return [OutputStatistics(context.output.range)]
