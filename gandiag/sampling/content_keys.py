"""A key for every sample of a set, from its content alone: names, order and storage do not matter.

Which real samples are compared, and in which half, is decided by these keys. Images are hashed as 8-bit pixels, so that
an array, a folder and a zip of the same images have the same keys. Equal samples are numbered, so that they have
different keys; where images differ in less than 8 bits show, their exact values and then their labels decide.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gandiag.sampling.image_folders import ImageReader, read_tail
from gandiag.sampling.latents import chunk_slices, hash_indices
from gandiag.sampling.tables.columns import RawTable
from gandiag.sampling.tables.reader import TableReader
from gandiag.sampling.torch_datasets import DatasetReader

if TYPE_CHECKING:
    from gandiag.sampling.sources import SampleReader

MAX_DECODED_BYTES = 1 << 29  # of a folder's images; beyond, files are hashed as they are
MAX_DATASET_BYTES = 1 << 28  # of a Dataset's items, whose cost is unknown; beyond, positions decide
_TAIL_BYTES = 1 << 16  # of a file, where files are hashed
_ROWS = 256  # read at a time

Contents = Iterator[tuple[bytes, bytes]]  # of each sample: what is hashed, and exact values where that says less


def content_keys(reader: SampleReader, stream: str) -> Tensor:
    """A key for each sample, (n,) int64 >= 0, by position. `stream`: sets of different streams share no order.

    Cost: every sample is read once, up to 512 MiB of decoded images; SourceError where that fails.
    """
    if isinstance(reader, DatasetReader) and _dataset_bytes(reader) > MAX_DATASET_BYTES:
        return hash_indices(torch.arange(reader.n))
    contents = _image_contents(reader) if isinstance(reader, ImageReader) else _row_contents(reader)
    return _number_equal(list(contents), reader.labels, stream)


def table_keys(table: RawTable, stream: str) -> Tensor:
    """The same for the rows of a table."""
    return content_keys(TableReader(table), stream)


def _number_equal(contents: list[tuple[bytes, bytes]], labels: Tensor | None, stream: str) -> Tensor:
    positions = defaultdict(list)
    for position, (coarse, _) in enumerate(contents):
        positions[coarse].append(position)
    keys = np.empty(len(contents), dtype=np.int64)
    for coarse, equal in positions.items():
        if len(equal) > 1:
            equal.sort(key=lambda row: (contents[row][1], -1 if labels is None else int(labels[row])))
        for number, position in enumerate(equal):
            digest = hashlib.blake2b(b"%d|%b" % (number, coarse), digest_size=8, key=stream.encode()).digest()
            keys[position] = int.from_bytes(digest, "little") >> 1
    return torch.from_numpy(keys)


# the content of each kind of set


def _image_contents(reader: ImageReader) -> Contents:
    """Of decoded images, or of files where decoding all of them would take too long."""
    counts = reader.size_counts
    mean_pixels = sum(height * width * count for (height, width), count in counts.items()) / max(1, counts.total())
    if reader.n * mean_pixels * reader.channels > MAX_DECODED_BYTES:
        return _file_contents(reader)
    found: list[tuple[bytes, bytes]] = []
    n_bytes = 0
    for position in range(reader.n):
        image = reader.read(torch.tensor([position]))[0][0]
        n_bytes += image.numel()
        if n_bytes > MAX_DECODED_BYTES:
            return _file_contents(reader)
        found.append(_hash_image(image))
    return iter(found)


def _file_contents(reader: ImageReader) -> Contents:
    for name in reader.files.names:
        size, tail = read_tail(reader.files, name, _TAIL_BYTES)
        yield _digest(b"%d|" % size + tail), b""


def _row_contents(reader: SampleReader) -> Contents:
    if isinstance(reader, TableReader):
        yield from _table_contents(reader.table)
        return
    for rows in chunk_slices(reader.n, _ROWS):
        values, _ = reader.read(torch.arange(rows.start, rows.stop))
        if reader.kind == "image":
            yield from (_hash_image(image) for image in values)
        else:
            yield from ((_digest((row + 0.0).numpy().tobytes()), b"") for row in values)


def _table_contents(table: RawTable) -> Contents:
    """Numbers as in an array of float32, words as text; the exact numbers decide between equal ones."""
    numeric = [column.values.astype(np.float64) for column in table.columns if column.is_numeric]
    exact = np.ascontiguousarray(np.stack(numeric, 1)) + 0.0 if numeric else np.empty((table.n, 0))  # (n, columns)
    with np.errstate(over="ignore"):
        coarse = exact.astype(np.float32)
    words = [column.values for column in table.columns if not column.is_numeric]
    for row in range(table.n):
        text = "\0".join("\1" if column[row] is None else str(column[row]) for column in words)
        content = coarse[row].tobytes() + text.encode("utf-8", "surrogatepass")
        yield _digest(content), _digest(exact[row].tobytes())


def _hash_image(image: Tensor) -> tuple[bytes, bytes]:
    """(C, h, w) uint8, or float in [0, 1]; without alpha."""
    image = image[: len(image) - 1] if len(image) in (2, 4) else image
    exact = b""
    if image.dtype != torch.uint8:
        exact = _digest(image.numpy().tobytes())
        image = image.mul(255).round().to(torch.uint8)
    shape = "x".join(map(str, image.shape)).encode()
    return _digest(shape + b"|" + image.contiguous().numpy().tobytes()), exact


def _dataset_bytes(reader: DatasetReader) -> int:
    """Of all items, by the size of the first."""
    values = reader.read(torch.tensor([0]))[0]
    first: Tensor = values[0]
    return reader.n * first.numel()


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()
