"""Judges one pair of losses: the events in it, the verdict, and why there may be none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gandiag.training_logs import saturation
from gandiag.training_logs.events import MIN_EVENT_ROWS, LossEvent
from gandiag.training_logs.loss_curves import LossMeasurements, PairMeasurements
from gandiag.training_logs.loss_levels import find_chance_level, find_fooled_discriminator
from gandiag.training_logs.number_text import format_change, format_step, format_value
from gandiag.training_logs.oscillation import Oscillation, is_constant
from gandiag.training_logs.series import LOSS_ROLES, Curve, Log
from gandiag.training_logs.side_columns import find_sure_accuracy
from gandiag.training_logs.spectrum import MIN_ROWS
from gandiag.training_logs.spikes import Spikes
from gandiag.training_logs.trends import find_divergence, find_mode_hopping, fit_amplitude_trend

# The verdict is the first of these kinds that occurs. The first six fail a run; the others are told, and forbid
# "settled".
FAILING_KINDS = ("failed", "discriminator_wins", "generator_wins", "diverging", "mode_hopping", "oscillating")
WINS = ("failed", "discriminator_wins", "generator_wins")
UNSETTLED_KINDS = ("discriminator_at_chance", "drifting", "spiking", "stepped")
EVENT_PRIORITY = (*FAILING_KINDS, *UNSETTLED_KINDS)
# Verdicts without an event. From the worst to the best, for the worst of several pairs.
VERDICT_ORDER = (*EVENT_PRIORITY, "inconclusive", "no_instability_found", "settled")
EARLY_STEP_FRACTION = 0.25  # of the log: after an earlier step, the rest can show a plateau
MIN_JOINT_SPIKES = 4
MAX_WALK_CYCLE = 0.1  # of the log: slower cycles of a random walk are part of it
MIN_SPIKE_SPAN = 1 / 3  # of the log, over which joint spikes must recur to be a state of the training


def find_events(pair: PairMeasurements) -> list[LossEvent]:
    """All events in order of their start."""
    log = pair.log
    if not _has_finite_loss(log):
        return []
    losses = _get_losses(log)
    events = [saturation.find_failure(curve) for curve in losses.values()]
    long_curves = {role: curve for role, curve in log.curves.items() if len(curve) >= MIN_ROWS}
    if any(role in long_curves for role in LOSS_ROLES):
        events += _find_levels(log, long_curves)
        events += [
            find_divergence(curve, pair.trimmed[role])
            for role, curve in losses.items()
            if role in pair.trimmed and not is_constant(curve, pair.trimmed[role])
        ]
        events += [find_mode_hopping(losses, pair.trimmed), _make_oscillation_event(pair)]
        events += [_find_joint_spikes(pair), _find_spiking(pair), _find_drift(pair), _find_level_step(pair)]
    found = [event for event in events if event is not None]
    if any(event.kind in WINS for event in found):
        found = [
            event for event in found if event.kind not in ("stepped", "drifting", "spiking")
        ]  # how it came to that
    return sorted(found, key=lambda event: (event.step, EVENT_PRIORITY.index(event.kind)))


def conclude(pair: PairMeasurements, events: Sequence[LossEvent]) -> tuple[str, list[str]]:
    """The verdict, and the doubts: why there is none, or why the log supports none."""
    log = pair.log
    doubts = [*log.problems, *_find_insufficient_data(log)]
    kinds = {event.kind for event in events}
    if log.problems:
        return "inconclusive", doubts
    if kinds:
        return next(kind for kind in EVENT_PRIORITY if kind in kinds), doubts
    missing = [role for role in LOSS_ROLES if role not in log.curves]
    if len(missing) == 1:
        doubts.append(f"no loss of the {missing[0]} was found; pass its log too, or name its column (--{missing[0]})")
    if doubts:
        return "inconclusive", doubts
    return "settled" if _has_plateau(pair) else "no_instability_found", doubts


def _has_plateau(pair: PairMeasurements) -> bool:
    return all(loss.has_plateau or is_constant(loss.curve, loss.trimmed) for loss in pair.losses.values())


def _get_losses(log: Log) -> dict[str, Curve]:
    return {role: log.curves[role] for role in LOSS_ROLES if role in log.curves}


def _has_finite_loss(log: Log) -> bool:
    return any(np.isfinite(curve.value).any() for curve in _get_losses(log).values())


def _find_insufficient_data(log: Log) -> list[str]:
    """Why nothing can be concluded: no finite loss, too few rows, or losses that never change."""
    if not _has_finite_loss(log):
        return [
            f"no row of {log.rows:,} has a finite loss: the log or the run is broken from the first step; "
            "check the first rows, and train again with lower learning rates"
        ]
    reasons = []
    for curve in _get_losses(log).values():
        finite = curve.value[np.isfinite(curve.value)]
        if len(curve) < MIN_ROWS:
            reasons.append(
                f"for a cycle test there are too few rows of {curve.name}, {len(curve)} of the {MIN_ROWS} needed; "
                "pass a longer log, or log more often"
            )
        elif len(finite) and np.ptp(finite) <= 1e-12 * max(1.0, float(np.abs(finite).max())):
            reasons.append(
                f"every row of {curve.name} is {finite[0]:g}, and a constant is not a loss; "
                "name the loss columns (--generator, --discriminator)"
            )
    return reasons


def _find_levels(log: Log, curves: Mapping[str, Curve]) -> list[LossEvent | None]:
    """Which player has won, or that D separates nothing."""
    events = [saturation.find_discriminator_win(curves), saturation.find_generator_win(curves)]
    if events[1] is None:
        events[1] = find_fooled_discriminator(curves)
    if events[0] is None:
        events[0] = find_sure_accuracy(log.side_curves)
    if events == [None, None]:
        events.append(find_chance_level(curves))
    return events


def dies_down(oscillation: Oscillation) -> bool:
    """Whether the swings decay over the log."""
    return fit_amplitude_trend(oscillation.trimmed).is_decaying or not oscillation.is_persistent


def _is_part_of_walk(pair: PairMeasurements) -> bool:
    """Whether the cycle is a slow one of losses that wander without a level: a random walk has such swings."""
    oscillation = pair.oscillation
    if oscillation is None or not any(loss.wanders for loss in pair.losses.values()):
        return False
    return oscillation.cycle.period > MAX_WALK_CYCLE * float(np.ptp(oscillation.trimmed.step))


def _make_oscillation_event(pair: PairMeasurements) -> LossEvent | None:
    """The event of a strong cycle that does not die down."""
    oscillation = pair.oscillation
    if oscillation is None or not oscillation.is_strong or dies_down(oscillation) or _is_part_of_walk(pair):
        return None
    log, cycle, cross_spectrum = pair.log, oscillation.cycle, oscillation.cross_spectrum
    about = "" if oscillation.is_line else "about "
    evidence = (
        f"{oscillation.curve.name} repeats a cycle with period {about}{format_step(cycle.period)} {log.step_unit} and "
        f"amplitude {format_value(cycle.amplitude)} (p = {oscillation.p_value:.3g}, "
        f"{100 * cycle.variance_fraction:.0f} % of its variance)"
    )
    phase, coherence = cross_spectrum["phase"], cross_spectrum["coherence"]
    if phase is not None and coherence is not None and oscillation.is_coherent:
        evidence += f"; D's loss lags G's by {phase:+.0f}° (coherence {coherence:.2f})"
        if is_chase(oscillation):
            evidence += ", as when the players chase each other"
    return LossEvent(cycle.start, "oscillating", evidence)


def is_chase(oscillation: Oscillation) -> bool:
    """Whether the players move together a quarter of a cycle apart."""
    phase = oscillation.cross_spectrum["phase"]
    return phase is not None and oscillation.is_coherent and abs(abs(phase) - 90) < 45


def _find_joint_spikes(pair: PairMeasurements) -> LossEvent | None:
    """Spikes of a row or two that hit both losses at once, again and again."""
    if len(pair.losses) < 2:
        return None
    loss = max(pair.losses.values(), key=lambda measured: measured.spikes.n_joint if measured.spikes else 0)
    spikes = loss.spikes
    if spikes is None or not spikes.is_apart or spikes.n_joint < max(MIN_JOINT_SPIKES, len(spikes.rows) // 2):
        return None
    step = loss.curve.step
    first, last = float(step[spikes.rows[0]]), float(step[spikes.rows[-1]])
    if last - first < MIN_SPIKE_SPAN * float(step[-1] - step[0]):
        return None
    share = "all" if spikes.n_joint == len(spikes.rows) else f"{spikes.n_joint}"
    evidence = f"{_describe_spikes(loss.curve.name, spikes)}, {share} of them in both losses"
    return LossEvent(first, "mode_hopping", evidence)


def _describe_spikes(name: str, spikes: Spikes) -> str:
    return (
        f"{len(spikes.rows)} spikes of a row or two in {name}, {spikes.height:.0f} robust standard deviations high, "
        f"the highest at {format_value(spikes.largest)}"
    )


def _find_spiking(pair: PairMeasurements) -> LossEvent | None:
    """Spikes of a row or two in one loss."""
    spiking = [loss for loss in pair.losses.values() if loss.spikes is not None]
    if not spiking or _find_joint_spikes(pair) is not None:
        return None
    loss = max(spiking, key=lambda measured: len(measured.spikes.rows) if measured.spikes else 0)
    spikes = loss.spikes
    assert spikes is not None  # narrows the type: `spiking` holds only losses with spikes
    return LossEvent(float(loss.curve.step[spikes.rows[0]]), "spiking", _describe_spikes(loss.curve.name, spikes))


def _find_drift(pair: PairMeasurements) -> LossEvent | None:
    """A trend over the last half that lasts to the end, or a loss that wanders without a level."""
    drifting = [loss for loss in pair.losses.values() if _is_drifting(loss)]
    if drifting:
        start = min(loss.trend.start for loss in drifting if loss.trend is not None)
        phrases = [describe_trend(loss) for loss in drifting]
        return LossEvent(start, "drifting", f"over the last half {' and '.join(phrases)}")
    wandering = [loss for loss in pair.losses.values() if loss.wanders and not is_constant(loss.curve, loss.trimmed)]
    if not wandering:
        return None
    names = " and ".join(loss.curve.name for loss in wandering)
    ranges = ", ".join(
        f"{format_value(_finite_min(loss.curve))} to {format_value(_finite_max(loss.curve))}" for loss in wandering
    )
    evidence = f"{names} wander{'s' * (len(wandering) == 1)} like a random walk, with no level to return to ({ranges})"
    return LossEvent(float(wandering[0].curve.step[0]), "drifting", evidence)


def _is_drifting(loss: LossMeasurements) -> bool:
    return (
        loss.trend is not None
        and loss.trend.is_shown
        and len(loss.curve) >= MIN_ROWS
        and not is_constant(loss.curve, loss.trimmed)
    )


def describe_trend(loss: LossMeasurements) -> str:
    """ "g_loss rises 5 → 7.3 (trend +2.3, 95 % interval +1.9 to +2.7)"; "" without a trend."""
    trend = loss.trend
    if trend is None:
        return ""
    verb = "rises" if trend.change > 0 else "falls"
    return (
        f"{loss.curve.name} {verb} {format_value(trend.begins)} → {format_value(trend.ends)} (trend "
        f"{format_change(trend.change)}, 95 % interval {format_change(trend.low)} to {format_change(trend.high)})"
    )


def _find_level_step(pair: PairMeasurements) -> LossEvent | None:
    """The last step of a level, unless it is early or the learning rate explains it."""
    candidates = []
    for loss in pair.losses.values():
        for change in loss.steps:
            is_early = change.row < EARLY_STEP_FRACTION * len(loss.curve)
            if not is_early and pair.find_rate_drop(change.step) is None:
                candidates.append((change.step, loss.curve.name, change))
    if not candidates:
        return None
    first = min(step for step, _, _ in candidates)
    phrases = [
        f"{name} {format_value(change.before)} → {format_value(change.after)} at {format_step(step)}"
        for step, name, change in candidates
    ]
    evidence = f"the level steps: {', '.join(phrases[:4])}" + (" …" if len(phrases) > 4 else "")
    return LossEvent(first, "stepped", evidence)


def _finite_min(curve: Curve) -> float:
    return float(curve.value[np.isfinite(curve.value)].min())


def _finite_max(curve: Curve) -> float:
    return float(curve.value[np.isfinite(curve.value)].max())


def is_too_short(log: Log) -> bool:
    """Whether the log is too short for a cycle test, but long enough to say something."""
    rows = [len(curve) for curve in _get_losses(log).values()]
    return bool(rows) and min(rows) < MIN_ROWS and max(rows) >= min(MIN_EVENT_ROWS, 4)
