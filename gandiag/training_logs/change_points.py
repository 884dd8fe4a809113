"""Steps in the level of a loss: where it jumps and stays, and by how much.

A step at row t is fitted by generalized least squares with AR(1) residuals, for every t at once: after subtracting φ
times the row before, a step is a pulse followed by 1 - φ of its size. Steps are sought one after the other in the
pieces between those found (binary segmentation, Vostrikova 1981). A ramp is no step: most of the change must fall
within a fiftieth of the log. Nor is a jump that dies away, as in noise with heavy tails: the rows after it must show
the new level without the jump itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from gandiag.training_logs.series import Array

MAX_BINS = 512
MIN_STEP_ROWS = 24  # a shorter log is not searched
MIN_SEGMENT_FRACTION = 0.02  # of the bins, on either side of a step
MIN_SEGMENT_BINS = 4
MIN_STEP_RATIO = 4.5  # size over its standard error
MIN_LEVEL_RATIO = 3.0  # the same without the row of the jump
MIN_SIZE_IN_DEVIATIONS = 1.0  # of the noise around the levels
MIN_RELATIVE_SIZE = 0.02  # of the larger level
MIN_ABRUPTNESS = 0.6  # of the size, that falls within the shortest segment on either side
MAX_STEPS = 6
MAX_CORRELATION = 0.98


@dataclass(frozen=True, slots=True)
class LevelStep:
    """A step: its first row at the new level, the step of that row, and the levels before and after."""

    row: int
    step: float
    before: float
    after: float


def find_level_steps(step: Array, value: Array) -> list[LevelStep]:
    """The steps of finite values (n,), in order; those beyond MAX_STEPS are a cycle or noise: then none."""
    if len(value) < MIN_STEP_ROWS:
        return []
    size = max(1, len(value) // MAX_BINS)
    bins = value[: len(value) // size * size].reshape(-1, size).mean(1)
    shortest = max(MIN_SEGMENT_BINS, int(MIN_SEGMENT_FRACTION * len(bins)))
    found = sorted(_search(bins, 0, len(bins), shortest, MAX_STEPS))
    if len(found) > MAX_STEPS:
        return []
    edges = [0, *found, len(bins)]
    levels = [float(bins[low:high].mean()) for low, high in pairwise(edges)]
    rows = [_refine_row(value, index, size, levels[i], levels[i + 1]) for i, index in enumerate(found)]
    return [LevelStep(row, float(step[row]), levels[i], levels[i + 1]) for i, row in enumerate(rows)]


def remove_level_steps(value: Array, steps: Sequence[LevelStep]) -> Array:
    """The values at the level after the last step."""
    leveled = value.copy()
    for change in steps:
        leveled[: change.row] += change.after - change.before
    return leveled


def _search(bins: Array, low: int, high: int, shortest: int, budget: int) -> list[int]:
    """Indices of the steps in bins [low, high)."""
    index = _find_strongest_step(bins[low:high], shortest) if budget >= 0 else None
    if index is None:
        return []
    before = _search(bins, low, low + index, shortest, budget - 1)
    after = _search(bins, low + index, high, shortest, budget - 1 - len(before))
    return [*before, low + index, *after]


def _find_strongest_step(value: Array, shortest: int) -> int | None:
    """The row of the strongest abrupt step, if there is one."""
    n = len(value)
    if n < 2 * shortest + 2 or n < MIN_STEP_ROWS // 2:
        return None
    total = np.concatenate([[0.0], np.cumsum(value)])
    rows = np.arange(shortest, n - shortest + 1)
    shift = (total[-1] - total[rows]) / (n - rows) - total[rows] / rows
    local = (total[rows + shortest] - 2 * total[rows] + total[rows - shortest]) / shortest
    is_abrupt = local * np.sign(shift) >= MIN_ABRUPTNESS * np.abs(shift)
    if not is_abrupt.any():
        return None
    explained = np.where(is_abrupt, np.square(shift) * rows * (n - rows), 0.0)
    guess = int(rows[explained.argmax()])
    residual = _subtract_levels(value, guess)
    ratio = np.where(is_abrupt, np.abs(_compute_step_ratios(value, _estimate_correlation(residual))[rows]), 0.0)
    best = int(rows[ratio.argmax()])
    size = abs(float(np.median(value[best : best + shortest]) - np.median(value[best - shortest : best])))
    noise = float(_subtract_levels(value, best).std())
    required = max(
        MIN_RELATIVE_SIZE * max(abs(float(value[:best].mean())), abs(float(value[best:].mean()))),
        MIN_SIZE_IN_DEVIATIONS * noise,
        MIN_ABRUPTNESS * abs(float(shift[ratio.argmax()])),
    )
    is_step = float(ratio.max()) >= MIN_STEP_RATIO and size >= required and _fits_better_than_line(value, best)
    return best if is_step and _stays_at_level(value, best) else None


def _stays_at_level(value: Array, row: int) -> bool:
    """Whether the level differs after `row` even without the jump there, which noise may have made."""
    correlation = _estimate_correlation(_subtract_levels(value, row))
    z = value[1:] - correlation * value[:-1]
    before, after = z[: max(row - 2, 0)], z[row + 1 :]
    if min(len(before), len(after)) < 2:
        return False
    spread = float(np.concatenate([before - before.mean(), after - after.mean()]).std())
    error = spread * float(np.sqrt(1 / len(before) + 1 / len(after)))
    shift = float(after.mean() - before.mean()) * np.sign(value[row] - value[row - 1])
    return bool(shift >= MIN_LEVEL_RATIO * error)


def _fits_better_than_line(value: Array, row: int) -> bool:
    """Whether two levels leave smaller residuals than a straight line."""
    position = np.arange(len(value)) - (len(value) - 1) / 2
    slope = float(position @ value) / float(position @ position)
    line = value - value.mean() - slope * position
    return float(np.square(_subtract_levels(value, row)).sum()) < float(line @ line)


def _subtract_levels(value: Array, row: int) -> Array:
    """The values without their means before and after `row`."""
    return np.asarray(value - np.where(np.arange(len(value)) < row, value[:row].mean(), value[row:].mean()))


def _estimate_correlation(residual: Array) -> float:
    """Upper estimate of the correlation of neighboring rows."""
    n, squares = len(residual), float(residual @ residual)
    if squares <= 0:
        return 0.0
    estimate = min(max((n * float(residual[1:] @ residual[:-1]) / squares + 2) / max(n - 4, 1), 0.0), 1.0)
    return min(estimate + float(np.sqrt(max(1 - estimate**2, 0.0) / n)), MAX_CORRELATION)


def _compute_step_ratios(value: Array, correlation: float) -> Array:
    """Size of a step over its standard error, for a step at each row: (n,), 0 at the first row."""
    n, gain = len(value), 1 - correlation
    z = value[1:] - correlation * value[:-1]  # (n - 1,)
    # The regressor of a step at row t >= 1: 1 at z[t - 1], `gain` after it. Both are centered.
    after = np.arange(n - 2, -1, -1)  # rows of z after z[t - 1]
    tail = np.concatenate([np.cumsum(z[::-1])[::-1][1:], [0.0]])
    mean = (1 + gain * after) / (n - 1)
    energy = np.maximum(1 + gain**2 * after - (n - 1) * mean**2, 1e-12)
    product = z + gain * tail - mean * z.sum()
    centered = z - z.mean()
    residual_squares = np.maximum(float(centered @ centered) - product**2 / energy, 1e-300)
    ratio = product / np.sqrt(energy * residual_squares / max(n - 3, 1))
    return np.concatenate([[0.0], ratio])


def _refine_row(value: Array, index: int, size: int, before: float, after: float) -> int:
    """The row at which the level changes, within two bins of bin `index`: least squares with known levels."""
    low, high = max((index - 2) * size, 1), min((index + 2) * size, len(value) - 1)
    if size == 1 or high <= low:
        return index * size
    piece = value[low:high]
    cost = np.concatenate([[0.0], np.cumsum(np.square(piece - before) - np.square(piece - after))])
    return low + int(cost.argmin())
