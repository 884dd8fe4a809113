"""The game between G and D in words: its value between the bounds, what a frozen D does to G, and which D that was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gandiag.record import Measurement, Record
from gandiag.report import formatting


def build_duality_gap_rows(record: Record) -> list[tuple[str, str]]:
    """(label, text) in reading order; nothing where no game was played."""
    if not record.game.get("steps"):
        return []
    found = {key: entry for key, entry in record.measurements.items() if entry.status == "ok"}
    told = [*_values(found, record.game.get("chance")), *_maximin(record, found)]
    about = record.game.get("discriminator") or {}
    parts = [
        formatting.format_value(about.get("where")),
        formatting.format_value(about.get("family")),
        f"{formatting.format_value(about.get('parameters'))} parameters",
    ]
    told.append(("discriminator", ", ".join(parts)))
    told += [("assumed", _assumption(entry)) for entry in about.get("assumptions") or ()]
    return told


def _values(found: Mapping[str, Measurement], chance: Any) -> list[tuple[str, str]]:
    if "duality_gap" not in found or not {"game_value", "game_upper", "game_lower"} <= found.keys():
        return []
    value, lower, upper = (found[key].value or 0.0 for key in ("game_value", "game_lower", "game_upper"))
    floor = (
        f", floor {formatting.format_number(found['duality_gap'].floor)}"
        if found["duality_gap"].floor is not None
        else ""
    )
    known = f" (a D that knows nothing: {chance:.2f})" if isinstance(chance, float) else ""
    return [
        ("value", f"{value:.2f} nats{known}, between {lower:.2f} and {upper:.2f}"),
        ("duality gap", f"{_estimate(found['duality_gap'])} nats{floor}; 0 at an equilibrium"),
        ("still to gain", f"D {upper - value:.2f} against this G, G {value - lower:.2f} against this D"),
    ]


def _maximin(record: Record, found: Mapping[str, Measurement]) -> list[tuple[str, str]]:
    spread, outputs, gain = (found.get(key) for key in ("maximin_spread", "maximin_outputs", "maximin_gain"))
    if spread is None or outputs is None or gain is None:
        return []
    before = ((record.game.get("before") or {}).get("outputs") or {}).get("value")
    share = f"{100 * (spread.value or 0.0):.0f} % of the distance"
    steps = f"{formatting.format_value(record.game.get('steps'))} steps of G at most"
    if not (record.game.get("rates") or {}).get("generator"):
        return [("D frozen", f"{steps}: nothing to gain, so that G stays where it is")]
    return [
        (
            "D frozen",
            f"{steps}: {formatting.format_number(before)} effective outputs become {_estimate(outputs)}, at {share}, for {_estimate(gain)} {gain.unit}",
        )
    ]


def _estimate(entry: Measurement) -> str:
    return formatting.format_estimate(
        {"value": entry.value, "low": entry.low, "high": entry.high}, formatting.format_number
    )


def _assumption(entry: Mapping[str, Any]) -> str:
    return f"{formatting.format_value(entry.get('what'))}: {formatting.format_value(entry.get('value'))} ({formatting.format_value(entry.get('source'))})"
