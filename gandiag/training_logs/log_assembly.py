"""Assembles a Log from the columns that were read: joins files, assigns steps, parts runs and pairs of players."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from gandiag.training_logs import column_names
from gandiag.training_logs.reader_names import ColumnNames
from gandiag.training_logs.series import LINE_KIND, LOSS_ROLES, SCORE_ROLES, STEP_ROLES, Array, Curve, Log
from gandiag.training_logs.side_columns import choose_side_columns
from gandiag.training_logs.step_alignment import (
    RowSelection,
    StepColumn,
    average_duplicate_steps,
    infer_steps,
    select_runs,
)

MAX_LOSS = 1e100  # of a loss or a step; larger ones count as infinite


@dataclass(slots=True)
class LogFile:
    """One file: the kept columns by name, and every column name that occurs.

    `rows`: rows stored; `rows_read`: rows read, before any were averaged.
    """

    path: str
    format: str
    columns: dict[str, Array] = field(default_factory=dict)
    names: dict[str, None] = field(default_factory=dict)
    rows: int = 0
    rows_read: int = 0
    skipped: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """All rows of all files: step (n,), and column -> values (n,)."""

    steps: StepColumn
    columns: Mapping[str, Array]
    step_column: str | None


def build_log(files: list[LogFile], specified: ColumnNames) -> Log:
    """The last run of the first pair of players, with the other pairs and runs in it.

    A W&B export of several runs has a set of columns for each, "run-1 - g_loss": each is a run of its own.
    """
    exported = {} if specified.get_specified() else column_names.group_exported_runs(_list_names(files))
    if len(exported) < 2:
        return _build_file_log(files, specified)
    logs = []
    for run, names in exported.items():
        parts = [
            replace(
                file,
                columns={name: value for name, value in file.columns.items() if name in names},
                names={name: None for name in file.names if name in names},
            )
            for file in files
        ]
        logs.append(replace(_build_file_log(parts, specified), name=run))
    note = (
        f"this export holds {len(logs)} runs ({', '.join(list(exported)[:4])}); each is judged, and the worst is shown"
    )
    return replace(logs[-1], runs=tuple(logs[:-1]), interleaved=True, notes=(*logs[-1].notes, note))


def _list_names(files: list[LogFile]) -> list[str]:
    return list(dict.fromkeys(name for file in files for name in file.columns if name != LINE_KIND))


def _build_file_log(files: list[LogFile], specified: ColumnNames) -> Log:
    names = _list_names(files)
    known = list(dict.fromkeys(name for file in files for name in file.names))
    chosen = column_names.choose_columns(names, known) | {
        role: (name,) for role, name in specified.get_specified().items()
    }
    roles = {role: parts for role, parts in chosen.items() if role in (*LOSS_ROLES, *SCORE_ROLES)}
    is_free = not (specified.generator or specified.discriminator) or bool(specified.headerless)
    pairs = column_names.choose_pairs(names, chosen) if is_free else []
    base = Log(
        curves={},
        step_unit="",
        format=" + ".join(dict.fromkeys(file.format for file in files)),
        rows=sum(file.rows_read for file in files),
        skipped_lines=sum(file.skipped for file in files),
        columns={},
        notes=tuple(dict.fromkeys(note for file in files for note in file.notes)),
        files=tuple(file.path for file in files),
    )
    if not _are_consecutive(files, roles):
        files = [_merge_on_steps(files, chosen.get("step", ("",))[0])]
    table = _stack_files(files, chosen)
    selections = select_runs(table.steps.step, table.columns.get(LINE_KIND))
    all_roles = [roles, *pairs]
    used = {part for entry in all_roles for parts in entry.values() for part in parts}
    side = choose_side_columns(names, used)
    base = replace(base, other_columns=_list_other_columns(known, used))
    runs = [_build_run(base, table, selection, all_roles, side) for selection in selections]
    last, earlier = runs[-1], tuple(runs[:-1])
    return replace(last, runs=earlier, interleaved=selections[-1].is_interleaved)


def _list_other_columns(known: Sequence[str], used: set[str]) -> tuple[str, ...]:
    """What else the log has, without losses in use and counters."""
    return tuple(
        name for name in known if name not in used and name != "batches" and column_names.infer_step_role(name) is None
    )


def _build_run(
    base: Log,
    table: _Table,
    selection: RowSelection,
    all_roles: Sequence[Mapping[str, tuple[str, ...]]],
    side: Mapping[str, str],
) -> Log:
    """One run: its first pair, with the others in it."""
    step, rows = table.steps.step[selection.rows], selection.rows
    side_curves = {
        name: (role, curve)
        for name, role in side.items()
        if len(curve := _make_curve(name, step, table.columns[name][rows]))
    }
    unit = _infer_unit(table.step_column) if table.step_column else table.steps.unit
    logs = []
    for roles in all_roles:
        curves = {}
        for role in (*LOSS_ROLES, *SCORE_ROLES):
            parts = roles.get(role, ())
            if not parts:
                continue
            value = np.sum([table.columns[part][rows] for part in parts], axis=0)
            curve = _make_curve(" + ".join(parts), step, value)
            if len(curve):
                curves[role] = curve
        if not any(role in curves for role in LOSS_ROLES):
            continue
        shared = _describe_shared_steps(curves, table, roles, rows)
        logs.append(
            replace(
                base,
                curves=curves,
                step_unit=unit,
                columns=_list_columns(table.step_column, table.steps, curves),
                steps_per_epoch=table.steps.steps_per_epoch,
                notes=(*base.notes, *selection.notes, *shared),
                problems=selection.problems,
                side_curves=side_curves,
            )
        )
    if not logs:
        return replace(base, step_unit=unit, columns=_list_columns(None, table.steps, {}), name=selection.name)
    others = tuple(replace(log, name=_name_pair(log)) for log in logs[1:])
    return replace(logs[0], pairs=others, name=selection.name or _name_pair(logs[0]))


def _describe_shared_steps(
    curves: Mapping[str, Curve],
    table: _Table,
    roles: Mapping[str, tuple[str, ...]],
    rows: NDArray[np.intp],
) -> tuple[str, ...]:
    """That rows of the same step were averaged, as when several processes write one log."""
    for role, curve in curves.items():
        known = np.isfinite(table.steps.step[rows])
        for part in roles[role]:
            known &= ~np.isnan(table.columns[part][rows])
        shared = int(known.sum()) - len(curve)
        if shared:
            return (f"{shared:,} rows have the step of another row: of rows with one step, the mean is taken",)
    return ()


def _name_pair(log: Log) -> str:
    return next(curve.name for role in ("discriminator", "generator") if (curve := log.curves.get(role)) is not None)


def _list_columns(step_column: str | None, steps: StepColumn, curves: Mapping[str, Curve]) -> dict[str, str | None]:
    """Role -> column, for the document."""
    return {
        "step": step_column or ("epoch" if steps.unit == "epochs" else None),
        **dict.fromkeys(LOSS_ROLES),
        **{role: curve.name for role, curve in curves.items()},
    }


def _infer_unit(column: str) -> str:
    return "kimg" if "kimg" in column_names.split_words(column) else "steps"


def _make_curve(name: str, step: Array, value: Array) -> Curve:
    """The curve of one role. NaN is a gap and dropped; losses written as NaN are infinite here and kept.

    So are losses whose squares could not be summed: such a run has failed as well.
    """
    value = np.where(np.abs(value) > MAX_LOSS, np.copysign(np.inf, value), value)
    known = ~np.isnan(value) & (np.abs(step) < MAX_LOSS)
    return Curve(name, *average_duplicate_steps(step[known], value[known]))


def _are_consecutive(files: list[LogFile], roles: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether the files are consecutive pieces of one run, rather than one file for each loss over the same steps."""
    used = {name for parts in roles.values() for name in parts}
    columns = [used & set(file.columns) for file in files]
    return len(files) == 1 or all(first & second for first in columns for second in columns if first and second)


