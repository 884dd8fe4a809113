"""From a record's facts to verdict, kinds, findings and advice. Pure; judging again gives the same record."""

from __future__ import annotations

import dataclasses

from gandiag.record import Finding, Record
from gandiag.verdict.policy import Policy, compute_verdict
from gandiag.verdict.remedies import get_remedies
from gandiag.verdict.rules import RULE_KINDS, RULES, is_collapsed, is_complete_collapse

_RANK = {"error": 0, "warning": 1, "note": 2}


def apply_policy(record: Record, policy: Policy | None = None) -> Record:
    """The record with verdict, kinds and findings of this policy (by default: the limit that the score carries)."""
    policy = policy or Policy(limit=record.score.limit)
    score = dataclasses.replace(record.score, limit=policy.limit)
    record = dataclasses.replace(record, score=score, kinds=(), findings=(), policy=dataclasses.asdict(policy))
    record = dataclasses.replace(record, verdict=compute_verdict(record, policy))
    found = [finding for rule in RULES if (finding := rule(record, policy)) is not None]
    found.sort(key=lambda finding: _RANK[finding.level])  # stable: the order of RULES within a level
    findings = tuple(dataclasses.replace(finding, remedies=get_remedies(finding.rule)) for finding in found)
    return dataclasses.replace(record, findings=findings, kinds=_kinds(record, findings))


def _kinds(record: Record, findings: tuple[Finding, ...]) -> tuple[str, ...]:
    kinds = [RULE_KINDS[finding.rule] for finding in findings if finding.rule in RULE_KINDS]
    if is_collapsed(record) and not is_complete_collapse(record):
        kinds.insert(0, "partial")
    return tuple(dict.fromkeys(kinds))
