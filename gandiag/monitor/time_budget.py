"""How much a monitor may look: never more than its share of the training time.

Costs are learned from what looks took. Fewer samples are assumed to save no more than their share, more samples to cost
their square, so that a guess is never too low by much.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

MIN_SAMPLES = 256  # samples of the first look, and the least that later ones shrink to
QUICK_CHECK_FRACTION = 0.5  # of the budget for glances at most, so that there are full looks, and for full looks at most, so that it never goes blind


@dataclass(slots=True)
class TimeBudget:
    """`budget`: share of the training time that may be spent, or infinity. `most`: samples of a look that time does not limit."""

    fraction: float
    max_samples: int
    clock: Callable[[], float] = time.perf_counter
    monitor_seconds: float = 0.0
    _began: float | None = None
    _costs: dict[str, tuple[int, float]] = field(default_factory=dict)
    _shares: dict[str, float] = field(default_factory=lambda: {"glance": 0.0, "full": 0.0})

    def start(self) -> None:
        """Training starts to be timed with the first call."""
        if self._began is None:
            self._began = self.clock()

    @contextmanager
    def measure(self) -> Iterator[None]:
        """Time inside is the monitor's, not the training's."""
        start = self.clock()
        try:
            yield
        finally:
            self.monitor_seconds += self.clock() - start

    def exclude(self, seconds: float) -> None:
        """Time that was neither training nor the monitor's: an evaluation, a checkpoint written."""
        if self._began is not None:
            self._began += seconds

    def record_cost(self, kind: str, n: int, seconds: float) -> None:
        """What one look of a kind took with n samples. The first of each is not charged to its share: it is always taken."""
        self._shares[kind] += seconds if kind in self._costs else 0.0
        self._costs[kind] = (n, seconds)

    @property
    def training_seconds(self) -> float:
        """Seconds of training so far, the monitor's own left out."""
        return 0.0 if self._began is None else max(0.0, self.clock() - self._began - self.monitor_seconds)

    @property
    def overhead(self) -> float:
        """Seconds of the monitor per second of training, so far."""
        return self.monitor_seconds / self.training_seconds if self.training_seconds else 0.0

    @property
    def seconds_left(self) -> float:
        """Seconds that may be spent now; negative where the first look, which is always taken, is not yet paid off."""
        return math.inf if self.fraction == math.inf else self.fraction * self.training_seconds - self.monitor_seconds

    def estimate_cost(self, kind: str, n: int) -> float:
        """The guess for n samples; nothing where no look of the kind was taken yet."""
        if kind not in self._costs:
            return 0.0
        known, seconds = self._costs[kind]
        ratio = n / known
        return seconds * (ratio if ratio <= 1 else ratio * ratio)

    def allowed_samples(self, kind: str, max_samples: int) -> int:
        """Samples that a look of the kind, "glance" or "full", may have now: at most `most`, halved until they fit; 0 for none."""
        fewest = min(MIN_SAMPLES, max_samples)
        if kind not in self._costs:
            return fewest
        left = self._left(kind)
        n = max_samples
        while n > fewest and self.estimate_cost(kind, n) > left:
            n = max(n // 2, fewest)
        return n if self.estimate_cost(kind, n) <= left else 0

    def _left(self, kind: str) -> float:
        """Seconds for a kind of look. What the first look cost is paid off by full looks alone: until then the monitor is not blind."""
        if self.fraction == math.inf:
            return math.inf
        if kind == "glance":
            return QUICK_CHECK_FRACTION * self.fraction * self.training_seconds - self._shares[kind]
        return min(
            self.seconds_left, (1 - QUICK_CHECK_FRACTION) * self.fraction * self.training_seconds - self._shares[kind]
        )
