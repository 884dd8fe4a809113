"""Real data, plain samples and generators as streams of batches.

real = open_samples("photos/")                        # folder, .zip, .npy, .npz, Dataset, array, tensor -> SampleSet
for batch in real.batches(64, fit=generator.output, limit=4000): ...
for batch in fake_batches(sampler, Source("fake"), 2000, 64): ...
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gandiag.checkpoints.file_type import list_zip_entries
from gandiag.errors import SourceError
from gandiag.interfaces import Assumption, Batch, OutputSpec, SampleKind, SampleSource
from gandiag.sampling.arrays import open_array, read_npy, read_npz
from gandiag.sampling.image_folders import FolderFiles, ZipFiles, is_image_name, open_image_files
from gandiag.sampling.index_order import hash_indices
from gandiag.sampling.latents import chunk_slices, make_labels
from gandiag.sampling.preprocessing import DEFAULT_RANGE, describe_image_conversion, match_image_format
from gandiag.sampling.sampler import BATCHNORM_GROUP_SIZE, Sampler
from gandiag.sampling.torch_datasets import open_dataset

SUPPORTED_SOURCES = "an image folder, a .zip of images, .npy, .npz, a Dataset, an array or a tensor"


class SampleReader(Protocol):
    """Samples by index, as they are stored. Images: uint8 or [0, 1], (C, h, w) each."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> SampleKind: ...
    @property
    def shape(self) -> tuple[int, ...] | None: ...
    @property
    def labels(self) -> Tensor | None: ...
    @property
    def class_names(self) -> tuple[str, ...] | None: ...
    @property
    def n(self) -> int: ...
    def match_output(self, output: OutputSpec) -> SampleReader: ...
    def read(self, indices: Tensor) -> tuple[Tensor | list[Tensor], Tensor | None]: ...
    def fingerprint(self, indices: Tensor) -> str: ...


@dataclass(frozen=True, slots=True)
class SampleSet:
    """Samples that are at hand: real data, or the output of somebody's generator."""

    reader: SampleReader

    @property
    def name(self) -> str:
        return self.reader.name

    @property
    def n(self) -> int:
        return self.reader.n

    @property
    def kind(self) -> SampleKind:
        return self.reader.kind

    @property
    def labels(self) -> Tensor | None:
        """(n,) int64, where they are known without reading every sample."""
        return self.reader.labels

    @property
    def class_names(self) -> tuple[str, ...] | None:
        return self.reader.class_names

    @property
    def output(self) -> OutputSpec:
        """What one sample looks like when nothing else decides: images in [-1, 1] at their own size. SourceError for mixed sizes."""
        if self.reader.shape is None:
            raise SourceError(
                f"{self.name} holds images of several sizes: {_two_sizes(self.reader)}",
                "resize them to one size, or audit a generator against them, whose size then counts",
            )
        return OutputSpec(self.kind, self.reader.shape, DEFAULT_RANGE if self.kind == "image" else None)

    def assumptions(self, output: OutputSpec | None = None) -> tuple[Assumption, ...]:
        """What reading these samples for a generator of output `fit` takes for granted."""
        rows = self.reader if output is None else self.reader.match_output(output)
        notes: tuple[Assumption, ...] = tuple(getattr(rows, "notes", ()))
        return (
            notes + describe_image_conversion(rows.shape, output)
            if output is not None and output.kind == rows.kind == "image"
            else notes
        )

    def fingerprint(self, limit: int | None = None) -> str:
        """A content hash: of everything, or of the names and sizes of everything and the contents of the `limit` samples used."""
        return self.reader.fingerprint(select_indices(self.n, limit))

    def iter_batches(
        self, batch_size: int, output: OutputSpec | None = None, limit: int | None = None
    ) -> Iterator[Batch]:
        """Batches in index order. `fit`: images and values are brought to this output's size, channels and range.

        `limit`: where there are more samples, those with the smallest index hashes (always the same, and nested). Indices
        are positions among all samples. SourceError where a sample cannot be read or does not match.
        """
        target = output or self.output
        rows = self.reader.match_output(target)
        require_compatible(rows, target)
        chosen = select_indices(self.n, limit)
        for part in chunk_slices(len(chosen), batch_size):
            indices = chosen[part]
            values, found = rows.read(indices)
            yield Batch(_fit(rows, values, target), indices, found)


def open_samples(
    source: Any, *, npz_key: str | None = None, kind: SampleKind | None = None, output: OutputSpec | None = None
) -> SampleSet:
    """Samples from a path or an object: image folder, .zip of images, .npy, .npz, torch Dataset, ndarray, Tensor.

    `kind`: "series" for (N, T) or (N, T, C) arrays; otherwise 2-D arrays are vectors and larger ones images. `fit`: fail now,
    with a sentence, where the samples cannot be brought to this output. SourceError for anything unreadable, empty, or of
    fewer than 2 samples. Paths are told apart by their bytes, never by their suffix.
    """
    rows = (
        _open_path(Path(source), npz_key, kind)
        if isinstance(source, (str, os.PathLike))
        else _open_object(source, kind)
    )
    if rows.n < 2:
        raise SourceError(
            f"{rows.name} holds {rows.n} sample{'s' * (rows.n != 1)}",
            "give at least 2; a judgement of variety needs 100 or more",
        )
    if output is not None:
        require_compatible(rows.match_output(output), output)
    return SampleSet(rows)


