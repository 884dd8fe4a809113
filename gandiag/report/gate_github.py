"""A gate's result as GitHub workflow commands: one annotation a failure, at the line of the policy that failed.

    ::error file=gandiag.toml,line=7,title=recall::runs/042.json: recall is 0.31 [0.28, 0.34] and must be at least 0.6

A log line that starts with `::` is a command, so nothing that a checkpoint says may start one: text is escaped as GitHub's
own toolkit does it (% and line ends; in properties also `:` and `,`), and the older `##[command]`, which counts anywhere in a
line, is broken up.
"""

from __future__ import annotations

from collections.abc import Sequence

from gandiag.errors import ExitCode
from gandiag.report import formatting
from gandiag.report.gate_text import RESULT_LABELS, describe_check, worst_exit_code
from gandiag.verdict.gate import GateResult
from gandiag.verdict.limits import Check


def render_github(results: Sequence[GateResult]) -> str:
    """Annotations, then one plain line for the log."""
    lines = [line for one in results for line in _annotations(one)]
    failed = sum(not one.passed for one in results)
    lines += [f"{RESULT_LABELS[one.code]} {_message(one.subject)}" for one in results]
    return (
        "\n".join([*lines, f"gate: {failed} of {len(results)} failed, exit code {int(worst_exit_code(results))}"])
        + "\n"
    )


def _annotations(one: GateResult) -> list[str]:
    if one.error is not None:
        return [_command("error", "could not be judged", f"{one.subject}: {one.error.message}. {one.error.hint}")]
    found = [
        _command("error", f"{one.subject}: {check.key}", _told(one, check), check.where) for check in one.failures()
    ]
    found += [
        _command("warning", f"{one.subject}: {check.key}", _told(one, check), check.where)
        for check in one.checks
        if check.allowed
    ]
    found += [_command("notice", one.subject, remark) for remark in one.remarks]
    if one.code == ExitCode.OK:
        found += [_command("warning", f"{one.subject}: {finding.rule}", finding.text) for finding in one.findings()]
    return found


def _told(one: GateResult, check: Check) -> str:
    why = " ".join(f"{finding.rule}: {finding.text}" for finding in one.findings()[:3])
    return f"{describe_check(check)}." + (f" {why}" if not check.ok and why else "")


def _command(level: str, title: str, text: str, where: str = "") -> str:
    properties = {"title": title}
    file, _, line = where.rpartition(":")
    if file and line.isdigit():
        properties = {"file": file, "line": line, **properties}
    told = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::{level} {told}::{_message(text)}"


def _message(text: str) -> str:
    # Line ends are gone after `clean`, which shows them as \\n.
    return formatting.escape_unprintable(text).replace("%", "%25").replace("##[", "# #[")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")
