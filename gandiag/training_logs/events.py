"""An event in the losses, the running median in which levels are judged, and since when a condition has held."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gandiag.training_logs.series import Array

BoolArray = NDArray[np.bool_]

MIN_ROW_FRACTION = 0.9  # of the rows since the start of an event that must be beyond its level
MIN_DURATION_FRACTION = 0.1  # of the log, at its end, that an event must last
MIN_EVENT_ROWS = 10  # a shorter curve has no events
MEDIAN_WINDOW_FRACTION = 0.02  # width of the running median, relative to the log
MAX_MEDIAN_BLOCKS = 2048  # a longer curve is smoothed over the medians of that many blocks


@dataclass(frozen=True, slots=True)
class LossEvent:
    """Something that began at `step`. `kind`: a verdict word; `evidence`: a phrase with its numbers."""

    step: float
    kind: str
    evidence: str


def running_median(value: Array) -> Array:
    """Running median over MEDIAN_WINDOW_FRACTION of the log, at least 5 rows. Non-finite values count as large.

    Long curves are smoothed over block medians.
    """
    value = np.where(np.isfinite(value), value, np.inf)
    if len(value) > 2 * MAX_MEDIAN_BLOCKS:
        size = len(value) // MAX_MEDIAN_BLOCKS
        blocks = np.median(value[: len(value) // size * size].reshape(-1, size), axis=1)
        return np.asarray(running_median(blocks)[np.minimum(np.arange(len(value)) // size, len(blocks) - 1)])
    width = min(max(5, int(MEDIAN_WINDOW_FRACTION * len(value)) | 1), 201)
    if len(value) < width:
        return np.full(len(value), np.median(value)) if len(value) else value
    windows = np.lib.stride_tricks.sliding_window_view(value, width)
    medians = np.median(windows, axis=1)
    edge = width // 2
    tail = np.full(len(value) - len(medians) - edge, medians[-1])
    return np.concatenate([np.full(edge, medians[0]), medians, tail])


def find_final_stretch(condition: BoolArray) -> int | None:
    """The first row of the unbroken stretch of True that reaches the end; None without one."""
    if len(condition) == 0 or not condition[-1]:
        return None
    breaks = np.flatnonzero(~condition)
    return 0 if len(breaks) == 0 else int(breaks[-1]) + 1


def find_lasting_start(condition: BoolArray) -> int | None:
    """The first True row from which MIN_ROW_FRACTION of the rows to the end are True.

    None if there is none, or if the stretch is shorter than MIN_DURATION_FRACTION of the log.
    """
    n = len(condition)
    if n < MIN_EVENT_ROWS or condition[-max(int(MIN_DURATION_FRACTION * n), 5) :].mean() < MIN_ROW_FRACTION:
        return None
    fraction = np.cumsum(condition[::-1])[::-1] / np.arange(n, 0, -1)
    starts = np.flatnonzero((fraction >= MIN_ROW_FRACTION) & condition)
    return int(starts[0]) if len(starts) and n - starts[0] >= MIN_DURATION_FRACTION * n else None
