"""Any training log → one Log: format recognised, columns inferred and said, files joined, steps healed."""

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
from gandiag.training_logs.step_alignment import average_duplicate_steps, infer_steps, select_final_rows

HEAD_BYTES = 1 << 16  # bytes that a format may look at


@dataclass(frozen=True, slots=True)
class ColumnNames:
    """Columns named by the user, in place of those inferred."""

    generator: str | None = None
    discriminator: str | None = None
    step: str | None = None

    def get_specified(self) -> dict[str, str]:
        return {role: name for role in ("generator", "discriminator", "step") if (name := getattr(self, role))}


@dataclass(slots=True)
class _File:
    """One file as it stands on disk: kept columns by name, and what was seen of the rest. `read`: rows before any were averaged."""

    path: str
    format: str
    columns: dict[str, Array] = field(default_factory=dict)
    names: dict[str, None] = field(default_factory=dict)
    rows: int = 0
    read: int = 0
    skipped: int = 0
    notes: list[str] = field(default_factory=list)


def read_log(paths: Sequence[str | os.PathLike[str]], columns: ColumnNames | None = None) -> Log:
    """One run from one or several files: pieces of it in order, or one file for each loss.

    Streams: memory is 8 bytes for each row and column of use, up to two million rows; beyond that neighbours are averaged.
    Raises SourceError for what is no log, or has no losses in it.
    """
    wanted = columns or ColumnNames()
    given = set(wanted.get_specified().values())

    def keep(name: str) -> bool:
        return name in given or column_names.is_relevant_column(name)

    def places(name: str) -> bool:
        return name in (wanted.step, "batches") or column_names.infer_step_role(name) is not None

    files = [_read_file(Path(path), keep, places) for place in paths for path in _expanded(Path(place))]
    _demand(files, wanted)
    return _joined(files, wanted)


def _expanded(path: Path) -> list[Path]:
    """A folder stands for the logs in it: TensorBoard's event files, else metrics.csv, else the files that look like logs."""
    if not path.is_dir():
        return [path]
    for pattern in (
        "**/events.out.tfevents.*",
        "**/metrics.csv",
        "**/*.jsonl",
        "**/*log*.csv",
        "**/*.log",
        "**/*log*.txt",
    ):
        found = sorted(entry for entry in path.glob(pattern) if entry.is_file())
        if found:
            return found
    raise SourceError(f"{path} holds no log", "name the file itself")


def _read_file(path: Path, keep: ColumnFilter, places: ColumnFilter) -> _File:
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as problem:
        raise SourceError(f"{path} cannot be read: {problem.strerror}", "check the path of the log") from None
    if not head:
        raise SourceError(f"{path} is empty", "pass a log that a training has written")
    form = detect_format(path, head)
    if form.name != "tensorboard" and _binary(head):
        raise SourceError(
            f"{path} is binary data, not a training log",
            "pass CSV, JSON lines, text, a notebook or a TensorBoard event file",
        )
    found = _File(str(path), form.name)
    store = ColumnStore(places)
    for block in form.blocks(path, keep):
        store.add(block)
        found.skipped += block.skipped
        found.names |= dict.fromkeys(block.names)
        found.notes += block.notes
    found.read, found.columns = store.rows, store.pop_columns()
    found.rows = len(next(iter(found.columns.values()), ()))
    if store.group_size > 1:
        found.notes.append(f"{store.group_size} rows averaged into each as they were read: the log has {store.rows:,}")
    return found


def _binary(head: bytes) -> bool:
    """Control characters that no text has: bars and colors of terminals are text."""
    strange = sum(byte < 32 and byte not in b"\t\n\r\x08\x1b\x0c" for byte in head)
    return strange > 0.01 * len(head)


def _demand(files: list[_File], wanted: ColumnNames) -> None:
    known = list(dict.fromkeys(name for file in files for name in file.names))
    for role, name in wanted.get_specified().items():
        if name not in known:
            raise ConfigError(
                f"there is no column {name!r} for --{role}",
                close_match_hint(name, known) if known else "the log has no columns",
            )
    if wanted.generator or wanted.discriminator:
        return
    if not any(role in column_names.choose_columns(known) for role in LOSS_ROLES):
        where = files[0].path if len(files) == 1 else f"{len(files)} files"
        if not known:
            raise SourceError(
                f"no losses were found in {where}: no line has a name and a number",
                "pass the training log, or name its columns",
            )
        shown = ", ".join(known[:12]) + (" …" if len(known) > 12 else "")
        raise SourceError(
            f"no loss columns were recognised in {where}; it has: {shown}",
            "name them: --generator COLUMN --discriminator COLUMN",
        )


