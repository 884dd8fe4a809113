"""Markdown for pull requests, job summaries and wikis: a record, or a gate's result.

Every string of a checkpoint is either inside a code span, whose fence is longer than any run of backticks in it, or has each
of its marks escaped; pipes are escaped for tables. GitHub, GitLab and CommonMark show them as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from gandiag.record import Finding, Record
from gandiag.report import formatting, measurement_table
from gandiag.report.gate_text import RESULT_LABELS, format_check_state, format_check_value, worst_exit_code
from gandiag.verdict.gate import GateResult

_MARKS = re.compile(r"([\\`*_\[\]<>#!|~&$])")
_LINKS = (
    ("://", "&#58;//"),
    ("www.", "www&#46;"),
    ("@", "@\u200b"),
)  # what GitHub turns into links and mentions by itself


def code_span(text: object) -> str:
    """A code span that holds exactly this text."""
    safe = formatting.escape_unprintable(text).replace("|", "\\|") or " "
    fence = "`" * (max((len(run) for run in re.findall("`+", safe)), default=0) + 1)
    return f"{fence} {safe} {fence}" if "`" in safe else f"{fence}{safe}{fence}"


def escape_markdown(text: object) -> str:
    """Text whose marks mean nothing, and that mentions nobody."""
    safe = _MARKS.sub(r"\\\1", formatting.escape_unprintable(text))
    for plain, inert in _LINKS:
        safe = safe.replace(plain, inert)
    return safe


def format_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table; nothing where there are no rows."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}", *lines, ""] if lines else []


def render_markdown(record: Record) -> str:
    """A record: verdict, sentence, findings with what to try, profile, aspects, measurements."""
    caveat = formatting.describe_caveat(record)
    lines = [
        f"## {formatting.format_verdict(record)} {code_span(formatting.format_subject(record))}"
        if record.verdict in formatting.VERDICT_LABELS
        else f"## {code_span(formatting.format_verdict(record))}",
        "",
    ]
    lines += [
        escape_markdown(formatting.summarize_record(record)) + (f" ({escape_markdown(caveat)})" if caveat else ""),
        "",
    ]
    lines += [line for finding in formatting.sort_findings(record) for line in _finding(finding)]
    for title, section in (("Where the variety went", record.profile), ("Which aspect", record.aspects)):
        lines += format_table(
            (title, "share lost"),
            [(code_span(name), code_span(formatting.format_estimate(entry))) for name, entry in section.items()],
        )
    telling, _ = measurement_table.split_measurements(record)
    rows = [
        (
            code_span(key),
            code_span(
                formatting.format_estimate(
                    {"value": row.value, "low": row.low, "high": row.high}, formatting.format_number
                )
            ),
            code_span(formatting.format_number(row.floor)),
            formatting.DIRECTION_SYMBOLS.get(row.better, formatting.NOT_AVAILABLE),
        )
        for key, row in telling
    ]
    lines += format_table(("measurement", "value", "real against real", "better"), rows)
    missing = [
        f"- {code_span(keys)}: {escape_markdown(reason)}"
        for keys, reason in formatting.group_missing_measurements(record)
    ]
    return "\n".join([*lines, *(["Not measured:", "", *missing, ""] if missing else [])]).rstrip() + "\n"


def _finding(finding: Finding, remedies: int = 2) -> list[str]:
    lines = [
        f"- **{formatting.LEVEL_LABELS.get(finding.level, 'note')}** {code_span(finding.rule)} {escape_markdown(finding.text)}"
    ]
    lines += [
        f"  - try {rank}: {escape_markdown(_remedy(remedy))}"
        for rank, remedy in enumerate(finding.remedies[:remedies], 1)
    ]
    return [*lines, ""]


def _remedy(remedy: Mapping[str, object]) -> str:
    told = formatting.format_value(remedy.get("title") or remedy.get("key"))
    return (
        f"{told}. {formatting.capitalize_first(formatting.format_value(remedy['why']))}" if remedy.get("why") else told
    )


def render_gate_markdown(results: Sequence[GateResult]) -> str:
    """A gate's result: one table, then for each failure what was found and what to try."""
    failed = [one for one in results if not one.passed]
    title = f"{len(failed)} of {len(results)} failed" if failed else f"{len(results)} passed"
    lines = [f"## gandiag gate: {title} (exit code {int(worst_exit_code(results))})", ""]
    rows = [row for one in sorted(results, key=lambda one: one.passed) for row in _rows(one)]
    lines += format_table(("", "subject", "verdict", "check", "measured", "must be", "policy"), rows)
    for one in results:
        lines += _details(one)
    return "\n".join(lines).rstrip() + "\n"


def _rows(one: GateResult) -> list[tuple[str, ...]]:
    verdict = "" if one.record is None else formatting.VERDICT_LABELS.get(one.record.verdict, "")
    if one.error is not None:
        return [(RESULT_LABELS[one.code], code_span(one.subject), "", "", "", "", "")]
    checks = [*one.failures(), *(check for check in one.checks if check.ok)]
    return [
        (
            escape_markdown(format_check_state(check))
            if check.ok
            else f"**{escape_markdown(format_check_state(check))}**",
            code_span(one.subject),
            verdict,
            code_span(check.key),
            code_span(format_check_value(check)),
            escape_markdown(check.must),
            code_span(check.where) if check.where else "",
        )
        for check in checks
    ]


def _details(one: GateResult) -> list[str]:
    lines = (
        []
        if one.error is None
        else [f"- {code_span(one.subject)} {escape_markdown(one.error.message)}. {escape_markdown(one.error.hint)}", ""]
    )
    lines += [
        f"- {code_span(one.subject)} {code_span(check.key)}: {escape_markdown(check.reason)}"
        for check in one.failures()
        if check.reason
    ]
    lines += [f"- {escape_markdown(remark)}" for remark in one.remarks]
    found = [line for finding in one.findings() for line in _finding(finding)] if not one.passed else []
    return [*lines, *([""] if lines else []), *([f"### {code_span(one.subject)}", "", *found] if found else [])]
