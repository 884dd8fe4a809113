"""A Record for a terminal, a log file or a pipe: verdict first, failing findings before passing ones, paths last.

Nothing is said in color alone, nothing needs more than 80 columns, and no string of a checkpoint reaches the terminal
unescaped: every one goes through `words.clean` and is set as plain text, never as rich markup.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gandiag.record import Finding, Record
from gandiag.report import formatting, provenance, terminal_sections

if TYPE_CHECKING:
    from rich.console import Console

VERDICT_COLORS = {"healthy": "green", "collapsed": "red", "inconclusive": "yellow", "not_degenerate": "cyan"}
LEVEL_COLORS = {"error": "red", "warning": "yellow", "note": "dim"}
MAX_REMEDIES = 2


def render_text(
    record: Record, *, width: int = 80, color: bool = False, paths: Sequence[str] = (), verbose: bool = False
) -> str:
    """The whole report as text that ends with a newline.

    `width`: columns, at least 40. `color`: ANSI colors; without, there is no control character in it but the newline.
    `paths`: what was written, as "record audit.json", shown on the last line.
    `verbose`: every remedy, and the seconds of every stage.
    """
    page = make_console(max(width, 40), color)
    _head(page, record)
    _findings(page, record, None if verbose else MAX_REMEDIES)
    for title, body in terminal_sections.iter_sections(record, verbose):
        print_section(page, title, body)
    _foot(page, record, paths)
    written = page.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in written.strip("\n").split("\n")) + "\n"


def make_console(width: int, color: bool) -> Console:
    from rich.console import Console

    # An empty environment: what is printed depends on the arguments alone.
    return Console(
        file=io.StringIO(),
        width=width,
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


def _head(page: Console, record: Record) -> None:
    from rich.text import Text

    color, word, beside = (
        VERDICT_COLORS.get(record.verdict, "white"),
        formatting.format_verdict(record),
        formatting.describe_caveat(record),
    )
    room = page.width - len(word) - 2 - (len(beside) + 4 if beside else 0)
    path = formatting.format_subject(record)
    fits = room >= min(len(path), 12)
    first = Text(word, style=f"bold {color}")
    if fits:
        first.append(f"  {formatting.truncate_start(path, room)}", style="bold")
    if beside:
        first.append(f"  ({beside})" if fits else f"  {beside}", style="not bold")
    page.print(first)
    page.print(formatting.summarize_record(record))
    page.print()
    if record.score.value is not None:
        page.print(f"  {terminal_sections.draw_score_bar(record.score)}", style=color)
    rows = [row for row in (*formatting.describe_kinds(record), formatting.describe_sample_size(record)) if row]
    rows += [trained] if (trained := provenance.describe_trained_scale(record)) else []
    rows += [] if fits and len(path) <= room else [path]
    for row in rows:
        print_padded(page, row)


def print_padded(page: Console, line: Any, indent: int = 2, **style: Any) -> None:
    from rich.padding import Padding

    page.print(Padding(line, (0, 0, 0, indent)), **style)


def print_section(page: Console, title: str, body: Sequence[Any]) -> None:
    page.print()
    page.print(title, style="bold")
    for part in body:
        print_padded(page, part)


def _findings(page: Console, record: Record, most: int | None) -> None:
    found = formatting.sort_findings(record)
    if found:
        page.print()
        page.print("Findings", style="bold")
    told = formatting.first_rule_per_remedy(found, most)
    for finding in found:
        print_finding(page, finding, most, told)


def print_finding(page: Console, finding: Finding, max_remedies: int | None, first_rules: Mapping[str, str]) -> None:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1), expand=False)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    level = Text(
        formatting.LEVEL_LABELS.get(finding.level, formatting.escape_unprintable(finding.level)),
        style=LEVEL_COLORS.get(finding.level, ""),
    )
    body = Text(formatting.escape_unprintable(finding.rule), style="bold").append(
        f"  {formatting.escape_unprintable(finding.text)}", style="not bold"
    )
    grid.add_row(level, body)
    if finding.evidence:
        grid.add_row("", Text(formatting.format_evidence(finding.evidence), style="dim"))
    for rank, remedy in enumerate(finding.remedies[:max_remedies], start=1):
        where = first_rules.get(formatting.escape_unprintable(remedy.get("key")), finding.rule)
        grid.add_row("", Text(_remedy(rank, remedy, where if where != finding.rule else "")))
    if max_remedies is not None and len(finding.remedies) > max_remedies:
        grid.add_row(
            "",
            Text(
                f"and {len(finding.remedies) - max_remedies} more: gandiag explain {formatting.escape_unprintable(finding.rule)}",
                style="dim",
            ),
        )
    print_padded(page, grid)


def _remedy(rank: int, remedy: Mapping[str, Any], told_at: str) -> str:
    """One remedy as a sentence or two; price and source only where it is told first."""
    told = f"try {rank}: {formatting.format_value(remedy.get('title') or remedy.get('key'))}"
    told += (
        f". {formatting.capitalize_first(formatting.format_value(remedy['why']).rstrip('.'))}"
        if remedy.get("why")
        else ""
    )
    if told_at:
        return f"{told} (price and source: {formatting.escape_unprintable(told_at)})."
    told += f". Price: {formatting.format_value(remedy['price']).rstrip('.')}" if remedy.get("price") else ""
    return told + (f" [{_short(formatting.format_value(remedy['source']))}]" if remedy.get("source") else ".")


def _short(source: str) -> str:
    """A source without the titles of papers: "Mao et al. 2019, Mode Seeking GANs, arXiv:1903.05628" -> authors, year and number."""
    papers = (paper.split(", ") for paper in source.split("; "))
    return "; ".join(
        f"{paper[0]}, {paper[-1]}" if len(paper) > 1 and paper[-1].startswith("arXiv:") else ", ".join(paper)
        for paper in papers
    )


def _foot(page: Console, record: Record, paths: Sequence[str]) -> None:
    missing = formatting.group_missing_measurements(record)
    rows = [f"{keys}: {reason}" for keys, reason in missing] or ["nothing that was asked for is left out"]
    print_section(page, "Not measured", rows)
    if record.exhibits and not any(".html" in path for path in paths):
        page.print()
        page.print(
            f"{len(record.exhibits)} exhibits to look at: gandiag report RECORD -f html -o report.html", style="dim"
        )
    if paths:
        page.print()
        # Never broken: a path that is wrapped cannot be copied.
        page.print("   ".join(formatting.escape_unprintable(path) for path in paths), soft_wrap=True)
