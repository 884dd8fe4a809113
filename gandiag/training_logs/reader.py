"""Reads any training log into one Log: detects the format and the encoding, and finds the losses in it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from gandiag.errors import ConfigError, SourceError, close_match_hint
from gandiag.training_logs import column_names
from gandiag.training_logs.bounded_store import ColumnStore
from gandiag.training_logs.formats.delimited import HeaderlessFormat
from gandiag.training_logs.formats.registry import ColumnFilter, LogFormat, detect_format
from gandiag.training_logs.log_assembly import LogFile, build_log
from gandiag.training_logs.missing_losses import explain_missing_losses
from gandiag.training_logs.reader_names import HEADERLESS_NAMES, ColumnNames
from gandiag.training_logs.series import LINE_KIND, LOSS_ROLES, Log
from gandiag.training_logs.side_columns import infer_side_role
from gandiag.training_logs.text_encoding import check_regular_file, open_as_utf8, open_standard_input
from gandiag.untrusted.files import open_regular

HEAD_BYTES = 1 << 16  # bytes of the file that a format gets to recognize it
MAX_CONTROL_FRACTION = 0.01  # of the first bytes; a file with more control characters is binary
BINARY_FORMATS = ("tensorboard", "W&B run")
MAX_METRIC_FILES = 50
MAX_NAMES = 20_000  # different names of values in a file
# What a folder stands for: the files of the first pattern that matches any.
FOLDER_PATTERNS = (
    "**/events.out.tfevents.*",
    "**/run-*.wandb",
    "**/wandb-history.jsonl",
    "**/metrics.csv",
    "**/*.jsonl",
    "**/*log*.csv",
    "**/*.log",
    "**/*log*.txt",
)


def read_log(paths: Sequence[str | os.PathLike[str]], columns: ColumnNames | None = None) -> Log:
    """Read one run from one or several files: consecutive pieces of it, or one file for each loss.

    Streams the files; "-" is standard input. Memory: 8 bytes for each row and relevant column, up to two million rows;
    beyond that, neighboring rows are averaged.
    Raises SourceError if a file is not a log or holds no losses, ConfigError for an unknown column.
    """
    specified = columns or ColumnNames()
    specified_names = set(specified.get_specified().values())
    has_both = bool(specified.generator and specified.discriminator)

    def keep(name: str) -> bool:
        if name in specified_names or is_step_column(name):
            return True
        return not has_both and (column_names.is_relevant_column(name) or infer_side_role(name) is not None)

    def is_step_column(name: str) -> bool:
        return name in (specified.step, "batches", LINE_KIND) or column_names.infer_step_role(name) is not None

    files = []
    for entry in paths:
        with open_standard_input(Path(entry)) as path:
            listed = _list_log_files(path)
            files += [_read_file(file, keep, is_step_column, specified.headerless) for file in listed]
    specified = _apply_headerless(specified)
    _require_losses(files, specified)
    return build_log(files, specified)


def _apply_headerless(specified: ColumnNames) -> ColumnNames:
    """`--columns step,d,g` names the roles too, where the names are plain."""
    if not specified.headerless:
        return specified
    found = {}
    for role, names in HEADERLESS_NAMES.items():
        found[role] = next((name for name in specified.headerless if name.lower() in names), None)
    return ColumnNames(
        specified.generator or found["generator"],
        specified.discriminator or found["discriminator"],
        specified.step or found["step"],
    )


def _list_log_files(path: Path) -> list[Path]:
    """The path itself, or the log files in a folder."""
    if not path.is_dir():
        return [path]
    metrics = sorted(entry for entry in path.glob("**/metrics/**/*") if entry.is_file())
    if losses := [entry for entry in metrics if column_names.is_value_column(entry.name)]:
        return losses[:MAX_METRIC_FILES]  # MLflow: one file for each metric
    for pattern in FOLDER_PATTERNS:
        files = sorted(entry for entry in path.glob(pattern) if entry.is_file())
        if files:
            return files
    raise SourceError(f"{path} holds no training log", "pass the file itself")


def _read_file(path: Path, keep: ColumnFilter, is_step_column: ColumnFilter, headerless: Sequence[str] = ()) -> LogFile:
    check_regular_file(path)
    try:
        with open_regular(path) as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}", "check the path of the log") from None
    if not head:
        raise SourceError(f"{path} is empty", "pass a log written by a training run")
    with open_as_utf8(path, head) as readable:
        if readable != path:
            head = _read_head(readable)
        log_format = HeaderlessFormat(headerless) if headerless else detect_format(readable, head)
        _check_format(path, head, log_format)
        log_file = LogFile(str(path), log_format.name)
        store = ColumnStore(is_step_column)
        for block in log_format.blocks(readable, keep):
            store.add(block)
            log_file.skipped += block.skipped
            log_file.names |= dict.fromkeys(block.names)
            if len(log_file.names) > MAX_NAMES:
                raise SourceError(
                    f"{path} has more than {MAX_NAMES:,} different names of values", "log the same names in every row"
                )
            log_file.notes += block.notes
    log_file.rows_read, log_file.columns = store.rows, store.pop_columns()
    log_file.rows = len(next(iter(log_file.columns.values()), ()))
    if store.group_size > 1:
        log_file.notes.append(f"long log ({store.rows:,} rows): every {store.group_size} rows averaged while reading")
    return log_file


def _read_head(path: Path) -> bytes:
    with open_regular(path) as file:
        return file.read(HEAD_BYTES)


def _check_format(path: Path, head: bytes, log_format: LogFormat) -> None:
    """Raise SourceError for binary data and for a table without the header that it needs."""
    if log_format.name not in BINARY_FORMATS and _is_binary(head):
        raise SourceError(
            f"{path} is binary data, not a training log",
            "pass CSV, JSON lines, text, a notebook, a TensorBoard event file or a .wandb file",
        )
    if isinstance(log_format, HeaderlessFormat) and not log_format.sniff(path, head):
        raise SourceError(
            f"{path} does not begin with a row of numbers, so --columns does not apply", "leave --columns out"
        )


def _is_binary(head: bytes) -> bool:
    """Whether the bytes hold control characters that text does not; those of terminals and progress bars are text."""
    control = sum(byte < 32 and byte not in b"\t\n\r\x08\x1b\x0c" for byte in head)
    return control > MAX_CONTROL_FRACTION * len(head)


def _require_losses(files: list[LogFile], specified: ColumnNames) -> None:
    """Raise ConfigError if a specified column is missing, SourceError if there are no losses."""
    known = list(dict.fromkeys(name for file in files for name in file.names))
    for role, name in specified.get_specified().items():
        if name not in known:
            hint = close_match_hint(name, known) if known else "the log has no columns"
            raise ConfigError(f"there is no column {name!r} for --{role}", hint)
    if specified.generator or specified.discriminator:
        return
    chosen = column_names.choose_columns(known)
    if any(role in chosen for role in LOSS_ROLES):
        return
    raise explain_missing_losses(files[0].path if len(files) == 1 else f"{len(files)} files", known)
