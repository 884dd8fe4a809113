"""Reads JSON lines (StyleGAN's stats.jsonl, BigGAN, any logger) and Hugging Face's trainer_state.json."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gandiag.errors import SourceError
from gandiag.training_logs.bounded_store import check_column_count
from gandiag.training_logs.column_names import is_value_column
from gandiag.training_logs.formats.cells import describe_texts, is_no_number, parse_number
from gandiag.training_logs.formats.registry import ColumnFilter, RowBlock
from gandiag.training_logs.formats.scalar_series import join_scalar_series
from gandiag.untrusted.files import open_regular, parse_json, read_bytes
from gandiag.untrusted.schema import SchemaError, check, either, list_of, number, optional, table

ROWS_PER_BLOCK = 50_000
VALUES_PER_BLOCK = 1_000_000
MAX_NAMES = 10_000  # different keys in one block
MAX_LINE_BYTES = 1 << 24
MAX_DOCUMENT_BYTES = 1 << 29  # a document is read as a whole
BROKEN_NUMBERS = ("nan", "inf", "-inf", "infinity")  # as text
MAX_TEXT = 40  # characters of a value that is shown because it is no number
MAX_DEPTH = 20  # of nested objects in which numbers and rows are sought


def flatten_row(
    row: Mapping[str, Any], prefix: str = "", depth: int = 0, texts: dict[str, str] | None = None
) -> Iterator[tuple[str, float]]:
    """The numbers of a row by path. StyleGAN's {"mean": m, "std": s, "num": n} gives its mean.

    NaN becomes infinity: a broken loss, not a gap. `texts` collects an example of each loss that is no number.
    """
    for key, value in row.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            if isinstance(value.get("mean"), (int, float)):
                yield name, _to_float(value["mean"])
            elif depth < MAX_DEPTH:
                yield from flatten_row(value, f"{name}/", depth + 1, texts)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield name, _to_float(value)
        elif isinstance(value, list) and len(value) == 1 and isinstance(value[0], (int, float)):
            yield name, _to_float(value[0])
        elif isinstance(value, str) and value.lower() in BROKEN_NUMBERS:
            yield name, math.inf
        elif isinstance(value, str) and is_value_column(name) and len(value) < MAX_TEXT:
            yield name, parse_number(value)
            if texts is not None and is_no_number(value):
                texts.setdefault(name, value)
        elif texts is not None and value is not None and is_value_column(name):
            texts.setdefault(name, json.dumps(value)[:MAX_TEXT])


def _to_float(value: float) -> float:
    try:
        return math.inf if value != value else float(value)
    except OverflowError:  # an integer of hundreds of digits
        return math.inf


def rows_to_block(
    rows: list[dict[str, float]], keep: ColumnFilter, skipped: int = 0, texts: Mapping[str, str] | None = None
) -> RowBlock:
    """Rows with arbitrary keys as columns with gaps. `texts`: an example of each loss that is no number."""
    names = dict.fromkeys(name for row in rows for name in row)
    if len(names) > MAX_NAMES:
        raise SourceError(
            f"this log has {len(names):,} names for its values, and a training log at most {MAX_NAMES:,}",
            "log the same names in every row",
        )
    check_column_count(sum(map(keep, names)))
    columns = {
        name: np.array([row.get(name, math.nan) for row in rows], dtype=np.float64) for name in names if keep(name)
    }
    return RowBlock(columns, len(rows), tuple(names), skipped, describe_texts(texts or {}))


class JsonLinesFormat:
    """One JSON object per line."""

    name = "json lines"

    def sniff(self, path: Path, head: bytes) -> bool:
        """Whether the first line starts an object, and is a complete one unless the file is called .jsonl."""
        lines = [line for line in head.splitlines() if line.strip()]
        if not lines or not lines[0].lstrip().startswith(b"{"):
            return False
        return path.suffix == ".jsonl" or _parse_object(lines[0]) is not None

    def blocks(self, path: Path, keep: ColumnFilter) -> Iterator[RowBlock]:
        """Blocks of ROWS_PER_BLOCK rows; lines that are not objects are skipped."""
        rows: list[dict[str, float]] = []
        texts: dict[str, str] = {}
        skipped = n_values = 0
        with open_regular(path) as file:
            while line := file.readline(MAX_LINE_BYTES):
                row = _parse_object(line)
                if row is not None:
                    rows.append(dict(flatten_row(row, texts=texts)))
                    n_values += len(rows[-1])
                elif line.strip():
                    skipped += 1
                if len(rows) >= ROWS_PER_BLOCK or n_values >= VALUES_PER_BLOCK:
                    yield rows_to_block(rows, keep, skipped)
                    rows, skipped, n_values = [], 0, 0
        yield rows_to_block(rows, keep, skipped, texts)


def _is_broken_number(value: Any, path: str) -> None:
    """NaN and infinity, which the Trainer writes as such, or as text: a broken loss, which is evidence."""
    if not (isinstance(value, float) or (isinstance(value, str) and value.lower() in BROKEN_NUMBERS)):
        raise SchemaError(f"{path} is not a number")


def _parse_object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


class TrainerStateFormat:
    """A whole JSON document: trainer_state.json with its `log_history`, a list of rows, or a dict of columns."""

    name = "json"

    def sniff(self, path: Path, head: bytes) -> bool:
        """Whether the file is one JSON document rather than lines of objects."""
        if head.lstrip()[:1] not in (b"{", b"["):
            return False
        first = next((line for line in head.splitlines() if line.strip()), b"")
        is_document = _parse_object(first) is None or b"\n" not in head.strip()
        return (path.suffix == ".json" or b'"log_history"' in head) and is_document

    def blocks(self, path: Path, keep: ColumnFilter) -> Iterator[RowBlock]:
        """The document as one block; an invalid document is one skipped line."""
        check_document_size(path)
        try:
            document = parse_json(read_bytes(path, MAX_DOCUMENT_BYTES), allow_nan=True)
        except ValueError:
            yield RowBlock({}, 0, (), 1)
            return
        _check_trainer_state(document, path)
        texts: dict[str, str] = {}
        rows = join_scalar_series(document)
        rows = rows or [dict(flatten_row(row, texts=texts)) for row in _find_rows(document) if isinstance(row, dict)]
        yield rows_to_block(rows, keep, texts=texts)


_NUMBER = either(number(), _is_broken_number, due="a number")
_TRAINER_STATE = table(
    {"log_history": list_of(table({key: optional(_NUMBER) for key in ("step", "epoch", "loss", "learning_rate")}))}
)


def _check_trainer_state(document: Any, path: Path) -> None:
    """SourceError with the path of the first field of a trainer_state.json that is not what the Trainer writes."""
    if not isinstance(document, dict) or isinstance(document.get("log_history", {}), dict):
        return  # other documents have columns or rows by any name
    try:
        check(_TRAINER_STATE, document)
    except SchemaError as wrong:
        raise SourceError(f"{path.name}: {wrong}", "write it again, or log one JSON object a line") from None


def check_document_size(path: Path) -> None:
    """Raise SourceError if a file that must be read as a whole is too large for that."""
    size = path.stat().st_size
    if size > MAX_DOCUMENT_BYTES:
        raise SourceError(
            f"{path.name} is one JSON document of {size / 1e6:,.0f} MB, more than {MAX_DOCUMENT_BYTES / 1e6:,.0f}",
            "log one JSON object a line",
        )


def _find_rows(document: Any) -> list[Any]:
    """The rows of a document: its longest list of objects, or its columns, transposed."""
    lists = list(_iter_row_lists(document))
    if lists:
        return max(lists, key=len)
    columns = _find_columns(document)
    n_rows = max(map(len, columns.values()), default=0)
    return [{name: value[row] for name, value in columns.items() if row < len(value)} for row in range(n_rows)]


def _iter_row_lists(document: Any, depth: int = 0) -> Iterator[list[Any]]:
    """All lists of objects, wherever they are."""
    if depth > MAX_DEPTH:
        return
    if isinstance(document, list) and document and isinstance(document[0], dict):
        yield document
    elif isinstance(document, dict):
        for value in document.values():
            yield from _iter_row_lists(value, depth + 1)


def _find_columns(document: Any, prefix: str = "", depth: int = 0) -> dict[str, list[Any]]:
    """Name -> list, wherever they are: {"history": {"d_loss": […], "g_loss": […]}}."""
    if not isinstance(document, dict) or depth > MAX_DEPTH:
        return {}
    columns: dict[str, list[Any]] = {}
    for name, value in document.items():
        if isinstance(value, list):
            columns[f"{prefix}{name}"] = value
        else:
            nested = "" if name in ("history", "log_history", "data") else f"{prefix}{name}/"
            columns |= _find_columns(value, nested, depth + 1)
    return columns


JSON_LINES, TRAINER_STATE = JsonLinesFormat(), TrainerStateFormat()