def _merge_on_steps(files: list[LogFile], step: str) -> LogFile:
    """One file for each loss -> one table, joined on the step column; without steps, on the row number."""
    steps = [file.columns.get(step, np.arange(file.rows, dtype=np.float64)) for file in files]
    steps = [np.where(np.isfinite(values), values, -1.0) for values in steps]
    all_steps = np.unique(np.concatenate(steps))
    merged = LogFile(files[0].path, files[0].format, {step: all_steps} if step else {}, rows=len(all_steps))
    for file, file_steps in zip(files, steps, strict=True):
        rows = np.searchsorted(all_steps, file_steps)
        for name, value in file.columns.items():
            if name != step:
                merged.columns[name] = np.full(len(all_steps), np.nan)
                merged.columns[name][rows] = value
        merged.skipped += file.skipped
        merged.notes += file.notes
    return merged


def _stack_files(files: list[LogFile], chosen: Mapping[str, tuple[str, ...]]) -> _Table:
    """All columns of all files, one file below the other, with their steps."""
    names = dict.fromkeys(name for file in files for name in file.columns)
    columns = {
        name: np.concatenate([file.columns.get(name, np.full(file.rows, np.nan)) for file in files]) for name in names
    }
    n_rows = sum(file.rows for file in files)
    positions = {role: columns[chosen[role][0]] for role in STEP_ROLES if role in chosen and chosen[role][0] in columns}
    if "batches" in columns:
        positions["batches"] = columns["batches"]
    steps = infer_steps(positions, n_rows)
    return _Table(steps, columns, chosen["step"][0] if "step" in chosen and steps.unit == "steps" else None)
