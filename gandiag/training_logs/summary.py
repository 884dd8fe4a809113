"""Two sentences on a run, as a seasoned GAN trainer would put them: what the losses do, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gandiag.training_logs.events import LossEvent
from gandiag.training_logs.loss_curves import LossMeasurements, PairMeasurements
from gandiag.training_logs.loss_levels import describe_level, infer_family
from gandiag.training_logs.verdict import is_too_short

ADVICE = {
    "discriminator_wins": "Weaken D: a gradient penalty (R1), a lower learning rate for D, augmentation.",
    "generator_wins": "Strengthen D: more updates or a higher learning rate for D.",
    "discriminator_at_chance": "If samples are poor, D learns nothing: check its learning rate, labels and gradients.",
    "diverging": "Lower both learning rates, or add a gradient penalty.",
    "oscillating": "Damp it with a gradient penalty (R1) or a lower learning rate of D, if samples suffer.",
    "mode_hopping": "Look at samples before and after a burst; a gradient penalty makes D less abrupt.",
    "spiking": "Look at samples around a spike; clip gradients, or check single batches.",
    "stepped": "Look at what changed there: a resume, a schedule, the data.",
    "failed": "Go back to the last checkpoint before it, and lower the learning rates.",
}
WEAKEN = "If samples stopped improving, weaken D (R1, lower D rate, DiffAugment)."
NO_PROGRESS = "If samples stopped improving, stop here or lower the learning rates."


def summarize(pair: PairMeasurements, verdict: str, events: Sequence[LossEvent], document: Mapping[str, Any]) -> str:
    """The sentences, one string."""
    if verdict == "inconclusive" and is_too_short(pair.log):
        rows = min(len(loss.curve) for loss in pair.losses.values())
        return f"Too short for a cycle test ({rows} rows). What it does show: {_describe_levels(pair)}."
    parts = []
    main = next((event for event in events if event.kind == verdict), None)
    if main is not None:
        parts.append(f"{_capitalize(main.evidence)}{_since(main, pair)}.")
    if verdict in ("drifting", "no_instability_found", "settled", "stepped", "spiking"):
        parts.append(f"{_capitalize(_describe_levels(pair, verdict != 'drifting'))}.")
    parts += [ADVICE[verdict]] if verdict in ADVICE else []
    if verdict == "drifting":
        parts.append(_advise_on_drift(pair))
    if verdict in ("drifting", "no_instability_found", "settled", "stepped", "spiking"):
        parts += _describe_cycle_test(pair, document)
    return " ".join(part for part in parts if part not in ("", "."))


def _capitalize(text: str) -> str:
    """The text with its first letter upper-case, unless it begins with a column name."""
    return text[:1].upper() + text[1:] if text[:5] in ("over ", "the l", "the a") else text


def _since(event: LossEvent, pair: PairMeasurements) -> str:
    if event.kind in ("drifting", "stepped", "discriminator_at_chance", "spiking", "mode_hopping"):
        return ""
    return f", since {pair.log.step_unit.removesuffix('s')} {event.step:,.0f}"


def _describe_levels(pair: PairMeasurements, with_trends: bool = True) -> str:
    """Where both losses are, how they move over the last half, and what D's level means."""
    phrases = []
    for loss in pair.losses.values():
        if with_trends and (phrase := _describe_loss(loss)):
            phrases.append(phrase)
    discriminator = pair.losses.get("discriminator")
    if discriminator is not None:
        finite = discriminator.curve.value[np.isfinite(discriminator.curve.value)]
        if len(finite):
            level = float(np.median(finite[-max(len(finite) // 10, 5) :]))
            phrases.append(describe_level(infer_family(pair.log.curves), discriminator.curve.name, level))
    return "; ".join(filter(None, phrases))


def _describe_loss(loss: LossMeasurements) -> str:
    finite = loss.curve.value[np.isfinite(loss.curve.value)]
    if not len(finite):
        return f"{loss.curve.name} is not finite"
    trend = loss.trend
    if trend is None:
        return f"{loss.curve.name} goes {finite[0]:.3g} → {finite[-1]:.3g}"
    if trend.is_shown:
        verb = "rises" if trend.change > 0 else "falls"
        return f"over the last half {loss.curve.name} {verb} {trend.first:.3g} → {trend.last:.3g}"
    if loss.has_plateau:
        return f"{loss.curve.name} is level at {(trend.first + trend.last) / 2:.3g}"
    return (
        f"{loss.curve.name} is at {(trend.first + trend.last) / 2:.3g}, its change over the last half between "
        f"{trend.low:+.2g} and {trend.high:+.2g}"
    )


def _advise_on_drift(pair: PairMeasurements) -> str:
    """What to do about a trend: D gains on G, or anything else."""
    discriminator, generator = pair.losses.get("discriminator"), pair.losses.get("generator")
    falls = discriminator is not None and discriminator.trend is not None and discriminator.trend.change < 0
    rises = generator is not None and generator.trend is not None and generator.trend.change > 0
    return WEAKEN if falls and rises else NO_PROGRESS


def _describe_cycle_test(pair: PairMeasurements, document: Mapping[str, Any]) -> list[str]:
    oscillation, power = pair.oscillation, document["power"]
    if oscillation is None or power is None:
        return []
    if oscillation.is_per_epoch and oscillation.p_value <= 0.05:
        return ["It repeats with the epoch: data order, not the game."]
    if oscillation.is_significant:
        return []
    shortest, longest = power["shortest"], power["longest"]
    return [f"No cycle between {shortest:,.3g} and {longest:,.3g} {pair.log.step_unit}."]
