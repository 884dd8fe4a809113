"""Reads long tables, in which one series follows the other, as Aim, tbparse and MLflow export them.

    run.hash,metric.name,step,value
    abc,d_loss,0,0.9

The series are joined on their steps. Several runs become columns "run - name", as in W&B's exports.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from gandiag.errors import SourceError
from gandiag.training_logs.formats.cells import parse_number
from gandiag.training_logs.formats.delimited import DELIMITERS, split_cells
from gandiag.training_logs.formats.jsonl import rows_to_block
from gandiag.training_logs.formats.registry import ColumnFilter, RowBlock
from gandiag.untrusted.files import open_text

NAME_COLUMNS = ("metric.name", "metric_name", "metric", "tag", "key", "name", "variable")
VALUE_COLUMNS = ("value", "metric.value", "metric_value")
STEP_COLUMNS = ("step", "global_step", "iteration", "iter", "epoch")
RUN_COLUMNS = ("run.hash", "run_hash", "run", "run_id", "run_uuid", "run.name", "run_name", "experiment")
MAX_ROWS = 5_000_000  # of a long table, which is joined in memory


class LongTableFormat:
    """A table with a column for the name of the series, one for the step and one for the value."""

    name = "long table"

    def sniff(self, path: Path, head: bytes) -> bool:
        """Whether the header has the three columns."""
        return _find_columns(head.decode("utf-8", "replace").lstrip("\ufeff").splitlines()[:1]) is not None

    def blocks(self, path: Path, keep: ColumnFilter) -> Iterator[RowBlock]:
        """One block: a row for each step of a run."""
        with open_text(path, encoding="utf-8-sig") as file:
            found = _find_columns([file.readline()])
            assert found is not None  # narrows the type: sniff has seen them
            delimiter, columns, width = found
            cells: dict[tuple[str, float], dict[str, float]] = {}
            skipped = 0
            for count, row in enumerate(csv.reader(file, delimiter=delimiter)):
                if count >= MAX_ROWS:
                    raise SourceError(
                        f"{path.name} is a long table of more than {MAX_ROWS:,} rows",
                        "export a column for each metric, or only the losses",
                    )
                if len(row) != width:
                    skipped += bool(row)
                    continue
                run = row[columns["run"]] if "run" in columns else ""
                step = parse_number(row[columns["step"]])
                entry = cells.setdefault((run, step), {"step": step})
                entry[row[columns["name"]]] = parse_number(row[columns["value"]])
        yield _join(cells, keep, skipped)


def _find_columns(lines: Sequence[str]) -> tuple[str, dict[str, int], int] | None:
    """Delimiter, position of each column, and the number of columns; None for another table."""
    if not lines:
        return None
    for delimiter in DELIMITERS:
        header = [cell.strip().lower() for cell in split_cells(lines[0], delimiter)]
        columns = {}
        for role, names in (
            ("name", NAME_COLUMNS),
            ("step", STEP_COLUMNS),
            ("value", VALUE_COLUMNS),
            ("run", RUN_COLUMNS),
        ):
            position = next((header.index(name) for name in names if name in header), None)
            if position is not None:
                columns[role] = position
        if {"name", "step", "value"} <= set(columns):
            return delimiter, columns, len(header)
    return None


def _join(cells: Mapping[tuple[str, float], dict[str, float]], keep: ColumnFilter, skipped: int = 0) -> RowBlock:
    """One row for each step, in order; with several runs, their names before those of the series."""
    runs = dict.fromkeys(run for run, _ in cells)
    rows: dict[float, dict[str, float]] = {}
    for (run, step), entry in cells.items():
        prefix = f"{run} - " if len(runs) > 1 else ""
        named = {(name if name == "step" else f"{prefix}{name}"): value for name, value in entry.items()}
        rows[step] = rows.get(step, {}) | named
    return rows_to_block([rows[step] for step in sorted(rows)], keep, skipped)


LONG_TABLE = LongTableFormat()
