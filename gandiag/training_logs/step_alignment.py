"""Assigns steps to rows, resolves resumed runs and detects logs that hold several runs.

A resumed run repeats the steps after its checkpoint: the later rows are kept, the earlier ones dropped. A run that
starts again from its first step is another run. Short false starts before the last run are dropped, other runs are
judged on their own. Rows of several runs in turn are told apart by their steps, if that is possible; otherwise the log
is mixed, and no verdict can rest on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gandiag.training_logs.series import Array

FALSE_START_FRACTION = 0.2  # of the last run's rows; an earlier run that is at most this long was abandoned
MAX_BACKWARD_STEPS = 8  # returns to an earlier step, beyond which the rows of several runs count as interleaved
MAX_INTERLEAVED_RUNS = 4
MIN_INTERLEAVED_ROWS = 8  # of a run
MAX_BACKWARD_FRACTION = 0.02  # of the rows, in addition


@dataclass(frozen=True, slots=True)
class StepColumn:
    """step (n,) of every row, its unit, and the steps per epoch (None if unknown)."""

    step: Array
    unit: str
    steps_per_epoch: float | None


@dataclass(frozen=True, slots=True)
class RowSelection:
    """The rows of one run, in order. `notes`: what was dropped; `problems`: why no verdict can rest on them.

    `name`: of the run, if there are several; `is_interleaved`: whether they were written at the same time.
    """

    rows: NDArray[np.intp]
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    name: str = ""
    is_interleaved: bool = False


def infer_steps(columns: Mapping[str, Array], rows: int) -> StepColumn:
    """The step of every row.

    In this order: the step column; epoch × batches + batch; the epoch, with its rows spread over it; the batch; the row
    number.
    """
    step, epoch, batch = (columns.get(name) for name in ("step", "epoch", "batch"))
    if step is not None and epoch is not None and _restarts_every_epoch(step, epoch):
        step, batch = None, step  # CycleGAN's "iters" start again in every epoch
    if step is not None and _varies(step):
        return StepColumn(_fill_forward(step), "steps", _estimate_steps_per_epoch(step, epoch))
    if epoch is not None and _has_values(epoch):
        epoch = _fill_forward(epoch)
        if batch is None or not _varies(batch):
            return StepColumn(_spread_over_epochs(epoch), "epochs", 1.0)
        first = 1.0 if np.nanmin(epoch) >= 1 else 0.0
        batch = _fill_forward(batch)
        batches = _count_batches(batch, columns.get("batches"))
        return StepColumn((epoch - first) * batches + batch, "iterations", batches)
    if batch is not None and _varies(batch):
        return StepColumn(_fill_forward(batch), "iterations", None)
    return StepColumn(np.arange(rows, dtype=np.float64), "lines", None)


def select_final_rows(step: Array) -> RowSelection:
    """The rows of the last run, written by the last pass over each step; rows without a step are dropped."""
    return select_runs(step)[-1]


def select_runs(step: Array, kind: Array | None = None) -> list[RowSelection]:
    """The runs of a log in order, each with its resumed pieces joined. Rows without a step are dropped.

    Several runs written at the same time are told apart by the kinds of their lines (n,), such as "[run a] step 3 …",
    else by their steps, each of which increases.
    """
    known = np.flatnonzero(np.isfinite(step))
    returns = np.flatnonzero(np.diff(step[known]) < 0) + 1
    if len(returns) == 0:
        return [RowSelection(known)]
    if len(returns) > MAX_BACKWARD_STEPS and len(returns) > MAX_BACKWARD_FRACTION * len(known):
        return _part_interleaved_runs(step, known, len(returns), kind)
    return _part_runs(step, np.split(known, returns))


def _part_runs(step: Array, pieces: list[NDArray[np.intp]]) -> list[RowSelection]:
    """Runs one after the other; false starts are dropped."""
    runs = _group_into_runs(step, pieces)
    rows = [np.concatenate(run) for run in runs]
    resumes = len(runs[-1]) - 1
    notes: tuple[str, ...] = ()
    if resumes:
        notes = (f"{resumes} resume{'s' * (resumes > 1)} resolved: of steps written twice, the later row is kept",)
    if len(rows) == 1:
        return [RowSelection(rows[0], notes)]
    kept = [run for run in rows[:-1] if len(run) > FALSE_START_FRACTION * len(rows[-1])]
    n_dropped = len(rows) - 1 - len(kept)
    if n_dropped:
        notes = (*notes, f"{n_dropped} short false start{'s' * (n_dropped > 1)} before this run dropped")
    if not kept:
        return [RowSelection(rows[-1], notes)]
    n_runs, starts = len(kept) + 1, ", ".join(f"row {run[0] + 1:,}" for run in [*kept, rows[-1]][:4])
    notes = (*notes, f"this log holds {n_runs} runs (they begin at {starts}); each is judged, and the last is shown")
    earlier = [RowSelection(run, name=f"run {index + 1} of {n_runs}") for index, run in enumerate(kept)]
    return [*earlier, RowSelection(rows[-1], notes, name=f"run {n_runs} of {n_runs}")]


def _part_interleaved_runs(
    step: Array, known: NDArray[np.intp], n_returns: int, kind: Array | None
) -> list[RowSelection]:
    """Runs written at the same time; if they cannot be told apart, all rows and the problem."""
    runs = (None if kind is None else _part_by_kind(step, known, kind)) or _follow_runs(step, known)
    if runs is None:
        problem = (
            f"the steps go back {n_returns:,} times: rows of several runs are mixed in this log; "
            "write each run to its own file"
        )
        return [RowSelection(known[np.argsort(step[known], kind="stable")], problems=(problem,))]
    note = f"{len(runs)} runs were written into this log at the same time; each is judged"
    return [
        RowSelection(rows, (note,), name=f"run {index + 1} of {len(runs)}", is_interleaved=True)
        for index, rows in enumerate(runs)
    ]


def _part_by_kind(step: Array, known: NDArray[np.intp], kind: Array) -> list[NDArray[np.intp]] | None:
    """Runs whose lines differ by a label; None where the kinds of lines are no runs."""
    groups = [known[kind[known] == value] for value in np.unique(kind[known])[: MAX_INTERLEAVED_RUNS + 1]]
    is_run = [len(rows) >= MIN_INTERLEAVED_ROWS and bool((np.diff(step[rows]) >= 0).all()) for rows in groups]
    is_whole = 1 < len(groups) <= MAX_INTERLEAVED_RUNS and all(is_run) and sum(map(len, groups)) == len(known)
    return groups if is_whole else None


def _follow_runs(step: Array, known: NDArray[np.intp]) -> list[NDArray[np.intp]] | None:
    """Each row continues the run whose last step is closest below its own; None if that makes no whole runs."""
    runs: list[list[int]] = []
    for row in known:
        below = [run for run in runs if step[run[-1]] < step[row]]
        if below:
            min(below, key=lambda run: step[row] - step[run[-1]]).append(int(row))
        elif len(runs) < MAX_INTERLEAVED_RUNS:
            runs.append([int(row)])
        else:
            return None
    _return_first_rows(step, runs)
    is_whole = all(len(run) >= MIN_INTERLEAVED_ROWS and _is_even(step[np.array(run)]) for run in runs)
    return [np.array(run, dtype=np.intp) for run in runs] if is_whole and len(runs) > 1 else None


def _return_first_rows(step: Array, runs: list[list[int]]) -> None:
    """Give the first row of a run to another that begins right after it: the first rows had no run to be close to."""
    for run in runs:
        if len(run) < 3:
            continue
        gap = _median_gap(step[np.array(run)])
        if step[run[1]] - step[run[0]] <= 2 * gap:
            continue
        for other in runs:
            if other is not run and 0 < step[other[0]] - step[run[0]] <= 2 * gap:
                other.insert(0, run.pop(0))
                break


def _is_even(step: Array) -> bool:
    """Whether the steps of a run advance at one pace, for the most part."""
    gaps = np.diff(step)
    return float(np.mean(gaps <= 3 * np.median(gaps))) >= 0.9


def _group_into_runs(step: Array, pieces: list[NDArray[np.intp]]) -> list[list[NDArray[np.intp]]]:
    """Pieces grouped into runs: a piece that starts after the first step of a run resumes it, others are new runs."""
    runs = [[pieces[0]]]
    for piece in pieces[1:]:
        first_step, gap = step[runs[-1][0][0]], _median_gap(step[runs[-1][0]])
        if step[piece[0]] > first_step + 2 * gap:
            earlier = (part[step[part] < step[piece[0]]] for part in runs[-1])
            runs[-1] = [part for part in earlier if len(part)] + [piece]
        else:
            runs.append([piece])
    return runs


def average_duplicate_steps(step: Array, value: Array) -> tuple[Array, Array]:
    """Sorted steps with one value each: the mean of the rows that share the step."""
    order = np.argsort(step, kind="stable")
    step, value = step[order], value[order]
    if len(step) and not (np.diff(step) <= 0).any():
        return step, value
    unique, inverse, counts = np.unique(step, return_inverse=True, return_counts=True)
    return unique, np.bincount(inverse, weights=value, minlength=len(unique)) / counts


def _restarts_every_epoch(step: Array, epoch: Array) -> bool:
    """Whether the step goes back where the epoch advances, and only there."""
    both = np.isfinite(step) & np.isfinite(epoch)
    goes_back, advances = np.diff(step[both]) < 0, np.diff(epoch[both]) > 0
    if not (advances.any() and goes_back.any()):
        return False
    return float((goes_back == advances)[goes_back | advances].mean()) > 0.8


def _has_values(column: Array) -> bool:
    return bool(np.isfinite(column).any())


def _varies(column: Array) -> bool:
    known = column[np.isfinite(column)]
    return len(known) > 1 and bool(known.min() < known.max())


def _fill_forward(column: Array) -> Array:
    """The column with each gap filled by the value before it; gaps at the start stay NaN."""
    known = np.isfinite(column)
    if known.all():
        return column
    last = np.maximum.accumulate(np.where(known, np.arange(len(column)), -1))
    return np.where(last >= 0, column[np.maximum(last, 0)], np.nan)


def _median_gap(step: Array) -> float:
    """Median of the positive differences; 0 if there are none."""
    gaps = np.diff(step)
    return float(np.median(gaps[gaps > 0])) if (gaps > 0).any() else 0.0


def _count_batches(batch: Array, totals: Array | None) -> float:
    """Batches per epoch: as the log says, else the largest batch number, and one step more if they begin at 0."""
    if totals is not None and _has_values(totals):
        return float(np.nanmax(totals))
    gap = _median_gap(batch)
    return float(np.nanmax(batch)) + (gap if float(np.nanmin(batch)) < gap else 0.0)


def _estimate_steps_per_epoch(step: Array, epoch: Array | None) -> float | None:
    """Steps per epoch: the slope of the step over the epoch."""
    if epoch is None or not _varies(epoch):
        return None
    both = np.isfinite(step) & np.isfinite(epoch)
    if both.sum() < 4 or np.ptp(epoch[both]) == 0:
        return None
    slope = np.polyfit(epoch[both], step[both], 1)[0]
    return float(slope) if slope > 0 else None


def _spread_over_epochs(epoch: Array) -> Array:
    """Rows of one epoch spread evenly over it: epoch 3 with four rows -> 3, 3.25, 3.5, 3.75."""
    starts = np.flatnonzero(np.r_[True, np.diff(epoch) != 0])
    sizes = np.diff(np.r_[starts, len(epoch)])
    index = np.arange(len(epoch)) - np.repeat(starts, sizes)
    return np.asarray(epoch + index / np.repeat(sizes, sizes), dtype=np.float64)
