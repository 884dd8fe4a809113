"""Reads image folders and .zip files of images; class subfolders become labels."""

from __future__ import annotations

import hashlib
import os
import weakref
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gandiag.checkpoints.file_type import IMAGE_SUFFIXES
from gandiag.errors import SourceError
from gandiag.interfaces import OutputSpec, SampleKind
from gandiag.sampling.image_opener import open_image, report_unreadable
from gandiag.untrusted.files import open_regular

_MAX_HEADERS = 5000  # headers checked before the run; the other files are checked as they are read
_MAX_MEMBER_BYTES = 1 << 28  # unpacked size of one zip member
_MAX_PIECE_BYTES = 1 << 28  # decoded images that are held at a time, before they are resized
_MAX_NAMED = 5  # broken images that are named in one sentence
_GRAYSCALE_MODES = ("1", "L", "LA", "I", "F", "I;16", "I;16B", "I;16L")


class ImageFiles(Protocol):
    """Named files in a folder or a zip."""

    names: tuple[str, ...]

    def open(self, name: str) -> IO[bytes]: ...
    def file_size(self, name: str) -> int: ...


def read_tail(files: ImageFiles, name: str, count: int) -> tuple[int, bytes]:
    """The size of a file and its last `count` bytes."""
    with report_unreadable(name), files.open(name) as file:
        size = files.file_size(name)
        file.seek(max(0, size - count))
        return size, file.read(count)


class FolderFiles:
    """The images under a folder, or other files that `accept` names, by sorted relative name.

    Hidden files are skipped; linked folders are followed once.
    """

    def __init__(self, root: Path, accept: Callable[[str], bool] | None = None) -> None:
        self.root = root
        self._accept = accept or is_image_name
        self.names = tuple(sorted(self._walk()))

    def open(self, name: str) -> IO[bytes]:
        return open_regular(self.root / name, max_bytes=_MAX_MEMBER_BYTES)

    def file_size(self, name: str) -> int:
        return (self.root / name).stat().st_size

    def _walk(self) -> Iterator[str]:
        visited: set[str] = set()
        root = os.path.realpath(self.root)
        for folder, subfolders, names in os.walk(self.root, followlinks=True):
            real_path = os.path.realpath(folder)
            if real_path in visited or (_contains(real_path, root) and folder != os.fspath(self.root)):
                subfolders.clear()  # seen before, or a link to a folder above, whose content is not what was meant
                continue
            visited.add(real_path)
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            yield from ((Path(folder) / name).relative_to(self.root).as_posix() for name in names if self._accept(name))


def _contains(folder: str, other: str) -> bool:
    """Whether `other` is a folder below this one, or the same."""
    return os.path.commonpath([folder, other]) == folder


class ZipFiles:
    """The images inside a zip file, or other members that `accept` names, read without unpacking it."""

    def __init__(self, path: Path, accept: Callable[[str], bool] | None = None) -> None:
        try:
            stream = open_regular(path)
            weakref.finalize(self, stream.close)
            self._zip = zipfile.ZipFile(stream)
        except Exception as broken:  # BadZipFile, OSError, UnicodeDecodeError, struct.error …
            raise SourceError(f"{path} cannot be read as a zip file: {broken}", "create it again") from None
        self.names = tuple(sorted(filter(accept or is_image_name, self._zip.namelist())))

    def open(self, name: str) -> IO[bytes]:
        if self.file_size(name) > _MAX_MEMBER_BYTES:
            raise ValueError(f"it unpacks to {self.file_size(name):,} bytes")
        return self._zip.open(name)

    def file_size(self, name: str) -> int:
        return self._zip.getinfo(name).file_size


def is_image_name(name: str) -> bool:
    """Whether a file is an image by its suffix, and neither hidden nor a system file."""
    path = PurePosixPath(name)
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and "__MACOSX" not in path.parts


@dataclass(slots=True)
class ImageReader:
    """Images by index: `read` returns (C, h, w) uint8 each, float in [0, 1] for 16-bit files.

    `shape` is None for mixed sizes.
    """

    files: ImageFiles
    name: str
    labels: Tensor | None = None  # (n,) int64
    class_names: tuple[str, ...] | None = None
    size_counts: Counter[tuple[int, int]] = field(default_factory=Counter)
    examples: dict[tuple[int, int], str] = field(default_factory=dict)
    channels: int = 3
    kind: SampleKind = "image"
    remarks: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        return len(self.files.names)

    @property
    def shape(self) -> tuple[int, ...] | None:
        return (self.channels, *next(iter(self.size_counts))) if len(self.size_counts) == 1 else None

    def match_output(self, output: OutputSpec) -> ImageReader:
        return self

    def read(self, indices: Tensor) -> tuple[list[Tensor], Tensor | None]:
        images = [decode_image(self.files, self.files.names[index], self.channels) for index in indices.tolist()]
        return images, None if self.labels is None else self.labels[indices]

    def read_pieces(self, indices: Tensor) -> Iterator[list[Tensor]]:
        """The images in lists of at most 256 MiB, one image at least."""
        piece: list[Tensor] = []
        n_bytes = 0
        for index in indices.tolist():
            piece.append(decode_image(self.files, self.files.names[index], self.channels))
            n_bytes += piece[-1].numel() * piece[-1].element_size()
            if n_bytes > _MAX_PIECE_BYTES:
                yield piece
                piece, n_bytes = [], 0
        if piece:
            yield piece

    def fingerprint(self, indices: Tensor) -> str:
        """A hash of the names and sizes of all files and the contents of `indices`."""
        digest = hashlib.blake2b(digest_size=16)
        for name in self.files.names:
            digest.update(f"{name}|{self.files.file_size(name)}\n".encode("utf-8", "surrogateescape"))
        for index in indices.tolist():
            with report_unreadable(self.files.names[index]), self.files.open(self.files.names[index]) as file:
                digest.update(hashlib.blake2b(file.read()).digest())
        return digest.hexdigest()


