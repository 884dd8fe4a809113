"""Facts of the output: extremes, saturation, channels that never change. They have no floor: no statistic of the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gandiag.interfaces import MetricResult, Needs
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
