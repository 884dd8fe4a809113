"""A comparison of two records, as text, Markdown or JSON: what got worse first, then what got better, then what only moved."""

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


@dataclass(frozen=True, slots=True)
class ComparisonReport:
    """What there is to show: the two names, the comparison, and the score held against the most that it may regress."""

    old: str
    new: str
    comparison: Comparison
    check: Check

    @property
    def exit_code(self) -> ExitCode:
        """1 where the score got worse by more than it may, 3 where that cannot be told, else 0."""
        if self.check.ok:
            return ExitCode.OK
        return ExitCode.COLLAPSED if self.check.state == "violated" else ExitCode.INSUFFICIENT

    def sorted_changes(self) -> list[Change]:
        """The score, then by direction; the order of the record within one."""
        return sorted(
            self.comparison.changes, key=lambda change: (change.key != "score", DIRECTION_ORDER.index(change.direction))
        )


def render_comparison(report: ComparisonReport, format_name: str, *, verbose: bool = False) -> str:
    """The comparison in a format by name."""
    if format_name not in COMPARISON_FORMATS:
        raise ConfigError(
            f"there is no format called {format_name!r}", close_match_hint(format_name, list(COMPARISON_FORMATS))
        )
    return COMPARISON_FORMATS[format_name](report, verbose)


def _text(compared: ComparisonReport, verbose: bool) -> str:
    shown, hidden = _shown(compared, verbose)
    lines = [
        f"{RESULT_LABELS[compared.check.state]}  {formatting.escape_unprintable(compared.old)} → {formatting.escape_unprintable(compared.new)}",
        *textwrap.wrap(_sentence(compared), 100),
        "",
    ]
    rows = [("", "old", "new", "change", ""), *(_cells(change) for change in shown)]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines += [
        "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    lines += ["", f"{hidden} more are the same within their intervals (-v shows them)"] if hidden else []
    for remark in compared.comparison.remarks:
        lines += textwrap.wrap(
            formatting.escape_unprintable(remark), 100, initial_indent="note: ", subsequent_indent="      "
        )
    return "\n".join(lines) + "\n"


def _markdown(compared: ComparisonReport, verbose: bool) -> str:
    shown, hidden = _shown(compared, verbose)
    lines = [
        f"## {RESULT_LABELS[compared.check.state]}: {code_span(compared.old)} → {code_span(compared.new)}",
        "",
        escape_markdown(_sentence(compared)),
        "",
    ]
    lines += format_table(
        ("number", "old", "new", "change", ""),
        [tuple(code_span(cell) if cell else "" for cell in _cells(change)) for change in shown],
    )
    lines += [f"{hidden} more are the same within their intervals.", ""] if hidden else []
    return (
        "\n".join([*lines, *(f"- {escape_markdown(remark)}" for remark in compared.comparison.remarks)]).rstrip() + "\n"
    )


def _json(compared: ComparisonReport, verbose: bool) -> str:
    changes = {change.key: _document(change) for change in compared.comparison.changes}
    document = {
        "schema": SCHEMA,
        "code": int(compared.exit_code),
        "old": compared.old,
        "new": compared.new,
        "regress": compared.check,
        "remarks": compared.comparison.remarks,
        "changes": changes,
    }
    return json.dumps(to_json_value(document), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def _document(change: Change) -> Mapping[str, Any]:
    rows = {
        name: {"value": found.value, "low": found.low, "high": found.high}
        for name, found in (("old", change.old), ("new", change.new))
    }
    difference = {name: getattr(change, name) for name in ("delta", "low", "high", "better", "direction", "paired")}
    return {**rows, **difference}


def _sentence(compared: ComparisonReport) -> str:
    change, check = compared.comparison.change("score"), compared.check
    if change is None:
        return "There is no score in both records: nothing can be said of a regression."
    told = f"The collapse score went from {_number(change.old)} to {_number(change.new)}: {_signed(change)}, and may get worse by {check.must.split(',')[0]}."
    return told + (
        " The interval of the difference uses the replicates that both records hold." if change.paired else ""
    )


def _shown(compared: ComparisonReport, verbose: bool) -> tuple[list[Change], int]:
    shown = [
        change for change in compared.sorted_changes() if verbose or change.key == "score" or change.direction != "same"
    ]
    return shown, len(compared.comparison.changes) - len(shown)


def _cells(change: Change) -> tuple[str, ...]:
    return (
        formatting.escape_unprintable(change.key),
        _number(change.old),
        _number(change.new),
        _signed(change),
        change.direction,
    )


def _number(found: RecordValue) -> str:
    return formatting.format_estimate(
        {"value": found.value, "low": found.low, "high": found.high}, formatting.format_number
    )


def _signed(change: Change) -> str:
    fact = change.low == change.high
    return (
        _plus(change.delta)
        if fact
        else f"{_plus(change.delta)} {formatting.format_interval(change.low, change.high, _plus)}"
    )


def _plus(value: float) -> str:
    return ("+" if value > 0 else "") + formatting.format_number(value).replace("-", "−")


COMPARISON_FORMATS: Mapping[str, Callable[[ComparisonReport, bool], str]] = {
    "text": _text,
    "json": _json,
    "markdown": _markdown,
}
