"""A gate's result as JUnit XML, the dialect of Jenkins' xUnit plug-in (junit-10.xsd) that GitLab and GitHub actions read too.

One testsuite a subject, one testcase a check: violations are failures, what could not be told is an error (a skipped test
passes in most dashboards), what the policy allows is skipped. Values stand in system-out, where every viewer shows them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

from gandiag.report import formatting
from gandiag.report.gate_text import describe_check, format_check_value
from gandiag.verdict.gate import GateResult
from gandiag.verdict.limits import Check

_ILLEGAL = re.compile(r"[^\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render_junit(results: Sequence[GateResult]) -> str:
    """The XML document."""
    suites = [_suite(one) for one in results]
    counts = {name: sum(_counts(one)[name] for one in results) for name in ("tests", "failures", "errors")}
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="gandiag" {_attributes(counts)}>\n'
        + "".join(suites)
        + "</testsuites>\n"
    )


def _suite(one: GateResult) -> str:
    verdict = "error" if one.record is None else one.record.verdict
    rows = [_property("subject", one.subject), _property("verdict", verdict)] + [
        _property("remark", remark) for remark in one.remarks
    ]
    head = f'  <testsuite name={_quoted(one.subject)} {_attributes(_counts(one))} time="0">\n    <properties>\n{"".join(rows)}    </properties>\n'
    return head + _refusal(one) + "".join(_case(one, check) for check in one.checks) + "  </testsuite>\n"


def _counts(one: GateResult) -> dict[str, int]:
    failures = sum(check.state == "violated" for check in one.checks)
    errors = sum(not check.ok and check.state != "violated" for check in one.checks) + (one.error is not None)
    return {
        "tests": len(one.checks) + (one.error is not None),
        "failures": failures,
        "errors": errors,
        "skipped": sum(check.allowed for check in one.checks),
    }


def _attributes(counts: dict[str, int]) -> str:
    return " ".join(f'{name}="{count}"' for name, count in counts.items())


def _refusal(one: GateResult) -> str:
    if one.error is None:
        return ""
    told = f"<error type={_quoted(type(one.error).__name__)} message={_quoted(one.error.message)}>{_text(str(one.error))}</error>"
    return f'    <testcase classname="gandiag" name="could be judged" time="0">\n      {told}\n    </testcase>\n'


def _case(one: GateResult, check: Check) -> str:
    where = f"\npolicy: {check.where}" if check.where else ""
    inside = ""
    if check.allowed:
        inside = f"      <skipped message={_quoted(describe_check(check))}/>\n"
    elif not check.ok:
        kind = "failure" if check.state == "violated" else "error"
        why = "\n".join(f"{finding.rule} {finding.text}" for finding in one.findings())
        inside = f"      <{kind} type={_quoted(check.state)} message={_quoted(describe_check(check))}>{_text(describe_check(check) + where)}\n{_text(why)}</{kind}>\n"
    out = f"      <system-out>{_text(f'{check.key} {format_check_value(check)} must be {check.must}{where}')}</system-out>\n"
    return f'    <testcase classname={_quoted(_class(check))} name={_quoted(f"{check.key} {check.must}")} time="0">\n{inside}{out}    </testcase>\n'


def _class(check: Check) -> str:
    """The group that viewers fold by: gandiag.profile, gandiag.score …"""
    return "gandiag." + re.split(r"[.\[@]", check.key)[0]


def _property(name: str, value: str) -> str:
    return f"      <property name={_quoted(name)} value={_quoted(value)}/>\n"


def _quoted(text: str) -> str:
    return quoteattr(_legal(formatting.escape_unprintable(text)))


def _text(text: str) -> str:
    return escape("\n".join(_legal(formatting.escape_unprintable(line)) for line in text.split("\n")))


def _legal(text: str) -> str:
    """Without what XML 1.0 cannot hold."""
    return _ILLEGAL.sub("�", text)
