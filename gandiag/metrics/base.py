"""Base classes of the feature metrics, and helpers that build a Measurement from a value, an interval and a floor."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from gandiag.interfaces import MetricResult, Needs
from gandiag.record import BetterDirection, Measurement
from gandiag.stats.resampling import wilson_interval
from gandiag.stats.splits import RealFakeSplit, split_from_results, split_needs
from gandiag.stats.subset import SubsetSpec

NO_REAL_DATA = "no real data"


@dataclass(frozen=True, slots=True)
class FeatureMetric(ABC):
    """A metric of the features of n samples in one view. `referenced`: there are real data to compare with."""

    view: str
    n: int
    seed: int = 0
    referenced: bool = True

    purpose: ClassVar[str] = "a measurement"  # what `min_samples` samples are needed for

    @property
    @abstractmethod
    def key(self) -> str:
        """The metric's name."""

    @property
    def measurement_keys(self) -> tuple[str, ...]:
        """Keys of the measurements, in order."""
        return (self.key,)

    @property
    def min_samples(self) -> int:
        """With fewer samples per set nothing is measured."""
        return 2

    def _missing(self, reason: str) -> MetricResult:
        return MetricResult(missing_measurements(self.measurement_keys, reason))

    def _too_few(self, n: int) -> MetricResult:
        return self._missing(f"too few samples for {self.purpose}: got {n}, need at least {self.min_samples}")


class PairedMetric(FeatureMetric):
    """Compares generated with real samples; not measured without real data."""

    __slots__ = ()

    def needs(self) -> Needs:
        return split_needs(self.view, self.n) if self.referenced else {}

    def measure(self, results: Any) -> MetricResult:
        split = split_from_results(results, self.view, self.n) if self.referenced else None
        if split is None:
            return self._missing(NO_REAL_DATA)
        return self._too_few(split.n) if split.n < self.min_samples else self.compute(split)

    @abstractmethod
    def compute(self, split: RealFakeSplit) -> MetricResult:
        """Measure generated against reference rows; the floor is the same of held-out against reference rows."""


class NamedPairedMetric(PairedMetric):
    """A paired metric of one measurement, whose key and least number of samples are the same in every view."""

    __slots__ = ()

    name: ClassVar[str]
    fewest_samples: ClassVar[int]

    @property
    def key(self) -> str:
        return self.name

    @property
    def min_samples(self) -> int:
        return self.fewest_samples


class UnpairedMetric(FeatureMetric):
    """Measures the generated samples alone; real data, if any, give the scale and the floor."""

    __slots__ = ()

    def needs(self) -> Needs:
        if self.referenced:
            return split_needs(self.view, self.n)
        return {"fake": frozenset({SubsetSpec(self.view, self.n)})}

    def measure(self, results: Any) -> MetricResult:
        split = split_from_results(results, self.view, self.n) if self.referenced else None
        fake = results["fake"][SubsetSpec(self.view, self.n)].values if split is None else split.fake
        return self._too_few(len(fake)) if len(fake) < self.min_samples else self.compute(fake.flatten(1), split)

    @abstractmethod
    def compute(self, fake: Tensor, split: RealFakeSplit | None) -> MetricResult:
        """Measure generated rows (n, D); `split` holds the same rows beside the real ones."""


def make_measurement(
    value: float,
    half_width: float,
    *,
    n: int,
    floor: float | None,
    better: BetterDirection,
    unit: str = "",
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Measurement:
    """A measurement with interval value ± half_width, clipped to `bounds`; no interval unless half_width is finite."""
    low = high = None
    if math.isfinite(half_width):
        low, high = (max(min(end, bounds[1]), bounds[0]) for end in (value - half_width, value + half_width))
    return Measurement(value, low, high, floor, unit, better, n, reason=None if floor is not None else NO_REAL_DATA)


def make_fraction_measurement(
    value: float,
    half_width: float,
    *,
    n: int,
    floor: float | None,
    better: BetterDirection,
    unit: str = "share of samples",
) -> Measurement:
    """A fraction of n samples. Its interval is at least the binomial one, which has positive width even at 0 and 1."""
    low, high = wilson_interval(value, n)
    if math.isfinite(half_width):
        low, high = max(0.0, min(low, value - half_width)), min(1.0, max(high, value + half_width))
    return Measurement(value, low, high, floor, unit, better, n, reason=None if floor is not None else NO_REAL_DATA)


def missing_measurements(keys: tuple[str, ...], reason: str) -> dict[str, Measurement]:
    """One missing measurement per key, all with the same reason."""
    return {key: Measurement.missing(reason) for key in keys}
