"""The one way to open a file that somebody else may have made. Torch-free.

Only regular files are opened: a pipe, a device or a socket would wait for ever or never end. Formats that fit into
memory have a limit on their size. Errors are OSError with a sentence in `strerror`, as those of the system are.
`tests/test_layers.py` checks that no other module opens files.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import math
import mmap
import os
import re
import secrets
import stat
import tomllib
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TextIO

StrPath = str | os.PathLike[str]

MAX_DOCUMENT_BYTES = 64 * 2**20  # of a record or notebook
_MAX_CONTAINERS, _MAX_ENTRIES = 2_000_000, 8_000_000  # of one document: it then fits into half a gigabyte
MAX_COPIED_BYTES = 256 * 2**20  # of a checkpoint; a larger one is mapped
MAX_TOML_BYTES = 2**20  # of a policy or configuration
_MAX_DEPTH = 100  # of nested lists and tables in JSON and TOML
_MAX_KEY_PARTS = 50
_LONG_KEY = re.compile(r"""(?<![\w-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+)""" + f"{{{_MAX_KEY_PARTS}}}")
_KINDS = (
    (stat.S_ISDIR, "it is a folder"),
    (stat.S_ISFIFO, "it is a pipe, not a regular file"),
    (stat.S_ISSOCK, "it is a socket, not a regular file"),
    (stat.S_ISCHR, "it is a device, not a regular file"),
    (stat.S_ISBLK, "it is a device, not a regular file"),
)
_OPEN_FILE = re.compile(r"/dev/(std(in|out|err)$|fd/)|/proc/[^/]+/fd/")
_READ_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)


def open_regular(path: StrPath, *, max_bytes: int | None = None) -> BinaryIO:
    """Open a regular file for reading, without waiting. OSError for anything else, or where it is too large."""
    _require_regular(os.stat(_checked(path)), path, max_bytes)
    descriptor = os.open(path, _READ_FLAGS)
    try:
        _require_regular(os.fstat(descriptor), path, max_bytes)  # it may have been replaced meanwhile
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _checked(path: StrPath) -> StrPath:
    """The path. OSError where the system could not even look for it."""
    if "\0" in os.fspath(path):
        raise OSError(errno.EINVAL, "its name holds a zero byte", os.fspath(path))
    return path


def _require_regular(status: os.stat_result, path: StrPath, max_bytes: int | None) -> None:
    if not stat.S_ISREG(status.st_mode):
        what = next((text for test, text in _KINDS if test(status.st_mode)), "it is not a regular file")
        raise OSError(errno.EINVAL, what, os.fspath(path))
    if max_bytes is not None and status.st_size > max_bytes:
        _refuse_size(path, max_bytes)


def _refuse_size(path: StrPath, max_bytes: int) -> NoReturn:
    raise OSError(errno.EFBIG, f"it is larger than {max_bytes >> 20} MiB", os.fspath(path))


def read_bytes(path: StrPath, max_bytes: int = MAX_DOCUMENT_BYTES) -> bytes:
    """The content of a regular file. OSError where it is longer than `max_bytes`, however long it claims to be."""
    with open_regular(path, max_bytes=max_bytes) as stream:
        content = stream.read(max_bytes + 1)
    if len(content) > max_bytes:
        _refuse_size(path, max_bytes)
    return content


def read_text(path: StrPath, max_bytes: int = MAX_DOCUMENT_BYTES) -> str:
    """The same as UTF-8 text. UnicodeDecodeError where it is none."""
    return read_bytes(path, max_bytes).decode("utf-8-sig")


def open_text(path: StrPath, *, encoding: str = "utf-8") -> TextIO:
    """Open a regular file as text whose line ends stay; bytes that are none become replacement characters."""
    return io.TextIOWrapper(open_regular(path), encoding=encoding, errors="replace", newline="")


def map_regular(path: StrPath) -> mmap.mmap:
    """The content of a regular file: a copy in memory, or beyond MAX_COPIED_BYTES a read-only map.

    A training may save over the file while it is read: a map of a file that is cut short ends the process (SIGBUS),
    a copy does not. ValueError for an empty file, OSError for one that became shorter while it was copied.
    """
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        if not 0 < size <= MAX_COPIED_BYTES:
            return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        copy = mmap.mmap(-1, size)
        if stream.readinto(copy) < size:  # type: ignore[attr-defined]  # a buffered reader
            raise OSError(errno.EIO, "it has become shorter while it was read", os.fspath(path))
        return copy


def hash_file(path: StrPath) -> str:
    """The sha256 of a regular file. Cost: one pass over it."""
    with open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]  # a buffered reader


def is_plain_file(path: StrPath) -> bool:
    """Whether a path is a regular file, links followed; False for whatever cannot be looked at."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def make_own_folder(path: Path) -> None:
    """Create a folder that is no link. OSError where it exists as anything but a folder."""
    path.mkdir(exist_ok=True)
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        raise OSError(errno.ENOTDIR, "it is a link, not a folder", os.fspath(path))


def make_own_folders(root: Path, folder: Path) -> None:
    """Create `root`, and below it a folder that no link leads to. OSError where something else is in the way."""
    root.mkdir(parents=True, exist_ok=True)
    for part in folder.relative_to(root).parts:
        root = root / part
        make_own_folder(root)


def write_file(path: Path, data: bytes, *, follow_links: bool = True) -> None:
    """Write a file so that it is complete or as before. OSError where that fails.

    A link is followed where it stays in its folder, and replaced without `follow_links`. A link to elsewhere is
    refused: whoever made the folder could have a file overwritten that is not in it. A pipe or device is written to,
    and a pipe that nobody reads is refused.
    """
    is_link = path.is_symlink()
    if _is_stream(path) and (follow_links or not is_link):
        _write_stream(path, data)
        return
    target = path
    if follow_links and is_link:
        target = Path(os.path.realpath(path))
        if target.parent != Path(os.path.realpath(path.parent)):
            raise OSError(errno.ELOOP, f"it is a link to another folder, {target}", os.fspath(path))
    scratch = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}.part")
    try:
        with scratch.open("xb") as file:
            file.write(data)
        os.replace(scratch, target)
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink()


