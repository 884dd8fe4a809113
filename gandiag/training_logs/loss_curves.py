"""Everything that is measured on the losses of one pair, before anything is concluded from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gandiag.training_logs.change_points import LevelStep, find_level_steps, remove_level_steps
from gandiag.training_logs.level_trend import LevelTrend, fit_level_trend
from gandiag.training_logs.oscillation import SIGNIFICANCE_LEVEL, Oscillation, find_oscillation
from gandiag.training_logs.random_walk import find_wandering_losses, returns_to_level
from gandiag.training_logs.series import LOSS_ROLES, Array, Curve, Log
from gandiag.training_logs.side_columns import find_rate_drops
from gandiag.training_logs.sinusoid import fit_sinusoid
from gandiag.training_logs.spikes import Spikes, find_spikes, replace_spikes
from gandiag.training_logs.warmup import TrimmedCurve, trim_curve

EARLY_FRACTION = 0.05  # of the log: steps within are its warm-up
MAX_REMOVED_STEPS = 3  # more are a cycle, and stay for its test
RATE_DROP_TOLERANCE = 0.03  # of the log, between a drop of the learning rate and the step that it makes
MIN_PLATEAU_ROWS = 32
MIN_SPLIT_ROWS = 64  # after a drop of the learning rate, from which on the tests use them alone …
MIN_SPLIT_FRACTION = 0.25  # … and this share of the log


@dataclass(frozen=True, slots=True, eq=False)
class LossMeasurements:
    """One loss: its spikes, steps, the trend over the last half without both, and the points for the cycle test."""

    curve: Curve
    spikes: Spikes | None
    steps: Sequence[LevelStep]
    trend: LevelTrend | None
    trimmed: TrimmedCurve
    wanders: bool = False

    @property
    def has_plateau(self) -> bool:
        """Whether the loss has shown a level that lasts to the end."""
        return (
            self.trend is not None
            and self.trend.is_plateau
            and self.trimmed.has_plateau
            and len(self.curve) >= MIN_PLATEAU_ROWS
            and not self.may_wander
        )

    @property
    def may_wander(self) -> bool:
        """Whether the rows do not show that the loss comes back to a level: it may wander slowly, or trend."""
        return self.wanders or not returns_to_level(self.trimmed.value)


@dataclass(frozen=True, slots=True, eq=False)
class PairMeasurements:
    """Both losses of a pair by role, their strongest cycle, and the steps at which the learning rate drops.

    `split`: the drop from which on trends and cycles are tested; None for the whole log.
    """

    log: Log
    losses: Mapping[str, LossMeasurements]
    oscillation: Oscillation | None
    rate_drops: Sequence[float]
    split: float | None = None

    @property
    def trimmed(self) -> dict[str, TrimmedCurve]:
        """Role -> points for the cycle test, where there are any."""
        return {role: loss.trimmed for role, loss in self.losses.items() if len(loss.trimmed.step)}

    def find_rate_drop(self, step: float) -> float | None:
        """The drop of the learning rate that explains a step of the level there."""
        span = max((float(np.ptp(loss.curve.step)) for loss in self.losses.values() if len(loss.curve)), default=0.0)
        return next((drop for drop in self.rate_drops if abs(step - drop) <= RATE_DROP_TOLERANCE * span), None)


def measure_pair(log: Log, *, seed: int = 0) -> PairMeasurements:
    """All measurements. Cost: two Monte Carlo tests, about a second each."""
    curves = {role: log.curves[role] for role in LOSS_ROLES if role in log.curves}
    drops = find_rate_drops(log.side_curves)
    split = _find_split(curves, drops)
    losses = {
        role: _measure_loss(curve, {key: other for key, other in curves.items() if key != role}, split)
        for role, curve in curves.items()
    }
    trimmed = {role: loss.trimmed for role, loss in losses.items() if len(loss.trimmed.step)}
    oscillation = find_oscillation(log, trimmed, seed=seed)
    losses = _mark_random_walks(losses, oscillation)
    return PairMeasurements(log, losses, oscillation, drops, split)


def _find_split(curves: Mapping[str, Curve], drops: Sequence[float]) -> float | None:
    """The last drop of the learning rate, if enough rows follow it: before it, the game was another."""
    for drop in reversed(drops):
        counts = [(int((curve.step >= drop).sum()), len(curve)) for curve in curves.values()]
        if all(after >= MIN_SPLIT_ROWS and after >= MIN_SPLIT_FRACTION * n and after < n for after, n in counts):
            return drop
    return None


def _measure_loss(curve: Curve, others: Mapping[str, Curve], split: float | None) -> LossMeasurements:
    spikes = find_spikes(curve, others)
    clean = replace_spikes(curve, spikes)
    finite = np.isfinite(clean.value)
    step, value = clean.step[finite], clean.value[finite]
    steps = _find_steps(step, value)
    leveled = remove_level_steps(value, steps) if len(steps) <= MAX_REMOVED_STEPS else value
    if split is not None:
        step, leveled = step[step >= split], leveled[step >= split]
    trimmed = trim_curve(Curve(curve.name, step, leveled))
    return LossMeasurements(curve, spikes, steps, fit_level_trend(step, leveled), trimmed)


def _mark_random_walks(
    losses: dict[str, LossMeasurements], oscillation: Oscillation | None
) -> dict[str, LossMeasurements]:
    """The losses, those marked that wander without their steps and their cycle; a walk has no steps."""
    leveled, later = [], []
    for loss in losses.values():
        step, value = _level(loss)
        leveled.append(_remove_cycle(step, value, oscillation))
        later.append(leveled[-1][step >= loss.trimmed.start])
    wandering = find_wandering_losses(leveled, later)
    return {
        role: replace(loss, wanders=True, steps=()) if wanders else loss
        for (role, loss), wanders in zip(losses.items(), wandering, strict=True)
    }


def _level(loss: LossMeasurements) -> tuple[Array, Array]:
    """Step and value of the finite rows, without spikes and steps."""
    clean = replace_spikes(loss.curve, loss.spikes)
    finite = np.isfinite(clean.value)
    step, value = clean.step[finite], clean.value[finite]
    return step, remove_level_steps(value, loss.steps) if len(loss.steps) <= MAX_REMOVED_STEPS else value


def _remove_cycle(step: Array, value: Array, oscillation: Oscillation | None) -> Array:
    """The values without a significant cycle, whose slow swings look like those of a walk."""
    if oscillation is None or oscillation.p_value > SIGNIFICANCE_LEVEL or len(value) < MIN_PLATEAU_ROWS:
        return value
    frequency = 1 / oscillation.cycle.period
    wave = fit_sinusoid(step, value - value.mean(), frequency)
    return np.asarray(value - np.real(wave * np.exp(2j * np.pi * frequency * step)))


def _find_steps(step: Array, value: Array) -> list[LevelStep]:
    """Steps after the warm-up."""
    return [change for change in find_level_steps(step, value) if change.row >= EARLY_FRACTION * len(value)]
