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

from gandiag.contracts import Assumption, Batch, Kind, Output, Source
from gandiag.errors import SourceError
from gandiag.load.containers import zip_entries
from gandiag.sample.arrays import array_rows, read_npy, read_npz
from gandiag.sample.datasets import dataset_rows
from gandiag.sample.fit import RANGE, fit_images, image_assumptions
from gandiag.sample.folders import FolderFiles, ZipFiles, image_rows, is_image_name
from gandiag.sample.latents import labels, slices
from gandiag.sample.order import index_hash
from gandiag.sample.sampler import GROUP, Sampler

KINDS_READ = "an image folder, a .zip of images, .npy, .npz, a Dataset, an array or a tensor"


class Rows(Protocol):
    """Samples by index, as they are stored. Images: uint8 or [0, 1], (C, h, w) each."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> Kind: ...
    @property
    def shape(self) -> tuple[int, ...] | None: ...
    @property
    def labels(self) -> Tensor | None: ...
    @property
    def class_names(self) -> tuple[str, ...] | None: ...
    @property
    def n(self) -> int: ...
    def fitted(self, fit: Output) -> Rows: ...
    def take(self, indices: Tensor) -> tuple[Tensor | list[Tensor], Tensor | None]: ...
    def fingerprint(self, indices: Tensor) -> str: ...


@dataclass(frozen=True, slots=True)
class SampleSet:
    """Samples that are at hand: real data, or the output of somebody's generator."""

    rows: Rows

    @property
    def name(self) -> str:
        return self.rows.name

    @property
    def n(self) -> int:
        return self.rows.n

    @property
    def kind(self) -> Kind:
        return self.rows.kind

    @property
    def labels(self) -> Tensor | None:
        """(n,) int64, where they are known without reading every sample."""
        return self.rows.labels

    @property
    def class_names(self) -> tuple[str, ...] | None:
        return self.rows.class_names

    @property
    def output(self) -> Output:
        """What one sample looks like when nothing else decides: images in [-1, 1] at their own size. SourceError for mixed sizes."""
        if self.rows.shape is None:
            raise SourceError(f"{self.name} holds images of several sizes: {_two_sizes(self.rows)}",
                              "resize them to one size, or audit a generator against them, whose size then counts")
        return Output(self.kind, self.rows.shape, RANGE if self.kind == "image" else None)

    def assumptions(self, fit: Output | None = None) -> tuple[Assumption, ...]:
        """What reading these samples for a generator of output `fit` takes for granted."""
        rows = self.rows if fit is None else self.rows.fitted(fit)
        notes: tuple[Assumption, ...] = tuple(getattr(rows, "notes", ()))
        return notes + image_assumptions(rows.shape, fit) if fit is not None and fit.kind == rows.kind == "image" else notes

    def fingerprint(self, limit: int | None = None) -> str:
        """A content hash: of everything, or of the names and sizes of everything and the contents of the `limit` samples used."""
        return self.rows.fingerprint(subset(self.n, limit))

    def batches(self, batch_size: int, fit: Output | None = None, limit: int | None = None) -> Iterator[Batch]:
        """Batches in index order. `fit`: images and values are brought to this output's size, channels and range.

        `limit`: where there are more samples, those with the smallest index hashes (always the same, and nested). Indices
        are positions among all samples. SourceError where a sample cannot be read or does not match.
        """
        target = fit or self.output
        rows = self.rows.fitted(target)
        demand_match(rows, target)
        chosen = subset(self.n, limit)
        for part in slices(len(chosen), batch_size):
            indices = chosen[part]
            values, found = rows.take(indices)
            yield Batch(_fit(rows, values, target), indices, found)


def open_samples(source: Any, *, npz_key: str | None = None, kind: Kind | None = None, fit: Output | None = None) -> SampleSet:
    """Samples from a path or an object: image folder, .zip of images, .npy, .npz, torch Dataset, ndarray, Tensor.

    `kind`: "series" for (N, T) or (N, T, C) arrays; otherwise 2-D arrays are vectors and larger ones images. `fit`: fail now,
    with a sentence, where the samples cannot be brought to this output. SourceError for anything unreadable, empty, or of
    fewer than 2 samples. Paths are told apart by their bytes, never by their suffix.
    """
    rows = _open_path(Path(source), npz_key, kind) if isinstance(source, (str, os.PathLike)) else _open_object(source, kind)
    if rows.n < 2:
        raise SourceError(f"{rows.name} holds {rows.n} sample{'s' * (rows.n != 1)}", "give at least 2; a judgement of variety needs 100 or more")
    if fit is not None:
        demand_match(rows.fitted(fit), fit)
    return SampleSet(rows)


def subset(n: int, limit: int | None) -> Tensor:
    """All indices, or the `limit` with the smallest hashes, in order: (k,) int64."""
    indices = torch.arange(n)
    if limit is None or limit >= n:
        return indices
    return torch.argsort(index_hash(indices), stable=True)[:limit].sort().values


