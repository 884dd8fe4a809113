"""Parses protocol-buffer messages into nested lists of fields, and back, so that they can be damaged at any depth."""

from __future__ import annotations

from typing import Any


def parse_message(data: bytes, depth: int) -> list[Any] | None:
    """Fields as (number, wire type, value), nested messages as lists; None if the bytes are not a message."""
    from gandiag.protobuf import iter_fields

    fields: list[Any] = []
    try:
        for number, value in iter_fields(memoryview(data)):
            if isinstance(value, int):
                fields.append((number, 0, value))
            else:
                raw = bytes(value)
                inner = parse_message(raw, depth + 1) if depth < 8 and raw and not raw.isalnum() else None
                fields.append((number, 2, raw if inner is None else inner))
    except (ValueError, IndexError, KeyError):
        return None
    return fields


def list_fields(message: list[Any], locations: list[tuple[list[Any], int]]) -> None:
    """Collect every field at any depth, as the list that holds it and its index there."""
    for index, (_, _, value) in enumerate(message):
        locations.append((message, index))
        if isinstance(value, list):
            list_fields(value, locations)


def encode_message(message: list[Any], depth: int = 0) -> bytes:
    """The message as bytes."""
    out = b""
    for number, wire, value in message if depth < 20 else ():
        content = encode_message(value, depth + 1) if isinstance(value, list) else value
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
