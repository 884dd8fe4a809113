"""GD501 to GD505: how strong the evidence is."""

from __future__ import annotations

from gandiag.record import Record, Score
from gandiag.verdict.policy import Policy
from gandiag.verdict.record_queries import format_interval, is_sample_set
from gandiag.verdict.rule_base import Diagnosis, rule

MAX_ADVISED_FACTOR = 20  # times as many samples that one might still generate


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
    if score.basis == "degeneracy":
        entry = record.measurements.get("score")
        reason = (entry.reason if entry is not None else None) or "cannot be known without --real"
        return Diagnosis("warning", f"Undecided: {reason}.", {"low": score.low, "high": score.high, "n": score.n_fake})
    interval = format_interval(score.low, score.high)
    if score.basis == "groups":
        text = f"The score's interval {interval} contains the limit {policy.limit:g}. More groups would decide."
        return Diagnosis("warning", text, {"low": score.low, "high": score.high, "groups": record.groups.get("count")})
    text = f"The score's interval {interval} contains the limit {policy.limit:g}. {describe_needed_samples(record)}."
    return Diagnosis("warning", text, {"low": score.low, "high": score.high, "n": score.n_fake})


def describe_needed_samples(record: Record) -> str:
    """How many samples would decide, in proportion to those there are; without a full stop."""
    score = record.score
    needed = score.required_samples()
    is_subset = score.n_drawn > score.n_fake
    if needed is None and is_subset:
        return f"{_describe_subset(score)}; more (--neighbours-max) and twice as many real ones may decide"
    if needed is None:
        source = "More samples" if is_sample_set(record) else "More samples (-n)"
        return f"{source} and twice as many real ones may decide"
    if needed > MAX_ADVISED_FACTOR * score.n_fake:
        return f"It is so close to the limit that it would take about {needed:,} samples and twice as many real ones"
    if is_subset:
        more = "" if needed <= score.n_drawn else f", and generate about {needed:,}"
        return (
            f"{_describe_subset(score)}: raise --neighbours-max to {needed}{more}. "
            f"About {needed:,} and twice as many real ones would decide"
        )
    option = "" if is_sample_set(record) else f" (-n {needed})"
    return f"About {needed:,} samples{option} and twice as many real ones would decide"


def _describe_subset(score: Score) -> str:
    return f"Only {score.n_fake:,} of the {score.n_drawn:,} samples were compared"


KIND_OF_LOSS = {
    "modes": "half of the modes",
    "small_modes": "half of the small modes",
    "continuum": "half of a continuum",
    "narrowing": "half of the width",
    "repeats": "half of the outputs",
}


@rule("GD505")
def find_blind_spots(record: Record, policy: Policy) -> Diagnosis | None:
    """No loss was seen, and some losses would not have been seen with these data and this many samples."""
    blind = record.score.list_blind_spots()
    if not blind or record.verdict == "collapsed":
        return None
    scores = {
        entry["kind"]: entry["score"] for entry in record.score.injected if entry["kind"] in blind
    }  # of the largest loss, which comes last
    missed = "; ".join(f"{KIND_OF_LOSS.get(kind, kind)} scored {scores[kind]:.2f}" for kind in blind)
    text = f"Injected into half of the real data, a loss was missed: {missed}. {_advise_twice_as_many(record.score)}."
    return Diagnosis("warning" if record.verdict == "inconclusive" else "note", text, scores)


def _advise_twice_as_many(score: Score) -> str:
    n = 2 * score.n_fake
    if score.n_drawn > score.n_fake:
        return f"{_describe_subset(score)}: raise --neighbours-max to {n}, with twice as many real ones"
    return f"Pass at least {n:,} samples and twice as many real ones"


@rule("GD503")
def find_missing_real_data(record: Record, policy: Policy) -> Diagnosis | None:
    """Without real data, missing modes cannot be detected."""
    if record.score.basis != "degeneracy":
        return None
    seen = "repeated outputs and insensitivity to z" if record.subject.get("latent") else "repeated outputs"
    text = f"No real data: only {seen} can be detected. Pass the training data with --real to detect missing modes."
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
