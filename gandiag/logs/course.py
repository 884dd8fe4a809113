"""How a loss moves over the whole log: growing, dying down, in bursts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gandiag.logs.cycle import flattened
from gandiag.logs.levels import Event, smooth
from gandiag.logs.series import LOSSES, Array, Curve
from gandiag.logs.trim import Trimmed

WINDOWS = 16
MONOTONE = 0.8  # rank correlation of 16 windows with time: 1 in 4,000 by chance
GROWN = 5.0  # factor of the swings over the log
RUN_AWAY = 10.0  # factor of the level
OUT = 6.0  # robust deviations of a burst in one player …
OUT_OTHER = 4.0  # … and in the other at the same time
LASTS = 3  # rows of a burst at least: one odd batch is none
BURSTS = 3
RARE = 0.25  # share of the rows that bursts take at most: what is always there is no burst


@dataclass(frozen=True, slots=True)
class Swing:
    """The size of the swings over time: `factor` from first to last, `rank` correlation with time, `recent`: last quarter over the one before."""

    factor: float
    rank: float
    recent: float

    @property
    def grows(self) -> bool:
        return self.factor >= GROWN and self.rank >= MONOTONE and self.recent >= 1.2

    @property
    def dies(self) -> bool:
        return self.factor <= 1 / GROWN and self.rank <= -MONOTONE


def swing(part: Trimmed) -> Swing:
    """Standard deviation in WINDOWS windows of the detrended series."""
    flat = flattened(part.step, part.value)
    floor = 1e-12 * (float(np.abs(part.value).max()) or 1.0)
    sizes = np.array([max(float(piece.std()), floor) for piece in np.array_split(flat, WINDOWS)])
    slope = np.polyfit(np.arange(WINDOWS), np.log(sizes), 1)[0]
    quarter = WINDOWS // 4
    recent = float(np.median(sizes[-quarter:]) / np.median(sizes[-2 * quarter : -quarter]))
    return Swing(float(np.exp(np.clip(slope * (WINDOWS - 1), -50, 50))), _rank(sizes), recent)


def diverging(curve: Curve, part: Trimmed) -> Event | None:
    """Swings that grow to the end, or a level that has run away from where it was."""
    if len(part.step) < 2 * WINDOWS:
        return None
    found = swing(part)
    if found.grows:
        return Event(part.start, "diverging", f"the swings of {curve.name} grow {found.factor:,.1f}-fold from here to the end")
    level = np.abs(smooth(curve.value))
    usual = float(np.median(level[: len(level) // 2])) + 1e-9
    tail = level[-max(len(level) // 10, 5) :]
    later = np.array([float(np.median(piece)) for piece in np.array_split(level[len(level) // 2 :], WINDOWS)])
    if float(np.median(tail)) < RUN_AWAY * max(usual, 0.1) or _rank(later) < MONOTONE:
        return None
    since = int(np.flatnonzero(level <= 2 * max(usual, 0.1))[-1]) + 1
    return Event(float(curve.step[min(since, len(curve) - 1)]), "diverging", f"{curve.name} runs away: {np.median(tail):.3g} at the end, {usual:.3g} before")


def mode_hopping(curves: Mapping[str, Curve], parts: Mapping[str, Trimmed]) -> Event | None:
    """Bursts that come again and again, last several rows, and strike both players at once: G leaves a mode, D has to follow."""
    found = {role: _bursts(parts[role]) for role in LOSSES if role in parts and len(parts[role].step) >= 64}
    if len(found) < len([role for role in LOSSES if role in parts]) or not found:
        return None
    role = max(found, key=lambda key: len(found[key]))
    joint = [burst for burst in found[role] if len(found) == 1 or _strikes(burst, parts[_other(role)])]
    part = parts[role]
    span = part.step[-1] - part.step[0]
    if len(joint) < BURSTS or joint[-1][1] - joint[0][0] < span / 3:
        return None
    sizes = [burst[2] for burst in joint]
    every = (joint[-1][0] - joint[0][0]) / (len(joint) - 1)
    told = f"{len(joint)} bursts of {curves[role].name}, one in {every:,.0f}, each {np.median(sizes):.0f} deviations high, and the other loss with it"
    return Event(joint[0][0], "mode_hopping", told)


def _other(role: str) -> str:
    return LOSSES[1 - LOSSES.index(role)]


def _score(value: Array) -> Array:
    """Deviation from the running middle in robust standard deviations."""
    off = value - np.median(value)
    spread = 1.4826 * float(np.median(np.abs(off)))
    return np.abs(off) / (spread or float(off.std()) or 1.0)


def _bursts(part: Trimmed) -> list[tuple[float, float, float]]:
    """(first step, last step, height) of every stretch of at least LASTS rows that lies OUT deviations off; gaps of two rows are bridged."""
    flat = flattened(part.step, part.value)
    score = _score(flat)
    out = np.flatnonzero(score > OUT)
    if len(out) == 0 or len(out) > RARE * len(flat):
        return []
    groups = np.split(out, np.flatnonzero(np.diff(out) > 3) + 1)
    return [(float(part.step[group[0]]), float(part.step[group[-1]]), float(score[group].max())) for group in groups if len(group) >= LASTS]


def _strikes(burst: tuple[float, float, float], part: Trimmed) -> bool:
    near = (part.step >= burst[0]) & (part.step <= burst[1])
    return bool(near.any()) and float(_score(flattened(part.step, part.value))[near].max()) > OUT_OTHER


def _rank(values: Array) -> float:
    """Spearman's correlation with time."""
    order = np.argsort(np.argsort(values)).astype(np.float64)
    return float(np.corrcoef(order, np.arange(len(values)))[0, 1]) if np.ptp(order) > 0 else 0.0
