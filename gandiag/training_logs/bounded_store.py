"""Columns as they are read, in bounded memory: beyond MOST rows, neighbours are averaged, again and again.

Every test bins a long log anyway (`trim`). Where a row stands is taken from the first of each group, so that steps that go back
(a resume, another run, a new epoch) still go back; a loss that is no number makes its group none.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gandiag.training_logs.formats.registry import RowBlock
from gandiag.training_logs.series import Array

MAX_ROWS = 1 << 21  # rows kept of a file: 16 MB for each column


class ColumnStore:
    """`rows` read so far; `factor`: how many of them make one that is kept."""

    def __init__(self, is_step_column: Callable[[str], bool], max_rows: int = MAX_ROWS) -> None:
        self.is_step_column = is_step_column
        self.max_rows = max_rows
        self.rows = 0
        self.group_size = 1
        self._kept = 0
        self._parts: dict[str, list[Array]] = {}
        self._rest: dict[str, Array] = {}
        self._waiting = 0

    def add(self, block: RowBlock) -> None:
        """Rows in order; columns that appear late were gaps before, and those that do not appear are gaps now."""
        for name in block.columns:
            if name not in self._parts:
                self._parts[name] = [np.full(self._kept, np.nan)] if self._kept else []
                self._rest[name] = np.full(self._waiting, np.nan)
        self.rows += block.rows
        whole = self._waiting + block.rows
        cut = whole - whole % self.group_size
        for name, parts in self._parts.items():
            column = block.columns.get(name)
            column = np.full(block.rows, np.nan) if column is None else column
            column = np.concatenate([self._rest[name], column]) if self._waiting else column
            self._rest[name] = column[cut:].copy()
            parts.append(self._grouped(name, column[:cut], self.group_size))
        self._kept += cut // self.group_size
        self._waiting = whole - cut
        while self._kept > self.max_rows:
            self._halve()

    def pop_columns(self) -> dict[str, Array]:
        """Name → values kept; the last group may be of fewer rows. The store is empty afterwards: memory is not held twice."""
        found = {}
        for name in list(self._parts):
            last = self._grouped(name, self._rest[name], self._waiting) if self._waiting else np.zeros(0)
            found[name] = np.concatenate([*self._parts.pop(name), last])
        return found

    def _halve(self) -> None:
        odd = self._kept % 2  # a group without a neighbour waits for one, as so many equal rows
        for name, parts in self._parts.items():
            column = np.concatenate(parts)
            if odd:
                self._rest[name] = np.concatenate([np.repeat(column[-1:], self.group_size), self._rest[name]])
            self._parts[name] = [self._grouped(name, column[: len(column) - odd], 2)]
        self._waiting += odd * self.group_size
        self._kept //= 2
        self.group_size *= 2

    def _grouped(self, name: str, column: Array, size: int) -> Array:
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
