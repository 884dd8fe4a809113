"""Renders a Record for a terminal, a log file or a pipe: verdict first, failures before notes, written files last.

Nothing depends on color alone, 80 columns suffice, and no string of a checkpoint reaches the terminal unescaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gandiag.record import Record
from gandiag.report import finding_view, formatting, measurement_view, provenance, terminal_sections
from gandiag.report.text_page import TextPage

if TYPE_CHECKING:
    from rich.text import Text

VERDICT_COLORS = {
    "healthy": "green",
    "collapsed": "red",
    "inconclusive": "yellow",
    "not_degenerate": "cyan",
    "unrealistic": "yellow",
    "memorised": "red",
}
MAX_REMEDIES = 2
MIN_PATH_WIDTH = 12  # columns of the path on the first line, below which it gets its own line


def render_text(
    record: Record, *, width: int = 80, color: bool = False, paths: Sequence[str] = (), verbose: bool = False
) -> str:
    """Render the whole report; it ends with a newline.

    `width`: columns, at least 40. `color`: ANSI colors; without them, newlines are the only control characters.
    `paths`: written files, as "record audit.json", for the last line.
    `verbose`: also all remedies, all measurements and the seconds of every stage.
    """
    page = TextPage(width, color)
    _add_head(page, record)
    findings = finding_view.sort_findings(record)
    page.add_findings(finding_view.build_findings(findings, None if verbose else MAX_REMEDIES))
    for title, body in terminal_sections.iter_sections(record, verbose):
        page.add_section(title, body)
    _add_foot(page, record, paths)
    return page.render()


def make_first_line(width: int, record: Record) -> tuple[Text, bool]:
    """Verdict, path and caveat, and whether the whole path is among them."""
    from rich.text import Text

    label, caveat = formatting.format_verdict(record), formatting.describe_caveat(record)
    path = formatting.format_subject(record)
    path_width = width - len(label) - 2 - (len(caveat) + 4 if caveat else 0)
    path_fits = path_width >= min(len(path), MIN_PATH_WIDTH)
    line = Text(label, style=f"bold {VERDICT_COLORS.get(record.verdict, 'white')}")
    if path_fits:
        line.append(f"  {formatting.truncate_start(path, path_width)}", style="bold")
    if caveat:
        line.append(f"  ({caveat})" if path_fits else f"  {caveat}", style="not bold")
    return line, path_fits and len(path) <= path_width


def _add_head(page: TextPage, record: Record) -> None:
    first_line, is_whole = make_first_line(page.width, record)
    color = VERDICT_COLORS.get(record.verdict, "white")
    page.add(first_line)
    page.add(formatting.summarize_record(record))
    page.add()
    if record.score.value is not None:
        page.add(f"  {terminal_sections.draw_score_bar(record.score)}", style=color)
    rows = (
        *formatting.describe_kinds(record),
        formatting.describe_sample_size(record),
        provenance.describe_trained_scale(record),
        "" if is_whole else formatting.format_subject(record),
    )
    for row in rows:
        if row:
            page.add_indented(row)


def _add_foot(page: TextPage, record: Record, paths: Sequence[str]) -> None:
    missing = measurement_view.group_missing_measurements(record)
    rows = [f"{keys}: {reason}" for keys, reason in missing] or ["nothing: everything that was requested was measured"]
    page.add_section("Not measured", rows)
    if record.exhibits and not any(".html" in path for path in paths):
        page.add()
        n_figures = f"{len(record.exhibits)} figure{'s' * (len(record.exhibits) > 1)}"
        page.add(f"{n_figures} in the record: gandiag report RECORD -f html -o report.html", style="dim")
    page.add_paths(paths)
