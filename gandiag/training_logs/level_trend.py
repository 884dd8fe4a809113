"""The trend of a loss over the last half of its log, with an interval that allows for autocorrelation.

The line is fitted to at most MAX_BINS bin means. Its variance is exact for AR(1) residuals; the correlation put in is
the upper end of the interval of the bias-corrected estimate, because a short stretch of red noise looks like a line
with small residuals. Share of stationary AR(1) series (φ up to .98, 60 to 2,000 rows) whose trend counts as shown:
below 2 %.

A random walk has no line to fit: see random_walk.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gandiag.training_logs.series import Array

MAX_BINS = 64  # of the last half
MIN_TREND_ROWS = 12  # of the last half
MAX_CORRELATION = 0.995  # of neighboring bins
ONE_SIDED_QUANTILE = 1.645  # of the interval of the correlation
INTERVAL_QUANTILE = 1.96
MIN_TREND_RATIO = 3.2  # change over its standard error, plus SHORT_LOG_PENALTY / rows
SHORT_LOG_PENALTY = 45.0
MIN_CHANGE_IN_DEVIATIONS = 1.0  # of the noise, that a trend must change the level by …
MIN_RELATIVE_CHANGE = 0.05  # … or by this share of the level, and half a deviation
MIN_LASTING_FRACTION = 0.15  # of the change, that must fall into the last third of the window
PLATEAU_DEVIATIONS = 2.5  # of the noise, that the level may change by on a plateau …
PLATEAU_RELATIVE_CHANGE = 0.1  # … or this share of the level


@dataclass(frozen=True, slots=True)
class LevelTrend:
    """The fitted line over the last half.

    `first`, `last`: its ends; `change`: last - first, with interval `low` to `high`; `noise`: standard deviation of the
    rows around it; `start`: the first step of the window; `is_lasting`: whether it goes on in the last third.
    `begins`, `ends`: medians of the rows at either end, which a curved trend does not share with the line.
    """

    first: float
    last: float
    low: float
    high: float
    noise: float
    start: float
    rows: int
    is_lasting: bool
    begins: float
    ends: float

    @property
    def change(self) -> float:
        """Change of the level over the window."""
        return self.last - self.first

    @property
    def standard_error(self) -> float:
        """Of the change."""
        return (self.high - self.low) / (2 * INTERVAL_QUANTILE)

    @property
    def is_shown(self) -> bool:
        """Whether the level changes, by more than noise would and by enough to matter, to the end of the log."""
        level = max(abs(self.first), abs(self.last))
        size = abs(self.change)
        matters = size >= MIN_CHANGE_IN_DEVIATIONS * self.noise or (
            size >= MIN_RELATIVE_CHANGE * level and size >= 0.5 * self.noise
        )
        threshold = MIN_TREND_RATIO + SHORT_LOG_PENALTY / self.rows
        return self.is_lasting and matters and size > 1e-9 * level and size >= threshold * self.standard_error

    @property
    def is_plateau(self) -> bool:
        """Whether the interval rules out a change that matters."""
        level = max(abs(self.first), abs(self.last))
        allowed = max(PLATEAU_DEVIATIONS * self.noise, PLATEAU_RELATIVE_CHANGE * level)
        return max(abs(self.low), abs(self.high)) <= allowed


def fit_level_trend(step: Array, value: Array) -> LevelTrend | None:
    """The trend over the last half of finite values (n,) at increasing steps; None if it holds too few rows."""
    half, n_end = len(value) // 2, max(len(value) // 10, 5)
    step, value = step[half:], value[half:]
    if len(value) < MIN_TREND_ROWS:
        return None
    size = max(1, len(value) // MAX_BINS)
    first_row = len(value) % size
    bins = value[first_row:].reshape(-1, size).mean(1)
    n = len(bins)
    position: Array = np.asarray(np.arange(n) - (n - 1) / 2, dtype=np.float64)
    slope = float(position @ bins / (position @ position))
    residual = np.asarray(bins - bins.mean() - slope * position, dtype=np.float64)
    error = _slope_error(position, residual) * (n - 1)
    level, change = float(bins.mean()), slope * (n - 1)
    spread = np.std(value[first_row:] - np.repeat(level + slope * position, size))
    return LevelTrend(
        first=level - change / 2,
        last=level + change / 2,
        low=change - INTERVAL_QUANTILE * error,
        high=change + INTERVAL_QUANTILE * error,
        noise=float(spread),
        start=float(step[first_row]),
        rows=len(value),
        is_lasting=_is_lasting(bins, change),
        begins=float(np.median(value[:n_end])),
        ends=float(np.median(value[-n_end:])),
    )


def _slope_error(position: Array, residual: Array) -> float:
    """Standard error of a least-squares slope with AR(1) residuals (n,)."""
    n = len(residual)
    squares = float(residual @ residual)
    if squares <= 0:
        return 0.0
    estimate = (n * float(residual[1:] @ residual[:-1]) / squares + 2) / (n - 4)  # bias of a fit with a trend
    estimate = min(max(estimate, 0.0), 1.0)
    correlation = min(estimate + ONE_SIDED_QUANTILE * np.sqrt(max(1 - estimate**2, 0.0) / n), MAX_CORRELATION)
    matrix = correlation ** np.abs(np.subtract.outer(np.arange(n), np.arange(n)))  # (n, n)
    basis = np.stack([np.full(n, 1 / np.sqrt(n)), position / np.linalg.norm(position)], axis=1)
    freedom = max(n - float(np.einsum("ni,nm,mi->", basis, matrix, basis)), 1e-3)
    energy = float(position @ position)
    return float(np.sqrt(squares / freedom * float(position @ matrix @ position)) / energy)


def _is_lasting(bins: Array, change: float) -> bool:
    """Whether the last third still moves the way of the whole window: a decay that has ended does not."""
    thirds = [float(part.mean()) for part in np.array_split(bins, 3)]
    return bool((thirds[2] - thirds[1]) * np.sign(change) >= MIN_LASTING_FRACTION * abs(change))
