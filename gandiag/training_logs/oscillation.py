"""Finds the oscillation of a run: tests both losses, describes the strongest cycle and compares the players at it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gandiag.training_logs.series import LOSS_ROLES, Curve, Log
from gandiag.training_logs.sinusoid import UNKNOWN_COHERENCE, CycleFit, compute_coherence, fit_cycle
from gandiag.training_logs.spectrum import MIN_ROWS, Spectrum, estimate_spectrum
from gandiag.training_logs.warmup import TrimmedCurve, trim_curve

CONSTANT_TOLERANCE = 1e-3  # std after the warm-up, relative to the range of the whole log, of a loss that has settled
SIGNIFICANCE_LEVEL = 0.05
MIN_VARIANCE_FRACTION = (
    0.05  # share of the variance that a cycle must carry to be called an oscillation of the training
)
ZERO_SUM_CORRELATION = 0.9999  # between two losses that are the same up to sign


@dataclass(frozen=True, slots=True, eq=False)
class Oscillation:
    """The strongest cycle of a run.

    `p_value` is corrected for the number of tests. `is_line`: a line, else a band of periods. `is_per_epoch`: the cycle
    comes from the order of the data, not from the game. `is_persistent`: it lasts to the end of the log.
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
        """Whether the cycle is significant, carries enough variance and is not the order of the data."""
        return (
            self.p_value <= SIGNIFICANCE_LEVEL
            and self.cycle.variance_fraction >= MIN_VARIANCE_FRACTION
            and not self.is_per_epoch
        )


def is_constant(curve: Curve, trimmed: TrimmedCurve) -> bool:
    """Whether a loss no longer moves after its warm-up."""
    finite = curve.value[np.isfinite(curve.value)]
    return len(trimmed.value) > 0 and float(trimmed.value.std()) <= CONSTANT_TOLERANCE * float(np.ptp(finite))


def is_zero_sum(log: Log) -> bool:
    """Whether the two losses are the same up to sign: a zero-sum game, logged twice."""
    first, second = (log.curves[role].value for role in LOSS_ROLES)
    if len(first) != len(second) or not (np.isfinite(first).all() and np.isfinite(second).all()):
        return False
    if np.ptp(first) * np.ptp(second) == 0:
        return False
    return float(abs(np.corrcoef(first, second)[0, 1])) > ZERO_SUM_CORRELATION


def trim_losses(log: Log) -> dict[str, TrimmedCurve]:
    """Role -> loss without its warm-up; losses without usable rows are left out."""
    trimmed = {role: trim_curve(log.curves[role]) for role in LOSS_ROLES if role in log.curves}
    return {role: curve for role, curve in trimmed.items() if len(curve.step)}


def find_oscillation(log: Log, trimmed: Mapping[str, TrimmedCurve], *, seed: int = 0) -> Oscillation | None:
    """The strongest cycle of the losses that can be tested; None if none can: too few rows, or constant."""
    tested = {
        role: curve
        for role, curve in trimmed.items()
        if len(curve.step) >= MIN_ROWS and not is_constant(log.curves[role], curve)
    }
    if not tested:
        return None
    if len(tested) == 2 and is_zero_sum(log):
        tested.pop("discriminator")  # the same numbers twice are one test
    spectra = {role: estimate_spectrum(curve.step, curve.value, seed=seed) for role, curve in tested.items()}
    role = min(spectra, key=lambda key: (spectra[key].combined_p_value, -spectra[key].line_ratio))
    curve, spectrum = tested[role], spectra[role]
    is_line = spectrum.line_p_value <= spectrum.band_p_value
    cycle = fit_cycle(curve.step, curve.value, spectrum.line_frequency if is_line else spectrum.band_frequency)
    p_value = min(1.0, spectrum.combined_p_value * len(tested))
    cross_spectrum: Mapping[str, float | None] = UNKNOWN_COHERENCE
    if len(trimmed) == 2 and not is_zero_sum(log):
        first, second = ((trimmed[name].step, trimmed[name].value) for name in LOSS_ROLES)
        cross_spectrum = compute_coherence(first, second, 1 / cycle.period)
    return Oscillation(
        role=role,
        curve=log.curves[role],
        trimmed=curve,
        spectrum=spectrum,
        cycle=cycle,
        p_value=p_value,
        is_line=is_line,
        cross_spectrum=cross_spectrum,
        is_per_epoch=_is_per_epoch(cycle.period, curve, log.steps_per_epoch),
        is_persistent=cycle.is_persistent
        or (p_value <= SIGNIFICANCE_LEVEL and _oscillates_in_second_half(curve, seed)),
    )


def _oscillates_in_second_half(curve: TrimmedCurve, seed: int) -> bool:
    """Whether the second half of the log oscillates on its own.

    A cycle whose period wanders leaves the line of the whole log although it still exists. Tested only if the whole log
    oscillates, so that noise does not get a second chance.
    """
    half = len(curve.step) // 2
    if half < MIN_ROWS:
        return False
    spectrum = estimate_spectrum(curve.step[half:], curve.value[half:], seed=seed)
    return spectrum.combined_p_value <= SIGNIFICANCE_LEVEL


def _is_per_epoch(period: float, curve: TrimmedCurve, steps_per_epoch: float | None) -> bool:
    """Whether the period is an epoch, a half or a third of one, to within the resolution of the log."""
    if not steps_per_epoch or steps_per_epoch <= 2 * float(np.median(np.diff(curve.step))):
        return False
    span = float(curve.step[-1] - curve.step[0])
    matches = any(abs(1 / period - cycles / steps_per_epoch) < 0.75 / span for cycles in (1, 2, 3))
    return matches and span > 4 * steps_per_epoch


def make_oscillation_document(oscillation: Oscillation | None) -> dict[str, Any]:
    """The `oscillation` part of the losses document; its numbers are null if nothing could be tested."""
    if oscillation is None:
        return dict.fromkeys(("p_value", "period", "amplitude", "coherence", "phase", "start"))
    cycle, spectrum = oscillation.cycle, oscillation.spectrum
    return {
        "p_value": oscillation.p_value,
        "period": cycle.period,
        "amplitude": cycle.amplitude,
        "coherence": oscillation.cross_spectrum["coherence"],
        "phase": oscillation.cross_spectrum["phase"],
        "start": cycle.start,
        "curve": oscillation.curve.name,
        "share": cycle.variance_fraction,
        "growth": cycle.growth,
        "coherence_by_chance": oscillation.cross_spectrum["chance"],
        "band": list(spectrum.period_range),
        "background": {"phi": spectrum.phi, "share": spectrum.ar1_fraction},
        "method": spectrum.method,
        "per_epoch": oscillation.is_per_epoch,
        "sharp": oscillation.is_line,
        "lasting": oscillation.is_persistent,
    }
