"""Streams real data, sets of samples and generators as batches.

real = open_samples("photos/")                        # folder, .zip, .npy, .npz, Dataset, array, tensor -> SampleSet
for batch in real.iter_batches(64, output=generator.output, limit=4000): ...
for batch in generate_batches(sampler, SampleSource("fake"), 2000, 64): ...
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gandiag.checkpoints.file_type import are_weight_names, list_zip_entries
from gandiag.errors import SourceError
from gandiag.interfaces import Assumption, Batch, OutputSpec, SampleKind, SampleSource
from gandiag.sampling.arrays import open_array, read_npy, read_npz
from gandiag.sampling.audio_files import is_audio_name, open_audio_files
from gandiag.sampling.content_keys import content_keys
from gandiag.sampling.image_folders import FolderFiles, ImageReader, ZipFiles, is_image_name, open_image_files
from gandiag.sampling.latents import chunk_slices, hash_indices, make_labels
from gandiag.sampling.preprocessing import DEFAULT_RANGE, describe_image_conversion, match_image_format
from gandiag.sampling.sampler import BATCHNORM_GROUP_SIZE, MIN_GROUP_SIZE, Sampler
from gandiag.sampling.saved_tensors import is_saved_tensor, read_saved_tensor
from gandiag.sampling.stream_names import REAL_ORDER
from gandiag.sampling.tables.files import is_frame, is_table_file, read_frame, read_table
from gandiag.sampling.tables.reader import TableReader
from gandiag.sampling.tar_files import TarFiles, is_tar_file, is_tar_name, is_tar_of_images
from gandiag.sampling.torch_datasets import open_dataset
from gandiag.untrusted.files import open_regular

SUPPORTED_SOURCES = (
    "a folder, .zip or .tar of images, a folder of .wav or .flac, .npy, .npz, a saved tensor, a CSV, TSV or Parquet "
    "table, a DataFrame, a Dataset, an array or a tensor"
)


class SampleReader(Protocol):
    """Samples by index, as stored. Images are (C, h, w) each, uint8 or in [0, 1]."""

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
    """A finite set of samples: real data, or the saved output of a generator.

    Samples are chosen and ordered by content (see `content_keys`), so that names, order and storage do not matter.
    `stream`: sets of different streams are chosen from independently, even where they hold the same samples.
    """

    reader: SampleReader
    stream: str = REAL_ORDER
    _keys: list[Tensor] = field(default_factory=list, compare=False, repr=False)

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
        """(n,) int64, or None where they are not known without reading every sample."""
        return self.reader.labels

    @property
    def class_names(self) -> tuple[str, ...] | None:
        return self.reader.class_names

    @property
    def output(self) -> OutputSpec:
        """The samples' own spec: images in [-1, 1] at their own size. SourceError for mixed sizes."""
        if self.reader.shape is None:
            raise SourceError(
                f"{self.name} contains images of several sizes: {_example_sizes(self.reader)}",
                "pass --image-size N: they are then resized to N x N pixels",
            )
        return OutputSpec(self.kind, self.reader.shape, DEFAULT_RANGE if self.kind == "image" else None)

    @property
    def channels(self) -> int:
        """Channels of images."""
        shape = self.reader.shape
        return shape[0] if shape is not None else int(getattr(self.reader, "channels", 3))

    @property
    def sample_rate(self) -> int | None:
        """The rate of sounds in Hz; None for other samples."""
        return getattr(self.reader, "sample_rate", None)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What was left out when the samples were opened, in words."""
        return tuple(getattr(self.reader, "remarks", ()))

    def assumptions(self, output: OutputSpec | None = None) -> tuple[Assumption, ...]:
        """What is assumed when these samples are read for a generator with this output."""
        reader = self.reader if output is None else self.reader.match_output(output)
        notes: tuple[Assumption, ...] = tuple(getattr(reader, "notes", ()))
        if output is None or not output.kind == reader.kind == "image":
            return notes
        return notes + describe_image_conversion(reader.shape, output)

    def fingerprint(self, limit: int | None = None) -> str:
        """A content hash of everything, or of all names and sizes and the contents of the `limit` samples used."""
        return self.reader.fingerprint(self.choose(limit))

    @property
    def keys(self) -> Tensor:
        """A number for each sample by position, (n,) int64, from its content. Cost: once, every sample is read."""
        if not self._keys:
            self._keys.append(content_keys(self.reader, self.stream))
        return self._keys[0]

    def choose(self, limit: int | None = None) -> Tensor:
        """Positions (k,) of the samples, by ascending key; of more than `limit`, those with the smallest hashes of it.

        They are always the same, and nested.
        """
        keys = self.keys
        order = torch.argsort(keys, stable=True)
        if limit is None or limit >= self.n:
            return order
        kept = torch.argsort(hash_indices(keys[order]), stable=True)[:limit]
        return order[kept.sort().values]

    def with_reader(self, reader: SampleReader) -> SampleSet:
        """The same samples in the same order, read in another way."""
        return SampleSet(reader, self.stream, self._keys)

    def iter_batches(
        self, batch_size: int, output: OutputSpec | None = None, limit: int | None = None
    ) -> Iterator[Batch]:
        """Batches by ascending key, converted to the size, channels and range of `output` (default: the samples' own).

        `limit`: where there are more samples, those that `choose` keeps. SourceError where a sample cannot be read or
        does not match.
        """
        yield from self.read_rows(self.choose(limit), batch_size, output)

    def read_rows(self, chosen: Tensor, batch_size: int, output: OutputSpec | None = None) -> Iterator[Batch]:
        """Batches of the samples at the positions `chosen` (k,) int64, in that order, converted like `iter_batches`.

        The indices of a batch are the samples' keys.
        """
        target = output or self.output
        reader = self.reader.match_output(target)
        require_compatible(reader, target)
        for part in chunk_slices(len(chosen), batch_size):
            indices = chosen[part]
            pieces, labels = _read_pieces(reader, indices)
            samples = [_convert_samples(reader, values, target) for values in pieces]
            yield Batch(samples[0] if len(samples) == 1 else torch.cat(samples), self.keys[indices], labels)


def open_samples(
    source: Any,
    *,
    npz_key: str | None = None,
    kind: SampleKind | None = None,
    output: OutputSpec | None = None,
    skip_broken: bool = False,
) -> SampleSet:
    """Open samples: a folder, .zip or .tar of images or sounds, .npy, .npz, a table, Dataset, ndarray or Tensor.

    `skip_broken`: images that cannot be decoded are left out and named; this decodes each of them once.
    `kind`: "series" for (N, T) or (N, T, C) arrays; otherwise 2-D arrays are vectors and larger ones images. `output`:
    raise now if the samples cannot be converted to it. SourceError for anything unreadable, empty, or of fewer than 2
    samples. File types are detected by content, never by suffix.
    """
    is_path = isinstance(source, (str, os.PathLike))
    reader = _open_path(Path(source), npz_key, kind, skip_broken) if is_path else _open_object(source, kind)
    if reader.n < 2:
        raise SourceError(
            f"{reader.name} contains {reader.n} sample{'s' * (reader.n != 1)}",
            "pass at least 2; a verdict on diversity needs 100 or more",
        )
    if output is not None:
        require_compatible(reader.match_output(output), output)
    return SampleSet(reader)


def require_compatible(reader: SampleReader, output: OutputSpec) -> None:
    """SourceError unless these samples can be compared with samples of this output."""
    if output.kind == "image" and reader.kind == "image":
        return
    equal_size = reader.shape is not None and math.prod(reader.shape) == math.prod(output.shape)
    if equal_size and (reader.kind == output.kind or output.kind == "vector"):
        return
    raise SourceError(
        f"{reader.name} contains {reader.kind} samples of shape {reader.shape or 'mixed'}, "
        f"but the generator makes {output.kind} samples of shape {output.shape}",
        "pass the kind of data it was trained on",
    )


def generate_batches(
    sampler: Sampler, source: SampleSource, n: int, batch_size: int, *, seed: int = 0, only_class: int | None = None
) -> Iterator[Batch]:
    """The generator's samples 0 … n-1 at the scale and BatchNorm mode of `source`; `only_class` draws one class."""
    return generate_parts(sampler, source, cut_batches(source, n, batch_size), seed=seed, only_class=only_class)


def cut_batches(source: SampleSource, n: int, batch_size: int) -> list[slice]:
    """The batches of samples 0 … n-1. In BatchNorm's batch mode they are whole groups of samples."""
    step = -(-batch_size // BATCHNORM_GROUP_SIZE) * BATCHNORM_GROUP_SIZE if source.bn == "batch" else batch_size
    parts = chunk_slices(n, step)
    if source.bn == "batch" and len(parts) > 1 and n - parts[-1].start < MIN_GROUP_SIZE:
        parts[-2:] = [slice(parts[-2].start, n)]  # so that groups do not depend on the batch size
    return parts


def generate_parts(
    sampler: Sampler, source: SampleSource, parts: Iterable[slice], *, seed: int, only_class: int | None = None
) -> Iterator[Batch]:
    """One batch of the generator's samples for each range of indices."""
    for part in parts:
        indices = torch.arange(part.start, part.stop)
        labels = None if sampler.classes is None else make_labels(indices, sampler.classes, only_class)
        samples = sampler.sample_indices(indices, seed=seed, scale=source.scale, labels=labels, bn=source.bn)
        yield Batch(samples, indices, labels)


def _read_pieces(reader: SampleReader, indices: Tensor) -> tuple[Iterable[Tensor | list[Tensor]], Tensor | None]:
    """The samples of a batch in pieces that fit into memory: decoded images can be far larger than their files."""
    if isinstance(reader, ImageReader):
        return reader.read_pieces(indices), None if reader.labels is None else reader.labels[indices]
    values, labels = reader.read(indices)
    return [values], labels


def _convert_samples(reader: SampleReader, values: Tensor | list[Tensor], target: OutputSpec) -> Tensor:
    """Values as read, converted to the target: (B, *target.shape) float32."""
    if reader.kind != "image":
        return values.reshape(len(values), *target.shape) if isinstance(values, Tensor) else torch.stack(values)
    if target.kind == "image":
        return match_image_format(values, target)
    # Images against a generator that is declared to make vectors.
    images = values if isinstance(values, Tensor) else torch.stack(values)
    return match_image_format(images, OutputSpec("image", tuple(images.shape[1:]), target.range)).flatten(1)


def _open_path(path: Path, npz_key: str | None, kind: SampleKind | None, skip_broken: bool) -> SampleReader:
    name = str(path)
    if path.is_dir():
        return _open_folder(path, skip_broken)
    try:
        with open_regular(path) as file:
            start = file.read(8)
            is_zip = start.startswith(b"PK") and zipfile.is_zipfile(file)
    except OSError as problem:
        raise SourceError(f"{name} cannot be read: {problem.strerror}", "check the path") from None
    if start.startswith(b"\x93NUMPY"):
        return open_array(read_npy(path), name, kind=kind)
    if is_zip:
        return _open_zip(path, npz_key, kind, skip_broken)
    if is_tar_file(path):
        return open_image_files(TarFiles([path]), name, skip_broken=skip_broken)
    if is_table_file(path):
        return TableReader(read_table(path))
    if is_image_name(name):
        raise SourceError(f"{name} is a single image", "pass the folder that contains the images")
    raise SourceError(f"{name} contains no readable samples", f"pass {SUPPORTED_SOURCES}")


def _open_folder(path: Path, skip_broken: bool) -> SampleReader:
    """A folder of images, of audio, or of .tar shards with images."""
    files = FolderFiles(path)
    if not files.names:
        sounds = FolderFiles(path, is_audio_name)
        if sounds.names:
            return open_audio_files(sounds, str(path))
        shards = FolderFiles(path, is_tar_name)
        if shards.names:
            files = TarFiles([path / name for name in shards.names])  # type: ignore[assignment]
    return open_image_files(files, str(path), skip_broken=skip_broken)


def _open_zip(path: Path, npz_key: str | None, kind: SampleKind | None, skip_broken: bool) -> SampleReader:
    try:
        names = [entry.filename for entry in list_zip_entries(path)]
    except zipfile.BadZipFile as broken:
        raise SourceError(f"{path} cannot be read as a zip file: {broken}", "create it again") from None
    if names and all(name.endswith(".npy") for name in names):
        array, labels = read_npz(path, npz_key)
        return open_array(array, str(path), labels=labels, kind=kind)
    if any(name.endswith("/data.pkl") for name in names):
        samples, labels = read_saved_tensor(path)
        return open_array(samples, str(path), labels=labels, kind=kind)
    if any(map(is_audio_name, names)) and not any(map(is_image_name, names)):
        return open_audio_files(ZipFiles(path, is_audio_name), str(path))
    return open_image_files(ZipFiles(path), str(path), skip_broken=skip_broken)


def _open_object(source: Any, kind: SampleKind | None) -> SampleReader:
    if isinstance(source, (Tensor, np.ndarray)):
        return open_array(source, "tensor" if isinstance(source, Tensor) else "array", kind=kind)
    if isinstance(source, torch.utils.data.DataLoader):
        source = source.dataset
    if is_frame(source):
        return TableReader(read_frame(source))
    if hasattr(source, "__getitem__") and not isinstance(source, (dict, bytes)):
        return open_dataset(source, type(source).__name__)
    raise SourceError(f"samples cannot be read from a {type(source).__name__}", f"pass {SUPPORTED_SOURCES}")


def _example_sizes(reader: SampleReader) -> str:
    """Two files of different sizes: "a.png is 16x16, b.png is 24x20"."""
    examples: dict[tuple[int, int], str] = getattr(reader, "examples", {})
    sizes = [f"{file} is {width}x{height}" for (height, width), file in list(examples.items())[:2]]
    return ", ".join(sizes) or "its items differ"


def contains_samples(path: str | os.PathLike[str]) -> bool:
    """Whether a path holds samples, by first bytes and names: images, arrays, a table, or one tensor saved by torch.

    No sample is decoded.
    """
    path = Path(path)
    if path.is_dir():
        tests = (is_image_name, is_audio_name, is_tar_name)
        return any(test(name) for _, _, names in os.walk(path) for name in names for test in tests)
    try:
        with open_regular(path) as file:
            start = file.read(8)
        if not start.startswith(b"PK"):
            return start.startswith(b"\x93NUMPY") or is_tar_of_images(path) or is_table_file(path)
        names = [entry.filename for entry in list_zip_entries(path)]
    except (OSError, zipfile.BadZipFile):
        return False
    if any(name.endswith("/data.pkl") for name in names):
        return is_saved_tensor(path, names)
    return not are_weight_names(names) and any(
        name.endswith(".npy") or is_image_name(name) or is_audio_name(name) for name in names
    )
