"""Images inside .tar files, as WebDataset writes them: `000.jpg` beside `000.cls`. Nothing is unpacked to disk."""

from __future__ import annotations

import errno
import io
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from gandiag.errors import SourceError
from gandiag.sampling.image_folders import is_image_name
from gandiag.untrusted.files import open_regular

MAX_MEMBERS = 2_000_000
MAX_SHARDS = 10_000
MAX_HEADER_BYTES = 1 << 20  # of one extended header, which may claim any size
MAX_MEMBER_BYTES = 1 << 28
MAX_LABEL_BYTES = 64
_MAGIC, _MAGIC_OFFSET = b"ustar", 257
_GZIP = b"\x1f\x8b"


class TarFiles:
    """The images inside one .tar file or several shards, by sorted name.

    `labels`: the text of the `.cls` member beside each image, where every image has one; else None.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        if len(paths) > MAX_SHARDS:
            raise SourceError(f"there are {len(paths):,} .tar files", f"pass at most {MAX_SHARDS:,}")
        self._places: dict[str, tuple[Path, int, int]] = {}  # name -> (file, offset, size)
        classes: dict[str, str] = {}
        for path in paths:
            prefix = f"{path.stem}:" if len(paths) > 1 else ""  # no folder: shards are no classes
            self._read_index(path, prefix, classes)
        self.names = tuple(sorted(self._places))
        found = [classes.get(_stem(name)) for name in self.names]
        self.labels: list[str] | None = None
        if found and all(label is not None for label in found) and len(set(found)) > 1:
            self.labels = [str(label) for label in found]

    def open(self, name: str) -> IO[bytes]:
        path, offset, size = self._places[name]
        if size > MAX_MEMBER_BYTES:
            raise ValueError(f"it has {size:,} bytes")
        with open_regular(path) as stream:
            stream.seek(offset)
            return io.BytesIO(stream.read(size))

    def file_size(self, name: str) -> int:
        return self._places[name][2]

    def _read_index(self, path: Path, prefix: str, classes: dict[str, str]) -> None:
        """The places of all images of one file, and the classes beside them. Links and devices are passed over."""
        try:
            with open_regular(path) as stream:
                if stream.read(2) == _GZIP:
                    raise SourceError(f"{path} is compressed", "unpack it with gunzip: images are read at any place")
                stream.seek(0)
                with tarfile.open(fileobj=_BoundedReader(stream), mode="r:") as archive:
                    for member in archive:
                        self._add_member(path, prefix, member, stream, classes)
                        archive.members = []  # type: ignore[attr-defined]  # else it keeps every header
        except SourceError:
            raise
        except OSError as problem:
            action = "create it again" if problem.errno == errno.EINVAL else "check the path"  # a size no seek allows
            raise SourceError(f"{path} cannot be read: {problem.strerror or problem}", action) from None
        except Exception as broken:  # tarfile raises many kinds for damaged files
            raise SourceError(f"{path} cannot be read as a tar file: {broken}", "create it again") from None

    def _add_member(
        self, path: Path, prefix: str, member: tarfile.TarInfo, stream: BinaryIO, classes: dict[str, str]
    ) -> None:
        if not member.isreg() or member.issparse():
            return
        name = prefix + member.name
        if is_image_name(member.name):
            self._places[name] = (path, member.offset_data, member.size)
            if len(self._places) > MAX_MEMBERS:
                raise SourceError(f"{path} holds more than {MAX_MEMBERS:,} images", "pass fewer of its files")
        elif member.name.endswith(".cls") and member.size <= MAX_LABEL_BYTES and len(classes) < MAX_MEMBERS:
            place = stream.tell()
            stream.seek(member.offset_data)
            classes[_stem(name)] = stream.read(member.size).decode("utf-8", "replace").strip()
            stream.seek(place)


class _BoundedReader(io.BufferedIOBase):
    """A stream for tarfile, of which no header may be larger than a megabyte: it would be read into memory."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= MAX_HEADER_BYTES:
            raise ValueError(f"a header claims {size:,} bytes")
        return self._stream.read(size)

    def seek(self, position: int, whence: int = 0, /) -> int:
        return self._stream.seek(position, whence)

    def tell(self) -> int:
        return self._stream.tell()


def _stem(name: str) -> str:
    """The key of a WebDataset sample: everything before the first dot of the file name."""
    path = PurePosixPath(name)
    return str(path.parent / path.name.split(".")[0])


def is_tar_name(name: str) -> bool:
    """Whether a file is a tar archive by its suffix, and not hidden."""
    return name.lower().endswith(".tar") and not PurePosixPath(name).name.startswith(".")


def is_tar_file(path: Path) -> bool:
    """Whether a file is a tar archive by its first header, or a compressed one by its name."""
    try:
        with open_regular(path) as stream:
            head = stream.read(512)
    except OSError:
        return False
    is_compressed = head.startswith(_GZIP) and path.name.lower().endswith((".tar.gz", ".tgz"))
    return is_compressed or head[_MAGIC_OFFSET : _MAGIC_OFFSET + len(_MAGIC)] == _MAGIC


def is_tar_of_images(path: Path, max_members: int = 100) -> bool:
    """Whether an image is among the first members of a tar archive; old checkpoints of torch are tar files too."""
    if not is_tar_file(path):
        return False
    if path.name.lower().endswith((".tar.gz", ".tgz")):
        return True  # refused with advice when it is opened
    try:
        with open_regular(path) as stream, tarfile.open(fileobj=_BoundedReader(stream), mode="r:") as archive:
            return any(is_image_name(member.name) for member, _ in zip(archive, range(max_members), strict=False))
    except Exception:  # damaged: let the loader of checkpoints say what it is
        return False
