"""Reads the protocol-buffer wire format from a memory map, field by field, without copying. Torch-free.

Raises ValueError or IndexError for data that is truncated, too long, or of an unknown wire type.
"""

from __future__ import annotations

from collections.abc import Iterator

Field = tuple[int, int | memoryview]

VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5  # wire types
_FIXED_SIZES = {FIXED64: 8, FIXED32: 4}


def iter_fields(view: memoryview) -> Iterator[Field]:
    """(field number, value) of each field of a message: an int for a varint, else the bytes."""
    position, end = 0, len(view)
    while position < end:
        key, position = read_varint(view, position)
        number, wire_type = key >> 3, key & 7
        if number == 0:
            raise ValueError("a field without a number")
        if wire_type == VARINT:
            value, position = read_varint(view, position)
            yield number, value
            continue
        if wire_type == LENGTH_DELIMITED:
            size, position = read_varint(view, position)
        else:
            size = _FIXED_SIZES.get(wire_type, -1)
        if size < 0 or position + size > end:
            raise ValueError(f"field {number} of wire type {wire_type} runs past the end")
        yield number, view[position : position + size]
        position += size


def read_varint(view: memoryview, position: int) -> tuple[int, int]:
    """The varint at a position, and the position after it."""
    value = shift = 0
    while True:
        byte = view[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
        if shift > 63:
            raise ValueError("a varint of more than 64 bits")


def require_message(value: int | memoryview) -> memoryview:
    """The bytes of a field that must not be a number."""
    if isinstance(value, int):
        raise ValueError("a number instead of a message")
    return value


def decode_text(value: int | memoryview) -> str:
    """The text of a string field."""
    return str(require_message(value), "utf-8")


def decode_integers(value: int | memoryview) -> list[int]:
    """The integers of a repeated field: a single one, or several packed."""
    if isinstance(value, int):
        return [value]
    integers, position = [], 0
    while position < len(value):
        integer, position = read_varint(value, position)
        integers.append(integer)
    return integers
