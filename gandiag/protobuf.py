"""The wire format of protocol buffers, field by field over a memory map; what is not asked for is skipped. Torch-free.

ValueError or IndexError for anything that is cut short, too long or of a kind that the format does not have.
"""

from __future__ import annotations

from collections.abc import Iterator

Field = tuple[int, int | memoryview]


def iter_fields(view: memoryview) -> Iterator[Field]:
    place, end = 0, len(view)
    while place < end:
        key, place = read_varint(view, place)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise ValueError("a field without a number")
        if wire == 0:
            value, place = read_varint(view, place)
            yield number, value
            continue
        size, place = read_varint(view, place) if wire == 2 else ({1: 8, 5: 4}[wire] if wire in (1, 5) else -1, place)
        if size < 0 or place + size > end:
            raise ValueError(f"a field {number} of kind {wire} runs over the end")
        yield number, view[place : place + size]
        place += size


def read_varint(view: memoryview, position: int) -> tuple[int, int]:
    found = shift = 0
    while True:
        byte = view[position]
        found |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return found, position
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def require_message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number stands where a message should")
    return value


def decode_text(value: int | memoryview) -> str:
    return str(require_message(value), "utf-8")


def decode_integers(value: int | memoryview) -> list[int]:
    """One number, or several packed."""
    if isinstance(value, int):
        return [value]
    found, place = [], 0
    while place < len(value):
        one, place = read_varint(value, place)
        found.append(one)
    return found
