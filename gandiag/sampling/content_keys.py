"""A key for every sample of a set, from its content alone: names, order and storage do not matter.

Which real samples are compared, and in which half, is decided by these keys. Images are hashed as 8-bit pixels, so that
an array, a folder and a zip of the same images have the same keys. Equal samples are numbered, so that they have
different keys; where images differ in less than 8 bits show, their exact values and then their labels decide.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gandiag.sampling.image_folders import ImageReader, read_tail
from gandiag.sampling.latents import chunk_slices, derive_seed, hash_indices
from gandiag.sampling.tables.columns import RawTable
from gandiag.sampling.tables.reader import TableReader
from gandiag.sampling.torch_datasets import DatasetReader

if TYPE_CHECKING:
    from gandiag.sampling.sources import SampleReader

MAX_DECODED_BYTES = 1 << 29  # of a folder's images; beyond, files are hashed as they are
MAX_DATASET_BYTES = 1 << 28  # of a Dataset's items, whose cost is unknown; beyond, positions decide
_TAIL_BYTES = 1 << 16  # of a file, where files are hashed
_IMAGE_ROWS, _CHUNK_VALUES = 256, 1 << 20  # read and hashed at a time
_NUMBERS = 1_000_003  # distance of the hashes of equal samples


@dataclass(frozen=True, slots=True)
class _Contents:
    """Hashes (n,) int64 of the samples, and of their exact values where the former say less, else 0."""

    coarse: Tensor
    exact: Tensor


def content_keys(reader: SampleReader, stream: str) -> Tensor:
    """A key for each sample, (n,) int64 >= 0, by position. `stream`: sets of different streams share no order.

    Cost: every sample is read once, up to 512 MiB of decoded images; SourceError where that fails.
    """
    if isinstance(reader, DatasetReader) and _dataset_bytes(reader) > MAX_DATASET_BYTES:
        return hash_indices(torch.arange(reader.n))
    contents = _image_contents(reader) if isinstance(reader, ImageReader) else _row_contents(reader)
    return _number_equal(contents, reader.labels, stream)


def table_keys(table: RawTable, stream: str) -> Tensor:
    """The same for the rows of a table."""
    return content_keys(TableReader(table), stream)


def _number_equal(contents: _Contents, labels: Tensor | None, stream: str) -> Tensor:
    coarse, exact = contents.coarse.numpy(), contents.exact.numpy()
    order = np.lexsort((np.zeros(len(coarse)) if labels is None else labels.numpy(), exact, coarse))
    ordered = coarse[order]
    is_first = np.append(True, ordered[1:] != ordered[:-1])
    place = np.arange(len(order))
    number = np.empty(len(order), dtype=np.int64)
    number[order] = place - np.maximum.accumulate(np.where(is_first, place, 0))  # 0, 1, … among equal ones
    salted = contents.coarse + derive_seed(0, stream)  # sums wrap modulo 2**64 on purpose
    return hash_indices(hash_indices(salted) + _NUMBERS * torch.from_numpy(number))


# the content of each kind of set


def _image_contents(reader: ImageReader) -> _Contents:
    """Of decoded images, or of files where decoding all of them would take too long."""
    counts = reader.size_counts
    mean_pixels = sum(height * width * count for (height, width), count in counts.items()) / max(1, counts.total())
    if reader.n * mean_pixels * reader.channels > MAX_DECODED_BYTES:
        return _file_contents(reader)
    found: list[tuple[int, int]] = []
    n_bytes = 0
    for position in range(reader.n):
        image = reader.read(torch.tensor([position]))[0][0]
        n_bytes += image.numel()
        if n_bytes > MAX_DECODED_BYTES:
            return _file_contents(reader)
        found.append(_hash_image(image))
    return _collect(found)


def _file_contents(reader: ImageReader) -> _Contents:
    tails = (read_tail(reader.files, name, _TAIL_BYTES) for name in reader.files.names)
    return _collect((_digest(b"%d|" % size + tail), 0) for size, tail in tails)


def _row_contents(reader: SampleReader) -> _Contents:
    if isinstance(reader, TableReader):
        return _table_contents(reader.table)
    if reader.kind == "image":
        parts = (reader.read(torch.arange(rows.start, rows.stop)) for rows in chunk_slices(reader.n, _IMAGE_ROWS))
        return _collect(_hash_image(image) for values, _ in parts for image in values)
    width = max(1, int(np.prod(reader.shape or (1,))))
    hashes = []
    for rows in chunk_slices(reader.n, max(1, _CHUNK_VALUES // width)):
        values, _ = reader.read(torch.arange(rows.start, rows.stop))
        hashes.append(_hash_numbers(torch.stack(values) if isinstance(values, list) else values))
    return _Contents(torch.cat(hashes), torch.zeros(reader.n, dtype=torch.int64))


def _table_contents(table: RawTable) -> _Contents:
    """Numbers as in an array of float32, words by their text; the exact numbers decide between equal ones."""
    coarse, exact = torch.zeros(table.n, dtype=torch.int64), torch.zeros(table.n, dtype=torch.int64)
    for place, column in enumerate(table.columns):
        if column.is_numeric:
            values = torch.from_numpy(np.ascontiguousarray(column.values, dtype=np.float64))
            coarse += _mix_numbers(values.float(), place)
            exact += _mix_numbers(values, place)
        else:
            known: dict[str | None, int] = {None: 0}
            words = [known.setdefault(word, 0) or _remember(known, word) for word in column.values.tolist()]
            coarse += hash_indices(torch.tensor(words, dtype=torch.int64) + place)
    return _Contents(hash_indices(coarse), exact)


def _remember(known: dict[str | None, int], word: str | None) -> int:
    known[word] = 0 if word is None else _digest(str(word).encode("utf-8", "surrogatepass"))
    return known[word]


def _hash_numbers(values: Tensor) -> Tensor:
    """A hash of each row of (B, …) float32 numbers, (B,) int64."""
    flat = values.reshape(len(values), -1)
    return hash_indices(_mix_numbers(flat, torch.arange(flat.shape[1])).sum(1))


def _mix_numbers(values: Tensor, place: int | Tensor) -> Tensor:
    """A hash of each number at its place in the row, by its bits; -0 is 0, and all NaN are one."""
    clean = torch.where(torch.isnan(values), torch.full_like(values, float("nan")), values + 0.0).contiguous()
    bits = clean.view(torch.int32 if clean.dtype == torch.float32 else torch.int64).to(torch.int64)
    return hash_indices(bits + hash_indices(torch.as_tensor(place)))


def _hash_image(image: Tensor) -> tuple[int, int]:
    """(C, h, w) uint8, or float in [0, 1]; without alpha."""
    image = image[: len(image) - 1] if len(image) in (2, 4) else image
    exact = 0
    if image.dtype != torch.uint8:
        exact = _digest(image.contiguous().numpy().tobytes())
        image = image.mul(255).round().to(torch.uint8)
    shape = "x".join(map(str, image.shape)).encode()
    return _digest(shape + b"|" + image.contiguous().numpy().tobytes()), exact


def _collect(hashes: Iterable[tuple[int, int]]) -> _Contents:
    both = torch.tensor(list(hashes), dtype=torch.int64).reshape(-1, 2)
    return _Contents(both[:, 0].contiguous(), both[:, 1].contiguous())


def _dataset_bytes(reader: DatasetReader) -> int:
    """Of all items, by the size of the first."""
    first: Tensor = reader.read(torch.tensor([0]))[0][0]
    return reader.n * first.numel()


def _digest(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little", signed=True)
