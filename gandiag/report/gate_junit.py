"""Renders a gate's result as JUnit XML, in the dialect of Jenkins' xUnit plug-in (junit-10.xsd).

GitLab and GitHub actions read it too.

One testsuite per subject, one testcase per check. Violations are failures; undecided checks are errors, because skipped
tests count as passed in most dashboards; what the policy allows is skipped. Values are in system-out, which all viewers
show.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape, quoteattr

from gandiag.report import formatting
from gandiag.report.gate_text import describe_check, format_check_value
from gandiag.verdict.gate import GateResult
from gandiag.verdict.limits import Check

_ILLEGAL_CHARACTERS = re.compile(r"[^\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TOTALS = ("tests", "failures", "errors")


def render_junit(results: Sequence[GateResult]) -> str:
    """Render the XML document."""
    suites = [_format_suite(result) for result in results]
    totals = {name: sum(_count_outcomes(result)[name] for result in results) for name in _TOTALS}
    head = f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="gandiag" {_format_counts(totals)}>\n'
    return head + "".join(suites) + "</testsuites>\n"


def _format_suite(result: GateResult) -> str:
    verdict = "error" if result.record is None else result.record.verdict
    properties = [("subject", result.subject), ("verdict", verdict)]
    properties += [("remark", remark) for remark in result.remarks]
    name, counts = _quote(result.subject), _format_counts(_count_outcomes(result))
    parts = [
        f'  <testsuite name={name} {counts} time="0">\n    <properties>\n',
        *(f"      <property name={_quote(key)} value={_quote(value)}/>\n" for key, value in properties),
        "    </properties>\n",
        _format_error(result),
        *(_format_case(result, check) for check in result.checks),
        "  </testsuite>\n",
    ]
    return "".join(parts)


def _count_outcomes(result: GateResult) -> dict[str, int]:
    has_error = result.error is not None
    return {
        "tests": len(result.checks) + has_error,
        "failures": sum(check.state == "violated" for check in result.checks),
        "errors": sum(not check.ok and check.state != "violated" for check in result.checks) + has_error,
        "skipped": sum(check.allowed for check in result.checks),
    }


def _format_counts(counts: Mapping[str, int]) -> str:
    return " ".join(f'{name}="{count}"' for name, count in counts.items())


def _format_error(result: GateResult) -> str:
    """The testcase of a subject that could not be evaluated; empty if it could."""
    if result.error is None:
        return ""
    kind, message = _quote(type(result.error).__name__), _quote(result.error.message)
    error = f"<error type={kind} message={message}>{_escape_text(str(result.error))}</error>"
    return f'    <testcase classname="gandiag" name="evaluation" time="0">\n      {error}\n    </testcase>\n'


def _format_case(result: GateResult, check: Check) -> str:
    class_name, name = _quote(_class_name(check)), _quote(f"{check.key} {check.must}")
    where = f"\npolicy: {check.where}" if check.where else ""
    output = _escape_text(f"{check.key} {format_check_value(check)} must be {check.must}{where}")
    return (
        f'    <testcase classname={class_name} name={name} time="0">\n'
        f"{_format_outcome(result, check, where)}      <system-out>{output}</system-out>\n    </testcase>\n"
    )


def _format_outcome(result: GateResult, check: Check, where: str) -> str:
    """The skipped, failure or error element; empty for a passed check."""
    message = _quote(describe_check(check))
    if check.allowed:
        return f"      <skipped message={message}/>\n"
    if check.ok:
        return ""
    tag = "failure" if check.state == "violated" else "error"
    causes = "\n".join(f"{finding.rule} {finding.text}" for finding in result.findings())
    text = f"{_escape_text(describe_check(check) + where)}\n{_escape_text(causes)}"
    return f"      <{tag} type={_quote(check.state)} message={message}>{text}</{tag}>\n"


def _class_name(check: Check) -> str:
    """The group that viewers fold by: gandiag.profile, gandiag.score …"""
    return "gandiag." + re.split(r"[.\[@]", check.key)[0]


def _quote(text: str) -> str:
    return quoteattr(_replace_illegal(formatting.escape_unprintable(text)))


def _escape_text(text: str) -> str:
    return escape(_replace_illegal(formatting.escape_lines(text)))


def _replace_illegal(text: str) -> str:
    """Replace what XML 1.0 cannot hold."""
    return "\n".join(_ILLEGAL_CHARACTERS.sub("�", line) for line in text.split("\n"))
