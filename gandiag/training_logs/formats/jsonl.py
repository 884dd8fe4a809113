"""JSON lines (StyleGAN's stats.jsonl, BigGAN, any logger) and the trainer_state.json of Hugging Face."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gandiag.training_logs.formats.registry import ColumnFilter, RowBlock

ROWS_PER_BLOCK = 50_000


def flatten_row(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Numbers by path; {"mean": m, "std": s, "num": n}, as StyleGAN writes it, is its mean. NaN is infinite: no gap."""
    for key, value in row.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            if isinstance(value.get("mean"), (int, float)):
                yield name, _number(value["mean"])
            else:
                yield from flatten_row(value, f"{name}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield name, _number(value)
        elif isinstance(value, list) and len(value) == 1 and isinstance(value[0], (int, float)):
            yield name, _number(value[0])
        elif isinstance(value, str) and value.lower() in ("nan", "inf", "-inf", "infinity"):
            yield name, math.inf


def _number(value: float) -> float:
    return math.inf if value != value else float(value)


def rows_to_block(rows: list[dict[str, float]], keep: ColumnFilter, skipped: int = 0) -> RowBlock:
    """Rows with whatever keys they have, as columns with gaps."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {
        name: np.array([row.get(name, math.nan) for row in rows], dtype=np.float64) for name in names if keep(name)
    }
    return RowBlock(columns, len(rows), tuple(names), skipped)


class JsonLinesFormat:
    """One JSON object a line."""

    name = "json lines"

    def sniff(self, path: Path, head: bytes) -> bool:
        lines = [line for line in head.splitlines() if line.strip()]
        return (
            bool(lines)
            and lines[0].lstrip().startswith(b"{")
            and (path.suffix == ".jsonl" or _parsed(lines[0]) is not None)
        )

    def blocks(self, path: Path, keep: ColumnFilter) -> Iterator[RowBlock]:
        rows: list[dict[str, float]] = []
        skipped = 0
        with path.open("rb") as file:
            for line in file:
                row = _parsed(line)
                if row is not None:
                    rows.append(dict(flatten_row(row)))
                elif line.strip():
                    skipped += 1
                if len(rows) >= ROWS_PER_BLOCK:
                    yield rows_to_block(rows, keep, skipped)
                    rows, skipped = [], 0
        yield rows_to_block(rows, keep, skipped)


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


class TrainerStateFormat:
    """Hugging Face's trainer_state.json: a document with a `log_history`; also a plain JSON list of rows, or columns of a dict of lists."""

    name = "json"

    def sniff(self, path: Path, head: bytes) -> bool:
        start = head.lstrip()[:1]
        if start not in (b"{", b"["):
            return False
        first = next((line for line in head.splitlines() if line.strip()), b"")
        return (path.suffix == ".json" or b'"log_history"' in head) and (
            _parsed(first) is None or b"\n" not in head.strip()
        )

    def blocks(self, path: Path, keep: ColumnFilter) -> Iterator[RowBlock]:
        try:
            document = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            yield RowBlock({}, 0, (), 1)
            return
        history = (
            document.get("log_history", document.get("history", document)) if isinstance(document, dict) else document
        )
        if isinstance(history, dict):
            lists = {name: value for name, value in history.items() if isinstance(value, list)}
            size = max(map(len, lists.values()), default=0)
            history = [{name: value[at] for name, value in lists.items() if at < len(value)} for at in range(size)]
        rows = [dict(flatten_row(row)) for row in history if isinstance(row, dict)] if isinstance(history, list) else []
        yield rows_to_block(rows, keep)


JSON_LINES, TRAINER_STATE = JsonLinesFormat(), TrainerStateFormat()
