"""Conditional generators, class by class: collapse that hides in the mixture of all classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gandiag.interfaces import Estimate, MetricResult, Needs
from gandiag.metrics.score.estimator import MIN_SAMPLES, estimate_diversity_loss
from gandiag.record import Measurement
from gandiag.stats.splits import half_sample_estimate
from gandiag.stats.subset import SampleSubset, SubsetSpec

MIN_CLASS_SAMPLES = 20  # samples of a class below which nothing is said of it
CLASS_REPLICATES = 8
MAX_MEDIAN_ROWS = 400  # rows that settle a median distance to a few per cent


@dataclass(frozen=True, slots=True)
class ClassScores:
    """Variety of each class against the same class of the real data, worst first; `method` says how much could be asked.

    "variety": the score itself, with >= 100 generated and 200 real samples of the class. "spread": 1 - the ratio of median
    pairwise distances, with fewer. Without labelled real data: the class's median pairwise distance relative to that of the
    mixture (`spread`), no score. `z_ignored` is the smallest such ratio: near 0 where the output depends on the class alone.
    """

    view: str
    n: int
    seed: int = 0
    referenced: bool = False
    class_names: tuple[str, ...] = ()
    key: str = "classes"

    def needs(self) -> Needs:
        found = {"fake": frozenset({SubsetSpec(self.view, self.n)})}
        return {**found, "real": frozenset({SubsetSpec(self.view, 2 * self.n)})} if self.referenced else found

    def measure(self, results: Any) -> MetricResult:
        fake: SampleSubset = results["fake"][SubsetSpec(self.view, self.n)]
        real: SampleSubset | None = results["real"][SubsetSpec(self.view, 2 * self.n)] if self.referenced else None
        if fake.labels is None:
            return MetricResult({"z_ignored": Measurement.missing("the generator has no classes")})
        overall = median_distance(fake.values)
        found = [self._row(label, fake, real, overall) for label in sorted(set(fake.labels.tolist()))]
        rows = sorted(
            (row for row in found if row is not None),
            key=lambda row: (-(row["score"] if row["score"] is not None else -1.0), row["spread"]),
        )
        if not rows:
            return MetricResult(
                {"z_ignored": Measurement.missing(f"fewer than {MIN_CLASS_SAMPLES} samples in every class")}
            )
        worst = min(rows, key=lambda row: row["spread"])
        number = Measurement(
            worst["spread"],
            worst["spread_low"],
            worst["spread_high"],
            floor=_real_spread(real),
            unit="ratio",
            better="higher",
            n=worst["n"],
            reason=f"class {worst['label']}",
        )
        return MetricResult({"z_ignored": number}, {"classes": rows})

    def _row(self, label: int, fake: SampleSubset, real: SampleSubset | None, overall: float) -> dict[str, Any] | None:
        mine = fake.values[fake.labels == label]  # (n_c, D)
        if len(mine) < MIN_CLASS_SAMPLES:
            return None
        spread = half_sample_estimate(
            lambda rows: median_distance(rows) / overall if overall > 0 else 0.0,
            mine,
            seed=self.seed,
            bounds=(0.0, float("inf")),
        )
        theirs = None if real is None or real.labels is None else real.values[real.labels == label]
        score, method = self._score(mine, theirs)
        return {
            "label": self.class_names[label] if label < len(self.class_names) else str(label),
            "score": None if score is None else score.value,
            "low": None if score is None else score.low,
            "high": None if score is None else score.high,
            "method": method,
            "n": len(mine),
            "n_real": 0 if theirs is None else len(theirs),
            "spread": spread.value,
            "spread_low": spread.low,
            "spread_high": spread.high,
        }

    def _score(self, mine: Tensor, theirs: Tensor | None) -> tuple[Estimate | None, str]:
        if theirs is None or len(theirs) < MIN_CLASS_SAMPLES:
            return None, "no real data of this class"
        if min(len(mine), len(theirs) // 2) >= MIN_SAMPLES:
            return estimate_diversity_loss(theirs, mine, seed=self.seed, replicates=CLASS_REPLICATES).score, "variety"
        return half_sample_estimate(spread_loss, theirs, mine, seed=self.seed, bounds=(0.0, 1.0)), "spread"


def spread_loss(real: Tensor, fake: Tensor) -> float:
    """1 - the ratio of median pairwise distances, at least 0."""
    return 1 - min(1.0, median_distance(fake) / max(median_distance(real), 1e-12))


def median_distance(rows: Tensor) -> float:
    """Median distance between different rows of (N, D), of the first 400; 0 for fewer than two. Cost O(400² D)."""
    rows = rows[:MAX_MEDIAN_ROWS]
    return float(torch.pdist(rows - rows.mean(0)).median()) if len(rows) > 1 else 0.0


def _real_spread(real: SampleSubset | None) -> float | None:
    """The smallest within-class spread of the real data, relative to its mixture."""
    if real is None or real.labels is None:
        return None
    overall = median_distance(real.values)
    groups: Sequence[Tensor] = [real.values[real.labels == label] for label in sorted(set(real.labels.tolist()))]
    spreads = [median_distance(group) / overall for group in groups if len(group) >= MIN_CLASS_SAMPLES and overall > 0]
    return min(spreads, default=None)
