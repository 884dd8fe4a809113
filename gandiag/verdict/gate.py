"""The CI gate: checks a record against a policy, without importing torch.

result = gandiag.gate(record, {"max-score": 0.2, "limits": {"recall": {"min": 0.6}}})
result.code, result.checks, result.raise_for_code()
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gandiag.errors import ExitCode, GandiagError, VerdictError
from gandiag.record import Finding, Record
from gandiag.verdict.compare import check_regression, compare
from gandiag.verdict.gate_policy import GatePolicy, find_policy, parse_policy, read_policy
from gandiag.verdict.judge import apply_policy
from gandiag.verdict.limits import Check, CheckState, Limit, RecordValue, check_limit, get_record_value
from gandiag.verdict.policy import Policy, compute_score_verdict, get_loading_mismatch
from gandiag.verdict.readings import compare_readings

__all__ = ["GatePolicy", "GateResult", "find_policy", "gate", "make_error_result", "read_policy"]

_SCORE_STATES: Mapping[str, CheckState] = {
    "collapsed": "violated",
    "healthy": "passed",
    "not_degenerate": "degeneracy",
    "memorised": "passed",  # the score is kept; GD302 is an error that fails the gate
    "inconclusive": "inconclusive",
    "unrealistic": "inconclusive",
}


@dataclass(frozen=True, slots=True)
class GateResult:
    """The gate's answer for one subject.

    `record`: as judged by this policy; None where there is none, and then `error` says why.
    """

    subject: str
    checks: tuple[Check, ...] = ()
    record: Record | None = None
    remarks: tuple[str, ...] = ()
    error: GandiagError | None = None

    @property
    def code(self) -> ExitCode:
        """2 for an error, 1 for a violated limit, 3 for insufficient evidence, else 0."""
        if self.error is not None:
            return ExitCode.CANNOT_RUN
        states = {check.state for check in self.checks if not check.ok}
        if "violated" in states:
            return ExitCode.COLLAPSED
        return ExitCode.INSUFFICIENT if states else ExitCode.OK

    @property
    def passed(self) -> bool:
        """Whether the exit code is 0."""
        return self.code == ExitCode.OK

    def failures(self) -> tuple[Check, ...]:
        """The checks that fail the gate, violations first."""
        failed = (check for check in self.checks if not check.ok)
        return tuple(sorted(failed, key=lambda check: check.state != "violated"))

    def findings(self) -> tuple[Finding, ...]:
        """Errors and warnings of the record, which explain a failure."""
        findings = () if self.record is None else self.record.findings
        return tuple(finding for finding in findings if finding.level != "note")

    def raise_for_code(self) -> None:
        """Raise VerdictError, or the stored error, unless the gate passed."""
        if self.error is not None:
            raise self.error
        if not self.passed:
            first = self.failures()[0]
            raise VerdictError(
                f"{self.subject}: {first.key} must be {first.must} but is {first.value} ({first.state})",
                "see .checks",
                record=self.record,
            )


def gate(
    record: Record | str | os.PathLike[str],
    policy: GatePolicy | Mapping[str, Any] | str | os.PathLike[str] | None = None,
    *,
    baseline: Record | str | os.PathLike[str] | None = None,
) -> GateResult:
    """Check a record, or the file of one, against a policy.

    policy: a TOML file with a [gate] table, such a table as a dict, or None: then the score must stay below the limit
    stored in the record. baseline: the record it must not be worse than, instead of the policy's own.
    Cost: milliseconds; no sampling, no torch. Raises ConfigError for an invalid policy, RecordError for records that
    cannot be read or compared.
    """
    gate_policy = _load_policy(policy)
    source = record if isinstance(record, Record) else Record.read(record)
    limit = source.score.limit if gate_policy.max_score is None else gate_policy.max_score
    judged = apply_policy(source, Policy(limit=limit))
    checks = [
        _check_score(judged, limit, gate_policy),
        *_check_limits(judged, gate_policy),
        *_check_findings(judged, gate_policy),
    ]
    remarks: tuple[str, ...] = ()
    old = gate_policy.baseline if baseline is None else baseline
    if old is not None:
        regressions, remarks = _check_baseline(
            judged, old if isinstance(old, Record) else Record.read(old), gate_policy
        )
        checks += regressions
    checks = [_mark_allowed(check, gate_policy) for check in _excuse_doubtful_loading(judged, checks)]
    return GateResult(_subject_name(record), tuple(checks), judged, remarks)


def make_error_result(subject: str, error: GandiagError) -> GateResult:
    """The result of a subject that could not be judged; it never passes."""
    return GateResult(subject, error=error)


def _subject_name(record: Record | str | os.PathLike[str]) -> str:
    if not isinstance(record, Record):
        return str(record)
    return str(record.subject.get("path") or record.subject.get("family") or "generator")


def _load_policy(policy: GatePolicy | Mapping[str, Any] | str | os.PathLike[str] | None) -> GatePolicy:
    if policy is None:
        return GatePolicy()
    if isinstance(policy, GatePolicy):
        return policy
    return parse_policy(policy) if isinstance(policy, Mapping) else read_policy(policy)


def _check_score(record: Record, limit: float, policy: GatePolicy) -> Check:
    score, where = record.score, policy.lines.get("max-score", "" if policy.max_score is None else policy.source)
    state = _SCORE_STATES[record.verdict]
    if record.verdict == "collapsed" and score.basis == "groups" and policy.max_score is not None:
        # A policy of its own limits the score; single groups are held by `group_worst` and `forbid`.
        state = _SCORE_STATES[compute_score_verdict(score, limit)]
    reason = "" if state in ("passed", "violated") else _explain_missing_verdict(record)
    return Check("score", f"below {limit:g}", state, score.value, score.low, score.high, where, reason)


EXPLAINING_RULES = ("GD113", "GD301", "GD401", "GD501", "GD502", "GD505")  # of a score that neither passes nor fails


def _explain_missing_verdict(record: Record) -> str:
    """Why the score is neither passed nor violated: the text of the finding that explains it."""
    if record.verdict == "not_degenerate":
        return "no real data: missing modes cannot be detected"
    texts = [finding.text for finding in record.findings if finding.rule in EXPLAINING_RULES]
    return texts[0] if texts else "insufficient evidence"


def _check_limits(record: Record, policy: GatePolicy) -> Iterator[Check]:
    for limit in policy.limits:
        if limit.min is not None or limit.max is not None:
            yield check_limit(limit, _get_limited_value(record, limit))


def _get_limited_value(record: Record, limit: Limit) -> RecordValue:
    """The number that a limit is about; an unknown key is an error that names the policy's line."""
    try:
        return get_record_value(record, limit.key)
    except GandiagError as error:
        message = f"{limit.where}: {error.message}" if limit.where else error.message
        raise type(error)(message, error.hint) from None


