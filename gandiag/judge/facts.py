"""Short questions that the rules ask of a record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gandiag.record import Measurement, Record


def entry(section: Mapping[str, Any], name: str) -> tuple[float, float, float]:
    """(value, low, high) of a profile or aspect entry; zeros where it was not measured."""
    found = section.get(name) or {}
    return tuple(float(found.get(part) or 0.0) for part in ("value", "low", "high"))  # type: ignore[return-value]


def measured(record: Record, key: str) -> Measurement | None:
    """A measurement that has a value, or None."""
    found = record.measurements.get(key)
    return found if found is not None and found.status == "ok" and found.value is not None else None


def value(record: Record, key: str) -> float | None:
    """The value of a measurement, or None."""
    found = measured(record, key)
    return None if found is None else found.value


def trained_scale(record: Record) -> Mapping[str, Any] | None:
    """What the checkpoint says of the latent scale of its training, or None."""
    latent = record.subject.get("latent") or {}
    return latent.get("trained_scale")


def wrong_scale(record: Record) -> bool:
    """Whether the scale sampled differs from the trained one by more than the error of the latter."""
    trained = trained_scale(record)
    if trained is None:
        return False
    sampled = record.subject["latent"].get("scale", 1.0)
    return not trained["low"] <= sampled <= trained["high"]


def percent(share: float) -> str:
    """0.483 -> "48 %"; small shares keep a digit."""
    return f"{100 * share:.0f} %" if share >= 0.1 or share == 0 else f"{100 * share:.1f} %"


def span(low: float | None, high: float | None) -> str:
    """An interval as text."""
    return "[?]" if low is None or high is None else f"[{low:.2f}, {high:.2f}]"
