"""From rows to curves: where a row stands, files joined, resumed runs healed, several runs told apart.

A resumed run repeats the steps after its checkpoint: the later rows stand, the earlier ones are dropped. A run that starts
again from its first step is another run: short false starts are dropped, otherwise the log is mixed and no verdict can stand on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gandiag.training_logs.series import Array

FALSE_START_FRACTION = 0.2  # of the longest run: a shorter one before it was given up
MAX_BACKWARD_STEPS = 8  # returns to an earlier step, from which on the rows of two runs lie interleaved


@dataclass(frozen=True, slots=True)
class StepColumn:
    """step (n,) of every row, what a step is, steps per epoch where known."""

    step: Array
    unit: str
    steps_per_epoch: float | None


@dataclass(frozen=True, slots=True)
class RowSelection:
    """Which rows stand, in order, and what was done to find them."""

    rows: NDArray[np.intp]
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def infer_steps(columns: Mapping[str, Array], rows: int) -> StepColumn:
    """Steps of the rows: the step column, else epoch × batches + batch, else the epoch with its rows spread over it, else the row."""
    step, epoch, batch = (columns.get(name) for name in ("step", "epoch", "batch"))
    if step is not None and epoch is not None and _within_epochs(step, epoch):
        step, batch = None, step  # CycleGAN's "iters" begin anew in every epoch
    if step is not None and _varies(step):
        return StepColumn(_filled(step), "steps", _per_epoch(step, epoch))
    if epoch is not None and _known(epoch):
        epoch = _filled(epoch)
        first = 1.0 if np.nanmin(epoch) >= 1 else 0.0
        if batch is not None and _varies(batch):
            totals = columns.get("batches")
            batches = (
                float(np.nanmax(totals))
                if totals is not None and _known(totals)
                else float(np.nanmax(batch)) + _gap(_filled(batch))
            )
            return StepColumn((epoch - first) * batches + _filled(batch), "iterations", batches)
        return StepColumn(_spread(epoch), "epochs", 1.0)
    if batch is not None and _varies(batch):
        return StepColumn(_filled(batch), "iterations", None)
    return StepColumn(np.arange(rows, dtype=np.float64), "lines", None)


def select_final_rows(step: Array) -> RowSelection:
    """The rows that stand: strictly what the last pass over each step wrote."""
    known = np.flatnonzero(np.isfinite(step))
    back = np.flatnonzero(np.diff(step[known]) < 0) + 1
    if len(back) == 0:
        return RowSelection(known)
    if len(back) > MAX_BACKWARD_STEPS and len(back) > 0.02 * len(known):
        told = f"steps go back {len(back):,} times: rows of several runs lie mixed in this log; write each run to a file of its own"
        return RowSelection(known[np.argsort(step[known], kind="stable")], problems=(told,))
    pieces = np.split(known, back)
    return _runs(step, pieces)


def _runs(step: Array, pieces: list[NDArray[np.intp]]) -> RowSelection:
    """Pieces joined to runs: a piece that starts behind the first step of the run resumes it, else it is a new run."""
    runs: list[list[NDArray[np.intp]]] = [[pieces[0]]]
    for piece in pieces[1:]:
        start = step[runs[-1][0][0]]
        gap = _gap(step[runs[-1][0]])
        if step[piece[0]] > start + 2 * gap:
            runs[-1] = [kept for part in runs[-1] if len(kept := part[step[part] < step[piece[0]]])] + [piece]
        else:
            runs.append([piece])
    whole = [np.concatenate(run) for run in runs]
    resumed = sum(len(run) - 1 for run in runs[-1:])
    notes = (
        [f"{resumed} resume{'s' * (resumed > 1)} healed: of steps written twice the later row stands"]
        if resumed
        else []
    )
    sizes = [len(run) for run in whole]
    if len(whole) == 1:
        return RowSelection(whole[0], tuple(notes))
    if max(sizes[:-1]) <= FALSE_START_FRACTION * sizes[-1]:
        return RowSelection(
            whole[-1], (*notes, f"{len(whole) - 1} short false start{'s' * (len(whole) > 2)} before this run dropped")
        )
    starts = ", ".join(f"row {run[0] + 1:,}" for run in whole[:4])
    told = f"{len(whole)} runs stand in this log (they begin at {starts}); the last one is shown; cut the file there, and pass one run"
    return RowSelection(whole[-1], tuple(notes), (told,))


def average_duplicate_steps(step: Array, value: Array) -> tuple[Array, Array]:
    """One value for each step, in order: the mean of the rows that share it."""
    order = np.argsort(step, kind="stable")
    step, value = step[order], value[order]
    if len(step) and not (np.diff(step) <= 0).any():
        return step, value
    places, inverse, counts = np.unique(step, return_inverse=True, return_counts=True)
    return places, np.bincount(inverse, weights=value, minlength=len(places)) / counts


def _within_epochs(step: Array, epoch: Array) -> bool:
    """Whether the step goes back exactly where the epoch goes on."""
    both = np.isfinite(step) & np.isfinite(epoch)
    back, on = np.diff(step[both]) < 0, np.diff(epoch[both]) > 0
    return bool(on.any() and back.any()) and float((back == on)[back | on].mean()) > 0.8


def _known(column: Array) -> bool:
    return bool(np.isfinite(column).any())


def _varies(column: Array) -> bool:
    known = column[np.isfinite(column)]
    return len(known) > 1 and bool(known.min() < known.max())


def _filled(column: Array) -> Array:
    """Rows without a place stand where the row before them stands."""
    known = np.isfinite(column)
    if known.all():
        return column
    last = np.maximum.accumulate(np.where(known, np.arange(len(column)), -1))
    return np.where(last >= 0, column[np.maximum(last, 0)], np.nan)


def _gap(step: Array) -> float:
    gaps = np.diff(step)
    return float(np.median(gaps[gaps > 0])) if (gaps > 0).any() else 0.0


def _per_epoch(step: Array, epoch: Array | None) -> float | None:
    """Steps per epoch, from the slope of one over the other."""
    if epoch is None or not _varies(epoch):
        return None
    both = np.isfinite(step) & np.isfinite(epoch)
    if both.sum() < 4 or np.ptp(epoch[both]) == 0:
        return None
    slope = np.polyfit(epoch[both], step[both], 1)[0]
    return float(slope) if slope > 0 else None


def _spread(epoch: Array) -> Array:
    """Rows of one epoch spread evenly over it: epoch 3 with four rows → 3, 3.25, 3.5, 3.75. A lone row stands at its epoch."""
    starts = np.flatnonzero(np.r_[True, np.diff(epoch) != 0])
    sizes = np.diff(np.r_[starts, len(epoch)])
    within = np.arange(len(epoch)) - np.repeat(starts, sizes)
    return np.asarray(epoch + within / np.repeat(sizes, sizes), dtype=np.float64)
