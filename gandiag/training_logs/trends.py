"""How a loss moves over the whole log: growing, dying down, in bursts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gandiag.training_logs.saturation import LossEvent, running_median
from gandiag.training_logs.series import LOSS_ROLES, Array, Curve
from gandiag.training_logs.sinusoid import remove_quadratic_trend
from gandiag.training_logs.warmup import TrimmedCurve

N_WINDOWS = 16
MIN_RANK_CORRELATION = 0.8  # rank correlation of 16 windows with time: 1 in 4,000 by chance
MIN_AMPLITUDE_FACTOR = 5.0  # factor of the swings over the log
DIVERGENCE_FACTOR = 10.0  # factor of the level
BURST_THRESHOLD = 6.0  # robust deviations of a burst in one player …
JOINT_BURST_THRESHOLD = 4.0  # … and in the other at the same time
MIN_BURST_ROWS = 3  # rows of a burst at least: one odd batch is none
MIN_BURSTS = 3
MAX_BURST_FRACTION = 0.25  # share of the rows that bursts take at most: what is always there is no burst


@dataclass(frozen=True, slots=True)
class AmplitudeTrend:
    """The size of the swings over time: `factor` from first to last, `rank` correlation with time, `recent`: last quarter over the one before."""

    factor: float
    rank_correlation: float
    recent_factor: float

    @property
    def is_growing(self) -> bool:
        return (
            self.factor >= MIN_AMPLITUDE_FACTOR
            and self.rank_correlation >= MIN_RANK_CORRELATION
            and self.recent_factor >= 1.2
        )

    @property
    def is_decaying(self) -> bool:
        return self.factor <= 1 / MIN_AMPLITUDE_FACTOR and self.rank_correlation <= -MIN_RANK_CORRELATION


def fit_amplitude_trend(trimmed: TrimmedCurve) -> AmplitudeTrend:
    """Standard deviation in WINDOWS windows of the detrended series."""
    flat = remove_quadratic_trend(trimmed.step, trimmed.value)
    floor = 1e-12 * (float(np.abs(trimmed.value).max()) or 1.0)
    sizes = np.array([max(float(piece.std()), floor) for piece in np.array_split(flat, N_WINDOWS)])
    slope = np.polyfit(np.arange(N_WINDOWS), np.log(sizes), 1)[0]
    quarter = N_WINDOWS // 4
    recent = float(np.median(sizes[-quarter:]) / np.median(sizes[-2 * quarter : -quarter]))
    return AmplitudeTrend(float(np.exp(np.clip(slope * (N_WINDOWS - 1), -50, 50))), _rank(sizes), recent)


def find_divergence(curve: Curve, trimmed: TrimmedCurve) -> LossEvent | None:
    """Swings that grow to the end, or a level that has run away from where it was."""
    if len(trimmed.step) < 2 * N_WINDOWS:
        return None
    found = fit_amplitude_trend(trimmed)
    if found.is_growing:
        return LossEvent(
            trimmed.start, "diverging", f"the swings of {curve.name} grow {found.factor:,.1f}-fold from here to the end"
        )
    level = np.abs(running_median(curve.value))
    usual = float(np.median(level[: len(level) // 2])) + 1e-9
    tail = level[-max(len(level) // 10, 5) :]
    later = np.array([float(np.median(piece)) for piece in np.array_split(level[len(level) // 2 :], N_WINDOWS)])
    if float(np.median(tail)) < DIVERGENCE_FACTOR * max(usual, 0.1) or _rank(later) < MIN_RANK_CORRELATION:
        return None
    since = int(np.flatnonzero(level <= 2 * max(usual, 0.1))[-1]) + 1
    return LossEvent(
        float(curve.step[min(since, len(curve) - 1)]),
        "diverging",
        f"{curve.name} runs away: {np.median(tail):.3g} at the end, {usual:.3g} before",
    )


def find_mode_hopping(curves: Mapping[str, Curve], trimmed: Mapping[str, TrimmedCurve]) -> LossEvent | None:
    """Bursts that come again and again, last several rows, and strike both players at once: G leaves a mode, D has to follow."""
    found = {role: _bursts(trimmed[role]) for role in LOSS_ROLES if role in trimmed and len(trimmed[role].step) >= 64}
    if len(found) < len([role for role in LOSS_ROLES if role in trimmed]) or not found:
        return None
    role = max(found, key=lambda key: len(found[key]))
    joint = [burst for burst in found[role] if len(found) == 1 or _strikes(burst, trimmed[_other(role)])]
    part = trimmed[role]
    span = part.step[-1] - part.step[0]
    if len(joint) < MIN_BURSTS or joint[-1][1] - joint[0][0] < span / 3:
        return None
    sizes = [burst[2] for burst in joint]
    every = (joint[-1][0] - joint[0][0]) / (len(joint) - 1)
    told = f"{len(joint)} bursts of {curves[role].name}, one in {every:,.0f}, each {np.median(sizes):.0f} deviations high, and the other loss with it"
    return LossEvent(joint[0][0], "mode_hopping", told)


def _other(role: str) -> str:
    return LOSS_ROLES[1 - LOSS_ROLES.index(role)]


def _score(value: Array) -> Array:
    """Deviation from the running middle in robust standard deviations."""
    off = value - np.median(value)
    spread = 1.4826 * float(np.median(np.abs(off)))
    return np.abs(off) / (spread or float(off.std()) or 1.0)


def _bursts(part: TrimmedCurve) -> list[tuple[float, float, float]]:
    """(first step, last step, height) of every stretch of at least LASTS rows that lies OUT deviations off; gaps of two rows are bridged."""
    flat = remove_quadratic_trend(part.step, part.value)
    score = _score(flat)
    out = np.flatnonzero(score > BURST_THRESHOLD)
    if len(out) == 0 or len(out) > MAX_BURST_FRACTION * len(flat):
        return []
    groups = np.split(out, np.flatnonzero(np.diff(out) > 3) + 1)
    return [
        (float(part.step[group[0]]), float(part.step[group[-1]]), float(score[group].max()))
        for group in groups
        if len(group) >= MIN_BURST_ROWS
    ]


def _strikes(burst: tuple[float, float, float], part: TrimmedCurve) -> bool:
    near = (part.step >= burst[0]) & (part.step <= burst[1])
    return (
        bool(near.any())
        and float(_score(remove_quadratic_trend(part.step, part.value))[near].max()) > JOINT_BURST_THRESHOLD
    )


def _rank(values: Array) -> float:
    """Spearman's correlation with time."""
    order = np.argsort(np.argsort(values)).astype(np.float64)
    return float(np.corrcoef(order, np.arange(len(values)))[0, 1]) if np.ptp(order) > 0 else 0.0
