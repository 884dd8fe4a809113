"""Renders a gate's result as GitHub workflow commands: one annotation per failure, at the line of the policy.

    ::error file=gandiag.toml,line=7,title=recall::runs/042.json: recall is 0.31 [0.28, 0.34] and must be at least 0.6

A log line that starts with `::` is a command, so no string of a checkpoint may start one: text is escaped as in
GitHub's own toolkit (% and line ends; in properties also `:` and `,`), and the older `##[command]`, which works
anywhere in a line, is broken up.
"""

from __future__ import annotations

from collections.abc import Sequence

from gandiag.errors import ExitCode
from gandiag.report import formatting
from gandiag.report.gate_text import RESULT_LABELS, describe_check, worst_exit_code
from gandiag.verdict.gate import GateResult
from gandiag.verdict.limits import Check

MAX_FINDINGS = 3  # per annotation


def render_github(results: Sequence[GateResult]) -> str:
    """Render annotations, then a plain line per subject and one with the exit code."""
    n_failed = sum(not result.passed for result in results)
    lines = [
        *(line for result in results for line in _annotate(result)),
        *(f"{RESULT_LABELS[result.code]} {_escape_message(result.subject)}" for result in results),
        f"gate: {n_failed} of {len(results)} failed, exit code {int(worst_exit_code(results))}",
    ]
    return "\n".join(lines) + "\n"


def _annotate(result: GateResult) -> list[str]:
    subject, error = result.subject, result.error
    if error is not None:
        return [_format_command("error", "cannot be evaluated", f"{subject}: {error.message}. {error.hint}")]
    lines = [_annotate_check("error", result, check) for check in result.failures()]
    lines += [_annotate_check("warning", result, check) for check in result.checks if check.allowed]
    lines += [_format_command("notice", subject, remark) for remark in result.remarks]
    if result.code == ExitCode.OK:
        lines += [
            _format_command("warning", f"{subject}: {finding.rule}", finding.text) for finding in result.findings()
        ]
    return lines


def _annotate_check(level: str, result: GateResult, check: Check) -> str:
    causes = " ".join(f"{finding.rule}: {finding.text}" for finding in result.findings()[:MAX_FINDINGS])
    text = f"{describe_check(check)}." + (f" {causes}" if not check.ok and causes else "")
    return _format_command(level, f"{result.subject}: {check.key}", text, check.where)


def _format_command(level: str, title: str, text: str, where: str = "") -> str:
    properties = {"title": title}
    file, _, line = where.rpartition(":")
    if file and line.isdigit():
        properties = {"file": file, "line": line, **properties}
    joined = ",".join(f"{name}={_escape_property(value)}" for name, value in properties.items())
    return f"::{level} {joined}::{_escape_message(text)}"


def _escape_message(text: str) -> str:
    # escape_unprintable has turned line ends into \\n already.
    return formatting.escape_unprintable(text).replace("%", "%25").replace("##[", "# #[")


def _escape_property(text: str) -> str:
    return _escape_message(text).replace(":", "%3A").replace(",", "%2C")
