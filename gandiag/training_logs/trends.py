"""How a loss develops over the whole log: growing or decaying swings, a runaway level, bursts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gandiag.training_logs.events import LossEvent, running_median
from gandiag.training_logs.series import LOSS_ROLES, Array, Curve
from gandiag.training_logs.sinusoid import remove_quadratic_trend
from gandiag.training_logs.warmup import TrimmedCurve

N_WINDOWS = 16
MIN_RANK_CORRELATION = 0.8  # of 16 windows with time: 1 in 4,000 by chance
MIN_AMPLITUDE_FACTOR = 5.0  # of the swings over the log
MIN_RECENT_FACTOR = 1.2  # of the swings in the last quarter, over the quarter before
DIVERGENCE_FACTOR = 10.0  # of the level
BURST_THRESHOLD = 6.0  # robust standard deviations of a burst in one player …
JOINT_BURST_THRESHOLD = 4.0  # … and in the other at the same time
MIN_BURST_ROWS = 3  # a single outlier is not a burst
MAX_BURST_GAP = 3  # rows between outliers of one burst
MIN_BURSTS = 3
MAX_BURST_FRACTION = 0.25  # share of the rows in bursts; more is the normal state of the loss
MIN_BURST_CURVE_ROWS = 64


@dataclass(frozen=True, slots=True)
class AmplitudeTrend:
    """The size of the swings over time.

    `factor`: last over first; `rank_correlation` with time; `recent_factor`: last quarter over the one before.
    """

    factor: float
    rank_correlation: float
    recent_factor: float

    @property
    def is_growing(self) -> bool:
        """Whether the swings grow throughout the log and still do."""
        return (
            self.factor >= MIN_AMPLITUDE_FACTOR
            and self.rank_correlation >= MIN_RANK_CORRELATION
            and self.recent_factor >= MIN_RECENT_FACTOR
        )

    @property
    def is_decaying(self) -> bool:
        """Whether the swings die down over the log."""
        return self.factor <= 1 / MIN_AMPLITUDE_FACTOR and self.rank_correlation <= -MIN_RANK_CORRELATION


@dataclass(frozen=True, slots=True)
class _Burst:
    """First and last step, and height in robust standard deviations."""

    first: float
    last: float
    height: float


def fit_amplitude_trend(trimmed: TrimmedCurve) -> AmplitudeTrend:
    """The trend of the standard deviation of the detrended series in N_WINDOWS windows."""
    detrended = remove_quadratic_trend(trimmed.step, trimmed.value)
    floor = 1e-12 * (float(np.abs(trimmed.value).max()) or 1.0)
    sizes = np.array([max(float(window.std()), floor) for window in np.array_split(detrended, N_WINDOWS)])
    slope = np.polyfit(np.arange(N_WINDOWS), np.log(sizes), 1)[0]
    quarter = N_WINDOWS // 4
    recent = float(np.median(sizes[-quarter:]) / np.median(sizes[-2 * quarter : -quarter]))
    factor = float(np.exp(np.clip(slope * (N_WINDOWS - 1), -50, 50)))
    return AmplitudeTrend(factor, _correlate_with_time(sizes), recent)


def find_divergence(curve: Curve, trimmed: TrimmedCurve) -> LossEvent | None:
    """Swings that grow to the end of the log, or a level that runs away from where it was."""
    if len(trimmed.step) < 2 * N_WINDOWS:
        return None
    trend = fit_amplitude_trend(trimmed)
    if trend.is_growing:
        evidence = f"the swings of {curve.name} grow {trend.factor:,.1f}-fold to the end of the log"
        return LossEvent(trimmed.start, "diverging", evidence)
    level = np.abs(running_median(curve.value))
    if not np.isfinite(level[-1]):  # that is a failure, and said as one
        return None
    usual = float(np.median(level[: len(level) // 2])) + 1e-9
    tail = level[-max(len(level) // 10, 5) :]
    second_half = np.array_split(level[len(level) // 2 :], N_WINDOWS)
    medians = np.array([float(np.median(window)) for window in second_half])
    if float(np.median(tail)) < DIVERGENCE_FACTOR * max(usual, 0.1):
        return None
    if _correlate_with_time(medians) < MIN_RANK_CORRELATION:
        return None
    start = int(np.flatnonzero(level <= 2 * max(usual, 0.1))[-1]) + 1
    evidence = f"{curve.name} runs away to {np.median(tail):.3g} at the end, from {usual:.3g} before"
    return LossEvent(float(curve.step[min(start, len(curve) - 1)]), "diverging", evidence)


def find_mode_hopping(curves: Mapping[str, Curve], trimmed: Mapping[str, TrimmedCurve]) -> LossEvent | None:
    """Recurring bursts of several rows that hit both players at once: G leaves a mode and D follows."""
    logged = [role for role in LOSS_ROLES if role in trimmed]
    bursts = {role: _find_bursts(trimmed[role]) for role in logged if len(trimmed[role].step) >= MIN_BURST_CURVE_ROWS}
    if len(bursts) < len(logged) or not bursts:
        return None
    role = max(bursts, key=lambda key: len(bursts[key]))
    other = LOSS_ROLES[1 - LOSS_ROLES.index(role)]
    joint = [burst for burst in bursts[role] if len(bursts) == 1 or _has_joint_burst(burst, trimmed[other])]
    step = trimmed[role].step
    if len(joint) < MIN_BURSTS or joint[-1].last - joint[0].first < (step[-1] - step[0]) / 3:
        return None
    interval = (joint[-1].first - joint[0].first) / (len(joint) - 1)
    height = np.median([burst.height for burst in joint])
    evidence = (
        f"{len(joint)} bursts of {curves[role].name}, one every {interval:,.0f} steps, {height:.0f} robust standard "
        "deviations high, and the other loss bursts with it"
    )
    return LossEvent(joint[0].first, "mode_hopping", evidence)


def _robust_z_scores(value: Array) -> Array:
    """Absolute distance from the median in robust standard deviations."""
    distance = value - np.median(value)
    spread = 1.4826 * float(np.median(np.abs(distance)))
    return np.abs(distance) / (spread or float(distance.std()) or 1.0)


def _find_bursts(trimmed: TrimmedCurve) -> list[_Burst]:
    """Stretches of at least MIN_BURST_ROWS rows beyond BURST_THRESHOLD; gaps of two rows are bridged."""
    z = _robust_z_scores(remove_quadratic_trend(trimmed.step, trimmed.value))
    outliers = np.flatnonzero(z > BURST_THRESHOLD)
    if len(outliers) == 0 or len(outliers) > MAX_BURST_FRACTION * len(z):
        return []
    groups = np.split(outliers, np.flatnonzero(np.diff(outliers) > MAX_BURST_GAP) + 1)
    return [
        _Burst(float(trimmed.step[group[0]]), float(trimmed.step[group[-1]]), float(z[group].max()))
        for group in groups
        if len(group) >= MIN_BURST_ROWS
    ]


def _has_joint_burst(burst: _Burst, trimmed: TrimmedCurve) -> bool:
    """Whether the other loss deviates during the burst."""
    during = (trimmed.step >= burst.first) & (trimmed.step <= burst.last)
    if not during.any():
        return False
    z = _robust_z_scores(remove_quadratic_trend(trimmed.step, trimmed.value))
    return float(z[during].max()) > JOINT_BURST_THRESHOLD


def _correlate_with_time(values: Array) -> float:
    """Spearman's rank correlation with time."""
    order = np.argsort(np.argsort(values)).astype(np.float64)
    return float(np.corrcoef(order, np.arange(len(values)))[0, 1]) if np.ptp(order) > 0 else 0.0
