"""Reads tables: CSV, TSV, semicolons with decimal commas, blanks (Chainer's PrintReport), Markdown, without header too.

Lightning's metrics.csv with gaps, W&B exports, Keras' CSVLogger, TensorBoard's CSV downloads, which are named by file.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np

from gandiag.errors import SourceError
from gandiag.training_logs.column_names import is_value_column
from gandiag.training_logs.formats.cells import describe_texts, is_no_number, parse_column, parse_number
from gandiag.training_logs.formats.registry import ColumnFilter, RowBlock
from gandiag.training_logs.series import Array
from gandiag.untrusted.files import open_regular, open_text

ROWS_PER_BLOCK = 50_000
DELIMITERS = ("\t", ",", ";")
MAX_HEADER_CELL = 80  # characters
MAX_TABLE_COLUMNS = 10_000
CELLS_PER_BLOCK = 2_000_000
VALUE_PATTERN = re.compile(r"[:=]\s*[-+]?\d")  # "d_loss: 0.5" is a line of text, not a name
RULE_PATTERN = re.compile(r"[\s|:+=-]+$")  # the line below the header of a Markdown or console table
TENSORBOARD_HEADER = ["wall time", "step", "value"]
BLANKS = " "  # the delimiter of tables in columns
PIPE = "|"


def detect_delimiter(line: str) -> str | None:
    """The delimiter of a header line, or None if the line is not the header of a table."""
    if line.count(PIPE) > 2 and line.strip().startswith(PIPE) and line.strip().endswith(PIPE):
        cells = [cell.strip() for cell in line.strip().strip(PIPE).split(PIPE)]
        return PIPE if all(cell and not re.search(r"\d\.\d|[:=]", cell) for cell in cells) else None
    for delimiter in DELIMITERS:
        cells = [cell.strip().strip('"') for cell in line.rstrip("\r\n").split(delimiter)]
        names = [cell for cell in cells if cell and not _is_number(cell)]
        plausible = all(
            len(cell) < MAX_HEADER_CELL and ":" not in cell[-2:] and not VALUE_PATTERN.search(cell) for cell in cells
        )
        if len(cells) > 1 and len(names) >= len(cells) - 1 and plausible:
            return delimiter
    return None


def split_cells(line: str, delimiter: str) -> list[str]:
    """The cells of one line."""
    if delimiter == BLANKS:
        return line.split()
    if delimiter == PIPE:
        return [cell.strip() for cell in line.strip().strip(PIPE).split(PIPE)]
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))]
    except (csv.Error, StopIteration):
        return []


def _is_number(cell: str) -> bool:
    """Whether a cell holds a number; NaN counts."""
    return not math.isnan(parse_number(cell))


def _detect_blank_table(lines: list[str]) -> bool:
    """Whether names and below them as many numbers are separated by blanks, at least three columns."""
    if len(lines) < 3:
        return False
    names, *rows = (line.split() for line in lines)
    if len(names) < 3 or any(_is_number(name) or not re.match(r"[^\W\d][\w/().-]*$", name) for name in names):
        return False
    return all(len(row) == len(names) and all(map(_is_number, row)) for row in rows)


class TableFormat:
    """A header line followed by rows with as many cells."""

    name = "csv"

    def sniff(self, path: Path, head: bytes) -> bool:
        """Whether a header comes first, then a row of about as many cells, at least half of them numbers."""
        lines = _get_first_lines(head)
        delimiter = _detect_table(lines)
        if delimiter is None:
            return False
        if len(lines) == 1 or delimiter == BLANKS:
            return True
        n_columns, second = len(split_cells(lines[0], delimiter)), split_cells(lines[1], delimiter)
        n_values = sum(not cell.strip() or _is_number(cell) for cell in second)
        return abs(len(second) - n_columns) <= 1 and 2 * n_values >= len(second)

    def blocks(self, path: Path, keep: ColumnFilter) -> Iterator[RowBlock]:
        """Blocks of at most ROWS_PER_BLOCK rows."""
        with open_text(path, encoding="utf-8-sig") as file:
            first = file.readline()
            while first and not first.strip():
                first = file.readline()
            with open_regular(path) as binary:
                delimiter = _detect_table(_get_first_lines(binary.read(1 << 16))) or ","
            header = _name_columns(split_cells(first, delimiter), path)
            yield from _read_blocks(file, delimiter, header, keep)


class HeaderlessFormat:
    """Rows of numbers whose columns the user names: `--columns step,d,g`."""

    name = "table without header"

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = list(columns)

    def sniff(self, path: Path, head: bytes) -> bool:
        """Whether the first line holds at least two numbers, or one if one column is named."""
        lines = _get_first_lines(head)
        cells = split_cells(lines[0], detect_row_delimiter(lines[0])) if lines else []
        return sum(map(_is_number, cells)) >= min(2, len(self.columns))

    def blocks(self, path: Path, keep: ColumnFilter) -> Iterator[RowBlock]:
        """Blocks of at most ROWS_PER_BLOCK rows."""
        with open_text(path, encoding="utf-8-sig") as file:
            first = file.readline()
            delimiter = detect_row_delimiter(first)
            width = len(split_cells(first, delimiter))
            if width != len(self.columns):
                raise SourceError(
                    f"{path.name} has {width} columns, and --columns names {len(self.columns)}",
                    'name every column, in order; "-" leaves one out',
                )
            file.seek(0)
            yield from _read_blocks(file, delimiter, self.columns, keep)


def detect_row_delimiter(line: str) -> str:
    """The delimiter of a line of numbers."""
    return next((mark for mark in ("\t", ";", ",") if mark in line), BLANKS)


def _get_first_lines(head: bytes) -> list[str]:
    """The first lines that are not blank, without the rule below a header."""
    text = head.decode("utf-8", "replace").lstrip("\ufeff")
    lines = [line for line in text.splitlines() if line.strip()][:4]
    return [line for index, line in enumerate(lines) if not (index == 1 and RULE_PATTERN.match(line))][:3]


def _detect_table(lines: list[str]) -> str | None:
    delimiter = detect_delimiter(lines[0]) if lines else None
    return BLANKS if delimiter is None and _detect_blank_table(lines) else delimiter


def _name_columns(header: list[str], path: Path) -> list[str]:
    """The header; the value of a TensorBoard download is named by its file, "run-x-tag-Loss_D.csv"."""
    if len(header) > MAX_TABLE_COLUMNS:
        raise SourceError(
            f"{path.name} has {len(header):,} columns, and a training log at most {MAX_TABLE_COLUMNS:,}",
            "pass a table with the losses only",
        )
    if [cell.lower() for cell in header] == TENSORBOARD_HEADER:
        return [*header[:2], path.stem.rpartition("tag-")[2]]
    return header


def _read_blocks(file: TextIO, delimiter: str, header: list[str], keep: ColumnFilter) -> Iterator[RowBlock]:
    rows_per_block = max(1, min(ROWS_PER_BLOCK, CELLS_PER_BLOCK // max(len(header), 1)))
    reader: Iterator[list[str]]
    if delimiter in (BLANKS, PIPE):
        reader = (split_cells(line, delimiter) for line in file if not RULE_PATTERN.match(line))
    else:
        reader = csv.reader(file, delimiter=delimiter)
    while rows := _read_rows(reader, rows_per_block):
        yield _make_block(header, rows, keep)


def _read_rows(reader: Iterator[list[str]], count: int) -> list[list[str]]:
    """The next rows; a cell that is too long for the csv module ends the table."""
    try:
        return list(islice(reader, count))
    except csv.Error:
        return []


def _make_block(header: list[str], rows: list[list[str]], keep: ColumnFilter) -> RowBlock:
    """A block of the complete rows; other rows and repeated headers are skipped."""
    width = len(header)
    complete = [row for row in rows if len(row) == width and row != header]
    cells = list(zip(*complete, strict=True)) if complete else [()] * width
    names = tuple(name for name in dict.fromkeys(header) if name and name != "-")
    columns = {name: parse_column(cells[header.index(name)]) for name in names if keep(name)}
    skipped = len([row for row in rows if row]) - len(complete)
    texts = {
        name: text
        for name, column in columns.items()
        if is_value_column(name) and (text := _find_text(column, cells[header.index(name)])) is not None
    }
    return RowBlock(columns, len(complete), names, skipped, describe_texts(texts))


def _find_text(column: Array, cells: Sequence[str]) -> str | None:
    """A cell of a loss that is no number; None if there is none."""
    gaps = np.flatnonzero(np.isnan(column)).tolist()
    return next((cells[row] for row in gaps if is_no_number(cells[row])), None)


TABLE = TableFormat()
