"""Everything that gandiag prints goes through here: results on stdout, the rest on stderr.

    result · show            stdout, silent under -qq
    note · detail            stderr; notes vanish under -q, details need -v
    complain · apologise     stderr: "error: … / hint: …"
    interrupted              stderr: one line after Ctrl-C
    progress                 a bar with the time left on a terminal, a line every 30 s in a log; nothing under -q

Color: `NO_COLOR` (any value) turns it off, `FORCE_COLOR` turns it on, otherwise a terminal decides. click reads neither.
"""

from __future__ import annotations

import os
import shutil
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from gandiag.errors import GandiagError
from gandiag.report import formatting

if TYPE_CHECKING:
    from gandiag.record import Record

from .progress import ProgressReporter

__all__ = [
    "ProgressReporter",
    "configure_output",
    "print_bug_report",
    "print_error",
    "print_info",
    "print_interrupted",
    "print_record",
    "print_result",
    "print_verbose",
    "print_warning",
    "show_progress",
    "supports_color",
]

MAX_WIDTH = 100


@dataclass(slots=True)
class _Settings:
    quiet: int = 0
    verbose: int = 0
    debug: bool = False


settings = _Settings()


def configure_output(*, quiet: int = 0, verbose: int = 0, debug: bool = False) -> None:
    """Set once by `main`: -q and -qq, -v, --debug."""
    settings.quiet, settings.verbose, settings.debug = quiet, verbose, debug


def supports_color(stream: TextIO) -> bool:
    """Whether this stream gets ANSI colors. NO_COLOR beats FORCE_COLOR; empty values count as unset."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or (stream.isatty() and os.environ.get("TERM") != "dumb")


def get_output_width(stream: TextIO) -> int:
    """Columns to fill: the terminal's, at most 100; 80 in a file or pipe."""
    return min(shutil.get_terminal_size((80, 24)).columns, MAX_WIDTH) if stream.isatty() else 80


def print_result(text: str) -> None:
    """Print a result on stdout, exactly as it is, with a newline at its end."""
    if settings.quiet < 2:
        _write(sys.stdout, text)


def print_record(record: Record, paths: Sequence[str] = (), verbose: int | None = None) -> None:
    """Print a Record as text, fitted to the terminal. `paths`: what was written, for the last line. `verbose`: as -v, else what was configured."""
    from gandiag.report.terminal import render_text

    more = settings.verbose if verbose is None else verbose
    if settings.quiet < 2:
        print_result(
            render_text(
                record,
                width=get_output_width(sys.stdout),
                color=supports_color(sys.stdout),
                paths=paths,
                verbose=more > 0,
            )
        )


def show_progress() -> ProgressReporter:
    """A context manager that gives the callback `on_progress(stage, done, total)`."""
    return ProgressReporter(quiet=settings.quiet > 0)


def print_info(text: str) -> None:
    """Something good to know; gone under -q."""
    if settings.quiet < 1:
        _write(sys.stderr, formatting.escape_unprintable(text))


def print_verbose(text: str) -> None:
    """Something for those who asked with -v."""
    if settings.verbose > 0 and settings.quiet < 1:
        _write(sys.stderr, formatting.escape_unprintable(text))


def print_warning(text: str) -> None:
    """Something that may spoil the result; shown under -q too."""
    if settings.quiet < 2:
        _write(sys.stderr, f"{_styled('warning:', '33')} {formatting.escape_unprintable(text)}")


def print_error(error: GandiagError) -> None:
    """What went wrong, in one sentence, and what to do about it. The traceback with --debug."""
    if settings.quiet >= 2:
        return
    if settings.debug:
        _trace(error)
    _write(sys.stderr, f"{_styled('error:', '1;31')} {formatting.escape_unprintable(error.message)}")
    if error.hint:
        _write(sys.stderr, f"{_styled('hint:', '36')}  {formatting.escape_unprintable(error.hint)}")


def print_bug_report(error: BaseException) -> None:
    """One line for a bug of ours; the traceback with --debug."""
    if settings.quiet >= 2:
        return
    if settings.debug:
        _trace(error)
    told = formatting.escape_unprintable(f"{type(error).__name__}: {error}".rstrip(": "))
    _write(sys.stderr, f"{_styled('error:', '1;31')} this is a bug in gandiag: {told}")
    if not settings.debug:
        _write(sys.stderr, f"{_styled('hint:', '36')}  run it again with --debug, and report what it prints")


def print_interrupted() -> None:
    """One line after Ctrl-C."""
    if settings.quiet < 2:
        _write(sys.stderr, "interrupted")


def _trace(error: BaseException) -> None:
    lines = "".join(traceback.format_exception(error)).rstrip("\n").split("\n")
    _write(sys.stderr, "\n".join(formatting.escape_unprintable(line) for line in lines))


def _styled(word: str, code: str) -> str:
    return f"\x1b[{code}m{word}\x1b[0m" if supports_color(sys.stderr) else word


def _write(stream: TextIO, text: str) -> None:
    """Write a text and flush. What the stream's encoding lacks is replaced; a reader that left (`| head`) is no error."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        stream.write((text if text.endswith("\n") else text + "\n").encode(encoding, "replace").decode(encoding))
        stream.flush()
    except BrokenPipeError:
        # Python flushes again on its way out; give it somewhere to flush to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
