"""Reads CSV, TSV and semicolon tables: Lightning's metrics.csv with gaps, W&B exports, Keras' CSVLogger."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from gandiag.training_logs.formats.registry import ColumnFilter, RowBlock
from gandiag.training_logs.series import Array

ROWS_PER_BLOCK = 50_000
DELIMITERS = ("\t", ",", ";")
MAX_HEADER_CELL = 80  # characters


def parse_number(text: str) -> float:
    """A cell as a number: NaN (a gap) if it is empty or a word, infinity if it says NaN, which is a broken loss."""
    try:
        value = float(text)
    except (ValueError, TypeError):
        return math.nan
    return value if value == value else math.inf


def parse_column(cells: Sequence[str]) -> Array:
    """Cells (n,) as float64; fast if all of them are numbers."""
    try:
        column = np.array(list(map(float, cells)), dtype=np.float64)
        column[np.isnan(column)] = np.inf
        return column
    except ValueError:
        return np.array([parse_number(cell) for cell in cells], dtype=np.float64)


def detect_delimiter(line: str) -> str | None:
    """The delimiter of a header line, or None if the line is not the header of a table."""
    for delimiter in DELIMITERS:
        cells = [cell.strip().strip('"') for cell in line.rstrip("\r\n").split(delimiter)]
        names = [cell for cell in cells if cell and not _is_number(cell)]
        plausible = all(len(cell) < MAX_HEADER_CELL and ":" not in cell.strip()[-2:] for cell in cells)
        if len(cells) > 1 and len(names) >= len(cells) - 1 and plausible:
            return delimiter
    return None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


class TableFormat:
    """A header line followed by rows with as many cells."""

    name = "csv"

    def sniff(self, path: Path, head: bytes) -> bool:
        """Whether a header comes first, then a row of about as many cells, at least half of them numbers."""
        lines = [line for line in head.decode("utf-8", "replace").lstrip("\ufeff").splitlines() if line.strip()][:3]
        delimiter = detect_delimiter(lines[0]) if lines else None
        if delimiter is None:
            return False
        n_columns = len(next(csv.reader([lines[0]], delimiter=delimiter)))
        if len(lines) == 1:
            return True
        second = next(csv.reader([lines[1]], delimiter=delimiter))
        n_values = sum(not cell.strip() or _is_number(cell) for cell in second)
        return abs(len(second) - n_columns) <= 1 and 2 * n_values >= len(second)

    def blocks(self, path: Path, keep: ColumnFilter) -> Iterator[RowBlock]:
        """Blocks of ROWS_PER_BLOCK rows."""
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            first = file.readline()
            while first and not first.strip():
                first = file.readline()
            delimiter = detect_delimiter(first) or ","
            header = [cell.strip() for cell in next(csv.reader([first], delimiter=delimiter))]
            reader = csv.reader(file, delimiter=delimiter)
            while rows := _read_rows(reader):
                yield _make_block(header, rows, keep)


def _read_rows(reader: Iterator[list[str]]) -> list[list[str]]:
    """The next ROWS_PER_BLOCK rows; a cell that is too long for the csv module ends the table."""
    try:
        return list(islice(reader, ROWS_PER_BLOCK))
    except csv.Error:
        return []


def _make_block(header: list[str], rows: list[list[str]], keep: ColumnFilter) -> RowBlock:
    """A block of the complete rows; other rows and repeated headers are skipped."""
    width = len(header)
    complete = [row for row in rows if len(row) == width and row != header]
    cells = list(zip(*complete, strict=True)) if complete else [()] * width
    names = tuple(name for name in dict.fromkeys(header) if name)
    columns = {name: parse_column(cells[header.index(name)]) for name in names if keep(name)}
    skipped = len([row for row in rows if row]) - len(complete)
    return RowBlock(columns, len(complete), names, skipped)


TABLE = TableFormat()
