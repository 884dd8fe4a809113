"""Reads any training log into one Log: detects the format, infers columns, joins files and assigns steps."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gandiag.errors import ConfigError, SourceError, close_match_hint
from gandiag.training_logs import column_names
from gandiag.training_logs.bounded_store import ColumnStore
from gandiag.training_logs.formats.registry import ColumnFilter, detect_format
from gandiag.training_logs.series import LOSS_ROLES, SCORE_ROLES, STEP_ROLES, Array, Curve, Log
from gandiag.training_logs.step_alignment import StepColumn, average_duplicate_steps, infer_steps, select_final_rows

HEAD_BYTES = 1 << 16  # bytes of the file that a format gets to recognize it
MAX_CONTROL_FRACTION = 0.01  # of the first bytes; a file with more control characters is binary
MAX_LISTED_COLUMNS = 12  # column names in an error message
# What a folder stands for: the files of the first pattern that matches any.
FOLDER_PATTERNS = (
    "**/events.out.tfevents.*",
    "**/metrics.csv",
    "**/*.jsonl",
    "**/*log*.csv",
    "**/*.log",
    "**/*log*.txt",
)


@dataclass(frozen=True, slots=True)
class ColumnNames:
    """Columns specified by the user, in place of the inferred ones."""

    generator: str | None = None
    discriminator: str | None = None
    step: str | None = None

    def get_specified(self) -> dict[str, str]:
        """Role -> column, for the columns that are specified."""
        return {role: name for role in ("generator", "discriminator", "step") if (name := getattr(self, role))}


@dataclass(slots=True)
class _LogFile:
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


def read_log(paths: Sequence[str | os.PathLike[str]], columns: ColumnNames | None = None) -> Log:
    """Read one run from one or several files: consecutive pieces of it, or one file for each loss.

    Streams the files. Memory: 8 bytes for each row and relevant column, up to two million rows; beyond that,
    neighboring rows are averaged.
    Raises SourceError if a file is not a log or holds no losses, ConfigError for an unknown column.
    """
    specified = columns or ColumnNames()
    specified_names = set(specified.get_specified().values())

    def keep(name: str) -> bool:
        return name in specified_names or column_names.is_relevant_column(name)

    def is_step_column(name: str) -> bool:
        return name in (specified.step, "batches") or column_names.infer_step_role(name) is not None

    files = [_read_file(file, keep, is_step_column) for path in paths for file in _list_log_files(Path(path))]
    _require_losses(files, specified)
    return _build_log(files, specified)


def _list_log_files(path: Path) -> list[Path]:
    """The path itself, or the log files in a folder."""
    if not path.is_dir():
        return [path]
    for pattern in FOLDER_PATTERNS:
        files = sorted(entry for entry in path.glob(pattern) if entry.is_file())
        if files:
            return files
    raise SourceError(f"{path} holds no training log", "pass the file itself")


def _read_file(path: Path, keep: ColumnFilter, is_step_column: ColumnFilter) -> _LogFile:
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}", "check the path of the log") from None
    if not head:
        raise SourceError(f"{path} is empty", "pass a log written by a training run")
    log_format = detect_format(path, head)
    if log_format.name != "tensorboard" and _is_binary(head):
        raise SourceError(
            f"{path} is binary data, not a training log",
            "pass CSV, JSON lines, text, a notebook or a TensorBoard event file",
        )
    log_file = _LogFile(str(path), log_format.name)
    store = ColumnStore(is_step_column)
    for block in log_format.blocks(path, keep):
        store.add(block)
        log_file.skipped += block.skipped
        log_file.names |= dict.fromkeys(block.names)
        log_file.notes += block.notes
    log_file.rows_read, log_file.columns = store.rows, store.pop_columns()
    log_file.rows = len(next(iter(log_file.columns.values()), ()))
    if store.group_size > 1:
        log_file.notes.append(f"long log ({store.rows:,} rows): every {store.group_size} rows averaged while reading")
    return log_file


def _is_binary(head: bytes) -> bool:
    """Whether the bytes hold control characters that text does not; those of terminals and progress bars are text."""
    control = sum(byte < 32 and byte not in b"\t\n\r\x08\x1b\x0c" for byte in head)
    return control > MAX_CONTROL_FRACTION * len(head)


def _require_losses(files: list[_LogFile], specified: ColumnNames) -> None:
    """Raise ConfigError if a specified column is missing, SourceError if there are no losses."""
    known = list(dict.fromkeys(name for file in files for name in file.names))
    for role, name in specified.get_specified().items():
        if name not in known:
            hint = close_match_hint(name, known) if known else "the log has no columns"
            raise ConfigError(f"there is no column {name!r} for --{role}", hint)
    if specified.generator or specified.discriminator:
        return
    if any(role in column_names.choose_columns(known) for role in LOSS_ROLES):
        return
    where = files[0].path if len(files) == 1 else f"{len(files)} files"
    if not known:
        raise SourceError(
            f"no losses were found in {where}: no line has a name and a number",
            "pass the training log, or name its columns",
        )
    listed = ", ".join(known[:MAX_LISTED_COLUMNS]) + (" …" if len(known) > MAX_LISTED_COLUMNS else "")
    raise SourceError(
        f"no loss columns were recognized in {where}; it has: {listed}",
        "name them: --generator COLUMN --discriminator COLUMN",
    )


def _build_log(files: list[_LogFile], specified: ColumnNames) -> Log:
    names = list(dict.fromkeys(name for file in files for name in file.columns))
    chosen = column_names.choose_columns(names) | {role: (name,) for role, name in specified.get_specified().items()}
    roles = {role: parts for role, parts in chosen.items() if role in (*LOSS_ROLES, *SCORE_ROLES)}
    rows_read, paths = sum(file.rows_read for file in files), tuple(file.path for file in files)
    if not _are_consecutive(files, roles):
        files = [_merge_on_steps(files, chosen.get("step", ("",))[0])]
    stacked = _stack_files(files, chosen)
    n_rows = len(next(iter(stacked.values())))
    steps = infer_steps({role: stacked[role] for role in STEP_ROLES if role in stacked}, n_rows)
    selection = select_final_rows(steps.step)
    curves = {}
    for role, parts in roles.items():
        curve = _make_curve(" + ".join(parts), steps.step[selection.rows], stacked[role][selection.rows])
        if len(curve):
            curves[role] = curve
    step_column = chosen["step"][0] if "step" in chosen and steps.unit == "steps" else None
    return Log(
        curves=curves,
        step_unit=_infer_unit(step_column) if step_column else steps.unit,
        format=" + ".join(dict.fromkeys(file.format for file in files)),
        rows=rows_read,
        skipped_lines=sum(file.skipped for file in files),
        columns=_list_columns(step_column, steps, curves),
        steps_per_epoch=steps.steps_per_epoch,
        notes=(*dict.fromkeys(note for file in files for note in file.notes), *selection.notes),
        problems=selection.problems,
        files=paths,
    )


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
    """The curve of one role. NaN is a gap and dropped; losses written as NaN are infinite here and kept."""
    known = ~np.isnan(value) & np.isfinite(step)
    return Curve(name, *average_duplicate_steps(step[known], value[known]))


def _are_consecutive(files: list[_LogFile], roles: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether the files are consecutive pieces of one run, rather than one file for each loss over the same steps."""
    used = {name for parts in roles.values() for name in parts}
    columns = [used & set(file.columns) for file in files]
    return len(files) == 1 or all(first & second for first in columns for second in columns if first and second)