def _joined(files: list[_File], wanted: ColumnNames) -> Log:
    everywhere = list(dict.fromkeys(name for file in files for name in file.columns))
    chosen = column_names.choose_columns(everywhere) | {role: (name,) for role, name in wanted.get_specified().items()}
    roles = {role: parts for role, parts in chosen.items() if role in (*LOSS_ROLES, *SCORE_ROLES)}
    total, paths = sum(file.read for file in files), tuple(file.path for file in files)
    if not _sequential(files, roles):
        files = [_side_by_side(files, chosen.get("step", ("",))[0])]
    stacked = _stack(files, chosen)
    rows = len(next(iter(stacked.values())))
    spots = infer_steps({role: stacked[role] for role in STEP_ROLES if role in stacked}, rows)
    standing = select_final_rows(spots.step)
    order = standing.rows
    curves = {}
    for role, parts in roles.items():
        curve = _curve(" + ".join(parts), spots.step[order], stacked[role][order])
        if len(curve):
            curves[role] = curve
    unit = chosen["step"][0] if "step" in chosen and spots.unit == "steps" else None
    columns = {
        "step": unit or ("epoch" if spots.unit == "epochs" else None),
        **dict.fromkeys(LOSS_ROLES),
        **{role: curve.name for role, curve in curves.items()},
    }
    notes = (*dict.fromkeys(note for file in files for note in file.notes), *standing.notes)
    return Log(
        curves,
        _unit(unit) if unit else spots.unit,
        " + ".join(dict.fromkeys(file.format for file in files)),
        total,
        sum(file.skipped for file in files),
        columns,
        spots.steps_per_epoch,
        notes,
        standing.problems,
        paths,
    )


def _unit(column: str) -> str:
    return "kimg" if "kimg" in column_names.split_words(column) else "steps"


def _curve(name: str, step: Array, value: Array) -> Curve:
    """Rows that say nothing of this role (NaN: a gap) are left out; losses written as NaN are infinite here, and stay."""
    there = ~np.isnan(value) & np.isfinite(step)
    return Curve(name, *average_duplicate_steps(step[there], value[there]))


def _sequential(files: list[_File], roles: Mapping[str, tuple[str, ...]]) -> bool:
    """Pieces of one run, one after the other; else one file for each loss, over the same steps."""
    used = {name for parts in roles.values() for name in parts}
    holds = [used & set(file.columns) for file in files]
    return len(files) == 1 or all(one & other for one in holds for other in holds if one and other)


def _side_by_side(files: list[_File], step: str) -> _File:
    """One file for each loss → one table, rows of equal step together; without steps, rows of equal place."""
    places = [file.columns.get(step, np.arange(file.rows, dtype=np.float64)) for file in files]
    known = [np.where(np.isfinite(place), place, -1.0) for place in places]
    everywhere = np.unique(np.concatenate(known))
    table = _File(files[0].path, files[0].format, {step: everywhere} if step else {}, rows=len(everywhere))
    for file, place in zip(files, known, strict=True):
        at = np.searchsorted(everywhere, place)
        for name, value in file.columns.items():
            if name != step:
                table.columns[name] = np.full(len(everywhere), np.nan)
                table.columns[name][at] = value
        table.skipped += file.skipped
        table.notes += file.notes
    return table


def _stack(files: list[_File], chosen: Mapping[str, tuple[str, ...]]) -> dict[str, Array]:
    """Role → values of all rows of all files, parts of a loss added up."""
    stacked = {}
    for role, parts in {**chosen, "batches": ("batches",)}.items():
        rows = [[file.columns.get(part, np.full(file.rows, np.nan)) for part in parts] for file in files]
        if role == "batches" and not any("batches" in file.columns for file in files):
            continue
        stacked[role] = np.concatenate([np.sum(columns, axis=0) for columns in rows])
    return stacked
