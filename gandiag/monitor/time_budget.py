"""Keeps monitoring overhead within a fraction of training time.

Costs are measured once while the monitor is set up, and learned from every evaluation; the set-up itself is not
charged. Fewer samples are assumed to cost proportionally less, more samples quadratically more, so an estimate is never
much too low.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

EvaluationKind = Literal["quick", "full"]

MIN_SAMPLES = 256  # the fewest samples that an evaluation shrinks to
# Largest share of the budget for quick checks, so that full scores remain affordable; the rest is the largest share for
# full scores, so that quick checks do.
QUICK_CHECK_FRACTION = 0.5


@dataclass(slots=True)
class TimeBudget:
    """Decides how many samples an evaluation may use now.

    `fraction`: seconds of monitoring per second of training, or infinity. `max_samples`: samples of an evaluation that
    time does not limit.
    """

    fraction: float
    max_samples: int
    clock: Callable[[], float] = time.perf_counter
    monitor_seconds: float = 0.0
    setup_seconds: float = 0.0
    _start: float | None = None
    _costs: dict[EvaluationKind, tuple[int, float]] = field(default_factory=dict)
    _spent: dict[EvaluationKind, float] = field(default_factory=lambda: {"quick": 0.0, "full": 0.0})

    def start(self) -> None:
        """Start timing the training, at the first call."""
        if self._start is None:
            self._start = self.clock()

    @contextmanager
    def measure(self) -> Iterator[None]:
        """Count the time inside as the monitor's."""
        start = self.clock()
        try:
            yield
        finally:
            self.monitor_seconds += self.clock() - start

    def exclude(self, seconds: float) -> None:
        """Exclude time that was neither training nor monitoring: an evaluation, a checkpoint being written."""
        if self._start is not None:
            self._start += seconds

    @contextmanager
    def measure_setup(self) -> Iterator[None]:
        """Count the time inside as set-up: neither training nor charged to the budget."""
        start = self.clock()
        try:
            yield
        finally:
            seconds = self.clock() - start
            self.setup_seconds += seconds
            self.exclude(seconds)

    def learn_cost(self, kind: EvaluationKind, n: int, seconds: float) -> None:
        """Remember what an evaluation with n samples costs, without charging it."""
        self._costs[kind] = (n, seconds)

    def record_cost(self, kind: EvaluationKind, n: int, seconds: float) -> None:
        """Record what an evaluation with n samples has cost."""
        self._spent[kind] += seconds
        self.learn_cost(kind, n, seconds)

    @property
    def training_seconds(self) -> float:
        """Seconds of training so far, without the monitor's own."""
        return 0.0 if self._start is None else max(0.0, self.clock() - self._start - self.monitor_seconds)

    @property
    def overhead(self) -> float:
        """Seconds of monitoring per second of training so far."""
        return self.monitor_seconds / self.training_seconds if self.training_seconds else 0.0

    @property
    def seconds_left(self) -> float:
        """Seconds that may be spent now; negative while an evaluation that cost more than expected is paid off."""
        return math.inf if self.fraction == math.inf else self.fraction * self.training_seconds - self.monitor_seconds

    def estimate_cost(self, kind: EvaluationKind, n: int) -> float:
        """Estimated seconds for n samples; 0 if no evaluation of this kind has run yet."""
        if kind not in self._costs:
            return 0.0
        known_n, seconds = self._costs[kind]
        ratio = n / known_n
        return seconds * (ratio if ratio <= 1 else ratio * ratio)

    def allowed_samples(self, kind: EvaluationKind, max_samples: int) -> int:
        """Samples that an evaluation may use now: `max_samples`, halved until they fit; 0 if none do."""
        fewest, seconds = min(MIN_SAMPLES, max_samples), self._seconds_left_for(kind)
        n = max_samples
        while n > fewest and self.estimate_cost(kind, n) > seconds:
            n = max(n // 2, fewest)
        return n if self.estimate_cost(kind, n) <= seconds else 0

    def _seconds_left_for(self, kind: EvaluationKind) -> float:
        """Seconds for this kind of evaluation: neither kind may use up the share of the other."""
        if self.fraction == math.inf:
            return math.inf
        share = QUICK_CHECK_FRACTION if kind == "quick" else 1 - QUICK_CHECK_FRACTION
        return min(self.seconds_left, share * self.fraction * self.training_seconds - self._spent[kind])
