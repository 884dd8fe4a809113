"""The brief report: the verdict, the score, what matters most, what was assumed and where the rest is, in 23 lines.

The long form is `terminal.render_text`. No string of a checkpoint reaches the terminal unescaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gandiag.record import Record
from gandiag.report import finding_view, formatting, terminal, terminal_sections
from gandiag.report.assumptions import format_assumed
from gandiag.report.finding_view import FindingView
from gandiag.report.text_page import LEVEL_COLORS, TextPage

if TYPE_CHECKING:
    from rich.text import Text

MAX_LINES = 23  # a terminal of 24 rows also shows the prompt
MAX_FINDINGS = 3
MAX_FINDING_LINES = 3
MAX_ROW_LINES = 2
MAX_SUMMARY_LINES = 4
MIN_BAR_WIDTH = 72  # columns below which the bar would be broken
OPEN_SOURCES = ("default", "undecided")  # of assumptions that neither the file nor an option backs
MORE_IN_PYTHON = "The whole report: print(record); in a notebook, record is the page."


def render_brief(
    record: Record, *, width: int = 80, color: bool = False, paths: Sequence[str] = (), more: str = MORE_IN_PYTHON
) -> str:
    """Render the brief report; it ends with a newline. `more`: where the rest is; the others as in `render_text`."""
    page = TextPage(width, color)
    head, foot = _make_head(page, record), _make_foot(page, record, more)
    # A written path is never broken, so that it can be copied; a terminal shows a long one on several rows.
    n_path_lines = -(-len("   ".join(paths)) // page.width)
    room = MAX_LINES - len(head) - len(foot) - n_path_lines - 1
    body, n_shown = _make_findings(page, record, room)
    for line in [*head, *([""] if body else []), *body]:
        page.add(line)
    n_hidden = len(record.findings) - n_shown
    if n_hidden > 0:
        page.add(f"  {n_hidden} more finding{'s' * (n_hidden > 1)}", style="dim")
    for line in foot:
        page.add(line)
    page.add_paths(paths, gap=False)
    return page.render()


def render_verdict_line(record: Record) -> str:
    """The verdict, the subject, the score and the caveat, on one line however long it is."""
    parts = [formatting.format_verdict(record), formatting.format_subject(record)]
    score = record.score
    if score.value is not None:
        estimate = formatting.format_estimate({"value": score.value, "low": score.low, "high": score.high})
        parts.append(f"score {estimate}")
    caveat = formatting.describe_caveat(record)
    return "  ".join([*parts, f"({caveat})"] if caveat else parts) + "\n"


def _make_head(page: TextPage, record: Record) -> list[str | Text]:
    """Verdict, summary, the score as a bar, kinds and the number of samples."""
    from rich.text import Text

    first_line, _ = terminal.make_first_line(page.width, record)
    lines: list[str | Text] = [*page.wrap(first_line, max_lines=MAX_ROW_LINES)]
    lines += page.wrap(formatting.summarize_record(record), max_lines=MAX_SUMMARY_LINES)
    bar = terminal_sections.draw_score_bar(record.score)
    if bar and page.width >= MIN_BAR_WIDTH:
        lines.append(Text(f"  {bar}", style=terminal.VERDICT_COLORS.get(record.verdict, "white")))
    kinds = " · ".join(kind.split(":")[0] for kind in formatting.describe_kinds(record))
    for row in (kinds, _describe_samples(record)):
        lines += page.wrap(row, indent=2, max_lines=MAX_ROW_LINES) if row else []
    return lines


def _describe_samples(record: Record) -> str:
    """The number of samples, and what they would have detected where that is less than the limit asks for."""
    score = record.score
    text = formatting.describe_sample_size(record)
    if not text or score.basis == "groups" or score.list_blind_spots():
        return text
    detects = score.injected or score.power is None or score.power <= score.limit
    return f"{formatting.describe_counts(score)} samples" if detects else text


def _make_findings(page: TextPage, record: Record, room: int) -> tuple[list[Text], int]:
    """The first findings that fit into `room` lines, and how many they are; the first one is shown in any case."""
    findings = finding_view.build_findings(finding_view.sort_findings(record), max_remedies=1)
    lines: list[Text] = []
    for count, finding in enumerate(findings[:MAX_FINDINGS]):
        is_last = count + 1 == len(findings)
        n_free = room - len(lines) - (not is_last)  # one line says how many are not shown
        if count and n_free < 1:
            return lines, count
        block = [*_wrap_finding(page, finding), *_wrap_remedy(page, finding)]
        lines += block if not count or len(block) <= n_free else _wrap_finding(page, finding, n_free)
    return lines, min(len(findings), MAX_FINDINGS)


def _wrap_finding(page: TextPage, finding: FindingView, max_lines: int = MAX_FINDING_LINES) -> list[Text]:
    """Level, rule and text of a finding, without its evidence."""
    from rich.text import Text

    level = Text(finding.short_label, style=LEVEL_COLORS.get(finding.level, ""))
    text = Text(finding.rule, style="bold").append(f"  {finding.text}", style="not bold")
    first, *others = page.wrap(text, indent=7, max_lines=min(max_lines, MAX_FINDING_LINES))
    return [Text("  ").append_text(level).append(" ").append_text(first[7:]), *others]


def _wrap_remedy(page: TextPage, finding: FindingView) -> list[Text]:
    """The first remedy, without cost and source."""
    first = finding.remedies[:1]
    return [
        line for remedy in first for line in page.wrap(f"try: {remedy.summary}.", indent=7, max_lines=MAX_ROW_LINES)
    ]


def _make_foot(page: TextPage, record: Record, more: str) -> list[str | Text]:
    """What was assumed without evidence, and where the rest is."""
    lines: list[str | Text] = [""]
    assumed = _list_open_assumptions(record)
    if assumed:
        lines += page.wrap(f"Assumed, not known: {', '.join(assumed)}.", max_lines=MAX_ROW_LINES)
    return lines + list(page.wrap(more, max_lines=MAX_ROW_LINES))


def _list_open_assumptions(record: Record) -> list[str]:
    """ "output activation tanh" for every assumption that is a default or undecided."""
    rows = []
    for entry in record.subject.get("assumptions") or ():
        if str(entry.get("source", "")).split(" ")[0] in OPEN_SOURCES:
            label, value = entry.get("label") or entry.get("what"), entry.get("data", entry.get("value"))
            rows.append(
                f"{formatting.escape_unprintable(label)} {formatting.escape_unprintable(format_assumed(value))}"
            )
    return rows