def demand_match(rows: Rows, fit: Output) -> None:
    """SourceError unless these rows can be compared with samples of output `fit`."""
    if fit.kind == "image" and rows.kind == "image":
        return
    if rows.shape is not None and math.prod(rows.shape) == math.prod(fit.shape) and (rows.kind == fit.kind or fit.kind == "vector"):
        return
    what = f"{rows.kind} samples of shape {rows.shape or 'mixed'}"
    raise SourceError(f"{rows.name} holds {what}, and the generator makes {fit.kind} samples of shape {fit.shape}",
                      "pass data of the kind that it was trained on")


def fake_batches(sampler: Sampler, source: Source, n: int, batch_size: int, *, seed: int = 0, only_class: int | None = None) -> Iterator[Batch]:
    """The generator's samples 0 … n-1 under the conditions of `source`; `only_class` draws one class."""
    step = -(-batch_size // GROUP) * GROUP if source.bn == "batch" else batch_size
    for part in slices(n, step):
        indices = torch.arange(part.start, part.stop)
        chosen = None if sampler.classes is None else labels(indices, sampler.classes, only_class)
        yield Batch(sampler.at(indices, seed=seed, scale=source.scale, labels=chosen, bn=source.bn), indices, chosen)


def _fit(rows: Rows, values: Tensor | list[Tensor], target: Output) -> Tensor:
    if rows.kind != "image":
        return values.reshape(len(values), *target.shape) if isinstance(values, Tensor) else torch.stack(values)
    if target.kind == "image":
        return fit_images(values, target)
    images = values if isinstance(values, Tensor) else torch.stack(values)  # an image-making network declared as a vector
    return fit_images(images, Output("image", tuple(images.shape[1:]), target.range)).flatten(1)


def _open_path(path: Path, npz_key: str | None, kind: Kind | None) -> Rows:
    name = str(path)
    if path.is_dir():
        return image_rows(FolderFiles(path), name)
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as problem:
        raise SourceError(f"{name} cannot be read: {problem.strerror}", "check the path") from None
    if start.startswith(b"\x93NUMPY"):
        return array_rows(read_npy(path), name, kind=kind)
    if start.startswith(b"PK") and zipfile.is_zipfile(path):
        return _open_zip(path, npz_key, kind)
    if is_image_name(name):
        raise SourceError(f"{name} is one image", "pass the folder that holds the images")
    raise SourceError(f"{name} holds no samples that can be read", f"pass {KINDS_READ}")


def _open_zip(path: Path, npz_key: str | None, kind: Kind | None) -> Rows:
    try:
        names = [entry.filename for entry in zip_entries(path)]
    except zipfile.BadZipFile as broken:
        raise SourceError(f"{path} cannot be read as a zip file: {broken}", "write it again") from None
    if names and all(name.endswith(".npy") for name in names):
        array, found = read_npz(path, npz_key)
        return array_rows(array, str(path), labels=found, kind=kind)
    if any(name.endswith("/data.pkl") for name in names):
        raise SourceError(f"{path} is a PyTorch file, not a set of samples", f"pass {KINDS_READ}")
    return image_rows(ZipFiles(path), str(path))


def _open_object(source: Any, kind: Kind | None) -> Rows:
    if isinstance(source, (Tensor, np.ndarray)):
        return array_rows(source, "tensor" if isinstance(source, Tensor) else "array", kind=kind)
    if isinstance(source, torch.utils.data.DataLoader):
        source = source.dataset
    if hasattr(source, "__getitem__") and not isinstance(source, (dict, bytes)):
        return dataset_rows(source, type(source).__name__)
    raise SourceError(f"samples cannot be read from a {type(source).__name__}", f"pass {KINDS_READ}")


def _two_sizes(rows: Rows) -> str:
    examples: dict[tuple[int, int], str] = getattr(rows, "examples", {})
    return ", ".join(f"{file} is {width}x{height}" for (height, width), file in list(examples.items())[:2]) or "its items differ"


def looks_like_samples(path: str | os.PathLike[str]) -> bool:
    """A folder with an image somewhere in it, .npy, .npz, or a zip of images; decided by bytes and names, nothing is decoded."""
    path = Path(path)
    if path.is_dir():
        return any(is_image_name(name) for _, _, names in os.walk(path) for name in names)
    try:
        with path.open("rb") as file:
            start = file.read(8)
        if not start.startswith(b"PK"):
            return start.startswith(b"\x93NUMPY")
        names = [entry.filename for entry in zip_entries(path)]
    except (OSError, zipfile.BadZipFile):
        return False
    return not any(name.endswith("/data.pkl") for name in names) and any(name.endswith(".npy") or is_image_name(name) for name in names)
