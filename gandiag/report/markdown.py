"""Markdown for pull requests, job summaries and wikis: a record, or a gate's result.

Every string of a checkpoint is either inside a code span, whose fence is longer than any run of backticks in it, or has each
of its marks escaped; pipes are escaped for tables. GitHub, GitLab and CommonMark show them as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from gandiag.judge.gate import Gated
from gandiag.record import Finding, Record
from gandiag.report import numbers, words
from gandiag.report.verdicts import WORDS, code_of, measured, state

_MARKS = re.compile(r"([\\`*_\[\]<>#!|~&$])")
_LINKS = (("://", "&#58;//"), ("www.", "www&#46;"), ("@", "@\u200b"))  # what GitHub turns into links and mentions by itself


def code(text: object) -> str:
    """A code span that holds exactly this text."""
    safe = words.clean(text).replace("|", "\\|") or " "
    fence = "`" * (max((len(run) for run in re.findall("`+", safe)), default=0) + 1)
    return f"{fence} {safe} {fence}" if "`" in safe else f"{fence}{safe}{fence}"


def prose(text: object) -> str:
    """Text whose marks mean nothing, and that mentions nobody."""
    safe = _MARKS.sub(r"\\\1", words.clean(text))
    for plain, inert in _LINKS:
        safe = safe.replace(plain, inert)
    return safe


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table; nothing where there are no rows."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *lines, ""] if lines else []


def render_markdown(record: Record) -> str:
    """A record: verdict, sentence, findings with what to try, profile, aspects, measurements."""
    caveat = words.caveat(record)
    lines = [f"## {words.verdict(record)} {code(words.subject(record))}" if record.verdict in words.VERDICTS else f"## {code(words.verdict(record))}", ""]
    lines += [prose(words.sentence(record)) + (f" ({prose(caveat)})" if caveat else ""), ""]
    lines += [line for finding in words.findings(record) for line in _finding(finding)]
    for title, section in (("Where the variety went", record.profile), ("Which aspect", record.aspects)):
        lines += table((title, "share lost"), [(code(name), code(words.estimate(entry))) for name, entry in section.items()])
    telling, _ = numbers.split(record)
    rows = [(code(key), code(words.estimate({"value": row.value, "low": row.low, "high": row.high}, words.number)), code(words.number(row.floor)),
             words.BETTER.get(row.better, words.NONE)) for key, row in telling]  # fmt: skip
    lines += table(("measurement", "value", "real against real", "better"), rows)
    missing = [f"- {code(keys)}: {prose(reason)}" for keys, reason in words.unmeasured(record)]
    return "\n".join([*lines, *(["Not measured:", "", *missing, ""] if missing else [])]).rstrip() + "\n"


def _finding(finding: Finding, remedies: int = 2) -> list[str]:
    lines = [f"- **{words.LEVELS.get(finding.level, 'note')}** {code(finding.rule)} {prose(finding.text)}"]
    lines += [f"  - try {rank}: {prose(_remedy(remedy))}" for rank, remedy in enumerate(finding.remedies[:remedies], 1)]
    return [*lines, ""]


def _remedy(remedy: Mapping[str, object]) -> str:
    told = words.shown(remedy.get("title") or remedy.get("key"))
    return f"{told}. {words.capital(words.shown(remedy['why']))}" if remedy.get("why") else told


def render_gate(gated: Sequence[Gated]) -> str:
    """A gate's result: one table, then for each failure what was found and what to try."""
    failed = [one for one in gated if not one.passed]
    title = f"{len(failed)} of {len(gated)} failed" if failed else f"{len(gated)} passed"
    lines = [f"## gandiag gate: {title} (exit code {int(code_of(gated))})", ""]
    rows = [row for one in sorted(gated, key=lambda one: one.passed) for row in _rows(one)]
    lines += table(("", "subject", "verdict", "check", "measured", "must be", "policy"), rows)
    for one in gated:
        lines += _details(one)
    return "\n".join(lines).rstrip() + "\n"


def _rows(one: Gated) -> list[tuple[str, ...]]:
    verdict = "" if one.record is None else words.VERDICTS.get(one.record.verdict, "")
    if one.error is not None:
        return [(WORDS[one.code], code(one.subject), "", "", "", "", "")]
    checks = [*one.failures(), *(check for check in one.checks if check.good)]
    return [(prose(state(check)) if check.good else f"**{prose(state(check))}**", code(one.subject), verdict, code(check.key), code(measured(check)),
             prose(check.must), code(check.where) if check.where else "") for check in checks]  # fmt: skip


def _details(one: Gated) -> list[str]:
    lines = [] if one.error is None else [f"- {code(one.subject)} {prose(one.error.what)}. {prose(one.error.hint)}", ""]
    lines += [f"- {code(one.subject)} {code(check.key)}: {prose(check.reason)}" for check in one.failures() if check.reason]
    lines += [f"- {prose(remark)}" for remark in one.remarks]
    found = [line for finding in one.findings() for line in _finding(finding)] if not one.passed else []
    return [*lines, *([""] if lines else []), *([f"### {code(one.subject)}", "", *found] if found else [])]
