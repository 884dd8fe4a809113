"""Two sentences on a run, as a seasoned GAN trainer would put them: what the losses do, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gandiag.training_logs.events import LossEvent
from gandiag.training_logs.loss_curves import LossMeasurements, PairMeasurements
from gandiag.training_logs.loss_levels import describe_chance, describe_skill, infer_family
from gandiag.training_logs.number_text import format_change, format_step, format_value
from gandiag.training_logs.oscillation import SIGNIFICANCE_LEVEL, is_constant
from gandiag.training_logs.verdict import is_chase, is_too_short

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
SURE = 0.9  # confidence of D from which on advice is given
WITH_LEVELS = ("drifting", "no_instability_found", "settled", "stepped", "spiking")
TOO_SHORT = "Too short for a cycle test"


def summarize(pair: PairMeasurements, verdict: str, events: Sequence[LossEvent], document: Mapping[str, Any]) -> str:
    """The sentences, one string."""
    if verdict == "inconclusive":
        parts = _describe_unjudged(pair, document)
    else:
        main = next((event for event in events if event.kind == verdict), None)
        parts = [] if main is None else [_describe_event(main, pair)]
        if verdict in WITH_LEVELS:
            parts.append(_end(_describe_levels(pair, verdict != "drifting")))
        parts += [ADVICE[verdict]] if verdict in ADVICE else []
        parts += _advise_on_level(pair, verdict)
        if verdict == "no_instability_found":
            parts.append(_describe_wander(pair))
        if verdict in WITH_LEVELS:
            parts += _describe_cycle_test(pair, document)
    parts += [_end(row["alarm"]) for row in document["beside"] if row.get("alarm")]
    return " ".join(filter(None, parts))


def _describe_unjudged(pair: PairMeasurements, document: Mapping[str, Any]) -> list[str]:
    """What a log shows for which there is no verdict."""
    levels = _describe_levels(pair)
    if is_too_short(pair.log):
        rows = min(len(loss.curve) for loss in pair.losses.values())
        advice = _advise_on_level(pair, "inconclusive")
        return [f"{TOO_SHORT} ({rows} rows). What it does show: {levels}.", *advice]
    return [*(_end(doubt) for doubt in document["doubts"][:1]), _end(levels)]


def _end(text: str) -> str:
    """The text as a sentence: a column name keeps its first letter."""
    starts = ("over ", "for a ", "the ", "all ", "only ", "no ", "this ", "too ", "every ")
    return "" if not text else (text[:1].upper() + text[1:] if text.startswith(starts) else text) + "."


def _describe_event(event: LossEvent, pair: PairMeasurements) -> str:
    """The evidence of the verdict, and since when."""
    unit, first = pair.log.step_unit.removesuffix("s"), min(loss.curve.step[0] for loss in pair.losses.values())
    if event.kind == "discriminator_at_chance":
        since = "For the whole log" if event.step <= first else f"Since {unit} {event.step:,.0f}"
        return f"{since} {event.evidence}."
    if event.kind in ("drifting", "stepped", "spiking", "mode_hopping"):
        return _end(event.evidence)
    evidence = _describe_cycle(pair) if event.kind == "oscillating" else event.evidence
    return _end(f"{evidence}, " + ("from the start on" if event.step <= first else f"since {unit} {event.step:,.0f}"))


def _describe_cycle(pair: PairMeasurements) -> str:
    """The cycle without its statistics, which the finding has."""
    oscillation = pair.oscillation
    assert oscillation is not None  # narrows the type: there is no such event without one
    cycle, about = oscillation.cycle, "" if oscillation.is_line else "about "
    text = (
        f"{oscillation.curve.name} repeats a cycle every {about}{format_step(cycle.period)} {pair.log.step_unit}, "
        f"{format_value(cycle.amplitude)} up and down ({100 * cycle.variance_fraction:.0f} % of its variance)"
    )
    return f"{text}, D a quarter of a cycle after G: the players chase each other" if is_chase(oscillation) else text


def _describe_levels(pair: PairMeasurements, with_trends: bool = True) -> str:
    """Where both losses are, how they move over the last half, and what D's level means."""
    phrases = []
    for role, loss in pair.losses.items():
        finite = loss.curve.value[np.isfinite(loss.curve.value)]
        if not len(finite):
            phrases.append(f"{loss.curve.name} is not finite")
            continue
        text, notes = _describe_loss(loss, finite)
        if role == "generator":
            phrases += [f"{text}{_bracket(notes)}"] if with_trends else []
            continue
        family, level = infer_family(pair.log.curves), get_level(loss)
        if not with_trends:
            text, notes = f"{loss.curve.name} ends at {format_value(level)}", []
        skill = describe_skill(family, level)
        joint = "; " if skill.startswith("Wasserstein") else ": "
        phrases.append(f"{text}{_bracket([*notes, describe_chance(family)])}{joint * bool(skill)}{skill}")
    return "; ".join(phrases)


