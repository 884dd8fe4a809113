"""A number, its doubt and its floor, made into a Measurement."""

from __future__ import annotations

import math

from gandiag.record import BetterDirection, Measurement
from gandiag.stats.resampling import wilson_interval

NO_REAL_DATA = "no real data"


def make_measurement(
    value: float,
    half_width: float,
    *,
    n: int,
    floor: float | None,
    better: BetterDirection,
    unit: str = "",
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Measurement:
    """A measurement with value ± half_width, cut to `bounds`; a half-width that is not finite gives no interval."""
    known = math.isfinite(half_width)
    low, high = (
        (max(min(value, bounds[1]), bounds[0]) for value in (value - half_width, value + half_width))
        if known
        else (None, None)
    )
    return Measurement(value, low, high, floor, unit, better, n, reason=None if floor is not None else NO_REAL_DATA)


def make_fraction_measurement(
    value: float,
    half_width: float,
    *,
    n: int,
    floor: float | None,
    better: BetterDirection,
    unit: str = "share of samples",
) -> Measurement:
    """A share of n samples. Its interval is at least the binomial one, so that 0 and 1 are not certain."""
    low, high = wilson_interval(value, n)
    if math.isfinite(half_width):
        low, high = max(0.0, min(low, value - half_width)), min(1.0, max(high, value + half_width))
    return Measurement(value, low, high, floor, unit, better, n, reason=None if floor is not None else NO_REAL_DATA)


def missing_measurements(keys: tuple[str, ...], reason: str) -> dict[str, Measurement]:
    """The same reason for each key."""
    return {key: Measurement.missing(reason) for key in keys}
