"""A curve made ready for testing: numbers only, warm-up dropped, long ones binned; what was done is said."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gandiag.training_logs.multitaper import is_regular
from gandiag.training_logs.series import Array, Curve

MAX_POINTS = {True: 4096, False: 1024}  # points tested, on regular and on irregular steps
MAX_WARMUP_GROUPS = 256  # places at which the warm-up may end
MAX_WARMUP_FRACTION = 0.5  # of the log at most


@dataclass(frozen=True, slots=True, eq=False)
class TrimmedCurve:
    """step, value (n,): what is tested. `start`: first step after the warm-up. `bin`: rows averaged into one point."""

    step: Array
    value: Array
    start: float
    dropped_rows: int
    rows_per_bin: int


def trim_curve(curve: Curve) -> TrimmedCurve:
    """The finite part of a curve without its warm-up, in at most MOST points."""
    finite = np.isfinite(curve.value)
    step, value = curve.step[finite], curve.value[finite]
    dropped = count_warmup_rows(value)
    step, value = step[dropped:], value[dropped:]
    start = float(step[0]) if len(step) else 0.0
    most = MAX_POINTS[len(step) > 2 and is_regular(step)]
    size = -(-len(step) // most) if len(step) > most else 1
    if size > 1:
        step, value = average_bins(step, value, len(step) // size)
    return TrimmedCurve(step, value, start, dropped, size)


def average_bins(step: Array, value: Array, n_bins: int) -> tuple[Array, Array]:
    """Means over `bins` runs of equally many rows."""
    size = len(step) // n_bins
    one, other = (part[: n_bins * size].reshape(n_bins, size).mean(1) for part in (step, value))
    return one, other


def count_warmup_rows(value: Array) -> int:
    """Rows to drop: those whose loss shortens the standard error of the mean of the rest most (MSER, White 1997, Simulation 69).

    A transient is dropped, noise and oscillations are not; at most half of the log goes. MSER stops where the transient is no larger
    than the noise, and what is left of it reads as a slow oscillation: as many rows again go with it.
    """
    if len(value) < 16:
        return 0
    size = max(1, len(value) // MAX_WARMUP_GROUPS)
    means = value[: len(value) // size * size].reshape(-1, size).mean(1)
    left = np.arange(len(means), 0, -1)  # groups that remain
    mean = np.cumsum(means[::-1])[::-1] / left
    spread = np.maximum(np.cumsum(np.square(means)[::-1])[::-1] / left - mean**2, 0.0)
    score = spread / left
    most = int(len(means) * MAX_WARMUP_FRACTION)
    return min(2 * int(score[: most + 1].argmin()), most) * size
