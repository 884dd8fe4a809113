"""Reads .npy files and the arrays of .npz files: numbers only, never more than the file holds, nothing mapped.

A map of a file that is cut short while it is read ends the process; reading it ends in an error.
"""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from gandiag.untrusted.files import open_regular

_IN_MEMORY_BYTES = 256 * 2**20  # larger .npy files are read row by row
MAX_ARRAY_BYTES = 4 * 2**30  # of an array that must be in memory as a whole
_DEFLATE_RATIO = 64  # bytes that one compressed byte may become, beyond
_FREE_BYTES = 128 * 2**20  # what may be as repetitive as it likes
_CHUNK_BYTES = 2**24

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class NpyRows:
    """The rows of a large .npy file, read when they are asked for; as much of an array as readers of samples use."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: slice | Array) -> Array:
        """The rows of a slice or of an array of indices. ValueError where the file has become shorter."""
        indices = np.arange(len(self))[key]
        row_bytes = self.dtype.itemsize * math.prod(self.shape[1:])
        rows = np.empty((len(indices), *self.shape[1:]), self.dtype)
        with open_regular(self.path) as stream:
            for place, index in enumerate(indices.tolist()):
                stream.seek(self.offset + index * row_bytes)
                content = stream.read(row_bytes)
                if len(content) < row_bytes:
                    raise ValueError("it has become shorter while it was read")
                rows[place] = np.frombuffer(content, self.dtype).reshape(self.shape[1:])
        return to_native(rows)


def to_native(array: Array) -> Array:
    """The array in the machine's byte order and in a type that torch has."""
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        return array.astype(np.float64)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def open_npy(path: Path) -> Array | NpyRows:
    """The array of an .npy file: in memory if it is small. ValueError or OSError for damage and Python objects."""
    with open_regular(path) as stream:
        shape, fortran, dtype = read_array_header(stream)
        offset = stream.tell()
        claimed = claimed_bytes(shape, dtype)
        stored = stream.seek(0, 2) - offset
        if claimed > stored:
            raise ValueError(f"it claims {claimed:,} bytes but has {stored:,}")
        if claimed > _IN_MEMORY_BYTES and not fortran and shape:
            return NpyRows(path, shape, dtype, offset)
        if claimed > MAX_ARRAY_BYTES:
            raise ValueError("it is too large to be read column by column: save it with numpy.ascontiguousarray")
        stream.seek(offset)
        return _make_array(stream.read(claimed), shape, dtype, fortran)


def read_npz_array(archive: zipfile.ZipFile, name: str) -> Array:
    """An array of an .npz file. ValueError where it is not what it claims, or unpacks to far more than it is."""
    entry = archive.getinfo(f"{name}.npy")
    if entry.compress_type == zipfile.ZIP_STORED and entry.compress_size != entry.file_size:
        raise ValueError(f"{name} claims {entry.file_size:,} bytes but has {entry.compress_size:,}")
    if entry.file_size > _FREE_BYTES + _DEFLATE_RATIO * entry.compress_size:
        raise ValueError(f"{name} unpacks {entry.compress_size:,} bytes to {entry.file_size:,}")
    with archive.open(entry) as stream:
        shape, fortran, dtype = read_array_header(stream)
        claimed, stored = claimed_bytes(shape, dtype), entry.file_size - stream.tell()
        if claimed != stored:
            raise ValueError(f"{name} claims {claimed:,} bytes but has {stored:,}")
        if claimed > MAX_ARRAY_BYTES:
            raise ValueError(f"{name} has {claimed:,} bytes, more than fit into memory: save it as .npy")
        content = bytearray()
        while len(content) < claimed:
            chunk = stream.read(min(_CHUNK_BYTES, claimed - len(content)))
            if not chunk:
                raise ValueError(f"{name} ends early")
            content += chunk
        return _make_array(content, shape, dtype, fortran)


def read_array_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """(shape, column by column, type). ValueError for Python objects, and for anything but plain numbers."""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"it is written in format version {version}")
    # Version 3 differs from 2 by the encoding of field names, and arrays with fields are refused.
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError("it contains Python objects")
    if dtype.kind not in "biufcUSMmV" or any(type(size) is not int or size < 0 for size in shape):
        raise ValueError(f"it contains {str(dtype)[:60]} values")
    return shape, fortran, dtype


def claimed_bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Bytes of an array. ValueError for more dimensions than arrays have."""
    if len(shape) > 32:
        raise ValueError("it has more than 32 dimensions")
    return math.prod(shape) * dtype.itemsize


def _make_array(content: bytes | bytearray, shape: tuple[int, ...], dtype: np.dtype[Any], fortran: bool) -> Array:
    if dtype.itemsize == 0:
        raise ValueError(f"it contains {dtype} values")
    return to_native(np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C"))
