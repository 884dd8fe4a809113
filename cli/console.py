"""Prints everything that gandiag outputs: results on stdout, the rest on stderr.

    print_result, print_record         stdout; nothing under -qq; of a record, one line under -q
    write_or_print                     a file, or stdout
    print_info                         stderr; nothing under -q
    print_warning                      stderr; nothing under -qq
    print_error, print_bug_report      stderr: "error: … / hint: …"; nothing under -qq
    print_interrupted                  stderr: one line after Ctrl-C
    show_progress                      stderr: a bar on a terminal, a line every 30 s in a log; nothing under -q

Strings of checkpoints are untrusted: everything but results, which their renderers escape, is escaped here.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass

from gandiag.errors import GandiagError
from gandiag.record import Record, write_atomically
from gandiag.report import formatting

from .progress import ProgressReporter
from .terminal_io import get_output_width, style_text, supports_color, write_text

__all__ = [
    "ProgressReporter",
    "configure_output",
    "get_output_width",
    "print_bug_report",
    "print_error",
    "print_import_note",
    "print_info",
    "print_interrupted",
    "print_record",
    "print_result",
    "print_warning",
    "show_progress",
    "supports_color",
    "write_or_print",
]

ERROR_STYLE, WARNING_STYLE, HINT_STYLE = "1;31", "33", "36"


@dataclass(slots=True)
class _Settings:
    quiet: int = 0
    verbose: int = 0
    debug: bool = False


settings = _Settings()


def configure_output(*, quiet: int = 0, verbose: int = 0, debug: bool = False) -> None:
    """Set verbosity, once per command: -q and -qq, -v, --debug."""
    settings.quiet, settings.verbose, settings.debug = quiet, verbose, debug


def print_result(text: str) -> None:
    """Print a result on stdout unchanged, with a newline at its end."""
    if settings.quiet < 2:
        write_text(sys.stdout, text)


def write_or_print(text: str, path: str | None) -> None:
    """Write a result to a file and note that on stderr; without a path, print it."""
    if path is None:
        print_result(text)
    else:
        write_atomically(path, text)
        print_info(f"wrote {path}")


def print_record(record: Record, paths: Sequence[str] = (), verbose: int | None = None, more: str = "") -> None:
    """Print a Record as text that fits the terminal: brief, whole with -v, all numbers with -vv, one line under -q.

    `paths`: written files, for the last line. `verbose`: the count of -v; default: as configured.
    `more`: where the rest is, for the brief form.
    """
    if settings.quiet >= 2:
        return
    from gandiag.report.brief_text import MORE_IN_PYTHON, render_brief, render_verdict_line
    from gandiag.report.terminal import render_text

    verbose = settings.verbose if verbose is None else verbose
    width, color = get_output_width(sys.stdout), supports_color(sys.stdout)
    if settings.quiet:
        print_result(render_verdict_line(record))
    elif verbose:
        print_result(render_text(record, width=width, color=color, paths=paths, verbose=verbose > 1))
    else:
        print_result(render_brief(record, width=width, color=color, paths=paths, more=more or MORE_IN_PYTHON))


def show_progress() -> ProgressReporter:
    """A context manager whose value is the callback `on_progress(stage, done, total)`."""
    return ProgressReporter(quiet=settings.quiet > 0)


def print_info(text: str) -> None:
    """Print a note on stderr, unless -q."""
    if settings.quiet < 1:
        write_text(sys.stderr, formatting.escape_unprintable(text))


def print_warning(text: str) -> None:
    """Print a warning that may invalidate the result; shown under -q too."""
    if settings.quiet < 2:
        _print_labeled("warning:", WARNING_STYLE, text)


def print_import_note(model: str | None) -> None:
    """Say, before it happens, that --model may import from the working folder; a file.py is named already."""
    location = (model or "").rpartition(":")[0]
    if location and not location.endswith(".py"):
        print_info(f"--model imports {location}, from this folder too")


def print_error(error: GandiagError) -> None:
    """Print the error in one sentence, then the hint; with --debug, the traceback first."""
    if settings.quiet >= 2:
        return
    if settings.debug:
        _print_traceback(error)
    _print_labeled("error:", ERROR_STYLE, error.message)
    if error.hint:
        _print_labeled("hint:", HINT_STYLE, f" {error.hint}")


def print_bug_report(error: BaseException) -> None:
    """Print one line for a bug in gandiag; with --debug, the traceback first."""
    if settings.quiet >= 2:
        return
    if settings.debug:
        _print_traceback(error)
    description = f"{type(error).__name__}: {error}".rstrip(": ")
    _print_labeled("error:", ERROR_STYLE, f"this is a bug in gandiag: {description}")
    if not settings.debug:
        _print_labeled("hint:", HINT_STYLE, " run it again with --debug and report the output")


def print_interrupted() -> None:
    """Print one line after Ctrl-C."""
    if settings.quiet < 2:
        write_text(sys.stderr, "interrupted")


def _print_labeled(label: str, style: str, text: str) -> None:
    write_text(sys.stderr, f"{style_text(label, style, sys.stderr)} {formatting.escape_unprintable(text)}")


def _print_traceback(error: BaseException) -> None:
    text = "".join(traceback.format_exception(error)).rstrip("\n")
    write_text(sys.stderr, formatting.escape_lines(text))