def _check_findings(record: Record, policy: GatePolicy) -> Iterator[Check]:
    """One check for each forbidden finding, and for each finding of level "error" that the score does not decide."""
    findings = {finding.rule: finding for finding in record.findings}
    where = policy.lines.get("forbid", policy.source)
    for code in policy.forbid:
        state: CheckState = "violated" if code in findings else "passed"
        yield Check(code, "absent", state, where=where, reason=findings[code].text if code in findings else "")
    for code, finding in findings.items():
        if finding.level == "error" and code not in policy.forbid and not _is_decided_by_score(code):
            yield Check(code, "absent", "violated", where="always", reason=finding.text)


def _is_decided_by_score(code: str) -> bool:
    """Findings about the kind of collapse, and doubts that make the verdict inconclusive; not an ignored input."""
    return code.startswith(("GD1", "GD4", "GD5")) and code != "GD109"


def _check_baseline(record: Record, old: Record, policy: GatePolicy) -> tuple[list[Check], tuple[str, ...]]:
    comparison = compare(old, record)
    where = policy.lines.get("max-regress") or policy.lines.get("baseline") or ""
    checks = [check_regression(Limit("score", where=where), comparison.change("score"), policy.max_regress)]
    for limit in policy.limits:
        if limit.max_regress is not None:
            checks.append(check_regression(limit, comparison.change(limit.key), limit.max_regress))
    return checks, comparison.remarks


def _excuse_doubtful_loading(record: Record, checks: list[Check]) -> list[Check]:
    """Turn violations into inconclusive checks where the network may be rebuilt incorrectly."""
    limit = record.score.limit
    verdict = compute_score_verdict(record.score, limit)
    is_open = verdict != "inconclusive" and compare_readings(record, verdict, limit) in ("differ", "not_sampled")
    if get_loading_mismatch(record, Policy(limit=limit)) is None and not is_open:
        return checks
    reason = "the loading is in doubt (GD401)"
    return [
        dataclasses.replace(check, state="inconclusive", reason=check.reason or reason)
        if check.state == "violated"
        else check
        for check in checks
    ]


def _mark_allowed(check: Check, policy: GatePolicy) -> Check:
    return dataclasses.replace(check, allowed=check.state in policy.allow or check.key in policy.allow)
