"""The formats a Record can be shown in, by name; plug-ins add theirs under the entry-point group `gandiag.formats`.

A format is a function `render(record) -> str`.
"""

from __future__ import annotations

from pathlib import PurePath

from gandiag.record import Record
from gandiag.registry import Registry

FORMATS = Registry(
    "formats",
    {
        "text": "gandiag.report.terminal:render_text",
        "html": "gandiag.report.html_page:render_html",
        "json": "gandiag.report.formats:render_json",
        "markdown": "gandiag.report.markdown:render_markdown",
    },
)

FORMAT_BY_SUFFIX = {".html": "html", ".htm": "html", ".md": "markdown", ".json": "json", ".txt": "text", ".log": "text"}


def render_json(record: Record) -> str:
    """The record itself, one JSON document."""
    return record.to_json() + "\n"


def guess_format(path: str | PurePath | None) -> str:
    """The format that a file name asks for; text where it asks for nothing."""
    return FORMAT_BY_SUFFIX.get(PurePath(path).suffix.lower(), "text") if path is not None else "text"
