"""What the losses mean for a reader: findings GD701 … with remedies, from a losses document. Dynamics only: never part of the collapse verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from gandiag.record import Finding, Record
from gandiag.verdict.policy import Policy
from gandiag.verdict.remedies import get_remedies

EVENT_RULES = {
    "failed": ("GD701", "The losses are no numbers any more"),
    "discriminator_wins": ("GD702", "The discriminator has won: G gets no useful gradient"),
    "generator_wins": ("GD703", "The generator has won over a discriminator that no longer tells"),
    "diverging": ("GD704", "The losses diverge"),
    "mode_hopping": ("GD705", "The losses move in bursts, as when G hops from mode to mode"),
    "oscillating": ("GD706", "The losses oscillate: a limit cycle, not convergence"),
}
FindingLevel = Literal["error", "warning", "note"]


def make_loss_findings(document: Mapping[str, Any], level: FindingLevel = "error") -> tuple[Finding, ...]:
    """A finding for each kind of event, in the order of CODES, with where it began."""
    found = []
    for kind, (code, claim) in EVENT_RULES.items():
        events = [event for event in document.get("events") or () if event.get("kind") == kind]
        if events:
            found.append(_finding(code, claim, events, document, level))
    return tuple(found)


def _finding(
    code: str, claim: str, events: list[Mapping[str, Any]], training: Mapping[str, Any], level: FindingLevel
) -> Finding:
    first = events[0]
    since = f"{(training.get('unit') or 'steps').removesuffix('s')} {first['step']:,.0f}"
    text = f"{claim}, since {since}: " + "; ".join(str(event["evidence"]) for event in events) + "."
    evidence: dict[str, Any] = {"start": first["step"]}
    if code == "GD706":
        line = training.get("oscillation") or {}
        evidence |= {key: line.get(key) for key in ("p_value", "period", "amplitude", "coherence", "phase")}
    return Finding(code, level, text, evidence, get_remedies(code))


def _rule(kind: str) -> Callable[[Record, Policy], Finding | None]:
    def rule(record: Record, policy: Policy) -> Finding | None:
        found = make_loss_findings(record.training or {}, "warning")
        return next((finding for finding in found if finding.rule == EVENT_RULES[kind][0]), None)

    rule.__doc__ = f"{EVENT_RULES[kind][0]}: {kind.replace('_', ' ')}, from the training log."
    return rule


TRAINING_RULES = tuple(_rule(kind) for kind in EVENT_RULES)
