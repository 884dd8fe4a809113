"""Stores columns as they are read in bounded memory: beyond MAX_ROWS rows, neighboring rows are averaged, repeatedly.

Long logs are binned for every test anyway (warmup.py). Step columns keep the first value of each group, so that steps
that go back (a resume, another run, a new epoch) still go back. A NaN or infinite loss makes its group infinite.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gandiag.errors import SourceError
from gandiag.training_logs.formats.registry import RowBlock
from gandiag.training_logs.series import Array

MAX_ROWS = 1 << 21  # rows kept of a file: 16 MB for each column
MAX_CELLS = 1 << 24  # of all columns together: 128 MB
MAX_COLUMNS = 400  # with a role; a log with more has one new name a row
MIN_ROWS = 4096  # kept in any case


def check_column_count(count: int) -> None:
    """Raise SourceError for more columns with a role than a training log has: one new name a row, say."""
    if count > MAX_COLUMNS:
        raise SourceError(
            f"this log has more than {MAX_COLUMNS} columns that look like losses, scores or steps",
            "name the loss columns (--generator, --discriminator), or pass a log with fewer",
        )


class ColumnStore:
    """Collects blocks of rows. `rows`: rows read so far; `group_size`: rows averaged into each stored one."""

    def __init__(self, is_step_column: Callable[[str], bool], max_rows: int = MAX_ROWS) -> None:
        self.is_step_column = is_step_column
        self.max_rows = max_rows
        self.rows = 0
        self.group_size = 1
        self._stored_rows = 0
        self._parts: dict[str, list[Array]] = {}
        self._pending: dict[str, Array] = {}  # rows of the last, incomplete group
        self._pending_rows = 0

    def add(self, block: RowBlock) -> None:
        """Append rows. A column is NaN in the rows before it first appears and in blocks without it."""
        for name in block.columns:
            if name not in self._parts:
                self._parts[name] = [np.full(self._stored_rows, np.nan)] if self._stored_rows else []
                self._pending[name] = np.full(self._pending_rows, np.nan)
        check_column_count(len(self._parts))
        self.rows += block.rows
        available = self._pending_rows + block.rows
        complete = available - available % self.group_size
        for name, parts in self._parts.items():
            column = block.columns.get(name)
            column = np.full(block.rows, np.nan) if column is None else column
            column = np.concatenate([self._pending[name], column]) if self._pending_rows else column
            self._pending[name] = column[complete:].copy()
            parts.append(self._average_groups(name, column[:complete], self.group_size))
        self._stored_rows += complete // self.group_size
        self._pending_rows = available - complete
        while self._stored_rows > self.max_rows or (
            self._stored_rows > MIN_ROWS and self._stored_rows * len(self._parts) > MAX_CELLS
        ):
            self._halve()

    def pop_columns(self) -> dict[str, Array]:
        """Name -> stored values; the last group may hold fewer rows.

        Empties the store, so that memory is not held twice.
        """
        columns = {}
        for name in list(self._parts):
            last = np.zeros(0)
            if self._pending_rows:
                last = self._average_groups(name, self._pending[name], self._pending_rows)
            columns[name] = np.concatenate([*self._parts.pop(name), last])
        return columns

    def _halve(self) -> None:
        """Average pairs of stored rows; an unpaired last row becomes pending, as that many equal rows."""
        odd = self._stored_rows % 2
        for name, parts in self._parts.items():
            column = np.concatenate(parts)
            if odd:
                repeated = np.repeat(column[-1:], self.group_size)
                self._pending[name] = np.concatenate([repeated, self._pending[name]])
            self._parts[name] = [self._average_groups(name, column[: len(column) - odd], 2)]
        self._pending_rows += odd * self.group_size
        self._stored_rows //= 2
        self.group_size *= 2

    def _average_groups(self, name: str, column: Array, size: int) -> Array:
        """The means of groups of rows, NaN left out; of a step column, the first known value of each."""
        if size == 1 or len(column) == 0:
            return column
        table = column.reshape(-1, size)
        known = ~np.isnan(table)
        if self.is_step_column(name):
            return np.asarray(table[np.arange(len(table)), known.argmax(1)])
        if known.all():
            return np.asarray(table.mean(1))
        count = known.sum(1)
        return np.where(count > 0, np.where(known, table, 0.0).sum(1) / np.maximum(count, 1), np.nan)
