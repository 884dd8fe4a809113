"""GD701 to GD706 and GD709 to GD712: events in the training losses, never part of the collapse verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gandiag.record import Finding, Record
from gandiag.verdict.policy import Policy
from gandiag.verdict.remedies import get_remedies
from gandiag.verdict.rule_base import Diagnosis, FindingLevel, Rule

# Kind of event -> code and what it means, worst first.
EVENT_RULES = {
    "failed": ("GD701", "The losses are NaN, infinite or exploding"),
    "discriminator_wins": ("GD702", "The discriminator has won and gives G no useful gradient"),
    "generator_wins": ("GD703", "The generator has won: D no longer separates real from generated samples"),
    "diverging": ("GD704", "The losses diverge"),
    "mode_hopping": ("GD705", "The losses burst repeatedly, as when G hops from mode to mode"),
    "oscillating": ("GD706", "The losses oscillate in a limit cycle instead of converging"),
    "discriminator_at_chance": ("GD709", "The discriminator is at chance: it learns nothing, or G is perfect"),
    "drifting": ("GD710", "The losses drift: they have not settled"),
    "spiking": ("GD711", "A loss spikes"),
    "stepped": ("GD712", "The level of the losses steps"),
}
UNSETTLED_KINDS = ("discriminator_at_chance", "drifting", "spiking", "stepped")  # never errors: nothing has failed


def make_loss_findings(document: Mapping[str, Any], level: FindingLevel = "error") -> tuple[Finding, ...]:
    """A finding with remedies for each kind of event in a losses document, in the order of EVENT_RULES."""
    findings = []
    for kind, (code, _) in EVENT_RULES.items():
        own_level: FindingLevel = "warning" if kind in UNSETTLED_KINDS else level
        diagnosis = _diagnose_event(kind, document, own_level)
        if diagnosis is not None:
            findings.append(Finding(code, own_level, diagnosis.text, diagnosis.evidence, get_remedies(code)))
    return tuple(findings)


def _diagnose_event(kind: str, document: Mapping[str, Any], level: FindingLevel) -> Diagnosis | None:
    """All events of one kind as one diagnosis, with the step at which the first began."""
    events: Sequence[Mapping[str, Any]] = [event for event in document.get("events") or () if event.get("kind") == kind]
    if not events:
        return None
    start = events[0]["step"]
    unit = (document.get("unit") or "steps").removesuffix("s")
    evidence: dict[str, Any] = {"start": start}
    if kind == "oscillating":
        oscillation = document.get("oscillation") or {}
        evidence |= {key: oscillation.get(key) for key in ("p_value", "period", "amplitude", "coherence", "phase")}
    details = "; ".join(str(event["evidence"]) for event in events)
    return Diagnosis(level, f"{EVENT_RULES[kind][1]}, from {unit} {start:,.0f} on: {details}.", evidence)


def _make_rule(kind: str) -> Rule:
    def diagnose(record: Record, policy: Policy) -> Diagnosis | None:
        return _diagnose_event(kind, record.training or {}, "warning")

    diagnose.__doc__ = f"{EVENT_RULES[kind][1]}."
    return Rule(EVENT_RULES[kind][0], diagnose)


TRAINING_RULES = tuple(_make_rule(kind) for kind in EVENT_RULES)
