"""Reads the record of a local W&B run, `wandb/run-*/run-*.wandb`, without wandb: LevelDB's log format around protocol
buffers.

    file            b":W&B", magic u16, version u8, then blocks of 32 KiB
    block           pieces: crc u32 · length u16 · kind u8 (1 whole, 2 first, 3 middle, 4 last) · bytes
    Record          2: HistoryRecord
    HistoryRecord   1: HistoryItem · 2: HistoryStep
    HistoryItem     1: key · 2: nested key · 16: value as JSON
    HistoryStep     1: step

A run that is still going, or that was cut off, ends within a piece; everything before it is read.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gandiag.protobuf import decode_text, iter_fields, require_message
from gandiag.training_logs.formats.jsonl import flatten_row, rows_to_block
from gandiag.training_logs.formats.registry import ColumnFilter, RowBlock
from gandiag.untrusted.files import open_regular

MAGIC = b":W&B"
HEADER_BYTES = 7  # of the file, and of a piece
BLOCK_BYTES = 32_768
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4
MAX_RECORD_BYTES = 1 << 26  # a longer one holds no scalars
ROWS_PER_BLOCK = 20_000
MAX_ITEM_BYTES = 4_096  # of a value as JSON; a longer one is a table or an image


class WandbFormat:
    """The history of a run, one row for each call of wandb.log."""

    name = "W&B run"

    def sniff(self, path: Path, head: bytes) -> bool:
        """Whether the file begins with W&B's mark."""
        return head.startswith(MAGIC)

    def blocks(self, path: Path, keep: ColumnFilter) -> Iterator[RowBlock]:
        """Blocks of ROWS_PER_BLOCK rows; damage is counted as skipped lines and described in the notes of the last."""
        rows: list[dict[str, float]] = []
        problems: list[str] = []
        for record in _iter_records(path, problems):
            try:
                row = _parse_record(memoryview(record))
            except (IndexError, ValueError, RecursionError):
                problems.append("a damaged record")
                continue
            if row:
                rows.append(row)
            if len(rows) >= ROWS_PER_BLOCK:
                yield rows_to_block(rows, keep)
                rows = []
        last = rows_to_block(rows, keep, len(problems))
        yield RowBlock(last.columns, last.rows, last.names, last.skipped, tuple(dict.fromkeys(problems)))


def _iter_records(path: Path, problems: list[str]) -> Iterator[bytes]:
    """The records, their pieces joined; checksums are not verified."""
    with open_regular(path) as file:
        file.seek(HEADER_BYTES)
        position, pieces = HEADER_BYTES, bytearray()
        while True:
            rest = BLOCK_BYTES - position % BLOCK_BYTES
            if rest < HEADER_BYTES:  # the end of a block is filled with zeros
                position += len(file.read(rest))
                continue
            head = file.read(HEADER_BYTES)
            if not head:
                return
            length, kind = struct.unpack("<HB", head[4:]) if len(head) == HEADER_BYTES else (0, 0)
            body = file.read(length)
            position += HEADER_BYTES + length
            if len(head) < HEADER_BYTES or len(body) < length or kind not in (WHOLE, FIRST, MIDDLE, LAST):
                problems.append("the run's record ends within a piece: everything before it was read")
                return
            if kind in (WHOLE, FIRST):
                pieces.clear()
            if len(pieces) + length <= MAX_RECORD_BYTES:
                pieces += body
            if kind in (WHOLE, LAST):
                yield bytes(pieces)


def _parse_record(record: memoryview) -> dict[str, float]:
    """The row of a history record; {} for any other."""
    row: dict[str, float] = {}
    for number, value in iter_fields(record):
        if number != 2:
            continue
        for part, entry in iter_fields(require_message(value)):
            if part == 1:
                row |= _parse_item(require_message(entry))
            elif part == 2:
                step = dict(iter_fields(require_message(entry))).get(1, 0)
                row["_step"] = float(step) if isinstance(step, int) else 0.0
    return row


def _parse_item(item: memoryview) -> dict[str, float]:
    """Name -> number of one item; several for a nested value, none for a text."""
    names: list[str] = []
    text = ""
    for number, value in iter_fields(item):
        if number in (1, 2):
            names.append(decode_text(value))
        elif number == 16 and not isinstance(value, int) and len(value) <= MAX_ITEM_BYTES:
            text = decode_text(value)
    if not text:
        return {}
    value_of: dict[str, Any] = {"/".join(filter(None, names)): json.loads(text)}
    return dict(flatten_row(value_of))


WANDB_RUN = WandbFormat()
