"""Reads and checks the header of a safetensors file before its library does. Torch-free.

The library takes a header of 100 MB, and the last of two equal names. Here the header is bounded, names are unique, and
the tensors fill the rest of the file one after another, so that none claims what another holds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gandiag.errors import LoadError
from gandiag.untrusted.files import open_regular, parse_json

_MAX_HEADER_BYTES = 16 * 2**20  # a hundred thousand tensors
_MAX_TENSORS = 200_000
DTYPES = {  # name in the file -> (name here, bytes)
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """A tensor of the file."""

    dtype: str
    shape: tuple[int, ...]
    nbytes: int

    def numel(self) -> int:
        return math.prod(self.shape)


def read_header(path: Path) -> tuple[dict[str, TensorEntry], dict[str, str]]:
    """Tensors by name, and the metadata. LoadError for a header that a writer of safetensors does not write."""
    try:
        with open_regular(path) as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= _MAX_HEADER_BYTES:
                raise ValueError(f"its header has {length:,} bytes")
            content = stream.read(length)
            data_bytes = stream.seek(0, 2) - 8 - length
        if not content.startswith(b"{"):
            raise ValueError("its header is not a table")
        parse_json(content)  # bounds depth and size
        document = json.loads(content, object_pairs_hook=_unique)
        return _check_tensors(document, data_bytes)
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise LoadError(
            f"{path.name} is a damaged safetensors file: {str(reason)[:120]}", "copy it again and compare the sizes"
        ) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name stands twice in its header")
    return table


def _check_tensors(document: dict[str, Any], data_bytes: int) -> tuple[dict[str, TensorEntry], dict[str, str]]:
    metadata = document.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata are not texts")
    if len(document) > _MAX_TENSORS:
        raise ValueError(f"it has more than {_MAX_TENSORS:,} tensors")
    tensors, places = {}, []
    for name, entry in document.items():
        tensors[name], place = _check_tensor(name, entry)
        places.append(place)
    end = 0
    for start, stop in sorted(places):
        if start != end:
            raise ValueError("its tensors overlap or leave gaps")
        end = stop
    if end != data_bytes:
        raise ValueError(f"its tensors take {end:,} bytes and the file holds {data_bytes:,}")
    return tensors, metadata


def _check_tensor(name: str, entry: Any) -> tuple[TensorEntry, tuple[int, int]]:
    shown = ascii(name[:40])
    if not isinstance(entry, Mapping) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"the entry of {shown} is not that of a tensor")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{shown} has the type {ascii(dtype)[:20]}, which gandiag does not read")
    for sizes in (shape, offsets):
        if not isinstance(sizes, list) or len(sizes) > 64 or not all(type(n) is int and 0 <= n < 2**62 for n in sizes):
            raise ValueError(f"{shown} has no valid shape or place")
    tensor = TensorEntry(DTYPES[dtype][0], tuple(shape), math.prod(shape) * DTYPES[dtype][1])
    if len(offsets) != 2 or offsets[1] - offsets[0] != tensor.nbytes:
        raise ValueError(f"{shown} claims {tensor.nbytes:,} bytes and has another number")
    return tensor, (offsets[0], offsets[1])
