"""Class-by-class diversity of conditional generators: finds collapse that the mixture of all classes hides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gandiag.interfaces import Estimate, Metric, MetricResult, Needs
from gandiag.metrics.registry import MetricContext
from gandiag.metrics.score.estimator import MIN_SAMPLES, estimate_diversity_loss
from gandiag.record import Measurement
from gandiag.stats.resampling import estimate_by_halves
from gandiag.stats.subset import SampleSubset, SubsetSpec

MIN_CLASS_SAMPLES = 20  # classes with fewer samples are skipped
CLASS_REPLICATES = 8
MAX_MEDIAN_ROWS = 400  # rows that give a median distance to a few per cent


@dataclass(frozen=True, slots=True)
class ClassScores:
    """Diversity of each class against the same class of the real data, worst first; `method` says how it was measured.

    "variety": the score itself, with >= 100 generated and 200 real samples of the class. "spread": 1 - the ratio of
    median pairwise distances, with fewer. Without labeled real data there is no score, only the class's median pairwise
    distance relative to that of the mixture (`spread`). `z_ignored` is the smallest such ratio: near 0 where the output
    depends on the class alone.
    """

    view: str
    n: int
    seed: int = 0
    referenced: bool = False
    class_names: tuple[str, ...] = ()
    key: str = "classes"

    def needs(self) -> Needs:
        fake_needs = {"fake": frozenset({SubsetSpec(self.view, self.n)})}
        if not self.referenced:
            return fake_needs
        return fake_needs | {"real": frozenset({SubsetSpec(self.view, 2 * self.n)})}

    def measure(self, results: Any) -> MetricResult:
        fake: SampleSubset = results["fake"][SubsetSpec(self.view, self.n)]
        real: SampleSubset | None = results["real"][SubsetSpec(self.view, 2 * self.n)] if self.referenced else None
        if fake.labels is None:
            return MetricResult({"z_ignored": Measurement.missing("the generator has no classes")})
        mixture_distance = median_distance(fake.values)
        labels = sorted(set(fake.labels.tolist()))
        rows = [row for label in labels if (row := self._class_row(label, fake, real, mixture_distance)) is not None]
        rows.sort(key=lambda row: (-(row["score"] if row["score"] is not None else -1.0), row["spread"]))
        if not rows:
            reason = f"fewer than {MIN_CLASS_SAMPLES} samples in every class"
            return MetricResult({"z_ignored": Measurement.missing(reason)})
        narrowest = min(rows, key=lambda row: row["spread"])
        measurement = Measurement(
            narrowest["spread"],
            narrowest["spread_low"],
            narrowest["spread_high"],
            floor=_smallest_real_spread(real),
            unit="ratio",
            better="higher",
            n=narrowest["n"],
            reason=f"class {narrowest['label']}",
        )
        return MetricResult({"z_ignored": measurement}, {"classes": rows})

    def _class_row(
        self, label: int, fake: SampleSubset, real: SampleSubset | None, mixture_distance: float
    ) -> dict[str, Any] | None:
        """The record's row of one class; None with too few samples of it."""
        fake_rows = fake.values[fake.labels == label]  # (n_c, D)
        if len(fake_rows) < MIN_CLASS_SAMPLES:
            return None
        spread = estimate_by_halves(
            lambda rows: median_distance(rows) / mixture_distance if mixture_distance > 0 else 0.0,
            fake_rows,
            seed=self.seed,
            bounds=(0.0, float("inf")),
        )
        real_rows = None if real is None or real.labels is None else real.values[real.labels == label]
        score, method = self._score(fake_rows, real_rows)
        return {
            "label": self.class_names[label] if label < len(self.class_names) else str(label),
            "score": None if score is None else score.value,
            "low": None if score is None else score.low,
            "high": None if score is None else score.high,
            "method": method,
            "n": len(fake_rows),
            "n_real": 0 if real_rows is None else len(real_rows),
            "spread": spread.value,
            "spread_low": spread.low,
            "spread_high": spread.high,
        }

    def _score(self, fake_rows: Tensor, real_rows: Tensor | None) -> tuple[Estimate | None, str]:
        if real_rows is None or len(real_rows) < MIN_CLASS_SAMPLES:
            return None, "no real data of this class"
        if min(len(fake_rows), len(real_rows) // 2) >= MIN_SAMPLES:
            estimate = estimate_diversity_loss(real_rows, fake_rows, seed=self.seed, replicates=CLASS_REPLICATES)
            return estimate.score, "variety"
        return estimate_by_halves(spread_loss, real_rows, fake_rows, seed=self.seed, bounds=(0.0, 1.0)), "spread"


def create_class_metrics(context: MetricContext) -> Sequence[Metric]:
    """The factory of "classes"; empty for unconditional generators."""
    if not context.is_conditional:
        return []
    return [ClassScores(context.view, context.n, context.seed, context.referenced, context.class_names)]


def spread_loss(real: Tensor, fake: Tensor) -> float:
    """1 - the ratio of median pairwise distances, at least 0."""
    return 1 - min(1.0, median_distance(fake) / max(median_distance(real), 1e-12))


def median_distance(rows: Tensor) -> float:
    """Median distance between different rows of (N, D), of the first 400; 0 for fewer than two. Cost O(400² D)."""
    rows = rows[:MAX_MEDIAN_ROWS]
    return float(torch.pdist(rows - rows.mean(0)).median()) if len(rows) > 1 else 0.0


def _smallest_real_spread(real: SampleSubset | None) -> float | None:
    """The smallest within-class spread of the real data, relative to its mixture."""
    if real is None or real.labels is None:
        return None
    mixture_distance = median_distance(real.values)
    if not mixture_distance > 0:
        return None
    groups = [real.values[real.labels == label] for label in sorted(set(real.labels.tolist()))]
    return min(
        (median_distance(group) / mixture_distance for group in groups if len(group) >= MIN_CLASS_SAMPLES), default=None
    )
