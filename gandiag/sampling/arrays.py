"""Samples in arrays: .npy, .npz, NumPy and torch; (N, D) are vectors, (N, H, W) grey images, (N, C, H, W) or (N, H, W, C) images."""

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
from gandiag.sampling.preprocessing import infer_value_range

LABEL_KEYS = ("labels", "label", "y", "targets")
_LOOKED_AT = 4096  # rows that settle the range of a float array; every batch is checked again
_COLOURS = (1, 3, 4)
try:
    import lzma
except ImportError:  # a Python that was built without it
    _LZMA: tuple[type[Exception], ...] = ()
else:
    _LZMA = (lzma.LZMAError,)
# What numpy and zipfile raise for files that are cut short, damaged, encrypted or not theirs
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
    """Rows of one array. `layout`: how image axes are ordered; `range`: nominal range of image values."""

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
        """The same array, read as the generator's kind where the shapes allow it."""
        if output.kind == self.kind:
            return self
        tail = self.array.shape[1:]
        if output.kind == "series" and math.prod(tail) == math.prod(output.shape):
            return _series(self, output.shape)
        if output.kind == "image" and len(tail) == 1 and tail[0] == math.prod(output.shape):
            note = Assumption(
                "real vectors", f"of length {tail[0]}, read as images {output.shape}", "generator's output"
            )
            return _ranged(
                replace(self, kind="image", shape=output.shape, layout="flat", notes=(*self.notes, note)), output
            )
        return self

    def read(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        """Images in [0, 1] or uint8, (B, C, h, w); vectors and series as they are, float32."""
        values = torch.from_numpy(np.ascontiguousarray(self.array[indices.numpy()]))
        labels = None if self.labels is None else self.labels[indices]
        if self.kind != "image":
            return self._finite(
                _series_order(values.float(), self.layout).reshape(len(values), *self.shape), indices
            ), labels
        values = {"NHWC": lambda: values.permute(0, 3, 1, 2), "NHW": lambda: values[:, None]}.get(
            self.layout, lambda: values
        )()
        values = values.reshape(len(values), *self.shape)
        if values.dtype == torch.uint8 and self.range == (0.0, 255.0):
            return values, labels
        low, high = self.range or (0.0, 1.0)
        unit = self._finite(values.float(), indices).sub(low).div(high - low)
        if len(unit) and not (float(unit.min()) >= -0.01 and float(unit.max()) <= 1.01):
            raise SourceError(
                f"{self.name}: values leave the range {low:g} to {high:g} that most of them keep",
                "scale the images to [0, 1]",
            )
        return unit.clamp(0, 1), labels

    def fingerprint(self, indices: Tensor) -> str:
        """Type, shape, labels, and the contents of `indices`."""
        digest = hashlib.blake2b(
            f"{self.array.dtype}|{self.array.shape}|{self.kind}|{self.layout}|{self.range}".encode(), digest_size=16
        )
        for rows in chunk_slices(len(indices), 1024):
            digest.update(np.ascontiguousarray(self.array[indices[rows].numpy()]).tobytes())
        if self.labels is not None:
            digest.update(self.labels.numpy().tobytes())
        return digest.hexdigest()

    def _finite(self, values: Tensor, indices: Tensor) -> Tensor:
        bad = ~torch.isfinite(values.flatten(1)).all(1)
        if bool(bad.any()):
            raise SourceError(
                f"{self.name}: sample {int(indices[bad.nonzero()[0]])} holds NaN or infinity", "remove such samples"
            )
        return values


def read_npy(path: Path) -> np.ndarray[Any, Any]:
    """The array of an .npy file, mapped and not loaded; nothing in it is executed."""
    try:
        with np.errstate(over="ignore"):  # of the sizes that a damaged header declares: they are refused below
            return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except _UNREADABLE as broken:
        raise SourceError(
            f"{path} cannot be read: {_first_line(broken)}", "write it with numpy.save, without Python objects in it"
        ) from None


def read_npz(path: Path, key: str | None) -> tuple[np.ndarray[Any, Any], Tensor | None]:
    """The samples and labels of an .npz file: array `key`, else the only one that is not `labels`."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            names = list(stored.files)
            chosen = _choose(path, names, key, stored)
            array = _member(stored, chosen)
            labels = next((_member(stored, name) for name in LABEL_KEYS if name in names and name != chosen), None)
    except _UNREADABLE as broken:
        raise SourceError(
            f"{path} cannot be read: {_first_line(broken)}", "write it with numpy.savez, without Python objects in it"
        ) from None
    fits = labels is not None and labels.dtype.kind in "iu" and labels.shape == array.shape[:1]
    return array, torch.from_numpy(labels.astype(np.int64)) if fits and labels is not None else None


def _member(stored: Any, name: str) -> np.ndarray[Any, Any]:
    """An array of an .npz file, which is as large as it claims: numpy would reserve the memory first. ValueError where it is not."""
    entry = stored.zip.getinfo(f"{name}.npy")
    if entry.compress_type == zipfile.ZIP_STORED and entry.compress_size != entry.file_size:
        raise ValueError(f"{name} claims {entry.file_size:,} bytes and holds {entry.compress_size:,}")
    shape, dtype, held = _header(stored, name)
    claimed = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or claimed != held:
        raise ValueError(
            f"{name} holds Python objects" if dtype.hasobject else f"{name} claims {claimed:,} bytes and holds {held:,}"
        )
    return np.asarray(stored[name])


def _header(stored: Any, name: str) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """(shape, type, bytes behind the header) of an array in an .npz file."""
    entry = stored.zip.getinfo(f"{name}.npy")
    with stored.zip.open(entry) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{name} is written in version {version} of the format")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
        return shape, dtype, entry.file_size - stream.tell()


def _first_line(problem: Exception) -> str:
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0][:160]


def _choose(path: Path, names: list[str], key: str | None, stored: Any) -> str:
    if key is not None:
        if key not in names:
            raise SourceError(f"{path} holds no array called {key!r}", close_match_hint(key, names))
        return key
    found = [name for name in names if name not in LABEL_KEYS] or names
    if len(found) != 1:
        listed = ", ".join(f"{name} {_header(stored, name)[0]}" for name in found[:6]) or "nothing"
        raise SourceError(f"{path} holds {len(found)} arrays: {listed}", "name one with --npz-key")
    return found[0]


def open_array(array: Any, name: str, *, labels: Tensor | None = None, kind: SampleKind | None = None) -> ArrayReader:
    """An array or tensor as rows. `kind` "series" must be said: (N, T), (N, T, C); 3-D arrays are grey images otherwise."""
    torch_made = isinstance(array, Tensor)
    if isinstance(array, Tensor):
        array = (array.float() if array.dtype in (torch.bfloat16, torch.float16) else array).detach().cpu().numpy()
    if array.dtype.kind not in "biuf":
        raise SourceError(f"{name} holds {array.dtype} values", "give numbers")
    if array.ndim < 2 or 0 in array.shape[1:]:
        raise SourceError(
            f"{name} has the shape {array.shape}", "give (N, D) vectors, (N, H, W), (N, C, H, W) or (N, H, W, C) images"
        )
    plain = ArrayReader(array, name, "vector", array.shape[1:], labels=labels)
    if kind == "series":
        return _series(plain, None)
    if array.ndim == 2:
        return plain
    return _image(plain, first=torch_made)


def _image(rows: ArrayReader, *, first: bool) -> ArrayReader:
    """Find the channel axis. `first`: which of two possible axes wins (tensors are channels-first, arrays channels-last)."""
    tail = rows.array.shape[1:]
    if len(tail) == 2:
        return _ranged(replace(rows, kind="image", shape=(1, *tail), layout="NHW"), None)
    if len(tail) != 3 or not (tail[0] in _COLOURS or tail[2] in _COLOURS):
        raise SourceError(
            f"{rows.name} has the shape {rows.array.shape}, which is no set of images",
            "give (N, H, W, 3), (N, 3, H, W), or (N, D) vectors",
        )
    channels_first = tail[0] in _COLOURS and (first or tail[2] not in _COLOURS)
    if channels_first:
        return _ranged(replace(rows, kind="image", shape=tail, layout="NCHW"), None)
    return _ranged(replace(rows, kind="image", shape=(tail[2], tail[0], tail[1]), layout="NHWC"), None)


def _ranged(rows: ArrayReader, fit: OutputSpec | None) -> ArrayReader:
    """Settle the nominal range of image values, or say that it cannot be known."""
    step = max(1, -(-len(rows.array) // _LOOKED_AT))
    looked = np.asarray(rows.array[::step])
    low, high = (float(looked.min()), float(looked.max())) if looked.size else (0.0, 1.0)
    found = infer_value_range(low, high, rows.array.dtype)
    if (
        found is None
        and fit is not None
        and fit.range is not None
        and fit.range[0] - 1e-3 <= low
        and high <= fit.range[1] + 1e-3
    ):
        found = fit.range
    if found is None:
        raise SourceError(
            f"{rows.name}: image values run from {low:g} to {high:g}", "scale them to [0, 1], or save 8-bit images"
        )
    note = Assumption("range of the samples", f"{found[0]:g},{found[1]:g}", "values")
    return replace(rows, range=found, notes=(*rows.notes, note))


def _series(rows: ArrayReader, shape: tuple[int, ...] | None) -> ArrayReader:
    """(N, T) -> (1, T) and (N, T, C) -> (C, T); or the generator's own `shape`, transposed where that makes them equal."""
    tail = rows.array.shape[1:]
    if shape is None:
        shape = (1, *tail) if len(tail) == 1 else (tail[1], tail[0])
        swap = len(tail) == 2
    else:
        swap = len(tail) == 2 and tail != shape[-2:] and tail[::-1] == shape[-2:]
    return replace(rows, kind="series", shape=shape, layout="NTC" if swap else "", range=None)


def _series_order(values: Tensor, layout: str) -> Tensor:
    return values.transpose(1, 2) if layout == "NTC" else values
