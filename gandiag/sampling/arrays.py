"""Reads samples from .npy and .npz files, NumPy arrays and tensors.

(N, D) are vectors, (N, H, W) grayscale images, (N, C, H, W) or (N, H, W, C) images; series only on request.
"""

from __future__ import annotations

import hashlib
import math
import tokenize
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gandiag.errors import SourceError, close_match_hint
from gandiag.interfaces import Assumption, OutputSpec, SampleKind
from gandiag.sampling.latents import chunk_slices
from gandiag.sampling.npy_files import open_npy, read_array_header, read_npz_array, to_native
from gandiag.sampling.preprocessing import infer_value_range
from gandiag.untrusted.files import open_regular

LABEL_KEYS = ("labels", "label", "y", "targets")
_RANGE_ROWS = 4096  # rows that determine the range of a float array; every batch is checked again
_CHANNEL_COUNTS = (1, 3, 4)
try:
    import lzma
except ImportError:  # a Python that was built without it
    _LZMA: tuple[type[Exception], ...] = ()
else:
    _LZMA = (lzma.LZMAError,)
# What numpy and zipfile raise for files that are truncated, damaged, encrypted or of another format
_UNREADABLE: tuple[type[Exception], ...] = (
    ValueError,
    OSError,
    EOFError,
    KeyError,
    RuntimeError,
    SyntaxError,
    TypeError,
    OverflowError,
    MemoryError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
    *_LZMA,
)


