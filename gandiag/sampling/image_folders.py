"""Image folders and .zip files of images; class sub-folders become labels."""

from __future__ import annotations

import hashlib
import os
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gandiag.checkpoints.file_type import IMAGE_SUFFIXES
from gandiag.errors import SourceError
from gandiag.interfaces import SampleKind

_SURVEYED = 5000  # headers looked at before the run; the rest is checked as it is read
_LARGEST = 1 << 28  # bytes of one zip member


class ImageFiles(Protocol):
    """Named bytes: a folder or a zip."""

    names: tuple[str, ...]

    def open(self, name: str) -> IO[bytes]: ...
    def file_size(self, name: str) -> int: ...


class FolderFiles:
    """The images under a folder, names relative and sorted. Hidden files are skipped; linked folders are followed once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names = tuple(sorted(self._walk()))

    def open(self, name: str) -> IO[bytes]:
        return (self.root / name).open("rb")

    def file_size(self, name: str) -> int:
        return (self.root / name).stat().st_size

    def _walk(self) -> Iterator[str]:
        seen: set[str] = set()
        for folder, below, names in os.walk(self.root, followlinks=True):
            real = os.path.realpath(folder)
            below[:] = [] if real in seen else sorted(name for name in below if not name.startswith("."))
            if real not in seen:
                yield from (
                    (Path(folder) / name).relative_to(self.root).as_posix() for name in names if is_image_name(name)
                )
            seen.add(real)


class ZipFiles:
    """The images inside a zip file, read in place."""

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as broken:
            raise SourceError(f"{path} cannot be read as a zip file: {broken}", "write it again") from None
        self.names = tuple(sorted(name for name in self._zip.namelist() if is_image_name(name)))

    def open(self, name: str) -> IO[bytes]:
        if self.file_size(name) > _LARGEST:
            raise ValueError(f"it unpacks to {self.file_size(name):,} bytes")
        return self._zip.open(name)

    def file_size(self, name: str) -> int:
        return self._zip.getinfo(name).file_size


def is_image_name(name: str) -> bool:
    """An image by its suffix, and no hidden or system file."""
    path = PurePosixPath(name)
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and "__MACOSX" not in path.parts


@dataclass(slots=True)
class ImageReader:
    """Images by index: `take` gives (C, h, w) uint8 each (float in [0, 1] for 16-bit files). Mixed sizes: `shape` is None."""

    files: ImageFiles
    name: str
    labels: Tensor | None = None  # (n,) int64
    class_names: tuple[str, ...] | None = None
    size_counts: Counter[tuple[int, int]] = field(default_factory=Counter)
    examples: dict[tuple[int, int], str] = field(default_factory=dict)
    channels: int = 3
    kind: SampleKind = "image"

    @property
    def n(self) -> int:
        return len(self.files.names)

    @property
    def shape(self) -> tuple[int, ...] | None:
        return (self.channels, *next(iter(self.size_counts))) if len(self.size_counts) == 1 else None

    def match_output(self, output: Any) -> ImageReader:
        return self

    def read(self, indices: Tensor) -> tuple[list[Tensor], Tensor | None]:
        images = [decode_image(self.files, self.files.names[index], self.channels) for index in indices.tolist()]
        return images, None if self.labels is None else self.labels[indices]

    def fingerprint(self, indices: Tensor) -> str:
        """Names and sizes of all files, contents of `indices`."""
        digest = hashlib.blake2b(digest_size=16)
        for name in self.files.names:
            digest.update(f"{name}|{self.files.file_size(name)}\n".encode())
        for index in indices.tolist():
            with _told(self.files.names[index]), self.files.open(self.files.names[index]) as file:
                digest.update(hashlib.blake2b(file.read()).digest())
        return digest.hexdigest()


def open_image_files(files: ImageFiles, name: str) -> ImageReader:
    """Survey the headers: sizes, channels, unreadable files, classes."""
    if not files.names:
        raise SourceError(
            f"{name} holds no images", f"put images in it ({', '.join(sorted(IMAGE_SUFFIXES))}), or pass a checkpoint"
        )
    labels, class_names = labels_from_folders(files.names)
    rows = ImageReader(files, name, labels, class_names)
    step = max(1, -(-len(files.names) // _SURVEYED))
    colours = set()
    for each in files.names[::step]:
        width, height, mode = read_image_header(files, each)
        rows.size_counts[height, width] += 1
        rows.examples.setdefault((height, width), each)
        colours.add(mode not in ("1", "L", "LA", "I", "F", "I;16", "I;16B", "I;16L"))
    rows.channels = 3 if True in colours else 1
    return rows


def labels_from_folders(names: tuple[str, ...]) -> tuple[Tensor | None, tuple[str, ...] | None]:
    """Labels from the first folder below the common one, where every image has one and there are at least two."""
    parts = [PurePosixPath(name).parent.parts for name in names]
    depth = next(
        (depth for depth, level in enumerate(zip(*parts, strict=False)) if len(set(level)) > 1), min(map(len, parts))
    )
    if any(len(each) <= depth for each in parts):
        return None, None
    found = sorted({each[depth] for each in parts})
    if len(found) < 2:
        return None, None
    number = {name: index for index, name in enumerate(found)}
    return torch.tensor([number[each[depth]] for each in parts]), tuple(found)


def read_image_header(files: ImageFiles, name: str) -> tuple[int, int, str]:
    """Width, height and mode of an image, without decoding it."""
    with _told(name), files.open(name) as file, Image.open(file) as image:
        return image.width, image.height, image.mode


def decode_image(files: ImageFiles, name: str, channels: int) -> Tensor:
    """One image file as (channels, h, w): uint8, or float in [0, 1] where the file has more than 8 bits."""
    with _told(name), files.open(name) as file, Image.open(file) as image:
        return pil_to_tensor(image, channels)


def pil_to_tensor(image: Image.Image, channels: int) -> Tensor:
    """A PIL image as (channels, h, w) with 1 or 3 channels: uint8, or float in [0, 1] for 16-bit and float images."""
    if image.mode.startswith("I") or image.mode == "F":
        values = torch.from_numpy(np.array(image, dtype=np.float32))  # (h, w)
        top = 65535.0 if image.mode.startswith("I") else 1.0
        return values.div(top).clamp(0, 1).expand(channels, -1, -1)
    pixels = np.array(image.convert("L" if channels == 1 else "RGB"))
    return torch.from_numpy(pixels).reshape(*pixels.shape[:2], channels).permute(2, 0, 1)  # (C, h, w)


class _told:
    """Turn whatever an image reader raises into a SourceError that names the file."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        self._quiet = warnings.catch_warnings()
        self._quiet.__enter__()
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)

    def __exit__(self, kind: Any, problem: BaseException | None, trace: Any) -> None:
        self._quiet.__exit__(kind, problem, trace)
        if isinstance(problem, Exception):
            raise SourceError(
                f"{self._name} cannot be read as an image: {problem}", "remove it or write it again"
            ) from problem
