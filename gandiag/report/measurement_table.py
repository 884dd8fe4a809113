"""What was measured, sorted for a reader: the telling measurements first, the rest for those who ask; classes; the sweep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gandiag.record import Measurement, Record
from gandiag.report.formatting import format_estimate

MeasurementRows = list[tuple[str, Measurement]]


def split_measurements(record: Record) -> tuple[MeasurementRows, MeasurementRows]:
    """(telling, rest), each by key. Telling: has a floor to compare with, and is no variant (`x_q05` beside `x`). Without floors, all are."""
    made = [(key, entry) for key, entry in sorted(record.measurements.items()) if entry.status == "ok"]
    keys = {key for key, _ in made}
    telling = [
        (key, entry)
        for key, entry in made
        if entry.floor is not None and not any(key.startswith(other + "_") for other in keys)
    ]
    return (telling, [row for row in made if row not in telling]) if telling else (made, [])


def display_unit(entry: Measurement) -> str:
    """The unit where it says something that the number does not."""
    return "" if entry.unit in ("1", "share", "ratio") else entry.unit


def read_class_score(entry: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """A class's score as {value, low, high}, and its spread in words, the only thing known without real data of the class."""
    score, spread = entry.get("score"), entry.get("spread")
    inside = (
        f"spread {format_estimate({'value': spread, 'low': entry.get('spread_low'), 'high': entry.get('spread_high')})}"
        if spread is not None
        else ""
    )
    return (score if isinstance(score, Mapping) else {**entry, "value": score}), inside


def read_response(record: Record) -> tuple[str, list[str], list[Mapping[str, Any]]]:
    """(axis, columns, points) of the response: columns that hold a number somewhere, spread first."""
    points = [point for point in record.response.get("points") or () if isinstance(point, Mapping)]
    axis = record.response.get("axis") or "scale"
    columns = {
        key for point in points for key, value in point.items() if key != axis and isinstance(value, (int, float))
    }
    return axis, sorted(columns, key=lambda key: (key != "spread", key)), points
