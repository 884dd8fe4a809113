"""A text page laid out by rich: headings, sections, tables and findings, in plain text or with ANSI colors.

Strings are printed as plain text, never as rich markup, so checkpoint strings cannot style the output.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gandiag.report import formatting
from gandiag.report.finding_view import FindingView, RemedyView

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

MIN_WIDTH = 40
LEVEL_COLORS = {"error": "red", "warning": "yellow", "note": "dim"}


class TextPage:
    """Collects renderables; `render()` returns them as text."""

    def __init__(self, width: int, color: bool) -> None:
        from rich.console import Console

        self.width = max(width, MIN_WIDTH)
        self._buffer = io.StringIO()
        # An empty environment: the output depends on the arguments alone.
        self._console = Console(
            file=self._buffer,
            width=self.width,
            height=100,
            color_system="standard" if color else None,
            force_terminal=color,
            no_color=not color,
            markup=False,
            emoji=False,
            highlight=False,
            force_jupyter=False,
            legacy_windows=False,
            _environ={},
        )

    def add(self, renderable: RenderableType = "", style: str | None = None) -> None:
        """Add a line or a table; without arguments, an empty line."""
        self._console.print(renderable, style=style)

    def add_indented(self, renderable: RenderableType, indent: int = 2) -> None:
        """Add a line or a table, indented as a whole."""
        from rich.padding import Padding

        self._console.print(Padding(renderable, (0, 0, 0, indent)))

    def wrap(self, text: str | Text, *, indent: int = 0, max_lines: int = 1) -> list[Text]:
        """Wrap a text into at most `max_lines` lines, indented; the last one ends with … where the text is cut."""
        from rich.text import Text

        lines = list((Text(text) if isinstance(text, str) else text).wrap(self._console, self.width - indent))
        for line in lines:
            line.rstrip()
        if len(lines) > max_lines:
            lines = lines[:max_lines]
            lines[-1].truncate(self.width - indent - 2)
            lines[-1].append(" …")
        return [Text(" " * indent).append_text(line) for line in lines]

    def add_section(self, title: str, body: Sequence[RenderableType]) -> None:
        """Add an empty line, a bold title and an indented body."""
        self.add()
        self.add(title, style="bold")
        for renderable in body:
            self.add_indented(renderable)

    def add_findings(self, findings: Sequence[FindingView]) -> None:
        """Add the section of findings; nothing if there are none."""
        if findings:
            self.add_section("Findings", [make_finding_table(finding) for finding in findings])

    def add_paths(self, paths: Sequence[str], *, gap: bool = True) -> None:
        """Add one line with the written files, never wrapped: a broken path cannot be copied. `gap`: above it."""
        if paths:
            if gap:
                self.add()
            self._console.print("   ".join(formatting.escape_unprintable(path) for path in paths), soft_wrap=True)

    def render(self) -> str:
        """The page as text without trailing blanks, ending with one newline."""
        lines = self._buffer.getvalue().strip("\n").split("\n")
        return "\n".join(line.rstrip() for line in lines) + "\n"


def make_table(*alignments: str, header: Sequence[str] = ()) -> Table:
    """A table without borders. `alignments`: "left" or "right" per column."""
    from rich.table import Table

    table = Table(box=None, show_header=bool(header), padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for index, alignment in enumerate(alignments):
        title = header[index] if header else ""
        table.add_column(title, justify="right" if alignment == "right" else "left", overflow="fold")
    return table


def make_pairs_table(rows: Sequence[tuple[str, str]]) -> list[RenderableType]:
    """A two-column table of labels and values; nothing without rows."""
    table = make_table("left", "left")
    for label, value in rows:
        table.add_row(label, value)
    return [table] if rows else []


def make_finding_table(finding: FindingView) -> Table:
    """One finding: level beside rule and text, then evidence and remedies."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1), expand=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    level = Text(finding.short_label, style=LEVEL_COLORS.get(finding.level, ""))
    table.add_row(level, Text(finding.rule, style="bold").append(f"  {finding.text}", style="not bold"))
    if finding.evidence:
        evidence = " · ".join(f"{name} {value}" for name, value in finding.evidence)
        table.add_row("", Text(evidence, style="dim"))
    for rank, remedy in enumerate(finding.remedies, start=1):
        table.add_row("", Text(f"try {rank}: {_describe_remedy(remedy)}"))
    if finding.n_hidden_remedies:
        hidden = f"{finding.n_hidden_remedies} more with gandiag explain {finding.rule}"
        table.add_row("", Text(hidden, style="dim"))
    return table


def _describe_remedy(remedy: RemedyView) -> str:
    """One remedy in a sentence or two; cost and source only where it is described in full."""
    if remedy.described_at:
        return f"{remedy.summary} (cost and source: see {remedy.described_at})."
    cost = f". Cost: {remedy.price.rstrip('.')}" if remedy.price else ""
    source = f" [{_shorten_source(remedy.source)}]" if remedy.source else "."
    return f"{remedy.summary}{cost}{source}"


def _shorten_source(source: str) -> str:
    """Drop paper titles: "Mao et al. 2019, Mode Seeking GANs, arXiv:1903.05628" -> authors, year and number."""
    papers = (paper.split(", ") for paper in source.split("; "))
    return "; ".join(
        f"{parts[0]}, {parts[-1]}" if len(parts) > 1 and parts[-1].startswith("arXiv:") else ", ".join(parts)
        for parts in papers
    )
