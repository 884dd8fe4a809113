"""Renders a record or a gate's result as Markdown, for pull requests, job summaries and wikis.

Strings of a checkpoint are either inside a code span, whose fence is longer than any run of backticks in it, or have
all Markdown characters escaped; pipes are escaped for tables. GitHub, GitLab and CommonMark then show them as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from gandiag.record import Finding, Record
from gandiag.report import formatting, group_view, measurement_view
from gandiag.report.finding_view import FindingView, build_findings, sort_findings
from gandiag.report.gate_text import RESULT_LABELS, format_check_state, format_check_value, worst_exit_code
from gandiag.verdict.gate import GateResult
from gandiag.verdict.limits import Check

_SPECIAL_CHARACTERS = re.compile(r"([\\`*_\[\]<>#!|~&$])")
# What GitHub turns into links and mentions on its own.
_AUTOLINKS = (("://", "&#58;//"), ("www.", "www&#46;"), ("@", "@\u200b"))
MAX_REMEDIES = 2
MAX_GROUPS = 20  # the worst ones


def code_span(text: object) -> str:
    """A code span that holds exactly this text."""
    safe = formatting.escape_unprintable(text).replace("|", "\\|") or " "
    fence = "`" * (max((len(run) for run in re.findall("`+", safe)), default=0) + 1)
    return f"{fence} {safe} {fence}" if "`" in safe else f"{fence}{safe}{fence}"


def escape_markdown(text: object) -> str:
    """Text without Markdown meaning, links or mentions."""
    safe = _SPECIAL_CHARACTERS.sub(r"\\\1", formatting.escape_unprintable(text))
    for link, inert in _AUTOLINKS:
        safe = safe.replace(link, inert)
    return safe


def format_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table; none without rows."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}", *lines, ""] if lines else []


def render_markdown(record: Record) -> str:
    """Render a record: verdict, score, findings with remedies, profile, aspects, measurements, and what is missing."""
    caveat, label = formatting.describe_caveat(record), formatting.format_verdict(record)
    is_known = record.verdict in formatting.VERDICT_LABELS
    lines = [
        f"## {label} {code_span(formatting.format_subject(record))}" if is_known else f"## {code_span(label)}",
        "",
        escape_markdown(formatting.summarize_record(record)) + (f" ({escape_markdown(caveat)})" if caveat else ""),
        "",
        *_format_findings(sort_findings(record)),
    ]
    groups = group_view.build_group_rows(record)[:MAX_GROUPS]
    shown = [[code_span(text) for text in (row.name, row.kept, row.counts, row.state or "–")] for row in groups]
    lines += format_table(("Group, worst first", "kept", "samples", "state"), shown)
    for title, entries in (("Where variety is lost", record.profile), ("Image aspect", record.aspects)):
        rows = [(code_span(name), code_span(formatting.format_estimate(entry))) for name, entry in entries.items()]
        lines += format_table((title, "share lost"), rows)
    lines += _format_measurements(record)
    missing = [
        f"- {code_span(keys)}: {escape_markdown(reason)}"
        for keys, reason in measurement_view.group_missing_measurements(record)
    ]
    lines += ["Not measured:", "", *missing, ""] if missing else []
    return "\n".join(lines).rstrip() + "\n"


def _format_measurements(record: Record) -> list[str]:
    main_rows, _ = measurement_view.split_measurements(record)
    rows = [
        (code_span(row.key), code_span(f"{row.value} {row.interval}".rstrip()), code_span(row.floor), row.direction)
        for row in main_rows
    ]
    return format_table(("measurement", "value", "real against real", "better"), rows)


def _format_findings(findings: Sequence[Finding]) -> list[str]:
    return [line for finding in build_findings(findings, MAX_REMEDIES) for line in _format_finding(finding)]


def _format_finding(finding: FindingView) -> list[str]:
    return [
        f"- **{finding.short_label}** {code_span(finding.rule)} {escape_markdown(finding.text)}",
        *(f"  - try {rank}: {escape_markdown(remedy.summary)}" for rank, remedy in enumerate(finding.remedies, 1)),
        "",
    ]


def render_gate_markdown(results: Sequence[GateResult]) -> str:
    """Render a gate's result: one table of all checks, then the findings and remedies of each failure."""
    n_failed = sum(not result.passed for result in results)
    title = f"{n_failed} of {len(results)} failed" if n_failed else f"{len(results)} passed"
    lines = [f"## gandiag gate: {title} (exit code {int(worst_exit_code(results))})", ""]
    rows = [row for result in sorted(results, key=lambda result: result.passed) for row in _build_check_rows(result)]
    lines += format_table(("", "subject", "verdict", "check", "measured", "must be", "policy"), rows)
    for result in results:
        lines += _format_details(result)
    return "\n".join(lines).rstrip() + "\n"


def _build_check_rows(result: GateResult) -> list[tuple[str, ...]]:
    subject = code_span(result.subject)
    if result.error is not None:
        return [(RESULT_LABELS[result.code], subject, "", "", "", "", "")]
    verdict = "" if result.record is None else formatting.VERDICT_LABELS.get(result.record.verdict, "")
    checks = [*result.failures(), *(check for check in result.checks if check.ok)]
    return [_build_check_row(check, subject, verdict) for check in checks]


def _build_check_row(check: Check, subject: str, verdict: str) -> tuple[str, ...]:
    state = escape_markdown(format_check_state(check))
    return (
        state if check.ok else f"**{state}**",
        subject,
        verdict,
        code_span(check.key),
        code_span(format_check_value(check)),
        escape_markdown(check.must),
        code_span(check.where) if check.where else "",
    )


def _format_details(result: GateResult) -> list[str]:
    subject = code_span(result.subject)
    lines = []
    if result.error is not None:
        lines += [f"- {subject} {escape_markdown(result.error.message)}. {escape_markdown(result.error.hint)}", ""]
    lines += [
        f"- {subject} {code_span(check.key)}: {escape_markdown(check.reason)}"
        for check in result.failures()
        if check.reason
    ]
    lines += [f"- {escape_markdown(remark)}" for remark in result.remarks]
    lines += [""] if lines else []
    findings = [] if result.passed else _format_findings(result.findings())
    return [*lines, f"### {subject}", "", *findings] if findings else lines
