"""From a log to the losses document (schema gandiag.losses/1): verdict, oscillation, events with their start and evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gandiag.training_logs import saturation
from gandiag.training_logs.loss_type import infer_loss_type
from gandiag.training_logs.oscillation import (
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
EVENT_PRIORITY = ("failed", "discriminator_wins", "generator_wins", "diverging", "mode_hopping", "oscillating")
MAX_POINTS = 400  # of a curve in the document


def analyze_log(log: Log, *, seed: int = 0) -> dict[str, Any]:
    """The losses document of a log. Deterministic for a seed. Cost: two Monte Carlo tests, about a second each."""
    doubts = [*log.problems, *_too_little(log)]
    parts = trim_losses(log)
    found = find_oscillation(log, parts, seed=seed)
    notes = [
        *log.notes,
        *filter(None, (saturation.describe_non_finite_rows(curve) for curve in _losses(log).values())),
        *_said(log, parts, found),
    ]
    events = sorted(_events(log, parts, found), key=lambda event: (event.step, EVENT_PRIORITY.index(event.kind)))
    verdict = next((kind for kind in EVENT_PRIORITY if any(event.kind == kind for event in events)), None)
    if verdict is None:
        missing = [role for role in LOSS_ROLES if role not in log.curves]
        doubts += (
            [f"no {missing[0]} loss in this log: what it does cannot be known; pass its log too, or name its column"]
            if len(missing) == 1
            else []
        )
        verdict = "inconclusive" if doubts else "settled"
    elif log.problems:
        verdict = "inconclusive"
    return {
        "schema": SCHEMA,
        "verdict": verdict,
        "columns": dict(log.columns),
        "oscillation": make_oscillation_document(found),
        "events": [{"step": event.step, "kind": event.kind, "evidence": event.evidence} for event in events]
        or _settled(verdict, parts),
        "read": {"format": log.format, "rows": log.rows, "skipped": log.skipped_lines, "files": list(log.files)},
        "unit": log.step_unit,
        "family": infer_loss_type(log.curves),
        "notes": notes,
        "doubts": doubts,
        "curves": {role: _thin(curve) for role, curve in log.curves.items()},
        "spectrum": _spectrum(found),
    }


def _losses(log: Log) -> dict[str, Curve]:
    return {role: log.curves[role] for role in LOSS_ROLES if role in log.curves}


def _too_little(log: Log) -> list[str]:
    """Why nothing can be said: no numbers at all, too few rows, or losses that never change."""
    found = []
    if not _any_number(log):
        told = f"not one of the {log.rows:,} rows has a loss that is a number: the log may be broken, or the run from its first step"
        return [f"{told}; look at the first rows, and train again with lower rates"]
    for curve in _losses(log).values():
        finite = curve.value[np.isfinite(curve.value)]
        if len(curve) < MIN_ROWS:
            found.append(
                f"{len(curve)} rows of {curve.name} are too few: at least {MIN_ROWS} are needed; pass a longer log, or log more often"
            )
        elif len(finite) and np.ptp(finite) <= 1e-12 * max(1.0, float(np.abs(finite).max())):
            told = f"{curve.name} is {finite[0]:g} in every row: a constant says nothing"
            found.append(f"{told}; name the columns of the losses (--generator, --discriminator)")
    return found


def _events(log: Log, parts: Mapping[str, TrimmedCurve], found: Oscillation | None) -> list[LossEvent]:
    losses = _losses(log)
    if not _any_number(log):
        return []
    events = [saturation.find_failure(curve) for curve in losses.values()]
    long = {role: curve for role, curve in log.curves.items() if len(curve) >= MIN_ROWS}
    if any(role in long for role in LOSS_ROLES):
        events += [saturation.find_discriminator_win(long), saturation.find_generator_win(long)]
        events += [
            find_divergence(curve, parts[role])
            for role, curve in losses.items()
            if role in parts and not is_constant(curve, parts[role])
        ]
        events += [find_mode_hopping(losses, parts), _oscillating(log, parts, found)]
    return [event for event in events if event is not None]


def _oscillating(log: Log, parts: Mapping[str, TrimmedCurve], found: Oscillation | None) -> LossEvent | None:
    """A significant line that carries weight, is not the data's order, and does not die down."""
    if (
        found is None
        or not found.is_significant
        or not found.is_persistent
        or fit_amplitude_trend(found.trimmed).is_decaying
    ):
        return None
    turn = found.cycle
    about = "" if found.is_line else "about "
    told = f"{found.curve.name} turns with period {about}{turn.period:,.4g} {log.step_unit}, amplitude {turn.amplitude:.3g}"
    told += f", p = {found.p_value:.3g}, {100 * turn.variance_fraction:.0f} % of its variance"
    phase, coherence, chance = (found.cross_spectrum[key] for key in ("phase", "coherence", "chance"))
    if phase is not None and coherence is not None and chance is not None and coherence > chance:
        turning = abs(abs(phase) - 90) < 45
        told += f"; G and D move together there (coherence {coherence:.2f}) at {phase:+.0f}°" + (
            ": a cycle of the game" if turning else ""
        )
    return LossEvent(turn.start, "oscillating", told)


