"""Turns the measurements of a Record into display values: table rows, the latent sweep, and what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gandiag import catalogue
from gandiag.record import Measurement, Record
from gandiag.report import formatting

COUNTED_UNITS = ("modes", "samples", "outputs", "groups")


@dataclass(frozen=True, slots=True)
class MeasurementRow:
    """One measurement as text. `direction`: the symbol; `direction_text`: the same in words.

    `published`: how published generators stand on it, where a figure is known.
    """

    key: str
    title: str
    value: str
    unit: str
    interval: str
    floor: str
    n: str
    reason: str
    direction: str
    direction_text: str
    published: str = ""


@dataclass(frozen=True, slots=True)
class ResponseView:
    """The latent sweep as a table; `keys` are its columns, spread first."""

    axis: str
    axis_title: str
    keys: tuple[str, ...]
    columns: tuple[str, ...]
    points: tuple[Mapping[str, Any], ...]
    rows: tuple[tuple[str, ...], ...]
    reason: str


def split_measurements(record: Record) -> tuple[list[MeasurementRow], list[MeasurementRow]]:
    """(main, other) measurements, each by key.

    Main ones have a floor to compare with and are no variant of another (`x_q05` beside `x`); without floors, all are.
    """
    measured = [(key, entry) for key, entry in sorted(record.measurements.items()) if entry.status == "ok"]
    keys = {key for key, _ in measured}
    main_keys = {
        key
        for key, entry in measured
        if entry.floor is not None and not any(key.startswith(other + "_") for other in keys)
    } or keys
    rows = [(key in main_keys, _build_measurement(key, entry)) for key, entry in measured]
    return [row for is_main, row in rows if is_main], [row for is_main, row in rows if not is_main]


def _build_measurement(key: str, entry: Measurement) -> MeasurementRow:
    known = catalogue.find_entry(key)
    return MeasurementRow(
        key=formatting.escape_unprintable(key),
        title=known.title if known else "",
        value=formatting.format_number(entry.value),
        unit=_format_unit(entry),
        interval=formatting.format_interval(entry.low, entry.high),
        floor=formatting.format_number(entry.floor),
        n=f"{entry.n:,}" if entry.n else formatting.NOT_AVAILABLE,
        reason=formatting.escape_unprintable(entry.reason or ""),
        direction=formatting.DIRECTION_SYMBOLS[entry.better],
        direction_text=formatting.DIRECTION_TEXT[entry.better],
        published=known.published if known else "",
    )


def _format_unit(entry: Measurement) -> str:
    """The unit, in the singular after exactly 1; empty where there is none."""
    if entry.unit in ("1", "share", "ratio"):
        return ""
    unit = formatting.escape_unprintable(entry.unit)
    return unit.removesuffix("s") if entry.value == 1 and unit in COUNTED_UNITS else unit


def group_missing_measurements(record: Record) -> list[tuple[str, str]]:
    """(keys, reason) of everything that was not measured, errors first; keys with the same reason share a row."""
    keys_by_reason: dict[str, list[str]] = {}
    entries = sorted(record.measurements.items(), key=lambda item: (item[1].status != "error", item[0]))
    for key, entry in entries:
        if entry.status != "ok":
            reason = formatting.escape_unprintable(entry.reason or "no reason given")
            reason = f"error: {reason}" if entry.status == "error" else reason
            keys_by_reason.setdefault(reason, []).append(formatting.escape_unprintable(key))
    if record.response and not record.response.get("points") and record.response.get("reason"):
        reason = formatting.escape_unprintable(record.response["reason"])
        keys_by_reason.setdefault(reason, []).append("latent response")
    return [(", ".join(keys), reason) for reason, keys in keys_by_reason.items()]


def build_response(record: Record) -> ResponseView:
    """The latent sweep; columns without a number are left out."""
    points = tuple(point for point in record.response.get("points") or () if isinstance(point, Mapping))
    axis = record.response.get("axis") or "scale"
    known = {key for point in points for key, value in point.items() if key != axis and isinstance(value, (int, float))}
    keys = tuple(sorted(known, key=lambda key: (key != "spread", key)))
    rows = tuple(
        (formatting.format_scale(point.get(axis)), *(formatting.format_number(point.get(key)) for key in keys))
        for point in points
    )
    reason = formatting.escape_unprintable(record.response.get("reason") or "")
    titles = tuple(formatting.key_to_text(key) for key in keys)
    return ResponseView(axis, formatting.key_to_text(axis), keys, titles, points, rows, reason)
