"""Everything that is measured on the losses of one pair, before anything is concluded from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gandiag.training_logs.change_points import LevelStep, find_level_steps, remove_level_steps
from gandiag.training_logs.level_trend import LevelTrend, fit_level_trend, is_random_walk
from gandiag.training_logs.oscillation import Oscillation, find_oscillation
from gandiag.training_logs.series import LOSS_ROLES, Array, Curve, Log
from gandiag.training_logs.side_columns import find_rate_drops
from gandiag.training_logs.spikes import Spikes, find_spikes, replace_spikes
from gandiag.training_logs.warmup import TrimmedCurve, trim_curve

EARLY_FRACTION = 0.05  # of the log: steps within are its warm-up
MAX_REMOVED_STEPS = 3  # more are a cycle, and stay for its test
RATE_DROP_TOLERANCE = 0.03  # of the log, between a drop of the learning rate and the step that it makes
MIN_PLATEAU_ROWS = 32


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
            and not self.wanders
        )


@dataclass(frozen=True, slots=True, eq=False)
class PairMeasurements:
    """Both losses of a pair by role, their strongest cycle, and the steps at which the learning rate drops."""

    log: Log
    losses: Mapping[str, LossMeasurements]
    oscillation: Oscillation | None
    rate_drops: Sequence[float]

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
    losses = {
        role: _measure_loss(curve, {key: other for key, other in curves.items() if key != role})
        for role, curve in curves.items()
    }
    losses = _mark_random_walks(losses)
    trimmed = {role: loss.trimmed for role, loss in losses.items() if len(loss.trimmed.step)}
    return PairMeasurements(log, losses, find_oscillation(log, trimmed, seed=seed), find_rate_drops(log.side_curves))


def _measure_loss(curve: Curve, others: Mapping[str, Curve]) -> LossMeasurements:
    spikes = find_spikes(curve, others)
    clean = replace_spikes(curve, spikes)
    finite = np.isfinite(clean.value)
    step, value = clean.step[finite], clean.value[finite]
    steps = _find_steps(step, value)
    leveled = remove_level_steps(value, steps) if len(steps) <= MAX_REMOVED_STEPS else value
    trimmed = trim_curve(Curve(curve.name, step, leveled))
    return LossMeasurements(curve, spikes, steps, fit_level_trend(step, leveled), trimmed)


def _mark_random_walks(losses: dict[str, LossMeasurements]) -> dict[str, LossMeasurements]:
    """The losses, marked as wandering if no level is left in them without their steps; a walk has no steps."""
    leveled = []
    for loss in losses.values():
        value = loss.curve.value[np.isfinite(loss.curve.value)]
        leveled.append(remove_level_steps(value, loss.steps) if len(loss.steps) <= MAX_REMOVED_STEPS else value)
    if not is_random_walk(leveled):
        return losses
    return {role: replace(loss, wanders=True, steps=()) for role, loss in losses.items()}


def _find_steps(step: Array, value: Array) -> list[LevelStep]:
    """Steps after the warm-up."""
    return [change for change in find_level_steps(step, value) if change.row >= EARLY_FRACTION * len(value)]
