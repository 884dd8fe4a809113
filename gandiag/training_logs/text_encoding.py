"""Gives any text file as UTF-8: PowerShell writes UTF-16, older tools write the code page of their country."""

from __future__ import annotations

import codecs
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from gandiag.errors import SourceError
from gandiag.untrusted.files import open_text

BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
MIN_ZERO_FRACTION = 0.3  # of the bytes of UTF-16 without a mark that are zero
CHUNK = 1 << 22
STANDARD_INPUT = "-"
MAX_INPUT_BYTES = 1 << 34


def detect_encoding(head: bytes) -> str:
    """The encoding of a text by its first bytes; "utf-8" also for what is no text at all."""
    for mark, name in BYTE_ORDER_MARKS:
        if head.startswith(mark):
            return name
    if len(head) > 8 and head.count(0) >= MIN_ZERO_FRACTION * len(head):
        odd, even = head[1::2].count(0), head[::2].count(0)
        if odd > 10 * even + 2:
            return "utf-16-le"
        if even > 10 * odd + 2:
            return "utf-16-be"
        return "utf-8"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # may end within a character
        return "utf-8"
    except UnicodeDecodeError:
        return _guess_code_page(head)


def _guess_code_page(head: bytes) -> str:
    if find_spec("charset_normalizer") is not None:
        from charset_normalizer import from_bytes

        best = from_bytes(head).best()
        if best is not None:
            return str(best.encoding)
    for name in ("gb18030", "shift_jis", "euc_kr"):
        try:
            codecs.getincrementaldecoder(name)().decode(head)
            return name
        except UnicodeDecodeError:
            continue
    return "utf-8"


@contextmanager
def open_as_utf8(path: Path, head: bytes) -> Iterator[Path]:
    """A path of the same name whose text is UTF-8: the file itself, or a copy that is deleted afterwards."""
    encoding = detect_encoding(head)
    if encoding in ("utf-8", "ascii"):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="gandiag-log-") as folder:
        copy = Path(folder) / path.name
        with (
            open_text(path, encoding=encoding) as source,
            copy.open("w", encoding="utf-8") as out,
        ):
            shutil.copyfileobj(source, out, CHUNK)
        yield copy


@contextmanager
def open_standard_input(path: Path) -> Iterator[Path]:
    """The path itself, or for "-" a copy of standard input that is deleted afterwards."""
    if str(path) != STANDARD_INPUT:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="gandiag-log-") as folder:
        copy = Path(folder) / "standard input"
        with copy.open("wb") as out:
            size = 0
            while chunk := sys.stdin.buffer.read(CHUNK):
                size += len(chunk)
                if size > MAX_INPUT_BYTES:
                    raise SourceError(
                        f"standard input is longer than {MAX_INPUT_BYTES / 1e9:.0f} GB", "pass the log as a file"
                    )
                out.write(chunk)
        yield copy


def check_regular_file(path: Path) -> None:
    """Raise SourceError for a device, a pipe, a socket or a missing file: reading it could hang."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SourceError(f"{path} cannot be read: {reason}", "check the path of the log") from None
    if not stat.S_ISREG(mode):
        raise SourceError(f"{path} is no regular file", 'pass a file or a folder, or pipe the log to "-"')
