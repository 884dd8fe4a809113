"""Output formats by name: of records (`gandiag report`) and of gate results (`gandiag gate`).

Plug-ins add theirs under the entry-point groups `gandiag.formats` and `gandiag.gates`.
"""

from __future__ import annotations

from pathlib import PurePath

from gandiag.errors import ConfigError
from gandiag.record import Record
from gandiag.registry import Registry

# A format is a function `render(record) -> str`.
FORMATS = Registry(
    "formats",
    {
        "text": "gandiag.report.terminal:render_text",
        "html": "gandiag.report.html_page:render_html",
        "json": "gandiag.report.formats:render_json",
        "markdown": "gandiag.report.markdown:render_markdown",
        "csv": "gandiag.report.number_tables:render_csv",
        "tex": "gandiag.report.number_tables:render_latex",
        "svg": "gandiag.report.number_tables:render_svg",
    },
)

# A gate format is a function `render(results) -> str` of GateResults, in the order of the command line.
GATE_FORMATS = Registry(
    "gates",
    {
        "text": "gandiag.report.gate_text:render_gate_text",
        "json": "gandiag.report.gate_text:render_gate_json",
        "junit": "gandiag.report.gate_junit:render_junit",
        "github": "gandiag.report.gate_github:render_github",
        "markdown": "gandiag.report.markdown:render_gate_markdown",
    },
)

FORMAT_BY_SUFFIX = {
    ".html": "html",
    ".htm": "html",
    ".md": "markdown",
    ".json": "json",
    ".txt": "text",
    ".log": "text",
    ".csv": "csv",
    ".tex": "tex",
    ".svg": "svg",
}


def render_json(record: Record) -> str:
    """The record as one JSON document."""
    return record.to_json() + "\n"


def guess_format(path: str | PurePath | None) -> str:
    """The record format that a file name implies; "text" for None and without a suffix. ConfigError for other ones."""
    suffix = PurePath(path).suffix.lower() if path is not None else ""
    if suffix and suffix not in FORMAT_BY_SUFFIX:
        known = ", ".join(FORMAT_BY_SUFFIX)
        raise ConfigError(
            f"{path}: no report format is called {suffix}", f"use one of {known}, or name a format with -f"
        )
    return FORMAT_BY_SUFFIX.get(suffix, "text")
