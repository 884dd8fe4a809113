"""Renders a comparison of two records as text, Markdown or JSON: what got worse, what got better, what only changed."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gandiag.errors import ConfigError, ExitCode, close_match_hint
from gandiag.record import to_json_value
from gandiag.report import formatting
from gandiag.report.markdown import code_span, escape_markdown, format_table
from gandiag.verdict.compare import Change, Comparison
from gandiag.verdict.limits import Check, RecordValue

SCHEMA = "gandiag.compare/1"
RESULT_LABELS = {"violated": "REGRESSED", "passed": "NO REGRESSION", "inconclusive": "UNCLEAR", "unmeasured": "UNCLEAR"}
DIRECTION_ORDER = ("worse", "better", "moved", "same")
WIDTH = 100


@dataclass(frozen=True, slots=True)
class ComparisonReport:
    """The two names, the comparison, and the check of the score against the largest allowed regression."""

    old: str
    new: str
    comparison: Comparison
    check: Check

    @property
    def exit_code(self) -> ExitCode:
        """1 if the score regressed by more than allowed, 3 if that is undecided, else 0."""
        if self.check.ok:
            return ExitCode.OK
        return ExitCode.COLLAPSED if self.check.state == "violated" else ExitCode.INSUFFICIENT

    def sorted_changes(self) -> list[Change]:
        """The score first, then by direction; within one direction, in the order of the record."""
        return sorted(
            self.comparison.changes, key=lambda change: (change.key != "score", DIRECTION_ORDER.index(change.direction))
        )

    def visible_changes(self, verbose: bool) -> tuple[list[Change], int]:
        """The changes to show, and how many others stayed the same; verbose shows all."""
        visible = [
            change for change in self.sorted_changes() if verbose or change.key == "score" or change.direction != "same"
        ]
        return visible, len(self.comparison.changes) - len(visible)


def render_comparison(report: ComparisonReport, format_name: str, *, verbose: bool = False) -> str:
    """Render in "text", "markdown" or "json"; ConfigError for other names."""
    if format_name not in COMPARISON_FORMATS:
        raise ConfigError(
            f"there is no format called {format_name!r}", close_match_hint(format_name, list(COMPARISON_FORMATS))
        )
    return COMPARISON_FORMATS[format_name](report, verbose)


def _render_text(report: ComparisonReport, verbose: bool) -> str:
    visible, n_hidden = report.visible_changes(verbose)
    old, new = (formatting.escape_unprintable(name) for name in (report.old, report.new))
    rows = [("", "old", "new", "change", ""), *(build_cells(change) for change in visible)]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = [
        f"{RESULT_LABELS[report.check.state]}  {old} → {new}",
        *textwrap.wrap(summarize(report), WIDTH),
        "",
        *(
            "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ),
    ]
    lines += ["", f"{n_hidden} more stayed the same within their intervals (-v shows them)"] if n_hidden else []
    for remark in report.comparison.remarks:
        text = formatting.escape_unprintable(remark)
        lines += textwrap.wrap(text, WIDTH, initial_indent="note: ", subsequent_indent="      ")
    return "\n".join(lines) + "\n"


def _render_markdown(report: ComparisonReport, verbose: bool) -> str:
    visible, n_hidden = report.visible_changes(verbose)
    rows = [tuple(code_span(cell) if cell else "" for cell in build_cells(change)) for change in visible]
    lines = [
        f"## {RESULT_LABELS[report.check.state]}: {code_span(report.old)} → {code_span(report.new)}",
        "",
        escape_markdown(summarize(report)),
        "",
        *format_table(("number", "old", "new", "change", ""), rows),
    ]
    lines += [f"{n_hidden} more stayed the same within their intervals.", ""] if n_hidden else []
    lines += [f"- {escape_markdown(remark)}" for remark in report.comparison.remarks]
    return "\n".join(lines).rstrip() + "\n"


def _render_json(report: ComparisonReport, verbose: bool) -> str:
    document = {
        "schema": SCHEMA,
        "code": int(report.exit_code),
        "old": report.old,
        "new": report.new,
        "regress": report.check,
        "remarks": report.comparison.remarks,
        "changes": {change.key: _build_document(change) for change in report.comparison.changes},
    }
    return json.dumps(to_json_value(document), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def _build_document(change: Change) -> Mapping[str, Any]:
    values = {
        name: {"value": entry.value, "low": entry.low, "high": entry.high}
        for name, entry in (("old", change.old), ("new", change.new))
    }
    difference = {name: getattr(change, name) for name in ("delta", "low", "high", "better", "direction", "paired")}
    return {**values, **difference}


def summarize(report: ComparisonReport) -> str:
    """How the score changed, and by how much it may."""
    change = report.comparison.change("score")
    if change is None:
        return "At least one record has no score, so a regression cannot be checked."
    allowed = report.check.must.split(",")[0]
    text = (
        f"The collapse score went from {_format_value(change.old)} to {_format_value(change.new)}:"
        f" {_format_change(change)}."
        if change.delta or change.low != change.high
        else f"The collapse score did not change: {_format_value(change.new)}."
    )
    text += f" It may get worse by {allowed}."
    is_grouped = report.comparison.change("group_within") is not None
    paired = "pairs the groups" if is_grouped else "uses the paired replicates"
    return text + (f" The interval of the difference {paired} of both records." * change.paired)


def build_cells(change: Change) -> tuple[str, ...]:
    """Key, old and new value, difference and direction of one number."""
    key = formatting.escape_unprintable(change.key)
    return key, _format_value(change.old), _format_value(change.new), _format_change(change), change.direction


def _format_value(entry: RecordValue) -> str:
    estimate = {"value": entry.value, "low": entry.low, "high": entry.high}
    return formatting.format_estimate(estimate, formatting.format_number)


def _format_change(change: Change) -> str:
    """The difference with its sign, and with its interval unless both numbers are exact."""
    delta = _format_signed(change.delta)
    if change.low == change.high:
        return delta
    return f"{delta} {formatting.format_interval(change.low, change.high, _format_signed)}"


def _format_signed(value: float) -> str:
    number = int(value) if float(value).is_integer() and abs(value) < 1e9 else value
    return ("+" if value > 0 else "") + formatting.format_number(number).replace("-", "−")


COMPARISON_FORMATS: Mapping[str, Callable[[ComparisonReport, bool], str]] = {
    "text": _render_text,
    "json": _render_json,
    "markdown": _render_markdown,
}
