"""CSV, TSV and semicolon tables: Lightning's metrics.csv with its gaps, W&B exports, Keras' CSVLogger."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from gandiag.training_logs.formats.registry import ColumnFilter, RowBlock
from gandiag.training_logs.series import Array

ROWS_PER_BLOCK = 50_000  # per block
DELIMITERS = ("\t", ",", ";")


def parse_number(text: str) -> float:
    """A cell as a number: NaN, a gap, for an empty one or a word; infinity for a loss that was written as NaN."""
    try:
        value = float(text)
    except (ValueError, TypeError):
        return math.nan
    return value if value == value else math.inf


def parse_column(cells: Sequence[str]) -> Array:
    """Cells (n,) as float64; fast where all are numbers."""
    try:
        found = np.array(list(map(float, cells)), dtype=np.float64)
        found[np.isnan(found)] = np.inf
        return found
    except ValueError:
        return np.array([parse_number(cell) for cell in cells], dtype=np.float64)


def detect_delimiter(line: str) -> str | None:
    """What separates the cells of a header line, or None where it is no header of a table."""
    for mark in DELIMITERS:
        cells = [cell.strip().strip('"') for cell in line.rstrip("\r\n").split(mark)]
        named = [cell for cell in cells if cell and not _numeric(cell)]
        if (
            len(cells) > 1
            and len(named) >= len(cells) - 1
            and all(len(cell) < 80 and ":" not in cell.strip()[-2:] for cell in cells)
        ):
            return mark
    return None


def _numeric(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


class TableFormat:
    """A header line, then rows with as many cells."""

    name = "csv"

    def sniff(self, path: Path, head: bytes) -> bool:
        lines = [line for line in head.decode("utf-8", "replace").lstrip("\ufeff").splitlines() if line.strip()][:3]
        mark = detect_delimiter(lines[0]) if lines else None
        if mark is None:
            return False
        cells = len(next(csv.reader([lines[0]], delimiter=mark)))
        if len(lines) == 1:
            return True
        second = next(csv.reader([lines[1]], delimiter=mark))
        values = sum(not cell.strip() or _numeric(cell) for cell in second)
        return abs(len(second) - cells) <= 1 and 2 * values >= len(second)

    def blocks(self, path: Path, keep: ColumnFilter) -> Iterator[RowBlock]:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            first = file.readline()
            while first and not first.strip():
                first = file.readline()
            mark = detect_delimiter(first) or ","
            header = [cell.strip() for cell in next(csv.reader([first], delimiter=mark))]
            rows = csv.reader(file, delimiter=mark)
            while chunk := _next(rows):
                yield _block(header, chunk, keep)


def _next(rows: Iterator[list[str]]) -> list[list[str]]:
    """The next ROWS rows; a cell longer than the reader allows ends the table."""
    try:
        return list(islice(rows, ROWS_PER_BLOCK))
    except csv.Error:
        return []


def _block(header: list[str], chunk: list[list[str]], keep: ColumnFilter) -> RowBlock:
    width = len(header)
    whole = [row for row in chunk if len(row) == width and row != header]
    cells = list(zip(*whole, strict=True)) if whole else [()] * width
    names = dict.fromkeys(header)
    columns = {name: parse_column(cells[header.index(name)]) for name in names if name and keep(name)}
    return RowBlock(
        columns, len(whole), tuple(name for name in names if name), len([row for row in chunk if row]) - len(whole)
    )


TABLE = TableFormat()
