"""Renders a gate's result as text and as JSON: one block per subject, failures first.

Needs the standard library alone, so it starts fast.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from typing import Any

from gandiag.errors import ExitCode
from gandiag.record import to_json_value
from gandiag.report import formatting
from gandiag.verdict.gate import GateResult
from gandiag.verdict.limits import Check

SCHEMA = "gandiag.gate/1"
RESULT_LABELS = {
    ExitCode.OK: "PASS",
    ExitCode.COLLAPSED: "FAIL",
    ExitCode.INSUFFICIENT: "UNCLEAR",
    ExitCode.CANNOT_RUN: "ERROR",
}
STATE_LABELS = {
    "passed": "ok",
    "violated": "violated",
    "inconclusive": "unclear",
    "unmeasured": "unmeasured",
    "degeneracy": "no real data",
}
WIDTH = 100


def worst_exit_code(results: Sequence[GateResult]) -> ExitCode:
    """The worst exit code of all subjects: 2 over 1 over 3 over 0."""
    return ExitCode.worst([result.code for result in results])


def format_check_value(check: Check) -> str:
    """The number with its interval: "0.48 [0.44, 0.52]"."""
    formatter = formatting.format_number
    if check.value is None or 0 <= check.value <= 1:
        formatter = formatting.format_score
    return f"{formatter(check.value)} {formatting.format_interval(check.low, check.high, formatter)}".rstrip()


def format_check_state(check: Check) -> str:
    """The state in one or two words, with "allowed" if the policy accepts it."""
    return f"{STATE_LABELS[check.state]}, allowed" if check.allowed else STATE_LABELS[check.state]


def describe_check(check: Check) -> str:
    """The check as a sentence: "score is 0.48 [0.44, 0.52] and must be below 0.15"."""
    key = formatting.escape_unprintable(check.key)
    value = f" is {format_check_value(check)} and" if check.value is not None else ""
    reason = f": {formatting.escape_unprintable(check.reason)}" if check.reason else ""
    return f"{key}{value} must be {check.must}{reason}"


def render_gate_text(results: Sequence[GateResult]) -> str:
    """Render for a terminal or a log; the last line states the exit code."""
    blocks = [_format_block(result) for result in sorted(results, key=lambda result: result.code == ExitCode.OK)]
    n_failed = sum(not result.passed for result in results)
    total = f"{n_failed} of {len(results)} failed" if n_failed else f"{len(results)} passed"
    return "\n\n".join([*blocks, f"gate: {total}, exit code {int(worst_exit_code(results))}"]) + "\n"


def _format_block(result: GateResult) -> str:
    verdict = "" if result.record is None else f"  {formatting.format_verdict(result.record)}"
    lines = [f"{RESULT_LABELS[result.code]}  {formatting.escape_unprintable(result.subject)}{verdict}"]
    if result.error is not None:
        lines += _wrap("  error: ", result.error.message)
        lines += _wrap("  hint:  ", result.error.hint) if result.error.hint else []
    lines += _format_checks(result)
    if not result.passed:
        explained = {check.reason for check in result.checks if check.state != "passed"}
        for finding in result.findings():
            if finding.text in explained:  # printed below its check
                continue
            lines += _wrap(f"  {finding.rule}  ", finding.text)
    for remark in result.remarks:
        lines += _wrap("  note: ", remark)
    return "\n".join(lines)


def _format_checks(result: GateResult) -> list[str]:
    """A line per check in aligned columns, failures first, each followed by its reason."""
    order = {check: index for index, check in enumerate(result.failures())}
    checks = sorted(result.checks, key=lambda check: order.get(check, len(order)))
    rows = [_build_cells(check) for check in checks]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for check, row in zip(checks, rows, strict=True):
        lines.append("  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
        lines += _wrap("      ", check.reason) if check.reason and check.state != "passed" else []
    return lines


def _build_cells(check: Check) -> tuple[str, ...]:
    is_finding = check.must == "absent"
    return (
        format_check_state(check),
        formatting.escape_unprintable(check.key),
        ("not found" if check.state == "passed" else "found") if is_finding else format_check_value(check),
        f"must be {check.must}",
        formatting.escape_unprintable(check.where),
    )


def _wrap(head: str, text: str) -> list[str]:
    return textwrap.wrap(
        formatting.escape_unprintable(text),
        WIDTH,
        initial_indent=formatting.escape_unprintable(head),
        subsequent_indent=" " * len(head),
        break_long_words=False,
    )


def render_gate_json(results: Sequence[GateResult]) -> str:
    """Render one JSON document, schema gandiag.gate/1: the exit code, and each subject with its checks."""
    document = {
        "schema": SCHEMA,
        "code": int(worst_exit_code(results)),
        "subjects": [_build_document(result) for result in results],
    }
    return json.dumps(to_json_value(document), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def _build_document(result: GateResult) -> dict[str, Any]:
    record = result.record
    return {
        "subject": result.subject,
        "code": int(result.code),
        "checks": result.checks,
        "remarks": result.remarks,
        "verdict": None if record is None else record.verdict,
        "score": None if record is None else record.score,
        "findings": [
            {"rule": finding.rule, "level": finding.level, "text": finding.text}
            for finding in (record.findings if record else ())
        ],
        "error": None if result.error is None else {"what": result.error.message, "hint": result.error.hint},
    }
