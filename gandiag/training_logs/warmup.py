"""Prepares a curve for testing: finite values only, warm-up dropped, long curves binned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gandiag.training_logs.multitaper import is_regular
from gandiag.training_logs.series import Array, Curve

MAX_POINTS = {True: 4096, False: 1024}  # points tested, on regular and on irregular steps
MAX_WARMUP_GROUPS = 256  # candidate ends of the warm-up
MAX_WARMUP_FRACTION = 0.5  # of the log
MAX_PLATEAU_START = 0.95  # of the rows that may be dropped; a minimum beyond has not been passed
MIN_WARMUP_ROWS = 16  # a shorter curve has no warm-up


@dataclass(frozen=True, slots=True, eq=False)
class TrimmedCurve:
    """step, value (n,): the points to test.

    `start`: first step after the warm-up. `rows_per_bin`: rows averaged into each point. `has_plateau`: False if the
    rule dropped as much as it may, half of the log, and so has found no end of the warm-up.
    """

    step: Array
    value: Array
    start: float
    dropped_rows: int
    rows_per_bin: int
    has_plateau: bool = True


def trim_curve(curve: Curve) -> TrimmedCurve:
    """The finite part of a curve without its warm-up, in at most MAX_POINTS points."""
    finite = np.isfinite(curve.value)
    step, value = curve.step[finite], curve.value[finite]
    dropped, has_plateau = find_warmup_end(value)
    step, value = step[dropped:], value[dropped:]
    start = float(step[0]) if len(step) else 0.0
    max_points = MAX_POINTS[len(step) > 2 and is_regular(step)]
    rows_per_bin = -(-len(step) // max_points) if len(step) > max_points else 1
    if rows_per_bin > 1:
        step, value = average_bins(step, value, len(step) // rows_per_bin)
    return TrimmedCurve(step, value, start, dropped, rows_per_bin, has_plateau)


def average_bins(step: Array, value: Array, n_bins: int) -> tuple[Array, Array]:
    """Means over `n_bins` bins of equally many rows; the remaining rows at the end are dropped."""
    size = len(step) // n_bins
    mean_step, mean_value = (part[: n_bins * size].reshape(n_bins, size).mean(1) for part in (step, value))
    return mean_step, mean_value


def find_warmup_end(value: Array) -> tuple[int, bool]:
    """Rows to drop: those without which the mean of the rest has the smallest standard error; and whether it ended.

    This is MSER (White 1997, Simulation 69). It drops a transient but neither noise nor oscillations, and at most half
    of the log: where it would drop still more, no end was found. MSER stops where the transient is no larger than the
    noise, and what is left of it reads as a slow oscillation: as many rows again are dropped with it.
    """
    if len(value) < MIN_WARMUP_ROWS:
        return 0, True
    size = max(1, len(value) // MAX_WARMUP_GROUPS)
    means = value[: len(value) // size * size].reshape(-1, size).mean(1)
    remaining = np.arange(len(means), 0, -1)  # groups
    mean = np.cumsum(means[::-1])[::-1] / remaining
    variance = np.maximum(np.cumsum(np.square(means)[::-1])[::-1] / remaining - mean**2, 0.0)
    squared_error = variance / remaining
    max_groups = int(len(means) * MAX_WARMUP_FRACTION)
    best = int(squared_error[: max_groups + 1].argmin())
    return min(2 * best, max_groups) * size, best < MAX_PLATEAU_START * max_groups
