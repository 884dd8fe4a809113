"""Reads TensorBoard event files without TensorBoard: TFRecord framing around `Event` protocol buffers.

    record        length u64 · crc u32 · bytes · crc u32
    Event         2: step varint · 5: Summary
    Summary       1: Value
    Value         1: tag · 2: simple_value f32 · 8: TensorProto
    TensorProto   1: dtype · 4: content · 5: floats · 6: doubles

A truncated file ends within a record; everything before it is read. Three fields of three messages do not justify a
dependency that contains a gRPC server.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path

from gandiag.protobuf import iter_fields, require_message
from gandiag.training_logs.formats.jsonl import rows_to_block
from gandiag.training_logs.formats.registry import ColumnFilter, RowBlock
from gandiag.untrusted.files import open_regular

ROWS_PER_BLOCK = 50_000
MAX_RECORD_BYTES = 1 << 26  # images may be large; a longer record is a damaged file


class TensorBoardFormat:
    """The scalars of an event file, one row for each step and each time it was written."""

    name = "tensorboard"

    def sniff(self, path: Path, head: bytes) -> bool:
        """Whether the name holds ".tfevents." or the first record is the file version of an event file."""
        if len(head) < 16:
            return ".tfevents." in path.name
        (length,) = struct.unpack("<Q", head[:8])
        return ".tfevents." in path.name or (0 < length < 64 and b"brain.Event:" in head[: length + 16])

    def blocks(self, path: Path, keep: ColumnFilter) -> Iterator[RowBlock]:
        """Blocks of ROWS_PER_BLOCK rows; damage is counted as skipped lines and described in the notes of the last."""
        rows: list[dict[str, float]] = []
        problems: list[str] = []
        for record in _iter_records(path, problems):
            try:
                step, scalars = _parse_event(record)
            except (IndexError, struct.error, ValueError):
                problems.append("a damaged record")
                continue
            if not scalars:
                continue
            if rows and rows[-1].get("step") == step and not set(scalars) & set(rows[-1]):
                rows[-1] |= scalars
            else:
                rows.append({"step": float(step), **scalars})
            if len(rows) >= ROWS_PER_BLOCK:
                yield rows_to_block(rows[:-1], keep)
                rows = rows[-1:]
        last = rows_to_block(rows, keep, len(problems))
        yield RowBlock(last.columns, last.rows, last.names, last.skipped, tuple(dict.fromkeys(problems)))


def _iter_records(path: Path, problems: list[str]) -> Iterator[bytes]:
    """The bodies of the records; checksums are not verified."""
    with open_regular(path) as file:
        while head := file.read(12):
            length = struct.unpack("<Q", head[:8])[0] if len(head) == 12 else MAX_RECORD_BYTES + 1
            body = file.read(length) if length <= MAX_RECORD_BYTES else b""
            if len(body) < length or length > MAX_RECORD_BYTES or len(file.read(4)) < 4:
                problems.append("the event file ends within a record: everything before it was read")
                return
            yield body


def _parse_event(data: bytes) -> tuple[int, dict[str, float]]:
    """(step, scalar by tag) of an event."""
    step, scalars = 0, {}
    for number, value in iter_fields(memoryview(data)):
        if number == 2 and isinstance(value, int):
            step = value - (1 << 64) * (value >> 63)  # an int64
        elif number == 5 and isinstance(value, memoryview):
            for part, entry in iter_fields(value):
                scalar = _parse_summary_value(require_message(entry)) if part == 1 else None
                if scalar is not None:
                    scalars[scalar[0]] = scalar[1]
    return step, scalars


def _parse_summary_value(data: memoryview) -> tuple[str, float] | None:
    """(tag, scalar) of a summary value; None for images, histograms and the like."""
    tag, scalar = "", None
    for number, value in iter_fields(data):
        if number == 1:
            tag = str(require_message(value), "utf-8", "replace")
        elif number == 2:
            scalar = struct.unpack("<f", require_message(value))[0]
        elif number == 8:
            scalar = _parse_scalar_tensor(require_message(value))
    return None if scalar is None else (tag, math.inf if scalar != scalar else float(scalar))


def _parse_scalar_tensor(data: memoryview) -> float | None:
    """The value of a tensor with one float or double; None for any other."""
    fields = dict(iter_fields(data))
    dtype = fields.get(1)
    struct_format, size = {1: ("<f", 4), 2: ("<d", 8)}.get(dtype if isinstance(dtype, int) else 0, ("", 0))
    raw = fields.get(4) or fields.get(5 if dtype == 1 else 6) or b""
    if not size or isinstance(raw, int) or len(raw) != size:
        return None
    return float(struct.unpack(struct_format, raw)[0])


TENSORBOARD = TensorBoardFormat()