def select_indices(n: int, limit: int | None) -> Tensor:
    """All indices, or the `limit` with the smallest hashes, in order: (k,) int64."""
    indices = torch.arange(n)
    if limit is None or limit >= n:
        return indices
    return torch.argsort(hash_indices(indices), stable=True)[:limit].sort().values


def require_compatible(reader: SampleReader, output: OutputSpec) -> None:
    """SourceError unless these rows can be compared with samples of output `fit`."""
    if output.kind == "image" and reader.kind == "image":
        return
    if (
        reader.shape is not None
        and math.prod(reader.shape) == math.prod(output.shape)
        and (reader.kind == output.kind or output.kind == "vector")
    ):
        return
    what = f"{reader.kind} samples of shape {reader.shape or 'mixed'}"
    raise SourceError(
        f"{reader.name} holds {what}, and the generator makes {output.kind} samples of shape {output.shape}",
        "pass data of the kind that it was trained on",
    )


def generate_batches(
    sampler: Sampler, source: SampleSource, n: int, batch_size: int, *, seed: int = 0, only_class: int | None = None
) -> Iterator[Batch]:
    """The generator's samples 0 … n-1 under the conditions of `source`; `only_class` draws one class."""
    step = -(-batch_size // BATCHNORM_GROUP_SIZE) * BATCHNORM_GROUP_SIZE if source.bn == "batch" else batch_size
    for part in chunk_slices(n, step):
        indices = torch.arange(part.start, part.stop)
        chosen = None if sampler.classes is None else make_labels(indices, sampler.classes, only_class)
        yield Batch(
            sampler.sample_indices(indices, seed=seed, scale=source.scale, labels=chosen, bn=source.bn), indices, chosen
        )


def _fit(rows: SampleReader, values: Tensor | list[Tensor], target: OutputSpec) -> Tensor:
    if rows.kind != "image":
        return values.reshape(len(values), *target.shape) if isinstance(values, Tensor) else torch.stack(values)
    if target.kind == "image":
        return match_image_format(values, target)
    images = (
        values if isinstance(values, Tensor) else torch.stack(values)
    )  # an image-making network declared as a vector
    return match_image_format(images, OutputSpec("image", tuple(images.shape[1:]), target.range)).flatten(1)


def _open_path(path: Path, npz_key: str | None, kind: SampleKind | None) -> SampleReader:
    name = str(path)
    if path.is_dir():
        return open_image_files(FolderFiles(path), name)
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as problem:
        raise SourceError(f"{name} cannot be read: {problem.strerror}", "check the path") from None
    if start.startswith(b"\x93NUMPY"):
        return open_array(read_npy(path), name, kind=kind)
    if start.startswith(b"PK") and zipfile.is_zipfile(path):
        return _open_zip(path, npz_key, kind)
    if is_image_name(name):
        raise SourceError(f"{name} is one image", "pass the folder that holds the images")
    raise SourceError(f"{name} holds no samples that can be read", f"pass {SUPPORTED_SOURCES}")


def _open_zip(path: Path, npz_key: str | None, kind: SampleKind | None) -> SampleReader:
    try:
        names = [entry.filename for entry in list_zip_entries(path)]
    except zipfile.BadZipFile as broken:
        raise SourceError(f"{path} cannot be read as a zip file: {broken}", "write it again") from None
    if names and all(name.endswith(".npy") for name in names):
        array, found = read_npz(path, npz_key)
        return open_array(array, str(path), labels=found, kind=kind)
    if any(name.endswith("/data.pkl") for name in names):
        raise SourceError(f"{path} is a PyTorch file, not a set of samples", f"pass {SUPPORTED_SOURCES}")
    return open_image_files(ZipFiles(path), str(path))


def _open_object(source: Any, kind: SampleKind | None) -> SampleReader:
    if isinstance(source, (Tensor, np.ndarray)):
        return open_array(source, "tensor" if isinstance(source, Tensor) else "array", kind=kind)
    if isinstance(source, torch.utils.data.DataLoader):
        source = source.dataset
    if hasattr(source, "__getitem__") and not isinstance(source, (dict, bytes)):
        return open_dataset(source, type(source).__name__)
    raise SourceError(f"samples cannot be read from a {type(source).__name__}", f"pass {SUPPORTED_SOURCES}")


def _two_sizes(rows: SampleReader) -> str:
    examples: dict[tuple[int, int], str] = getattr(rows, "examples", {})
    return (
        ", ".join(f"{file} is {width}x{height}" for (height, width), file in list(examples.items())[:2])
        or "its items differ"
    )


def contains_samples(path: str | os.PathLike[str]) -> bool:
    """A folder with an image somewhere in it, .npy, .npz, or a zip of images; decided by bytes and names, nothing is decoded."""
    path = Path(path)
    if path.is_dir():
        return any(is_image_name(name) for _, _, names in os.walk(path) for name in names)
    try:
        with path.open("rb") as file:
            start = file.read(8)
        if not start.startswith(b"PK"):
            return start.startswith(b"\x93NUMPY")
        names = [entry.filename for entry in list_zip_entries(path)]
    except (OSError, zipfile.BadZipFile):
        return False
    return not any(name.endswith("/data.pkl") for name in names) and any(
        name.endswith(".npy") or is_image_name(name) for name in names
    )
