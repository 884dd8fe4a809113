"""GD201 and GD203: the latent scale at which the generator is sampled."""

from __future__ import annotations

from gandiag.record import Record
from gandiag.verdict.policy import Policy
from gandiag.verdict.record_queries import (
    format_interval,
    get_measurement,
    get_trained_scale,
    has_wrong_scale,
    is_collapsed,
)
from gandiag.verdict.rule_base import Diagnosis, rule

_CLAIMS = {"healthy": "Wrong latent scale, not collapse", "not_degenerate": "Wrong latent scale, not degenerate"}


@rule("GD201", kind="wrong_scale")
def find_wrong_latent_scale(record: Record, policy: Policy) -> Diagnosis | None:
    """Trained at one latent scale, sampled at another."""
    trained = get_trained_scale(record)
    if trained is None or not has_wrong_scale(record):
        return None
    sampled = record.subject["latent"]["scale"]
    score, score_at_sampled = record.score, get_measurement(record, f"score@{sampled:g}")
    claim = _CLAIMS.get(record.verdict, "Wrong latent scale")
    text = f"{claim}: trained at σ ≈ {trained['value']:.3g}, sampled at σ = {sampled:g}."
    if is_collapsed(record):
        text += " The generator is collapsed at the trained scale too."
    if score_at_sampled is not None:
        interval = format_interval(score_at_sampled.low, score_at_sampled.high)
        text += f" The score is {score_at_sampled.value:.2f} {interval} at σ = {sampled:g}"
        text += f" and {score.value:.2f} {format_interval(score.low, score.high)} at the trained scale."
    text += f" Multiply z by {trained['value']:.3g} before sampling (--scale {trained['value']:.3g})."
    evidence = {"trained": trained["value"], "low": trained["low"], "high": trained["high"], "sampled": sampled}
    return Diagnosis("error", text, evidence)


@rule("GD203")
def find_missing_scale_response(record: Record, policy: Policy) -> Diagnosis | None:
    """The latent scale was not swept, because the output does not change when z is scaled."""
    if record.response.get("axis") is not None or not record.response.get("reason"):
        return None
    return Diagnosis("note", f"Latent-scale sweep skipped: {record.response['reason'].rstrip('.')}.")
