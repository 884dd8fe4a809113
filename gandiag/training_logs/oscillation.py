"""The oscillation of a run: both losses tested, the stronger line described, the players compared at it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gandiag.training_logs.series import LOSS_ROLES, Curve, Log
from gandiag.training_logs.sinusoid import CycleFit, compute_coherence, fit_cycle
from gandiag.training_logs.spectrum import MIN_ROWS, Spectrum, estimate_spectrum
from gandiag.training_logs.warmup import TrimmedCurve, trim_curve

CONSTANT_TOLERANCE = 1e-3  # of the range of the whole log: what moves less after the warm-up has settled
SIGNIFICANCE_LEVEL = 0.05
MIN_VARIANCE_FRACTION = 0.05  # share of the variance that a line must carry to be called an oscillation of the training


@dataclass(frozen=True, slots=True, eq=False)
class Oscillation:
    """`p_value` is corrected for the number of tests. `sharp`: a line, else a band of periods. `per_epoch`: the line is the order of the data, not the game.

    `lasting`: it is there to the end of the log.
    """

    role: str
    curve: Curve
    trimmed: TrimmedCurve
    spectrum: Spectrum
    cycle: CycleFit
    p_value: float
    is_line: bool
    cross_spectrum: Mapping[str, float | None]
    is_per_epoch: bool
    is_persistent: bool

    @property
    def is_significant(self) -> bool:
        return (
            self.p_value <= SIGNIFICANCE_LEVEL
            and self.cycle.variance_fraction >= MIN_VARIANCE_FRACTION
            and not self.is_per_epoch
        )


def is_constant(curve: Curve, trimmed: TrimmedCurve) -> bool:
    """Whether a loss has come to rest after its warm-up."""
    finite = curve.value[np.isfinite(curve.value)]
    return len(trimmed.value) > 0 and float(trimmed.value.std()) <= CONSTANT_TOLERANCE * float(np.ptp(finite))


def is_zero_sum(log: Log) -> bool:
    """Whether one loss is the other, up to sign: a game logged by its value."""
    one, other = (log.curves[role] for role in LOSS_ROLES)
    if (
        len(one) != len(other)
        or not (np.isfinite(one.value).all() and np.isfinite(other.value).all())
        or np.ptp(one.value) * np.ptp(other.value) == 0
    ):
        return False
    return float(abs(np.corrcoef(one.value, other.value)[0, 1])) > 0.9999


def trim_losses(log: Log) -> dict[str, TrimmedCurve]:
    """Each loss without its warm-up; where there are no rows of use, it is left out."""
    parts = {role: trim_curve(log.curves[role]) for role in LOSS_ROLES if role in log.curves}
    return {role: part for role, part in parts.items() if len(part.step)}


def find_oscillation(log: Log, trimmed: Mapping[str, TrimmedCurve], *, seed: int = 0) -> Oscillation | None:
    """The strongest line of the losses that can be tested; None where none can: too few rows, or at rest."""
    tested = {
        role: part
        for role, part in trimmed.items()
        if len(part.step) >= MIN_ROWS and not is_constant(log.curves[role], part)
    }
    if not tested:
        return None
    if len(tested) == 2 and is_zero_sum(log):
        tested.pop("discriminator")  # the same numbers twice are one test
    found = {role: estimate_spectrum(part.step, part.value, seed=seed) for role, part in tested.items()}
    role = min(found, key=lambda key: (found[key].combined_p_value, -found[key].line_ratio))
    part, line = tested[role], found[role]
    sharp = line.line_p_value <= line.band_p_value
    turn = fit_cycle(part.step, part.value, line.line_frequency if sharp else line.band_frequency)
    p_value = min(1.0, line.combined_p_value * len(tested))
    pair: Mapping[str, float | None] = {"coherence": None, "phase": None, "chance": None}
    if len(trimmed) == 2 and not is_zero_sum(log):
        one, other = ((trimmed[name].step, trimmed[name].value) for name in LOSS_ROLES)
        pair = compute_coherence(one, other, 1 / turn.period)
    lasting = turn.is_persistent or (p_value <= SIGNIFICANCE_LEVEL and _later(part, seed))
    return Oscillation(
        role,
        log.curves[role],
        part,
        line,
        turn,
        p_value,
        sharp,
        pair,
        _per_epoch(turn.period, part, log.steps_per_epoch),
        lasting,
    )


def _later(part: TrimmedCurve, seed: int) -> bool:
    """Whether the second half of the log oscillates for itself: a cycle whose period wanders is no longer at the line of the whole, and yet there.

    Asked only where the whole log does, so that noise is not called oscillating more often for it.
    """
    half = len(part.step) // 2
    return (
        half >= MIN_ROWS
        and estimate_spectrum(part.step[half:], part.value[half:], seed=seed).combined_p_value <= SIGNIFICANCE_LEVEL
    )


def _per_epoch(period: float, part: TrimmedCurve, epoch: float | None) -> bool:
    """Whether the period is an epoch, or a simple part of it, to within the resolution of the log."""
    if not epoch or epoch <= 2 * float(np.median(np.diff(part.step))):
        return False
    span = float(part.step[-1] - part.step[0])
    return any(abs(1 / period - turns / epoch) < 0.75 / span for turns in (1, 2, 3)) and span > 4 * epoch


def make_oscillation_document(oscillation: Oscillation | None) -> dict[str, Any]:
    """The `oscillation` part of the losses document; numbers are null where nothing could be tested."""
    keys = ("p_value", "period", "amplitude", "coherence", "phase", "start")
    if oscillation is None:
        return dict.fromkeys(keys)
    turn, line = oscillation.cycle, oscillation.spectrum
    return {
        "p_value": oscillation.p_value,
        "period": turn.period,
        "amplitude": turn.amplitude,
        "coherence": oscillation.cross_spectrum["coherence"],
        "phase": oscillation.cross_spectrum["phase"],
        "start": turn.start,
        "curve": oscillation.curve.name,
        "share": turn.variance_fraction,
        "growth": turn.growth,
        "coherence_by_chance": oscillation.cross_spectrum["chance"],
        "band": list(line.period_range),
        "background": {"phi": line.phi, "share": line.ar1_fraction},
        "method": line.method,
        "per_epoch": oscillation.is_per_epoch,
        "sharp": oscillation.is_line,
        "lasting": oscillation.is_persistent,
    }