def _write_stream(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "wb") as stream:
        if hasattr(os, "set_blocking"):
            os.set_blocking(descriptor, True)
        stream.write(data)


def _is_stream(path: Path) -> bool:
    """Whether a path is a pipe, device or socket, or a name of an open file such as /dev/stdout."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not stat.S_ISDIR(mode) and (not stat.S_ISREG(mode) or _OPEN_FILE.match(os.path.abspath(path)) is not None)


# documents


def parse_json(text: str | bytes, *, allow_nan: bool = False) -> Any:
    """A JSON document of bounded depth and size. ValueError for any other, and for NaN, infinity and huge numbers.

    `allow_nan`: as Python and training logs write them.
    """
    _require_few(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    try:
        bounds: dict[str, Any] = {"parse_constant": _refuse_constant, "parse_float": _parse_float}
        document = json.loads(text, **({} if allow_nan else bounds))
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    _require_shallow(document)
    return document


def parse_toml(text: str) -> dict[str, Any]:
    """A TOML document, with the same bounds as JSON. ValueError else."""
    if _LONG_KEY.search(text):  # tomllib takes quadratic time and memory for them
        raise ValueError(f"a key has more than {_MAX_KEY_PARTS} parts")
    try:
        document = tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    _require_shallow(document)
    return document


def _require_few(content: bytes) -> None:
    """ValueError for a document that takes a hundred times its size in memory."""
    if content.count(b"[") + content.count(b"{") > _MAX_CONTAINERS or content.count(b",") > _MAX_ENTRIES:
        raise ValueError("it has too many entries")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _parse_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _require_shallow(document: Any) -> None:
    """ValueError for nesting that would exhaust the stack of whoever walks the document, and for huge integers."""
    level = [document]
    for _ in range(_MAX_DEPTH):
        level = [
            child
            for node in level
            if isinstance(node, (dict, list))
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        if any(type(node) is int and abs(node) > 2**63 for node in level):
            raise ValueError("an integer has more than 64 bits")
        if not level:
            return
    raise ValueError("it is nested too deep")
