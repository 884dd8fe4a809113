"""TensorBoard event files, without TensorBoard: records in TensorFlow's framing, each an `Event` protocol buffer.

    record   length u64 · crc u32 · bytes · crc u32                 (a file cut short ends within one: what came before is read)
    Event    2: step varint · 5: Summary { 1: Value { 1: tag · 2: simple_value f32 · 8: TensorProto { 1: dtype, 4: content, 5: floats, 6: doubles } } }

Three fields of three messages: no reason to demand a package with a gRPC server in it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path

from gandiag.protobuf import iter_fields, require_message
from gandiag.training_logs.formats.jsonl import rows_to_block
from gandiag.training_logs.formats.registry import ColumnFilter, RowBlock

ROWS_PER_BLOCK = 50_000
MAX_RECORD_BYTES = 1 << 26  # bytes of a record: pictures may be large, garbage is larger


class TensorBoardFormat:
    """Scalars of an event file; one row for each step and writing."""

    name = "tensorboard"

    def sniff(self, path: Path, head: bytes) -> bool:
        if len(head) < 16:
            return ".tfevents." in path.name
        (length,) = struct.unpack("<Q", head[:8])
        return ".tfevents." in path.name or (0 < length < 64 and b"brain.Event:" in head[: length + 16])

    def blocks(self, path: Path, keep: ColumnFilter) -> Iterator[RowBlock]:
        rows: list[dict[str, float]] = []
        broken: list[str] = []
        for event in _records(path, broken):
            try:
                step, scalars = _event(event)
            except (IndexError, struct.error, ValueError):
                broken.append("a damaged record")
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
        final = rows_to_block(rows, keep, len(broken))
        yield RowBlock(final.columns, final.rows, final.names, final.skipped, tuple(dict.fromkeys(broken)))


def _records(path: Path, broken: list[str]) -> Iterator[bytes]:
    with path.open("rb") as file:
        while head := file.read(12):
            length = struct.unpack("<Q", head[:8])[0] if len(head) == 12 else MAX_RECORD_BYTES + 1
            body = file.read(length) if length <= MAX_RECORD_BYTES else b""
            if len(body) < length or length > MAX_RECORD_BYTES or len(file.read(4)) < 4:
                broken.append("the event file ends within a record: what stands before it was read")
                return
            yield body


def _event(data: bytes) -> tuple[int, dict[str, float]]:
    step, scalars = 0, {}
    for field, value in iter_fields(memoryview(data)):
        if field == 2 and isinstance(value, int):
            step = value - (1 << 64) * (value >> 63)  # an int64
        elif field == 5 and isinstance(value, memoryview):
            for part, entry in iter_fields(value):
                found = _value(require_message(entry)) if part == 1 else None
                if found is not None:
                    scalars[found[0]] = found[1]
    return step, scalars


def _value(data: memoryview) -> tuple[str, float] | None:
    """(tag, scalar) of a summary value; None for pictures, histograms and the like."""
    tag, scalar = "", None
    for field, value in iter_fields(data):
        if field == 1:
            tag = str(require_message(value), "utf-8", "replace")
        elif field == 2:
            scalar = struct.unpack("<f", require_message(value))[0]
        elif field == 8:
            scalar = _tensor(require_message(value))
    return None if scalar is None else (tag, math.inf if scalar != scalar else float(scalar))


def _tensor(data: memoryview) -> float | None:
    """The value of a tensor with one float or double in it."""
    parts = dict(iter_fields(data))
    dtype = parts.get(1)
    form, size = {1: ("<f", 4), 2: ("<d", 8)}.get(dtype if isinstance(dtype, int) else 0, ("", 0))
    raw = parts.get(4) or parts.get(5 if dtype == 1 else 6) or b""
    return float(struct.unpack(form, raw)[0]) if size and not isinstance(raw, int) and len(raw) == size else None


TENSORBOARD = TensorBoardFormat()
