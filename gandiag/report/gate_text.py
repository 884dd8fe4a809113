"""What a gate decided, as text and as JSON: one block a subject, what failed first. Needs the standard library alone, so that it starts at once."""

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
    """The worst code of several: 2 over 1 over 3 over 0."""
    return ExitCode.worst([one.code for one in results])


def format_check_value(check: Check) -> str:
    """The number with its interval: "0.48 [0.44, 0.52]"."""
    form = formatting.format_score if check.value is None or 0 <= check.value <= 1 else formatting.format_number
    return f"{form(check.value)} {formatting.format_interval(check.low, check.high, form)}".rstrip()


def format_check_state(check: Check) -> str:
    """The state in one or two words; "allowed" where the policy lets it pass."""
    return f"{STATE_LABELS[check.state]}, allowed" if check.allowed else STATE_LABELS[check.state]


def describe_check(check: Check) -> str:
    """One check as a sentence: "score is 0.48 [0.44, 0.52] and must be below 0.15"."""
    told = (
        formatting.escape_unprintable(check.key)
        + (f" is {format_check_value(check)} and" if check.value is not None else "")
        + f" must be {check.must}"
    )
    return told + (f": {formatting.escape_unprintable(check.reason)}" if check.reason else "")


def render_gate_text(results: Sequence[GateResult]) -> str:
    """For a terminal or a log; ends with one line that says what the exit code means."""
    blocks = [_block(one) for one in sorted(results, key=lambda one: one.code == ExitCode.OK)]
    failed = sum(not one.passed for one in results)
    total = f"{failed} of {len(results)} failed" if failed else f"{len(results)} passed"
    return "\n\n".join([*blocks, f"gate: {total}, exit code {int(worst_exit_code(results))}"]) + "\n"


def _block(one: GateResult) -> str:
    lines = [
        f"{RESULT_LABELS[one.code]}  {formatting.escape_unprintable(one.subject)}"
        + ("" if one.record is None else f"  {formatting.format_verdict(one.record)}")
    ]
    if one.error is not None:
        lines += _wrapped("  error: ", one.error.message) + (
            _wrapped("  hint:  ", one.error.hint) if one.error.hint else []
        )
    order = {check: at for at, check in enumerate(one.failures())}
    checks = sorted(one.checks, key=lambda check: order.get(check, len(order)))
    widths = [max((len(cell) for cell in column), default=0) for column in zip(*map(_cells, checks), strict=True)]
    for check in checks:
        lines.append(
            "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(_cells(check), widths, strict=True)).rstrip()
        )
        lines += _wrapped("      ", check.reason) if check.reason and check.state != "passed" else []
    if not one.passed:
        for finding in one.findings():
            lines += _wrapped(f"  {finding.rule}  ", finding.text)
    for remark in one.remarks:
        lines += _wrapped("  note: ", remark)
    return "\n".join(lines)


def _cells(check: Check) -> tuple[str, ...]:
    must = check.must if check.must == "absent" else f"must be {check.must}"
    return (
        format_check_state(check),
        formatting.escape_unprintable(check.key),
        format_check_value(check),
        must,
        formatting.escape_unprintable(check.where),
    )


def _wrapped(head: str, text: str) -> list[str]:
    return textwrap.wrap(
        formatting.escape_unprintable(text),
        WIDTH,
        initial_indent=formatting.escape_unprintable(head),
        subsequent_indent=" " * len(head),
        break_long_words=False,
    )


def render_gate_json(results: Sequence[GateResult]) -> str:
    """One document, schema gandiag.gate/1: the code, and each subject with its checks."""
    document = {
        "schema": SCHEMA,
        "code": int(worst_exit_code(results)),
        "subjects": [_document(one) for one in results],
    }
    return json.dumps(to_json_value(document), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def _document(one: GateResult) -> dict[str, Any]:
    record = one.record
    return {
        "subject": one.subject,
        "code": int(one.code),
        "checks": one.checks,
        "remarks": one.remarks,
        "verdict": None if record is None else record.verdict,
        "score": None if record is None else record.score,
        "findings": [
            {"rule": finding.rule, "level": finding.level, "text": finding.text}
            for finding in (record.findings if record else ())
        ],
        "error": None if one.error is None else {"what": one.error.message, "hint": one.error.hint},
    }
