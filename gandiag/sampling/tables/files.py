"""Reads tables: delimited text (CSV, TSV) without pandas, Parquet with pyarrow, and pandas, polars or Arrow frames."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from gandiag.checkpoints.file_type import WEIGHT_SUFFIXES
from gandiag.errors import GandiagError, SourceError
from gandiag.sampling.tables.columns import (
    RawColumn,
    RawTable,
    column_from_cells,
    column_from_objects,
    make_table,
)
from gandiag.untrusted.files import open_regular, read_bytes

PARQUET_MAGIC = b"PAR1"
DELIMITERS = (",", "\t", ";", "|")
_SNIFF_BYTES = 65_536
MAX_TABLE_BYTES = 2 * 2**30  # of delimited text, or of unpacked Parquet
MAX_COLUMNS = 10_000
MAX_CELLS = 50_000_000  # each is a Python object while a table is read
_ROWS_PER_BATCH = 4096  # of Parquet, decoded at a time
_SUFFIXES = (".csv", ".tsv", ".tab")  # of a table with a single column, which nothing else shows
_FRAME_PACKAGES = ("pandas", "polars", "pyarrow")


def is_table_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file is Parquet or delimited text, by its first bytes."""
    try:
        with open_regular(path) as file:
            head = file.read(_SNIFF_BYTES)
    except OSError:
        return False
    return head.startswith(PARQUET_MAGIC) or _find_delimiter(head, Path(path)) is not None


def is_frame(source: Any) -> bool:
    """Whether an object is a pandas or polars DataFrame, or an Arrow table."""
    cls = type(source)
    return cls.__module__.split(".")[0] in _FRAME_PACKAGES and cls.__name__ in ("DataFrame", "LazyFrame", "Table")


def read_table(path: Path) -> RawTable:
    """The table in a file. SourceError where it cannot be read."""
    with open_regular(path) as file:
        head = file.read(_SNIFF_BYTES)
    if head.startswith(PARQUET_MAGIC):
        return _read_parquet(path)
    delimiter = _find_delimiter(head, path)
    if delimiter is None:
        raise SourceError(f"{path} is not a table", "pass a CSV, TSV or Parquet file")
    return _read_delimited(path, delimiter)


def read_frame(frame: Any) -> RawTable:
    """The columns of a pandas or polars DataFrame, or an Arrow table."""
    package = type(frame).__module__.split(".")[0]
    if hasattr(frame, "collect") and type(frame).__name__ == "LazyFrame":
        frame = frame.collect()
    titles = frame.column_names if package == "pyarrow" else frame.columns
    columns = []
    for position, title in enumerate(titles):
        series = frame.iloc[:, position] if package == "pandas" else frame[title]
        columns.append(_column_from_series(str(title), series))
    return make_table(f"{package} table", columns)


def _column_from_series(name: str, series: Any) -> RawColumn:
    dtype = getattr(series, "dtype", None)
    if isinstance(dtype, np.dtype) and dtype.kind in "iuf":
        return RawColumn(name, np.array(series.to_numpy(), dtype=np.float64))
    if isinstance(dtype, np.dtype) and dtype.kind in "Mm":
        return RawColumn(name, _to_seconds(series.to_numpy()), is_date=dtype.kind == "M")
    to_list = next(method for key in ("to_pylist", "tolist", "to_list") if (method := getattr(series, key, None)))
    return column_from_objects(name, to_list())


