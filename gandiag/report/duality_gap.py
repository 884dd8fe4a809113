"""Words the duality gap: the game value and its bounds, G's response to a frozen D, and which D was used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gandiag.record import Measurement, Record
from gandiag.report import formatting

Rows = list[tuple[str, str]]


def build_duality_gap_rows(record: Record) -> Rows:
    """(label, text) in reading order; empty if the duality gap was not estimated."""
    if not record.game.get("steps"):
        return []
    measured = {key: entry for key, entry in record.measurements.items() if entry.status == "ok"}
    rows = [*_build_value_rows(measured, record.game.get("chance")), *_build_maximin_rows(record, measured)]
    about = record.game.get("discriminator") or {}
    location, family = (formatting.format_value(about.get(key)) for key in ("where", "family"))
    n_parameters = formatting.format_value(about.get("parameters"))
    rows.append(("discriminator", f"{location}, {family}, {n_parameters} parameters"))
    return rows + [("assumption", _format_assumption(entry)) for entry in about.get("assumptions") or ()]


def _build_value_rows(measured: Mapping[str, Measurement], chance: Any) -> Rows:
    if not {"duality_gap", "game_value", "game_upper", "game_lower"} <= measured.keys():
        return []
    value, lower, upper = (measured[key].value or 0.0 for key in ("game_value", "game_lower", "game_upper"))
    gap = measured["duality_gap"]
    floor = f", floor {formatting.format_number(gap.floor)}" if gap.floor is not None else ""
    uninformed = f" (uninformed D: {chance:.2f})" if isinstance(chance, float) else ""
    return [
        ("value", f"{value:.2f} nats{uninformed}, between {lower:.2f} and {upper:.2f}"),
        ("duality gap", f"{_format_estimate(gap)} nats{floor}; 0 at an equilibrium"),
        ("possible gain", f"D {upper - value:.2f} against this G, G {value - lower:.2f} against this D"),
    ]


def _build_maximin_rows(record: Record, measured: Mapping[str, Measurement]) -> Rows:
    spread, outputs, gain = (measured.get(key) for key in ("maximin_spread", "maximin_outputs", "maximin_gain"))
    if spread is None or outputs is None or gain is None:
        return []
    steps = f"up to {formatting.format_value(record.game.get('steps'))} steps of G"
    if not (record.game.get("rates") or {}).get("generator"):
        return [("frozen D", f"{steps}: no gain found, so G is unchanged")]
    before = formatting.format_number(((record.game.get("before") or {}).get("outputs") or {}).get("value"))
    distance = f"{100 * (spread.value or 0.0):.0f} % of the distance"
    change = f"{before} effective outputs become {_format_estimate(outputs)}, at {distance}"
    return [("frozen D", f"{steps}: {change}, for {_format_estimate(gain)} {gain.unit}")]


def _format_estimate(entry: Measurement) -> str:
    estimate = {"value": entry.value, "low": entry.low, "high": entry.high}
    return formatting.format_estimate(estimate, formatting.format_number)


def _format_assumption(entry: Mapping[str, Any]) -> str:
    setting, value, source = (formatting.format_value(entry.get(key)) for key in ("what", "value", "source"))
    return f"{setting}: {value} ({source})"
