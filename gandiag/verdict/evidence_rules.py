"""GD501 to GD504: how strong the evidence is."""

from __future__ import annotations

from gandiag.record import Record
from gandiag.verdict.policy import Policy
from gandiag.verdict.record_queries import format_interval
from gandiag.verdict.rule_base import Diagnosis, rule


@rule("GD501")
def find_insufficient_evidence(record: Record, policy: Policy) -> Diagnosis | None:
    """The evidence is too weak for a verdict, for the reasons that the estimator gives."""
    reasons = record.provenance.get("doubts") or ()
    if record.verdict != "inconclusive" or not reasons:
        return None
    return Diagnosis("error", f"Inconclusive: {'; '.join(reasons)}.")


@rule("GD502")
def find_limit_in_interval(record: Record, policy: Policy) -> Diagnosis | None:
    """The score's interval contains the limit."""
    score = record.score
    if record.verdict != "inconclusive" or score.low is None or score.high is None:
        return None
    if not score.low < policy.limit <= score.high:
        return None
    needed = score.required_samples()
    action = f"Generate about {needed:,} samples (-n {needed})" if needed else "Generate more samples (-n)"
    interval = format_interval(score.low, score.high)
    if score.basis == "groups":
        text = f"The score's interval {interval} contains the limit {policy.limit:g}. More groups would decide."
        return Diagnosis("warning", text, {"low": score.low, "high": score.high, "groups": record.groups.get("count")})
    text = f"The score's interval {interval} contains the limit {policy.limit:g}. "
    text += f"{action} and give twice as many real ones."
    return Diagnosis("warning", text, {"low": score.low, "high": score.high, "n": score.n_fake})


@rule("GD503")
def find_missing_real_data(record: Record, policy: Policy) -> Diagnosis | None:
    """Without real data, missing modes cannot be detected."""
    if record.score.basis != "degeneracy":
        return None
    text = (
        "No real data: only repeated outputs and insensitivity to z can be detected. "
        "Pass the training data with --real to detect missing modes."
    )
    return Diagnosis("note", text)


@rule("GD504")
def find_failed_metrics(record: Record, policy: Policy) -> Diagnosis | None:
    """Metrics that raised an error."""
    failed = {key: entry.reason for key, entry in record.measurements.items() if entry.status == "error"}
    if not failed:
        return None
    details = "; ".join(f"{key} ({reason})" for key, reason in failed.items())
    text = f"Not computed because of an error: {details}. The other results are not affected."
    return Diagnosis("warning", text, {"metrics": len(failed)})
