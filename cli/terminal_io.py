"""Decides color and width per stream, and writes to streams whose encoding or reader may fail.

Color: `NO_COLOR` (any value) turns it off, `FORCE_COLOR` turns it on, else a terminal decides. click reads neither.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

MAX_WIDTH = 100
DEFAULT_WIDTH = 80  # of files and pipes


def supports_color(stream: TextIO) -> bool:
    """Whether this stream gets ANSI colors. NO_COLOR beats FORCE_COLOR; empty values count as unset."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or (stream.isatty() and os.environ.get("TERM") != "dumb")


def get_output_width(stream: TextIO) -> int:
    """Columns to fill: the terminal's, at most 100; 80 for a file or pipe."""
    if not stream.isatty():
        return DEFAULT_WIDTH
    return min(shutil.get_terminal_size((DEFAULT_WIDTH, 24)).columns, MAX_WIDTH)


def style_text(text: str, code: str, stream: TextIO) -> str:
    """Text with an ANSI style, such as "1;31", if the stream gets colors."""
    return f"\x1b[{code}m{text}\x1b[0m" if supports_color(stream) else text


def make_live_console(stream: TextIO) -> Console:
    """A rich console on this stream, for progress bars."""
    from rich.console import Console

    return Console(file=stream, no_color=not supports_color(stream), markup=False, emoji=False, highlight=False)


def write_text(stream: TextIO, text: str) -> None:
    """Write text with a newline at its end, and flush.

    Characters that the stream's encoding lacks are replaced; a reader that has closed the pipe (`| head`) is no error.
    """
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        stream.write((text if text.endswith("\n") else text + "\n").encode(encoding, "replace").decode(encoding))
        stream.flush()
    except BrokenPipeError:
        # Python flushes again at exit; give it somewhere to flush to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
