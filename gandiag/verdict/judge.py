"""Applies a policy to the facts of a record: verdict, kinds, findings and remedies.

A pure function: applying the same policy again gives the same record.
"""

from __future__ import annotations

import dataclasses

from gandiag.record import Finding, Record
from gandiag.verdict.collapse_rules import is_partial_collapse
from gandiag.verdict.policy import Policy, compute_verdict
from gandiag.verdict.record_queries import is_memorised
from gandiag.verdict.remedies import get_remedies
from gandiag.verdict.rules import RULE_KINDS, RULES

_SEVERITY = {"error": 0, "warning": 1, "note": 2}


def apply_policy(record: Record, policy: Policy | None = None) -> Record:
    """The record with the verdict, kinds and findings of this policy (default: the limit stored with the score)."""
    policy = policy or Policy(limit=record.score.limit)
    score = dataclasses.replace(record.score, limit=policy.limit)
    record = dataclasses.replace(record, score=score, kinds=(), findings=(), policy=dataclasses.asdict(policy))
    record = dataclasses.replace(record, verdict=compute_verdict(record, policy))
    findings = [finding for rule in RULES if (finding := rule(record, policy)) is not None]
    findings.sort(key=lambda finding: _SEVERITY[finding.level])  # stable: the order of RULES within a level
    with_remedies = tuple(dataclasses.replace(entry, remedies=get_remedies(entry.rule)) for entry in findings)
    return dataclasses.replace(record, findings=with_remedies, kinds=_list_kinds(record, with_remedies))


def _list_kinds(record: Record, findings: tuple[Finding, ...]) -> tuple[str, ...]:
    """The kinds of collapse named by the findings, in order, "partial" first where diversity is left.

    Before all, "memorised" where most samples are copies.
    """
    kinds = [RULE_KINDS[finding.rule] for finding in findings if finding.rule in RULE_KINDS]
    if is_partial_collapse(record):
        kinds.insert(0, "partial")
    if is_memorised(record):
        kinds.insert(0, "memorised")
    return tuple(dict.fromkeys(kinds))