class _ReadableFiles:
    """The files of a folder or an archive that can be decoded; `broken`: names and reasons of the others."""

    def __init__(self, files: ImageFiles) -> None:
        self._files = files
        self.broken: dict[str, str] = {}
        self.names = tuple(name for name in files.names if self._is_readable(name))
        self.labels = getattr(files, "labels", None)
        if self.labels is not None:
            self.labels = [
                label for name, label in zip(files.names, self.labels, strict=True) if name not in self.broken
            ]

    def _is_readable(self, name: str) -> bool:
        try:
            decode_image(self._files, name, 3)
        except SourceError as problem:
            self.broken[name] = problem.message
            return False
        return True

    def open(self, name: str) -> IO[bytes]:
        return self._files.open(name)

    def file_size(self, name: str) -> int:
        return self._files.file_size(name)

    def describe(self) -> tuple[str, ...]:
        """One sentence; none where nothing is broken."""
        if not self.broken:
            return ()
        names = list(self.broken)
        more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
        count = f"{len(names):,} image{'' if len(names) == 1 else 's'}"
        return (f"{count} could not be read and were left out: {', '.join(names[:_MAX_NAMED])}{more}",)


def open_image_files(files: ImageFiles, name: str, *, skip_broken: bool = False) -> ImageReader:
    """Read up to 5,000 headers for sizes, channels and unreadable files, and the folder names for classes.

    `skip_broken`: decode every image first, and leave out those that cannot be.
    """
    remarks: tuple[str, ...] = ()
    if skip_broken and files.names:
        readable = _ReadableFiles(files)
        remarks = readable.describe()
        if not readable.names:
            raise SourceError(f"{name}: none of {len(files.names):,} images can be read", "check the files")
        files = readable
    if not files.names:
        raise SourceError(
            f"{name} contains no images",
            f"put images in it ({', '.join(sorted(IMAGE_SUFFIXES))}), or pass a checkpoint",
        )
    labels, class_names = labels_from_folders(files.names)
    own_labels = getattr(files, "labels", None)  # of an archive that holds them beside the images
    if own_labels is not None:
        class_names = tuple(sorted(set(own_labels), key=lambda label: (len(label), label)))
        labels = torch.tensor([class_names.index(label) for label in own_labels])
    reader = ImageReader(files, name, labels, class_names, remarks=remarks)
    step = max(1, -(-len(files.names) // _MAX_HEADERS))
    has_color = False
    for file_name in files.names[::step]:
        width, height, mode = read_image_header(files, file_name)
        reader.size_counts[height, width] += 1
        reader.examples.setdefault((height, width), file_name)
        has_color |= mode not in _GRAYSCALE_MODES
    reader.channels = 3 if has_color else 1
    return reader


def labels_from_folders(names: tuple[str, ...]) -> tuple[Tensor | None, tuple[str, ...] | None]:
    """Labels and class names from the first folder level that differs.

    (None, None) where some image has no such folder, or there are fewer than two.
    """
    folders = [PurePosixPath(name).parent.parts for name in names]
    differing = (depth for depth, level in enumerate(zip(*folders, strict=False)) if len(set(level)) > 1)
    depth = next(differing, min(map(len, folders)))
    if any(len(folder) <= depth for folder in folders):
        return None, None
    class_names = sorted({folder[depth] for folder in folders})
    if len(class_names) < 2:
        return None, None
    number = {name: index for index, name in enumerate(class_names)}
    return torch.tensor([number[folder[depth]] for folder in folders]), tuple(class_names)


def read_image_header(files: ImageFiles, name: str) -> tuple[int, int, str]:
    """Width, height and mode of an image, without decoding it."""
    with report_unreadable(name), files.open(name) as file, open_image(file, files.file_size(name)) as image:
        return image.width, image.height, image.mode


def decode_image(files: ImageFiles, name: str, channels: int) -> Tensor:
    """One image file as (channels, h, w): uint8, or float in [0, 1] where the file has more than 8 bits."""
    with report_unreadable(name), files.open(name) as file, open_image(file, files.file_size(name)) as image:
        return pil_to_tensor(image, channels)


def pil_to_tensor(image: Image.Image, channels: int) -> Tensor:
    """A PIL image as (channels, h, w) with 1 or 3 channels: uint8, or float in [0, 1] for 16-bit and float images."""
    if image.mode.startswith("I") or image.mode == "F":
        values = torch.from_numpy(np.array(image, dtype=np.float32))  # (h, w)
        top = 65535.0 if image.mode.startswith("I") else 1.0
        return values.div(top).clamp(0, 1).expand(channels, -1, -1)
    pixels = np.array(image.convert("L" if channels == 1 else "RGB"))
    return torch.from_numpy(pixels).reshape(*pixels.shape[:2], channels).permute(2, 0, 1)  # (C, h, w)
