"""Builds the losses document (schema gandiag.losses/1) of a log: verdict, oscillation and events with evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gandiag.training_logs import saturation
from gandiag.training_logs.loss_type import infer_loss_type
from gandiag.training_logs.oscillation import (
    SIGNIFICANCE_LEVEL,
    Oscillation,
    find_oscillation,
    is_constant,
    make_oscillation_document,
    trim_losses,
)
from gandiag.training_logs.saturation import LossEvent
from gandiag.training_logs.series import LOSS_ROLES, Array, Curve, Log
from gandiag.training_logs.sinusoid import remove_quadratic_trend
from gandiag.training_logs.spectrogram import compute_spectrogram
from gandiag.training_logs.spectrum import MIN_ROWS
from gandiag.training_logs.trends import find_divergence, find_mode_hopping, fit_amplitude_trend
from gandiag.training_logs.warmup import TrimmedCurve

SCHEMA = "gandiag.losses/1"
# The verdict is the first of these kinds that occurs.
EVENT_PRIORITY = ("failed", "discriminator_wins", "generator_wins", "diverging", "mode_hopping", "oscillating")
MAX_POINTS = 400  # of a curve in the document


def analyze_log(log: Log, *, seed: int = 0) -> dict[str, Any]:
    """The losses document of a log. Deterministic for a seed. Cost: two Monte Carlo tests, about a second each."""
    trimmed = trim_losses(log)
    oscillation = find_oscillation(log, trimmed, seed=seed)
    events = _find_events(log, trimmed, oscillation)
    verdict, doubts = _conclude(log, events)
    documents = [{"step": event.step, "kind": event.kind, "evidence": event.evidence} for event in events]
    return {
        "schema": SCHEMA,
        "verdict": verdict,
        "columns": dict(log.columns),
        "oscillation": make_oscillation_document(oscillation),
        "events": documents or _make_settled_event(verdict, trimmed),
        "read": {"format": log.format, "rows": log.rows, "skipped": log.skipped_lines, "files": list(log.files)},
        "unit": log.step_unit,
        "family": infer_loss_type(log.curves),
        "notes": _list_notes(log, trimmed, oscillation),
        "doubts": doubts,
        "curves": {role: _thin_curve(curve) for role, curve in log.curves.items()},
        "spectrum": _make_spectrum_document(oscillation),
    }


def _conclude(log: Log, events: list[LossEvent]) -> tuple[str, list[str]]:
    """The verdict, and the doubts: why there is none, or why the log supports none."""
    doubts = [*log.problems, *_find_insufficient_data(log)]
    kinds = {event.kind for event in events}
    if kinds:
        verdict = next(kind for kind in EVENT_PRIORITY if kind in kinds)
        return ("inconclusive" if log.problems else verdict), doubts
    missing = [role for role in LOSS_ROLES if role not in log.curves]
    if len(missing) == 1:
        doubts.append(f"this log has no {missing[0]} loss; pass its log too, or name its column (--{missing[0]})")
    return ("inconclusive" if doubts else "settled"), doubts


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
                f"{curve.name} has too few rows, {len(curve)} of the {MIN_ROWS} needed; "
                "pass a longer log, or log more often"
            )
        elif len(finite) and np.ptp(finite) <= 1e-12 * max(1.0, float(np.abs(finite).max())):
            reasons.append(
                f"{curve.name} is {finite[0]:g} in every row, and a constant is not a loss; "
                "name the loss columns (--generator, --discriminator)"
            )
    return reasons


def _find_events(log: Log, trimmed: Mapping[str, TrimmedCurve], oscillation: Oscillation | None) -> list[LossEvent]:
    """All events in order of their start."""
    if not _has_finite_loss(log):
        return []
    losses = _get_losses(log)
    events = [saturation.find_failure(curve) for curve in losses.values()]
    long_curves = {role: curve for role, curve in log.curves.items() if len(curve) >= MIN_ROWS}
    if any(role in long_curves for role in LOSS_ROLES):
        events += [saturation.find_discriminator_win(long_curves), saturation.find_generator_win(long_curves)]
        events += [
            find_divergence(curve, trimmed[role])
            for role, curve in losses.items()
            if role in trimmed and not is_constant(curve, trimmed[role])
        ]
        events += [find_mode_hopping(losses, trimmed), _make_oscillation_event(log, oscillation)]
    found = [event for event in events if event is not None]
    return sorted(found, key=lambda event: (event.step, EVENT_PRIORITY.index(event.kind)))


def _dies_down(oscillation: Oscillation) -> bool:
    return fit_amplitude_trend(oscillation.trimmed).is_decaying or not oscillation.is_persistent


def _make_oscillation_event(log: Log, oscillation: Oscillation | None) -> LossEvent | None:
    """The event of a significant cycle that does not die down."""
    if oscillation is None or not oscillation.is_significant or _dies_down(oscillation):
        return None
    cycle, cross_spectrum = oscillation.cycle, oscillation.cross_spectrum
    about = "" if oscillation.is_line else "about "
    evidence = (
        f"{oscillation.curve.name} oscillates with period {about}{cycle.period:,.4g} {log.step_unit} and amplitude "
        f"{cycle.amplitude:.3g} (p = {oscillation.p_value:.3g}, {100 * cycle.variance_fraction:.0f} % of its variance)"
    )
    phase, coherence, chance = (cross_spectrum[key] for key in ("phase", "coherence", "chance"))
    if phase is not None and coherence is not None and chance is not None and coherence > chance:
        evidence += f"; D's loss lags G's by {phase:+.0f}° (coherence {coherence:.2f})"
        if abs(abs(phase) - 90) < 45:
            evidence += ", as when the players chase each other"
    return LossEvent(cycle.start, "oscillating", evidence)


def _list_notes(log: Log, trimmed: Mapping[str, TrimmedCurve], oscillation: Oscillation | None) -> list[str]:
    """How the log was read and prepared, and which periods the test covers."""
    non_finite = (saturation.describe_non_finite_rows(curve) for curve in _get_losses(log).values())
    notes = [*log.notes, *filter(None, non_finite)]
    for role, curve in trimmed.items():
        name = log.curves[role].name
        if curve.dropped_rows:
            notes.append(f"warm-up of {name} dropped: {curve.dropped_rows:,} rows, up to step {curve.start:,.6g}")
        if curve.rows_per_bin > 1:
            notes.append(f"{curve.rows_per_bin:,} rows of {name} averaged into each point tested")
    if oscillation is None:
        return notes
    shortest, longest = oscillation.spectrum.period_range
    notes.append(
        f"tested for periods of {shortest:,.4g} to {longest:,.4g} {log.step_unit}, after removing a quadratic trend; "
        f"others cannot be detected ({oscillation.spectrum.method})"
    )
    if oscillation.is_per_epoch:
        notes.append(
            f"the cycle of period {oscillation.cycle.period:,.4g} is the order of the data: "
            "it repeats once per epoch, or a whole number of times"
        )
    if oscillation.p_value <= SIGNIFICANCE_LEVEL and _dies_down(oscillation):
        notes.append("the oscillation dies down")
    return notes


def _make_settled_event(verdict: str, trimmed: Mapping[str, TrimmedCurve]) -> list[dict[str, Any]]:
    """The start of the plateau of a settled run, as the only event."""
    if verdict != "settled" or not trimmed:
        return []
    start = max(curve.start for curve in trimmed.values())
    evidence = "no cycle above the background, no lasting trend and no bursts from here on"
    return [{"step": start, "kind": "settled", "evidence": evidence}]


def _thin_curve(curve: Curve) -> dict[str, Any]:
    """At most MAX_POINTS points, each the mean of consecutive rows; null where no value is finite."""
    groups = np.array_split(np.arange(len(curve)), min(len(curve), MAX_POINTS))
    steps = [float(curve.step[group[-1]]) for group in groups]
    return {"name": curve.name, "step": steps, "value": [_mean_of_finite(curve.value[group]) for group in groups]}


def _mean_of_finite(value: Array) -> float | None:
    finite = value[np.isfinite(value)]
    return float(finite.mean()) if len(finite) else None


def _make_spectrum_document(oscillation: Oscillation | None) -> dict[str, Any] | None:
    """Period, power, background and the 5 % line, thinned to the largest power of each group; amplitude over time."""
    if oscillation is None:
        return None
    spectrum, cycle = oscillation.spectrum, oscillation.cycle
    groups = np.array_split(np.arange(len(spectrum.frequency)), min(len(spectrum.frequency), MAX_POINTS))
    kept = [int(group[spectrum.power[group].argmax()]) for group in groups]
    return {
        "curve": oscillation.curve.name,
        "period": [float(1 / spectrum.frequency[i]) for i in kept],
        "power": [float(spectrum.power[i]) for i in kept],
        "background": [float(spectrum.background[i]) for i in kept],
        "critical": [float(spectrum.critical_power[i]) for i in kept],
        "course": {"step": cycle.window_centers.tolist(), "amplitude": cycle.window_amplitude.tolist()},
        "spectrogram": _make_spectrogram_document(oscillation),
    }


def _make_spectrogram_document(oscillation: Oscillation) -> dict[str, Any]:
    """Power over the background by period and step, to three digits; null where a window holds too few rows."""
    trimmed = oscillation.trimmed
    detrended = remove_quadratic_trend(trimmed.step, trimmed.value)
    spectrogram = compute_spectrogram(trimmed.step, detrended, oscillation.spectrum)
    ratio = [[float(f"{cell:.3g}") if np.isfinite(cell) else None for cell in row] for row in spectrogram.power_ratio]
    return {
        "step": spectrogram.step.tolist(),
        "period": spectrogram.period.tolist(),
        "cone": spectrogram.cone.tolist(),
        "ratio": ratio,
    }