def get_level(loss: LossMeasurements) -> float:
    """The level that a loss has: of its plateau, else of the last tenth of its rows."""
    if loss.has_plateau and loss.trend is not None:
        return (loss.trend.first + loss.trend.last) / 2
    finite = loss.curve.value[np.isfinite(loss.curve.value)]
    return float(np.median(finite[-max(len(finite) // 10, 5) :]))


def _bracket(notes: Sequence[str]) -> str:
    known = [note for note in notes if note]
    return f" ({', '.join(known)})" if known else ""


def _describe_loss(loss: LossMeasurements, finite: Any) -> tuple[str, list[str]]:
    """A phrase, and what belongs in brackets behind it."""
    trend, name = loss.trend, loss.curve.name
    if trend is None:
        count = max(len(finite) // 4, 1)
        first, last = float(np.median(finite[:count])), float(np.median(finite[-count:]))
        return f"{name} goes {format_value(first)} → {format_value(last)}", []
    if trend.is_shown:
        verb = "rises" if trend.change > 0 else "falls"
        return f"over the last half {name} {verb} {format_value(trend.begins)} → {format_value(trend.ends)}", []
    if loss.has_plateau:
        return f"{name} is level at {format_value(get_level(loss))}", []
    low, high = format_change(float(f"{trend.low:.2g}")), format_change(float(f"{trend.high:.2g}"))
    return f"{name} is at {format_value(trend.ends)}", [f"its trend over the last half changes it by {low} to {high}"]


def _advise_on_level(pair: PairMeasurements, verdict: str) -> list[str]:
    """What to do about a trend, or about a D that is nearly always right."""
    discriminator, generator = pair.losses.get("discriminator"), pair.losses.get("generator")
    if verdict == "drifting":
        falls = discriminator is not None and discriminator.trend is not None and discriminator.trend.change < 0
        rises = generator is not None and generator.trend is not None and generator.trend.change > 0
        return [WEAKEN if falls and rises else NO_PROGRESS]
    if verdict not in (*WITH_LEVELS, "inconclusive") or discriminator is None or generator is None:
        return []
    if not np.isfinite(discriminator.curve.value).any():
        return []
    confidence = infer_family(pair.log.curves).get_confidence(get_level(discriminator))
    return [WEAKEN] if confidence is not None and confidence >= SURE else []


def _describe_wander(pair: PairMeasurements) -> str:
    """That the rows do not tell a slow wander from a level, where they do not."""
    names = [
        loss.curve.name
        for loss in pair.losses.values()
        if loss.may_wander and not is_constant(loss.curve, loss.trimmed)
    ]
    if not names:
        return ""
    rows = min(len(loss.curve) for loss in pair.losses.values())
    verb = "comes" if len(names) == 1 else "come"
    return (
        f"{rows:,} rows are too few to tell whether {' and '.join(names)} {verb} back to a level or "
        f"{'wanders' if len(names) == 1 else 'wander'} off: judge again with a longer log."
    )


def _describe_cycle_test(pair: PairMeasurements, document: Mapping[str, Any]) -> list[str]:
    oscillation, power = pair.oscillation, document["power"]
    if oscillation is None or power is None:
        return []
    if oscillation.is_per_epoch and oscillation.p_value <= SIGNIFICANCE_LEVEL:
        period = format_step(oscillation.cycle.period)
        return [f"A cycle of {period} {pair.log.step_unit} repeats with the epoch: data order, not the game."]
    if oscillation.is_significant:
        return []
    shortest, longest = format_step(power["shortest"]), format_step(power["longest"])
    return [f"No cycle between {shortest} and {longest} {pair.log.step_unit}."]
