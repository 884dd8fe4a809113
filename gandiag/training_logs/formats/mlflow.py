"""Reads a metric of MLflow's local folder: `metrics/g_loss` holds lines of time in milliseconds, value and step."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from gandiag.training_logs.formats.cells import parse_column
from gandiag.training_logs.formats.registry import ColumnFilter, RowBlock
from gandiag.untrusted.files import open_text

LINE_PATTERN = re.compile(rb"\d{13} \S+ \d+\s*$")
METRICS_FOLDER = "metrics"
ROWS_PER_BLOCK = 50_000


class MlflowFormat:
    """One metric, named by its path below `metrics`."""

    name = "MLflow"

    def sniff(self, path: Path, head: bytes) -> bool:
        """Whether the file lies in a folder `metrics` and its first line is a time, a value and a step."""
        return METRICS_FOLDER in path.parts[:-1] and LINE_PATTERN.match(head.split(b"\n", 1)[0]) is not None

    def blocks(self, path: Path, keep: ColumnFilter) -> Iterator[RowBlock]:
        """Blocks of at most ROWS_PER_BLOCK rows; other lines are skipped."""
        parts = path.parts
        name = "/".join(parts[len(parts) - parts[::-1].index(METRICS_FOLDER) :])
        rows: list[list[str]] = []
        skipped = 0
        with open_text(path) as file:
            for line in file:
                cells = line.split()
                if len(cells) == 3:
                    rows.append(cells)
                else:
                    skipped += 1
                if len(rows) >= ROWS_PER_BLOCK:
                    yield _make_block(name, rows, keep, skipped)
                    rows, skipped = [], 0
        yield _make_block(name, rows, keep, skipped)


def _make_block(name: str, rows: list[list[str]], keep: ColumnFilter, skipped: int) -> RowBlock:
    columns = {"step": parse_column([row[2] for row in rows])}
    if keep(name):
        columns[name] = parse_column([row[1] for row in rows])
    return RowBlock(columns, len(rows), ("step", name), skipped)


MLFLOW = MlflowFormat()
