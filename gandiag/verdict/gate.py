"""A record against a policy: the CI gate. Judging a record never imports torch.

found = gandiag.gate(record, {"max-score": 0.2, "limits": {"recall": {"min": 0.6}}})
found.code, found.checks, found.raise_for_code()
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
from gandiag.verdict.limits import Check, CheckState, Limit, check_limit, get_record_value
from gandiag.verdict.policy import Policy, get_loading_mismatch

__all__ = ["GateResult", "GatePolicy", "find_policy", "gate", "read_policy", "make_error_result"]

_SCORE: Mapping[str, CheckState] = {
    "collapsed": "violated",
    "healthy": "passed",
    "not_degenerate": "degeneracy",
    "inconclusive": "inconclusive",
}


@dataclass(frozen=True, slots=True)
class GateResult:
    """One subject at the gate. `record`: judged by this policy; None where it could not be had, and then `error` says why."""

    subject: str
    checks: tuple[Check, ...] = ()
    record: Record | None = None
    remarks: tuple[str, ...] = ()
    error: GandiagError | None = None

    @property
    def code(self) -> ExitCode:
        """2 where it could not be judged, 1 where a limit is violated, 3 where the evidence does not suffice, else 0."""
        if self.error is not None:
            return ExitCode.CANNOT_RUN
        states = {check.state for check in self.checks if not check.ok}
        return ExitCode.COLLAPSED if "violated" in states else ExitCode.INSUFFICIENT if states else ExitCode.OK

    @property
    def passed(self) -> bool:
        return self.code == ExitCode.OK

    def failures(self) -> tuple[Check, ...]:
        """What keeps the gate shut, violations first."""
        return tuple(
            sorted((check for check in self.checks if not check.ok), key=lambda check: check.state != "violated")
        )

    def findings(self) -> tuple[Finding, ...]:
        """Findings of the record that explain a failure: errors and warnings."""
        found = () if self.record is None else self.record.findings
        return tuple(finding for finding in found if finding.level != "note")

    def raise_for_code(self) -> None:
        """Raise VerdictError, or the error that kept it from being judged, unless the gate is passed."""
        if self.error is not None:
            raise self.error
        if not self.passed:
            first = self.failures()[0]
            raise VerdictError(
                f"{self.subject}: {first.key} must be {first.must}, and is {first.value} ({first.state})",
                "see .checks",
                record=self.record,
            )


def gate(
    record: Record | str | os.PathLike[str],
    policy: GatePolicy | Mapping[str, Any] | str | os.PathLike[str] | None = None,
    *,
    baseline: Record | str | os.PathLike[str] | None = None,
) -> GateResult:
    """A record (or its file) against a policy.

    policy: a TOML file with a [gate] table, such a table, or nothing: then the score must stay below the limit that the record carries.
    baseline: the record that it may not be worse than, in place of the policy's. Cost: milliseconds, no sampling, no torch.
    Raises ConfigError for a policy that cannot be meant, RecordError for records that cannot be read or compared.
    """
    book = _book(policy)
    name = (
        str(record)
        if not isinstance(record, Record)
        else str(record.subject.get("path") or record.subject.get("family") or "generator")
    )
    found = record if isinstance(record, Record) else Record.read(record)
    limit = found.score.limit if book.max_score is None else book.max_score
    judged = apply_policy(found, Policy(limit=limit))
    checks = [_of_score(judged, limit, book), *_of_limits(judged, book), *_of_findings(judged, book)]
    remarks: tuple[str, ...] = ()
    old = book.baseline if baseline is None else baseline
    if old is not None:
        more, remarks = _of_baseline(judged, old if isinstance(old, Record) else Record.read(old), book)
        checks += more
    return GateResult(name, tuple(_allowed(check, book) for check in _doubted(judged, checks)), judged, remarks)


def make_error_result(subject: str, error: GandiagError) -> GateResult:
    """A subject that could not be judged: never a pass."""
    return GateResult(subject, error=error)


def _book(policy: Any) -> GatePolicy:
    if policy is None:
        return GatePolicy()
    if isinstance(policy, GatePolicy):
        return policy
    return parse_policy(policy) if isinstance(policy, Mapping) else read_policy(policy)


def _of_score(record: Record, limit: float, book: GatePolicy) -> Check:
    score, where = record.score, book.lines.get("max-score", "" if book.max_score is None else book.source)
    state = _SCORE[record.verdict]
    reason = "" if state in ("passed", "violated") else _why(record)
    return Check("score", f"below {limit:g}", state, score.value, score.low, score.high, where, reason)


def _why(record: Record) -> str:
    """Why there is no verdict, from the rules that say so."""
    if record.verdict == "not_degenerate":
        return "no real data: missing modes cannot be seen"
    said = [finding.text for finding in record.findings if finding.rule in ("GD401", "GD501", "GD502")]
    return said[0] if said else "the evidence is not sufficient"


def _of_limits(record: Record, book: GatePolicy) -> Iterator[Check]:
    for limit in book.limits:
        if limit.min is None and limit.max is None:
            continue
        yield check_limit(limit, _quantity(record, limit))


def _quantity(record: Record, limit: Limit) -> Any:
    try:
        return get_record_value(record, limit.key)
    except GandiagError as unknown:
        raise type(unknown)(
            f"{limit.where}: {unknown.message}" if limit.where else unknown.message, unknown.hint
        ) from None


def _of_findings(record: Record, book: GatePolicy) -> Iterator[Check]:
    there = {finding.rule: finding for finding in record.findings}
    for rule in book.forbid:
        state: CheckState = "violated" if rule in there else "passed"
        yield Check(
            rule,
            "absent",
            state,
            where=book.lines.get("forbid", book.source),
            reason=there[rule].text if rule in there else "",
        )


def _of_baseline(record: Record, old: Record, book: GatePolicy) -> tuple[list[Check], tuple[str, ...]]:
    found = compare(old, record)
    where = book.lines.get("max-regress") or book.lines.get("baseline") or ""
    checks = [check_regression(Limit("score", where=where), found.change("score"), book.max_regress)]
    for limit in book.limits:
        if limit.max_regress is not None:
            checks.append(check_regression(limit, found.change(limit.key), limit.max_regress))
    return checks, found.remarks


def _doubted(record: Record, checks: list[Check]) -> list[Check]:
    """Where the network may be mis-rebuilt, no number of it is held against anybody."""
    if get_loading_mismatch(record, Policy(limit=record.score.limit)) is None:
        return checks
    doubt = "the loading is in doubt (GD401)"
    return [
        dataclasses.replace(check, state="inconclusive", reason=check.reason or doubt)
        if check.state == "violated"
        else check
        for check in checks
    ]


def _allowed(check: Check, book: GatePolicy) -> Check:
    """The check, allowed where the policy lets its state pass."""
    return dataclasses.replace(check, allowed=check.state in book.allow)