def _merge_on_steps(files: list[_LogFile], step: str) -> _LogFile:
    """One file for each loss -> one table, joined on the step column; without steps, on the row number."""
    steps = [file.columns.get(step, np.arange(file.rows, dtype=np.float64)) for file in files]
    steps = [np.where(np.isfinite(values), values, -1.0) for values in steps]
    all_steps = np.unique(np.concatenate(steps))
    merged = _LogFile(files[0].path, files[0].format, {step: all_steps} if step else {}, rows=len(all_steps))
    for file, file_steps in zip(files, steps, strict=True):
        rows = np.searchsorted(all_steps, file_steps)
        for name, value in file.columns.items():
            if name != step:
                merged.columns[name] = np.full(len(all_steps), np.nan)
                merged.columns[name][rows] = value
        merged.skipped += file.skipped
        merged.notes += file.notes
    return merged


def _stack_files(files: list[_LogFile], chosen: Mapping[str, tuple[str, ...]]) -> dict[str, Array]:
    """Role -> values of all rows of all files, with the columns of a role added up."""
    roles = dict(chosen)
    if any("batches" in file.columns for file in files):
        roles["batches"] = ("batches",)
    stacked = {}
    for role, parts in roles.items():
        pieces = [[file.columns.get(part, np.full(file.rows, np.nan)) for part in parts] for file in files]
        stacked[role] = np.concatenate([np.sum(columns, axis=0) for columns in pieces])
    return stacked
