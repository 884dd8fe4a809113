"""When a curve of a fidelity or diversity metric passes a sanity check: the thresholds of Räisä et al. 2025.

A curve maps the parameter of a check to the mean value of the metric. A criterion gives whether the curve passes, or,
where two kinds of diversity are right, which kind it is: "low" ones fall where samples spread beyond the data, "high"
ones stay. A metric must be of one kind throughout a check.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

Curve = Mapping[float, float]
Outcome = bool | str
Criterion = Callable[[Curve], Outcome]

CLOSE = 0.05  # to a value, and the height of a level line
MIN_CHANGE = 0.2  # between the ends of a slope, or the top and an end of a bell
MAX_OVERSHOOT = 0.1  # of the extreme of a curve over the point where it should be
MIN_MID_DROP = 0.1


def close_to(target: float, at: float | str) -> Criterion:
    """The value at a parameter, or at the "min" or "max" of them, is the target within .05."""
    return lambda curve: abs(_value(curve, at) - target) <= CLOSE + 1e-9


def wide(at: str) -> Criterion:
    """Diversity of samples that are wider than the data: 1 for a high metric, 0 for a low one."""

    def judge(curve: Curve) -> Outcome:
        value = _value(curve, at)
        if abs(value - 1) <= CLOSE:
            return "high"
        return "low" if abs(value) <= CLOSE else False

    return judge


def bell(top: float) -> Criterion:
    """High at `top` and lower at both ends, one of which is about the minimum."""

    def judge(curve: Curve) -> bool:
        middle, least = curve[top], min(curve.values())
        ends = _value(curve, "min"), _value(curve, "max")
        return (
            middle - max(ends) >= MIN_CHANGE
            and max(curve.values()) - middle <= MAX_OVERSHOOT
            and min(ends) - least <= MAX_OVERSHOOT
        )

    return judge


def falling(curve: Curve) -> bool:
    """High at the left end and low at the right one."""
    left, right = _value(curve, "min"), _value(curve, "max")
    return (
        left - right >= MIN_CHANGE
        and max(curve.values()) - left <= MAX_OVERSHOOT
        and right - min(curve.values()) <= MAX_OVERSHOOT
    )


def rising(curve: Curve) -> bool:
    """Low at the left end and high at the right one."""
    return falling({-x: value for x, value in curve.items()})


def falling_early(middle: float) -> Criterion:
    """Falling, by .1 at least where the parameter is `middle`."""
    return lambda curve: falling(curve) and _value(curve, "min") - curve[middle] >= MIN_MID_DROP


def level(curve: Curve) -> bool:
    """The same everywhere, within .05."""
    return max(curve.values()) - min(curve.values()) <= CLOSE


def level_from(start: float) -> Criterion:
    """The same from a parameter on, within .05."""
    return lambda curve: level({x: value for x, value in curve.items() if x >= start})


def low_or_high(low: Criterion, high: Criterion) -> Criterion:
    """The shape of a low metric, or that of a high one."""
    return lambda curve: "low" if low(curve) else "high" if high(curve) else False


def all_pass(outcomes: Iterable[Outcome]) -> bool:
    """Whether all criteria of a group pass and no two ask for different kinds of metric."""
    found = list(outcomes)
    return all(found) and not {"low", "high"} <= {outcome for outcome in found if isinstance(outcome, str)}


def _value(curve: Curve, at: float | str) -> float:
    if isinstance(at, str):
        return curve[min(curve) if at == "min" else max(curve)]
    return curve[at]