def _to_seconds(moments: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    seconds: np.ndarray[Any, np.dtype[np.float64]] = moments.astype(f"{moments.dtype.kind}8[s]").astype(float)
    seconds[np.isnat(moments)] = np.nan
    return seconds


def _find_delimiter(head: bytes, path: Path) -> str | None:
    """The delimiter of text whose first lines all have the same number of fields, at least two; None otherwise."""
    lines = _decode_lines(head)
    if path.suffix.lower() in WEIGHT_SUFFIXES:  # a broken checkpoint, and said so
        return None
    if lines is not None and len(lines) < 2 and len(head) == _SNIFF_BYTES and path.suffix.lower() in _SUFFIXES:
        return max(DELIMITERS, key=head.decode("latin-1").count)  # a header that is longer than this
    if lines is None or len(lines) < 2 or lines[0].lstrip()[:1] in ("{", "[", "<"):
        return None
    for delimiter in DELIMITERS:
        try:
            widths = {len(row) for row in csv.reader(lines[:50], delimiter=delimiter) if row}
        except csv.Error:
            continue
        if len(widths) == 1 and widths.pop() > 1:
            return delimiter
    return "," if path.suffix.lower() in _SUFFIXES else None


def _decode_lines(head: bytes) -> list[str] | None:
    """Complete lines of text; None for binary data."""
    if b"\0" in head:
        return None
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            text = head.decode(encoding)
            break
        except UnicodeDecodeError as problem:
            if len(head) == _SNIFF_BYTES and problem.start > _SNIFF_BYTES - 4:
                text = head[: problem.start].decode(encoding)
                break
    else:
        return None
    if any(ord(char) < 32 and char not in "\t\r\n\f" for char in text):
        return None
    lines = text.splitlines(keepends=True)
    if len(head) == _SNIFF_BYTES:
        lines = lines[:-1]
    return [line for line in lines if line.strip()]


def _read_delimited(path: Path, delimiter: str) -> RawTable:
    raw = read_bytes(path, MAX_TABLE_BYTES)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("cp1252", "replace")
    rows = _split_rows(text, delimiter, path)
    if len(rows) < 2:
        raise SourceError(f"{path} has {len(rows)} rows", "pass a table with a header and rows")
    names, body = _split_header(rows)
    ragged = next((index for index, row in enumerate(body) if len(row) != len(names)), None)
    if ragged is not None:
        raise SourceError(
            f"{path}: row {ragged + 1:,} has {len(body[ragged]):,} fields and the header has {len(names):,}",
            "correct the row, or quote fields that hold the delimiter",
        )
    return make_table(
        str(path), (column_from_cells(*pair) for pair in zip(names, zip(*body, strict=True), strict=True))
    )


def _split_rows(text: str, delimiter: str, path: Path) -> list[list[str]]:
    """The rows that are not empty. SourceError before more cells are made than fit into memory."""
    _require_size(path, 1, text.count(delimiter) + text.count("\n"))
    rows = []
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
            if row:
                _require_size(path, len(row), 1)
                rows.append(row)
    except csv.Error as broken:
        raise SourceError(f"{path} cannot be read: {broken}", "save the table again as CSV") from None
    return rows


def _require_size(path: Path, n_columns: int, n_rows: int) -> None:
    """SourceError for more columns or cells than a table may have."""
    if n_columns > MAX_COLUMNS:
        raise SourceError(
            f"{path} has {n_columns:,} columns, and a table at most {MAX_COLUMNS:,}",
            "save it with numpy.save: vectors may have more",
        )
    if n_columns * n_rows > MAX_CELLS:
        raise SourceError(
            f"{path} has more than {MAX_CELLS:,} cells", "take a random part of the rows: 100,000 are plenty"
        )


def _split_header(rows: Sequence[Sequence[str]]) -> tuple[list[str], Sequence[Sequence[str]]]:
    """Column names and the rows below; a first row of numbers alone is no header."""
    first = rows[0]
    if all(_is_number(cell) for cell in first):
        return [f"column {index + 1}" for index in range(len(first))], rows
    return [cell.strip() or f"column {index + 1}" for index, cell in enumerate(first)], rows[1:]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _read_parquet(path: Path) -> RawTable:
    try:
        from pyarrow import parquet
    except ImportError:
        raise SourceError(
            f"{path} is a Parquet file, which needs pyarrow", "run pip install pyarrow, or save the table as CSV"
        ) from None
    try:
        with open_regular(path) as stream:
            content = parquet.ParquetFile(stream)
            _check_parquet(path, content)
            return RawTable(str(path), read_frame(_read_batches(path, content)).columns)
    except (GandiagError, MemoryError):
        raise
    except Exception as broken:  # ArrowException, and whatever its values raise as Python objects
        first_line = (str(broken).strip().splitlines() or [type(broken).__name__])[0][:160]
        raise SourceError(f"{path} cannot be read: {first_line}", "write it again with to_parquet") from None


def _check_parquet(path: Path, content: Any) -> None:
    """SourceError for a table that its own footer says is too large, or that has lists or structs for cells."""
    footer = content.metadata
    _require_size(path, footer.num_columns, max(footer.num_rows, 1))
    nested = next((field.name for field in content.schema_arrow if field.type.num_fields), None)
    if nested is not None:
        raise SourceError(f"{path}: column {nested!r} holds lists or structs", "leave it out, or make columns of it")
    if sum(footer.row_group(index).total_byte_size for index in range(footer.num_row_groups)) > MAX_TABLE_BYTES:
        _refuse_bytes(path)


def _read_batches(path: Path, content: Any) -> Any:
    """The table, read in parts that are counted: text that a dictionary repeats is far larger than its footer says."""
    import pyarrow

    batches, n_bytes = [], 0
    for batch in content.iter_batches(_ROWS_PER_BATCH, use_threads=False):
        n_bytes += sum(map(_count_bytes, batch.columns))
        if n_bytes > MAX_TABLE_BYTES:
            _refuse_bytes(path)
        batches.append(batch)
    return pyarrow.Table.from_batches(batches, content.schema_arrow)


def _count_bytes(column: Any) -> int:
    """Bytes of a column's values; of categories, as if all were the longest one."""
    import pyarrow

    if not pyarrow.types.is_dictionary(column.type):
        return int(column.nbytes)
    return len(column) * max((len(str(word)) for word in column.dictionary.to_pylist()), default=0)


def _refuse_bytes(path: Path) -> NoReturn:
    raise SourceError(f"{path} unpacks to more than {MAX_TABLE_BYTES >> 30} GiB", "take a random part of the rows")