def _said(log: Log, parts: Mapping[str, TrimmedCurve], found: Oscillation | None) -> list[str]:
    """What was done before the test, and which periods it can speak of."""
    told = []
    for role, part in parts.items():
        if part.dropped_rows:
            told.append(
                f"warm-up of {log.curves[role].name} dropped: {part.dropped_rows:,} rows, up to step {part.start:,.6g}"
            )
        if part.rows_per_bin > 1:
            told.append(f"{part.rows_per_bin:,} rows of {log.curves[role].name} averaged into each point tested")
    if found is not None:
        short, long = found.spectrum.period_range
        told.append(
            f"trend removed: a parabola; periods of {short:,.4g} to {long:,.4g} {log.step_unit} can be seen, others cannot ({found.spectrum.method})"
        )
        if found.is_per_epoch:
            told.append(
                f"the line at period {found.cycle.period:,.4g} is the order of the data: it comes once per epoch, or a whole number of times"
            )
        if found.p_value <= 0.05 and (fit_amplitude_trend(found.trimmed).is_decaying or not found.is_persistent):
            told.append("the oscillation dies down")
    return told


def _settled(verdict: str, parts: Mapping[str, TrimmedCurve]) -> list[dict[str, Any]]:
    """Where the plateau begins that a settled run is on."""
    if verdict != "settled" or not parts:
        return []
    start = max(part.start for part in parts.values())
    return [
        {
            "step": start,
            "kind": "settled",
            "evidence": "no line above the background, no trend that lasts, no bursts from here on",
        }
    ]


def _thin(curve: Curve) -> dict[str, Any]:
    """At most POINTS points, means of runs of rows; null where nothing finite is."""
    groups = np.array_split(np.arange(len(curve)), min(len(curve), MAX_POINTS))
    value = [float(part.mean()) if len(part := _finite(curve.value[group])) else None for group in groups]
    return {"name": curve.name, "step": [float(curve.step[group[-1]]) for group in groups], "value": value}


def _any_number(log: Log) -> bool:
    return any(np.isfinite(curve.value).any() for curve in _losses(log).values())


def _finite(value: Array) -> Array:
    return value[np.isfinite(value)]


def _spectrum(found: Oscillation | None) -> dict[str, Any] | None:
    """Period, power, background and the 5 % line, thinned to the largest of each group; amplitude over time."""
    if found is None:
        return None
    line = found.spectrum
    groups = np.array_split(np.arange(len(line.frequency)), min(len(line.frequency), MAX_POINTS))
    at = [int(group[line.power[group].argmax()]) for group in groups]
    return {
        "curve": found.curve.name,
        "period": [float(1 / line.frequency[i]) for i in at],
        "power": [float(line.power[i]) for i in at],
        "background": [float(line.background[i]) for i in at],
        "critical": [float(line.critical_power[i]) for i in at],
        "course": {"step": found.cycle.window_centers.tolist(), "amplitude": found.cycle.window_amplitude.tolist()},
        "spectrogram": _spectrogram(found),
    }


def _spectrogram(found: Oscillation) -> dict[str, Any]:
    """Power over the background by period and step, to three digits; null where a window holds too few rows."""
    part = found.trimmed
    drawn = compute_spectrogram(part.step, remove_quadratic_trend(part.step, part.value), found.spectrum)
    ratio = [[float(f"{cell:.3g}") if np.isfinite(cell) else None for cell in row] for row in drawn.power_ratio]
    return {"step": drawn.step.tolist(), "period": drawn.period.tolist(), "cone": drawn.cone.tolist(), "ratio": ratio}
