"""What a gate decided, as text and as JSON: one block a subject, what failed first. Needs the standard library alone, so that it starts at once."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from typing import Any

from gandiag.errors import ExitCode
from gandiag.judge.gate import Gated
from gandiag.judge.limits import Check
from gandiag.record import plain
from gandiag.report import words

SCHEMA = "gandiag.gate/1"
WORDS = {ExitCode.OK: "PASS", ExitCode.COLLAPSED: "FAIL", ExitCode.INSUFFICIENT: "UNCLEAR", ExitCode.CANNOT_RUN: "ERROR"}
STATES = {"passed": "ok", "violated": "violated", "inconclusive": "unclear", "unmeasured": "unmeasured", "degeneracy": "no real data"}
WIDTH = 100


def code_of(gated: Sequence[Gated]) -> ExitCode:
    """The worst code of several: 2 over 1 over 3 over 0."""
    return ExitCode.worst([one.code for one in gated])


def measured(check: Check) -> str:
    """The number with its interval: "0.48 [0.44, 0.52]"."""
    form = words.score2 if check.value is None or 0 <= check.value <= 1 else words.number
    return f"{form(check.value)} {words.interval(check.low, check.high, form)}".rstrip()


def state(check: Check) -> str:
    """The state in one or two words; "allowed" where the policy lets it pass."""
    return f"{STATES[check.state]}, allowed" if check.allowed else STATES[check.state]


def sentence(check: Check) -> str:
    """One check as a sentence: "score is 0.48 [0.44, 0.52] and must be below 0.15"."""
    told = words.clean(check.key) + (f" is {measured(check)} and" if check.value is not None else "") + f" must be {check.must}"
    return told + (f": {words.clean(check.reason)}" if check.reason else "")


def render_text(gated: Sequence[Gated]) -> str:
    """For a terminal or a log; ends with one line that says what the exit code means."""
    blocks = [_block(one) for one in sorted(gated, key=lambda one: one.code == ExitCode.OK)]
    failed = sum(not one.passed for one in gated)
    total = f"{failed} of {len(gated)} failed" if failed else f"{len(gated)} passed"
    return "\n\n".join([*blocks, f"gate: {total}, exit code {int(code_of(gated))}"]) + "\n"


def _block(one: Gated) -> str:
    lines = [f"{WORDS[one.code]}  {words.clean(one.subject)}" + ("" if one.record is None else f"  {words.verdict(one.record)}")]
    if one.error is not None:
        lines += _wrapped("  error: ", one.error.what) + (_wrapped("  hint:  ", one.error.hint) if one.error.hint else [])
    order = {check: at for at, check in enumerate(one.failures())}
    checks = sorted(one.checks, key=lambda check: order.get(check, len(order)))
    widths = [max((len(cell) for cell in column), default=0) for column in zip(*map(_cells, checks), strict=True)]
    for check in checks:
        lines.append("  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(_cells(check), widths, strict=True)).rstrip())
        lines += _wrapped("      ", check.reason) if check.reason and check.state != "passed" else []
    if not one.passed:
        for finding in one.findings():
            lines += _wrapped(f"  {finding.rule}  ", finding.text)
    for remark in one.remarks:
        lines += _wrapped("  note: ", remark)
    return "\n".join(lines)


def _cells(check: Check) -> tuple[str, ...]:
    must = check.must if check.must == "absent" else f"must be {check.must}"
    return state(check), words.clean(check.key), measured(check), must, words.clean(check.where)


def _wrapped(head: str, text: str) -> list[str]:
    return textwrap.wrap(words.clean(text), WIDTH, initial_indent=words.clean(head), subsequent_indent=" " * len(head), break_long_words=False)


def render_json(gated: Sequence[Gated]) -> str:
    """One document, schema gandiag.gate/1: the code, and each subject with its checks."""
    document = {"schema": SCHEMA, "code": int(code_of(gated)), "subjects": [_document(one) for one in gated]}
    return json.dumps(plain(document), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def _document(one: Gated) -> dict[str, Any]:
    record = one.record
    return {
        "subject": one.subject, "code": int(one.code), "checks": one.checks, "remarks": one.remarks,
        "verdict": None if record is None else record.verdict, "score": None if record is None else record.score,
        "findings": [{"rule": finding.rule, "level": finding.level, "text": finding.text} for finding in (record.findings if record else ())],
        "error": None if one.error is None else {"what": one.error.what, "hint": one.error.hint},
    }  # fmt: skip
