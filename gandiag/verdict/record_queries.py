"""Short questions that the rules ask of a record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gandiag.record import Measurement, Record


def get_estimate(section: Mapping[str, Any], name: str) -> tuple[float, float, float]:
    """(value, low, high) of a profile or aspect entry; zeros where it was not measured."""
    found = section.get(name) or {}
    return tuple(float(found.get(part) or 0.0) for part in ("value", "low", "high"))  # type: ignore[return-value]


def get_measurement(record: Record, key: str) -> Measurement | None:
    """A measurement that has a value, or None."""
    found = record.measurements.get(key)
    return found if found is not None and found.status == "ok" and found.value is not None else None


def get_value(record: Record, key: str) -> float | None:
    """The value of a measurement, or None."""
    found = get_measurement(record, key)
    return None if found is None else found.value


def get_trained_scale(record: Record) -> Mapping[str, Any] | None:
    """What the checkpoint says of the latent scale of its training, or None."""
    latent = record.subject.get("latent") or {}
    return latent.get("trained_scale")


def has_wrong_scale(record: Record) -> bool:
    """Whether the scale sampled differs from the trained one by more than the error of the latter."""
    trained = get_trained_scale(record)
    if trained is None:
        return False
    sampled = record.subject["latent"].get("scale", 1.0)
    return not trained["low"] <= sampled <= trained["high"]


def format_percent(fraction: float) -> str:
    """0.483 -> "48 %"; small shares keep a digit."""
    return f"{100 * fraction:.0f} %" if fraction >= 0.1 or fraction == 0 else f"{100 * fraction:.1f} %"


def format_interval(low: float | None, high: float | None) -> str:
    """An interval as text."""
    return "[?]" if low is None or high is None else f"[{low:.2f}, {high:.2f}]"
