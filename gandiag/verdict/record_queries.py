"""Lookups and formatting shared by the rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gandiag.record import Measurement, Record

MIN_MEMORISED_VERDICT = 0.5  # lower bound of the share of copies, above the floor


def is_collapsed(record: Record) -> bool:
    """Whether the verdict is collapse."""
    return record.verdict == "collapsed"


def get_estimate(section: Mapping[str, Any], name: str) -> tuple[float, float, float]:
    """(value, low, high) of a profile or aspect entry; zeros where it was not measured."""
    entry = section.get(name) or {}
    value, low, high = (float(entry.get(part) or 0.0) for part in ("value", "low", "high"))
    return value, low, high


def get_measurement(record: Record, key: str) -> Measurement | None:
    """The measurement if it has a value, else None."""
    measurement = record.measurements.get(key)
    if measurement is None or measurement.status != "ok" or measurement.value is None:
        return None
    return measurement


def get_value(record: Record, key: str) -> float | None:
    """The value of a measurement, or None."""
    measurement = get_measurement(record, key)
    return None if measurement is None else measurement.value


def is_sample_set(record: Record) -> bool:
    """Whether fixed samples were audited, of which there are no more."""
    return record.subject.get("loader") == "samples"


def get_copies(record: Record) -> Measurement | None:
    """The share of copies: of all real samples in thumbnails or features, or of those compared, the larger excess."""
    found = [entry for key in ("copies", "memorised") if (entry := get_measurement(record, key)) is not None]
    return max(found, key=lambda entry: (entry.low or 0.0) - (entry.floor or 0.0), default=None)


def is_memorised(record: Record) -> bool:
    """Whether at least half of the samples are copies of real ones, beyond what real samples are of each other."""
    copies = get_copies(record)
    return copies is not None and (copies.low or 0.0) - (copies.floor or 0.0) >= MIN_MEMORISED_VERDICT


def get_trained_scale(record: Record) -> Mapping[str, Any] | None:
    """The latent scale of the training as inferred from the checkpoint, {value, low, high, source}; None if unknown."""
    latent = record.subject.get("latent") or {}
    return latent.get("trained_scale")


def has_wrong_scale(record: Record) -> bool:
    """Whether the sampled latent scale lies outside the interval of the trained one."""
    trained = get_trained_scale(record)
    if trained is None:
        return False
    sampled = record.subject["latent"].get("scale", 1.0)
    return not trained["low"] <= sampled <= trained["high"]


def format_percent(fraction: float) -> str:
    """0.483 -> "48 %"; fractions below 10 % keep one decimal."""
    return f"{100 * fraction:.0f} %" if fraction >= 0.1 or fraction == 0 else f"{100 * fraction:.1f} %"


def format_interval(low: float | None, high: float | None) -> str:
    """An interval as text: "[0.44, 0.52]"; "[?]" where a bound is missing."""
    return "[?]" if low is None or high is None else f"[{low:.2f}, {high:.2f}]"


def format_list(words: Sequence[str]) -> str:
    """ "color", "color and layout", "color, layout and semantics"."""
    return " and ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)