@dataclass(frozen=True, slots=True)
class ArrayReader:
    """Rows of one array. `layout`: order of the array's axes; `range`: nominal range of image values."""

    array: np.ndarray[Any, Any]
    name: str
    kind: SampleKind
    shape: tuple[int, ...]
    layout: str = ""
    range: tuple[float, float] | None = None
    labels: Tensor | None = None
    class_names: tuple[str, ...] | None = None
    notes: tuple[Assumption, ...] = ()

    @property
    def n(self) -> int:
        return len(self.array)

    def match_output(self, output: OutputSpec) -> ArrayReader:
        """The same array, read as samples of the generator's kind where the shapes allow it."""
        if output.kind == self.kind:
            return self
        tail = self.array.shape[1:]
        if output.kind == "series" and math.prod(tail) == math.prod(output.shape):
            return _as_series(self, output.shape)
        if output.kind == "image" and len(tail) == 1 and tail[0] == math.prod(output.shape):
            note = Assumption(
                "real_vectors", tail[0], "generator's output", note=f"values each, read as images {output.shape}"
            )
            images = replace(self, kind="image", shape=output.shape, layout="flat", notes=(*self.notes, note))
            return _with_value_range(images, output)
        return self

    def read(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        """Images (B, C, h, w), uint8 or in [0, 1]; vectors and series unchanged, float32."""
        values = torch.from_numpy(np.ascontiguousarray(self._rows(indices)))
        labels = None if self.labels is None else self.labels[indices]
        if self.kind != "image":
            ordered = values.float().transpose(1, 2) if self.layout == "NTC" else values.float()
            return self._require_finite(ordered.reshape(len(values), *self.shape), indices), labels
        if self.layout == "NHWC":
            values = values.permute(0, 3, 1, 2)
        values = values.reshape(len(values), *self.shape)
        if values.dtype == torch.uint8 and self.range == (0.0, 255.0):
            return values, labels
        low, high = self.range or (0.0, 1.0)
        unit = self._require_finite(values.float(), indices).sub(low).div(high - low)
        if len(unit) and not (float(unit.min()) >= -0.01 and float(unit.max()) <= 1.01):
            raise SourceError(
                f"{self.name}: some values are outside the range {low:g} to {high:g} of the others",
                "scale the images to [0, 1]",
            )
        return unit.clamp(0, 1), labels

    def fingerprint(self, indices: Tensor) -> str:
        """A hash of type, shape, labels and the contents of `indices`."""
        digest = hashlib.blake2b(
            f"{self.array.dtype}|{self.array.shape}|{self.kind}|{self.layout}|{self.range}".encode(), digest_size=16
        )
        for rows in chunk_slices(len(indices), 1024):
            digest.update(np.ascontiguousarray(self._rows(indices[rows])).tobytes())
        if self.labels is not None:
            digest.update(self.labels.numpy().tobytes())
        return digest.hexdigest()

    def _rows(self, indices: Tensor) -> np.ndarray[Any, Any]:
        try:
            return np.asarray(self.array[indices.numpy()])
        except (OSError, ValueError) as broken:  # a file that changes while it is read
            raise SourceError(f"{self.name} cannot be read: {_first_line(broken)}", "write it again") from None

    def _require_finite(self, values: Tensor, indices: Tensor) -> Tensor:
        bad = ~torch.isfinite(values.flatten(1)).all(1)
        if bool(bad.any()):
            first = int(indices[bad.nonzero()[0]])
            raise SourceError(f"{self.name}: sample {first} contains NaN or infinity", "remove such samples")
        return values


def read_npy(path: Path) -> np.ndarray[Any, Any]:
    """The array of an .npy file, its rows read as they are needed; nothing in the file is executed."""
    try:
        return open_npy(path)  # type: ignore[return-value]  # large files: as much of an array as is used here
    except _UNREADABLE as broken:
        raise SourceError(
            f"{path} cannot be read: {_first_line(broken)}", "write it with numpy.save, without Python objects"
        ) from None


def read_npz(path: Path, key: str | None) -> tuple[np.ndarray[Any, Any], Tensor | None]:
    """The samples and labels of an .npz file: array `key`, else the only one that is not called like labels."""
    try:
        with open_regular(path) as stream, zipfile.ZipFile(stream) as stored:
            names = [name.removesuffix(".npy") for name in stored.namelist()]
            chosen = _choose_array(path, names, key, stored)
            array = read_npz_array(stored, chosen)
            label_key = next((name for name in LABEL_KEYS if name in names and name != chosen), None)
            labels = None if label_key is None else read_npz_array(stored, label_key)
    except _UNREADABLE as broken:
        raise SourceError(
            f"{path} cannot be read: {_first_line(broken)}", "write it with numpy.savez, without Python objects"
        ) from None
    if labels is None or labels.dtype.kind not in "iu" or labels.shape != array.shape[:1]:
        return array, None
    return array, torch.from_numpy(labels.astype(np.int64))


def read_named_array(path: Path, name: str) -> tuple[np.ndarray[Any, Any] | None, list[str]]:
    """The array `name` of an .npz file, None where it has none of that name; and the names that it has."""
    try:
        with open_regular(path) as stream, zipfile.ZipFile(stream) as stored:
            names = [entry.removesuffix(".npy") for entry in stored.namelist()]
            return (read_npz_array(stored, name) if name in names else None), names
    except _UNREADABLE as broken:
        raise SourceError(
            f"{path} cannot be read: {_first_line(broken)}", "write it with numpy.savez, without Python objects"
        ) from None


def _first_line(problem: Exception) -> str:
    text = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
    return (text.strip().splitlines() or [type(problem).__name__])[0][:160]


def _choose_array(path: Path, names: list[str], key: str | None, stored: zipfile.ZipFile) -> str:
    if key is not None:
        if key not in names:
            raise SourceError(f"{path} has no array called {key!r}", close_match_hint(key, names))
        return key
    candidates = [name for name in names if name not in LABEL_KEYS] or names
    if len(candidates) != 1:
        listed = ", ".join(f"{name} {_read_shape(stored, name)}" for name in candidates[:6]) or "nothing"
        raise SourceError(f"{path} has {len(candidates)} arrays: {listed}", "choose one with --npz-key")
    return candidates[0]


def _read_shape(stored: zipfile.ZipFile, name: str) -> tuple[int, ...]:
    with stored.open(f"{name}.npy") as stream:
        return read_array_header(stream)[0]


def open_array(
    array: np.ndarray[Any, Any] | Tensor,
    name: str,
    *,
    labels: Tensor | None = None,
    kind: SampleKind | None = None,
) -> ArrayReader:
    """An array or tensor as rows.

    Series (N, T) or (N, T, C) need `kind="series"`; otherwise 3-D arrays are grayscale images.
    """
    is_tensor = isinstance(array, Tensor)
    if isinstance(array, Tensor):
        array = (array.float() if array.dtype in (torch.bfloat16, torch.float16) else array).detach().cpu().numpy()
    if array.dtype.kind not in "biuf":
        raise SourceError(f"{name} contains {array.dtype} values", "pass numbers")
    array = to_native(array) if isinstance(array, np.ndarray) else array
    if array.ndim < 2 or 0 in array.shape[1:]:
        raise SourceError(
            f"{name} has shape {array.shape}", "pass (N, D) vectors, (N, H, W), (N, C, H, W) or (N, H, W, C) images"
        )
    vectors = ArrayReader(array, name, "vector", array.shape[1:], labels=labels)
    if kind == "series":
        return _as_series(vectors, None)
    if array.ndim == 2:
        return vectors
    return _as_images(vectors, prefer_channels_first=is_tensor)


def _as_images(rows: ArrayReader, *, prefer_channels_first: bool) -> ArrayReader:
    """Find the channel axis. Where two axes are possible, tensors are channels-first and arrays channels-last."""
    tail = rows.array.shape[1:]
    if len(tail) == 2:
        return _with_value_range(replace(rows, kind="image", shape=(1, *tail), layout="NHW"), None)
    if len(tail) != 3 or not (tail[0] in _CHANNEL_COUNTS or tail[2] in _CHANNEL_COUNTS):
        raise SourceError(
            f"{rows.name} has shape {rows.array.shape}, which is not a set of images",
            "pass (N, H, W, 3), (N, 3, H, W), or (N, D) vectors",
        )
    if tail[0] in _CHANNEL_COUNTS and (prefer_channels_first or tail[2] not in _CHANNEL_COUNTS):
        return _with_value_range(replace(rows, kind="image", shape=tail, layout="NCHW"), None)
    return _with_value_range(replace(rows, kind="image", shape=(tail[2], tail[0], tail[1]), layout="NHWC"), None)


def _with_value_range(rows: ArrayReader, output: OutputSpec | None) -> ArrayReader:
    """Determine the nominal range of image values, from the generator's range where the values alone are ambiguous."""
    step = max(1, -(-len(rows.array) // _RANGE_ROWS))
    values = np.asarray(rows.array[::step])
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    value_range = infer_value_range(low, high, rows.array.dtype)
    declared = None if output is None else output.range
    if value_range is None and declared is not None and declared[0] - 1e-3 <= low and high <= declared[1] + 1e-3:
        value_range = declared
    if value_range is None:
        raise SourceError(
            f"{rows.name}: image values run from {low:g} to {high:g}", "scale them to [0, 1], or save 8-bit images"
        )
    note = Assumption("range_of_the_samples", value_range, "values")
    return replace(rows, range=value_range, notes=(*rows.notes, note))


def _as_series(rows: ArrayReader, shape: tuple[int, ...] | None) -> ArrayReader:
    """(N, T) -> (1, T) and (N, T, C) -> (C, T); or the generator's `shape`, transposed where that makes them equal."""
    tail = rows.array.shape[1:]
    if shape is None:
        shape = (1, *tail) if len(tail) == 1 else (tail[1], tail[0])
        swap = len(tail) == 2
    else:
        swap = len(tail) == 2 and tail != shape[-2:] and tail[::-1] == shape[-2:]
    return replace(rows, kind="series", shape=shape, layout="NTC" if swap else "", range=None)
