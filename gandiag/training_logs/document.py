"""Builds the losses document (schema gandiag.losses/1) of a log: verdict, measurements, events with evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gandiag.training_logs import saturation
from gandiag.training_logs.loss_curves import LossMeasurements, PairMeasurements, measure_pair
from gandiag.training_logs.loss_levels import infer_family
from gandiag.training_logs.loss_type import infer_loss_type
from gandiag.training_logs.oscillation import SIGNIFICANCE_LEVEL, Oscillation, make_oscillation_document
from gandiag.training_logs.series import Array, Curve, Log
from gandiag.training_logs.side_columns import make_side_document
from gandiag.training_logs.sinusoid import remove_quadratic_trend
from gandiag.training_logs.spectrogram import compute_spectrogram
from gandiag.training_logs.summary import summarize
from gandiag.training_logs.verdict import VERDICT_ORDER, conclude, dies_down, find_events

SCHEMA = "gandiag.losses/1"
MAX_POINTS = 400  # of a curve in the document
MAX_PAIRS = 8  # judged beside the first
MAX_RUNS = 6
MAX_OTHER_COLUMNS = 40  # names in the document


def analyze_log(log: Log, *, seed: int = 0) -> dict[str, Any]:
    """The losses document of a log. Deterministic for a seed. Cost: two Monte Carlo tests a pair, a second each.

    With several pairs of players, or runs written at the same time, the document is that of the worst; of runs one
    after the other, that of the last. The others are listed.
    """
    pairs = [analyze_pair(entry, seed=seed) for entry in (log, *log.pairs[:MAX_PAIRS])]
    runs = [analyze_pair(entry, seed=seed) for entry in log.runs[:MAX_RUNS]]
    considered = [*pairs, *runs] if log.interleaved else pairs
    document = dict(min(considered, key=lambda entry: VERDICT_ORDER.index(entry["verdict"])))
    document["pairs"] = [_summarize(entry) for entry in pairs] if len(pairs) > 1 else []
    document["runs"] = [_summarize(entry) for entry in (*runs, pairs[0])] if runs else []
    if len(pairs) > 1:
        document["summary"] = _name_pairs(pairs) + document["summary"]
    return document


def _summarize(document: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("name", "verdict", "columns", "events", "levels", "summary")
    return {key: document[key] for key in keys} | {"rows": document["read"]["rows"]}


def _name_pairs(pairs: Sequence[Mapping[str, Any]]) -> str:
    """ "D_B: discriminator wins; D_A: settled. " """
    ordered = sorted(pairs, key=lambda entry: VERDICT_ORDER.index(entry["verdict"]))
    return "; ".join(f"{entry['name']}: {entry['verdict'].replace('_', ' ')}" for entry in ordered) + ". "


def analyze_pair(log: Log, *, seed: int = 0) -> dict[str, Any]:
    """The document of one pair of losses."""
    pair = measure_pair(log, seed=seed)
    events = find_events(pair)
    verdict, doubts = conclude(pair, events)
    family = infer_family(log.curves)
    document = {
        "schema": SCHEMA,
        "name": log.name or _name_pair(log),
        "verdict": verdict,
        "columns": dict(log.columns),
        "other_columns": list(log.other_columns[:MAX_OTHER_COLUMNS]),
        "oscillation": make_oscillation_document(pair.oscillation),
        "events": [{"step": event.step, "kind": event.kind, "evidence": event.evidence} for event in events]
        or _make_settled_event(verdict, pair),
        "levels": {role: _make_level_document(loss) for role, loss in pair.losses.items()},
        "loss": {"family": family.name, "chance": family.chance, "certain": family.is_certain},
        "beside": make_side_document(log.side_curves),
        "rate_drops": list(pair.rate_drops),
        "power": _make_power_document(pair.oscillation),
        "read": {"format": log.format, "rows": log.rows, "skipped": log.skipped_lines, "files": list(log.files)},
        "unit": log.step_unit,
        "family": infer_loss_type(log.curves),
        "notes": _list_notes(pair),
        "doubts": doubts,
        "curves": {role: _thin_curve(curve) for role, curve in log.curves.items()},
        "spectrum": _make_spectrum_document(pair.oscillation),
    }
    return document | {"summary": summarize(pair, verdict, events, document)}


def _name_pair(log: Log) -> str:
    curve = log.curves.get("discriminator") or log.curves.get("generator")
    return curve.name if curve is not None else "losses"


def _make_level_document(loss: LossMeasurements) -> dict[str, Any]:
    """Level, trend over the last half with its interval, steps and spikes of one loss."""
    trend, spikes = loss.trend, loss.spikes
    finite = loss.curve.value[np.isfinite(loss.curve.value)]
    tail = finite[-max(len(finite) // 10, 5) :]
    return {
        "name": loss.curve.name,
        "last": float(np.median(tail)) if len(tail) else None,
        "trend": None
        if trend is None
        else {
            "from": trend.first,
            "to": trend.last,
            "change": trend.change,
            "low": trend.low,
            "high": trend.high,
            "noise": trend.noise,
            "start": trend.start,
            "shown": trend.is_shown,
        },
        "plateau": loss.has_plateau,
        "steps": [{"step": change.step, "before": change.before, "after": change.after} for change in loss.steps],
        "spikes": None
        if spikes is None
        else {
            "count": len(spikes.rows),
            "joint": spikes.n_joint,
            "height": spikes.height,
            "largest": spikes.largest,
            "step": [float(loss.curve.step[row]) for row in spikes.rows[:50]],
        },
    }


def _make_power_document(oscillation: Oscillation | None) -> dict[str, Any] | None:
    """The amplitude from which on a cycle in the middle of the tested periods would be significant at 5 %."""
    if oscillation is None:
        return None
    spectrum, rows = oscillation.spectrum, len(oscillation.trimmed.step)
    critical = float(np.median(spectrum.critical_power))
    shortest, longest = spectrum.period_range
    return {
        "rows": rows,
        "amplitude": 2 * float(np.sqrt(critical / rows)),
        "shortest": shortest,
        "longest": longest,
    }


def _list_notes(pair: PairMeasurements) -> list[str]:
    """How the log was read and prepared, and which periods the test covers."""
    log, oscillation = pair.log, pair.oscillation
    non_finite = (saturation.describe_non_finite_rows(loss.curve) for loss in pair.losses.values())
    notes = [*log.notes, *filter(None, non_finite)]
    for loss in pair.losses.values():
        name, curve = loss.curve.name, loss.trimmed
        if curve.dropped_rows:
            notes.append(f"warm-up of {name} dropped: {curve.dropped_rows:,} rows, up to step {curve.start:,.6g}")
        if not curve.has_plateau:
            notes.append(
                f"no end of the warm-up of {name} was found: it reaches the half of the log that may be dropped"
            )
        if curve.rows_per_bin > 1:
            notes.append(f"{curve.rows_per_bin:,} rows of {name} averaged into each point tested")
        notes += [
            f"{name} steps {change.before:.3g} → {change.after:.3g} at {change.step:,.6g}"
            + (", where the learning rate drops" if pair.find_rate_drop(change.step) is not None else "")
            for change in loss.steps
        ]
    return notes if oscillation is None else [*notes, *_list_cycle_notes(log, oscillation)]


def _format_steps(value: float) -> str:
    """12,000 · 2.5."""
    return f"{value:,.0f}" if value >= 1_000 else f"{value:.4g}"


def _list_cycle_notes(log: Log, oscillation: Oscillation) -> list[str]:
    shortest, longest = oscillation.spectrum.period_range
    rows, cycle = len(oscillation.trimmed.step), oscillation.cycle
    amplitude = 2 * float(np.sqrt(float(np.median(oscillation.spectrum.critical_power)) / rows))
    notes = [
        f"tested for periods of {_format_steps(shortest)} to {_format_steps(longest)} {log.step_unit}, after removing "
        f"a quadratic trend; others cannot be detected ({oscillation.spectrum.method})",
        f"with {rows:,} rows, only cycles of {oscillation.curve.name} of amplitude above about {amplitude:.2g} "
        "would be seen",
    ]
    gap = float(np.median(np.diff(oscillation.trimmed.step)))
    if gap > 1 and log.step_unit in ("steps", "iterations"):
        notes.append(
            f"logged every {_format_steps(gap)} {log.step_unit}: "
            f"a cycle faster than {_format_steps(2 * gap)} shows with a false period"
        )
    if oscillation.is_per_epoch:
        notes.append(
            f"the cycle of period {_format_steps(cycle.period)} repeats with the epoch: data order, not the game; "
            "shuffle the data in every epoch"
        )
    if oscillation.is_significant and not oscillation.is_strong:
        notes.append(
            f"a weak hint of a cycle of {oscillation.curve.name}, period {_format_steps(cycle.period)} (p = "
            f"{oscillation.p_value:.2g}, {100 * cycle.variance_fraction:.0f} % of the variance): no verdict rests on it"
        )
    if oscillation.p_value <= SIGNIFICANCE_LEVEL and dies_down(oscillation):
        notes.append("the oscillation dies down")
    return notes


def _make_settled_event(verdict: str, pair: PairMeasurements) -> list[dict[str, Any]]:
    """The start of the plateau of a settled run, as the only event."""
    if verdict != "settled" or not pair.trimmed:
        return []
    start = max(curve.start for curve in pair.trimmed.values())
    evidence = "a level without lasting trend, cycle, steps or spikes from here on"
    return [{"step": start, "kind": "settled", "evidence": evidence}]


def _thin_curve(curve: Curve) -> dict[str, Any]:
    """At most MAX_POINTS points, each the mean of equally many consecutive rows; null where no value is finite.

    Groups of unequal size would draw a change of the noise that is not there.
    """
    n = len(curve)
    size = max(1, -(-n // MAX_POINTS))
    groups = [slice(low, low + size) for low in range(n % size, n, size)]
    steps = [float(curve.step[group][-1]) for group in groups]
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
