"""Protocol-buffer messages as nested lists of fields, for damage at any depth."""

from __future__ import annotations

from typing import Any


def parsed(whole: bytes, depth: int) -> list[Any] | None:
    """A message as (number, wire type, value) of its fields, messages inside as lists; None where it is none."""
    from gandiag.protobuf import iter_fields as read

    found: list[Any] = []
    try:
        for number, value in read(memoryview(whole)):
            if isinstance(value, int):
                found.append((number, 0, value))
            else:
                raw = bytes(value)
                inner = parsed(raw, depth + 1) if depth < 8 and raw and not raw.isalnum() else None
                found.append((number, 2, raw if inner is None else inner))
    except (ValueError, IndexError, KeyError):
        return None
    return found


def gather(node: list[Any], places: list[tuple[list[Any], int]]) -> None:
    """Every field at any depth, as the list that holds it and its place there."""
    for at, (_, _, value) in enumerate(node):
        places.append((node, at))
        if isinstance(value, list):
            gather(value, places)


def packed(node: list[Any], depth: int = 0) -> bytes:
    """The message in bytes again."""
    out = b""
    for number, wire, value in node if depth < 20 else ():
        content = packed(value, depth + 1) if isinstance(value, list) else value
        if wire == 0 and isinstance(content, int):
            out += _varint(number << 3) + _varint(content)
        elif isinstance(content, bytes):
            out += _varint(number << 3 | 2) + _varint(len(content)) + content
    return out


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])
