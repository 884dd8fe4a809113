"""Words findings and their remedies once, for the terminal, HTML, Markdown and training-log reports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gandiag.record import Finding, Record
from gandiag.report import formatting

_SHORT_LABELS = {"error": "FAIL", "warning": "WARN", "note": "note"}  # in reading order
_LABELS = {"error": "Failure", "warning": "Warning", "note": "Note"}
_DETAILS = ("how", "price", "source")  # of a remedy; shown once


@dataclass(frozen=True, slots=True)
class RemedyView:
    """One remedy as text.

    A remedy that several findings list is described in full at the first one; elsewhere how, price and source are empty
    and `described_at` names that rule.
    """

    title: str
    why: str
    how: str
    price: str
    source: str
    described_at: str

    @property
    def summary(self) -> str:
        """Title and reason, without the last full stop."""
        return f"{self.title}. {self.why.rstrip('.')}" if self.why else self.title


@dataclass(frozen=True, slots=True)
class FindingView:
    """One finding as text. `level` is "error", "warning" or "note"; evidence is (name, value)."""

    rule: str
    level: str
    text: str
    evidence: tuple[tuple[str, str], ...]
    remedies: tuple[RemedyView, ...]
    n_hidden_remedies: int

    @property
    def label(self) -> str:
        """The level in words: Failure, Warning, Note."""
        return _LABELS[self.level]

    @property
    def short_label(self) -> str:
        """The level in four characters: FAIL, WARN, note."""
        return _SHORT_LABELS[self.level]


def sort_findings(record: Record) -> list[Finding]:
    """Failures first, then warnings and notes; within a level, in the order of the record."""
    order = list(_LABELS)
    return sorted(record.findings, key=lambda item: order.index(item.level) if item.level in order else len(order))


def build_findings(findings: Sequence[Finding], max_remedies: int | None = None) -> list[FindingView]:
    """Findings as text, in the given order, each with at most `max_remedies` remedies."""
    first_rules = _find_first_rules(findings, max_remedies)
    return [_build_finding(finding, first_rules, max_remedies) for finding in findings]


def _build_finding(finding: Finding, first_rules: Mapping[str, str], max_remedies: int | None) -> FindingView:
    remedies = tuple(_build_remedy(entry, finding.rule, first_rules) for entry in finding.remedies[:max_remedies])
    return FindingView(
        rule=formatting.escape_unprintable(finding.rule),
        level=finding.level if finding.level in _LABELS else "note",
        text=formatting.capitalize_first(formatting.escape_unprintable(finding.text)),
        evidence=tuple(
            (formatting.key_to_text(key), formatting.format_value(value))
            for key, value in formatting.sort_entries(finding.evidence)
            if value is not None
        ),
        remedies=remedies,
        n_hidden_remedies=len(finding.remedies) - len(remedies),
    )


def _build_remedy(entry: Mapping[str, Any], rule: str, first_rules: Mapping[str, str]) -> RemedyView:
    how, price, source = (formatting.format_value(entry[part]) if entry.get(part) else "" for part in _DETAILS)
    first_rule = first_rules.get(formatting.escape_unprintable(entry.get("key")), rule)
    if first_rule != rule:
        how = price = source = ""
    return RemedyView(
        title=formatting.capitalize_first(formatting.format_value(entry.get("title") or entry.get("key"))),
        why=formatting.capitalize_first(formatting.format_value(entry["why"]) if entry.get("why") else ""),
        how=how,
        price=price,
        source=source,
        described_at=formatting.escape_unprintable(first_rule) if first_rule != rule else "",
    )


def _find_first_rules(findings: Iterable[Finding], max_remedies: int | None) -> dict[str, str]:
    """Remedy key -> the first rule that lists it among its first `max_remedies`."""
    first_rules: dict[str, str] = {}
    for finding in findings:
        for remedy in finding.remedies[:max_remedies]:
            first_rules.setdefault(formatting.escape_unprintable(remedy.get("key")), finding.rule)
    return first_rules
