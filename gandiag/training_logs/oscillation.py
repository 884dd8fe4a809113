"""Finds the oscillation of a run: tests both losses, describes the strongest cycle and compares the players at it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gandiag.training_logs.data_order import find_sawtooth_period, is_epoch_harmonic, remove_harmonics
from gandiag.training_logs.series import LOSS_ROLES, Curve, Log
from gandiag.training_logs.sinusoid import (
    UNKNOWN_COHERENCE,
    CycleFit,
    compute_coherence,
    fit_cycle,
    fit_sinusoid,
    remove_quadratic_trend,
)
from gandiag.training_logs.smooth_noise import confirm_cycle
from gandiag.training_logs.spectrum import MIN_ROWS, Spectrum, estimate_spectrum
from gandiag.training_logs.warmup import TrimmedCurve, trim_curve

CONSTANT_TOLERANCE = 1e-3  # std after the warm-up, relative to the range of the whole log, of a loss that has settled
SIGNIFICANCE_LEVEL = 0.05
STRONG_LEVEL = 0.01  # of a cycle that fails a run by itself; a weaker one must also be coherent between the players
SHARED_NOISE_CORRELATION = 0.3  # of the losses without the cycle; beyond, their coherence at the cycle says nothing
MIN_VARIANCE_FRACTION = (
    0.05  # share of the variance that a cycle must carry to be called an oscillation of the training
)
ZERO_SUM_CORRELATION = 0.9999  # between two losses that are the same up to sign


@dataclass(frozen=True, slots=True, eq=False)
class Oscillation:
    """The strongest cycle of a run.

    `p_value` is corrected for the number of tests. `is_line`: a line, else a band of periods. `is_per_epoch`: the cycle
    comes from the order of the data, not from the game. `is_persistent`: it lasts to the end of the log. `is_shared`:
    the losses share their noise. `epoch`: its length, as the log says or as a sawtooth shows.
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
    is_shared: bool = False
    epoch: float | None = None

    @property
    def is_coherent(self) -> bool:
        """Whether the players move together at this period, more than unrelated noise would, and not at every other."""
        coherence, chance = self.cross_spectrum["coherence"], self.cross_spectrum["chance"]
        return coherence is not None and chance is not None and coherence > chance and not self.is_shared

    @property
    def is_strong(self) -> bool:
        """Whether the cycle fails a run: p <= 0.01, or p <= 0.05 and coherent."""
        return self.is_significant and (self.p_value <= STRONG_LEVEL or self.is_coherent)

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
    """The strongest cycle of the losses that can be tested; None if none can: too few rows, or constant.

    A cycle from the order of the data is taken out, and the rest is tested again: the game may turn too.
    """
    found = _test_losses(log, trimmed, seed, log.steps_per_epoch)
    if found is None or found.p_value > SIGNIFICANCE_LEVEL or not found.is_per_epoch or found.epoch is None:
        return found
    epoch = found.epoch
    rest = {
        role: replace(curve, value=remove_harmonics(curve.step, curve.value, epoch)) for role, curve in trimmed.items()
    }
    second = _test_losses(log, rest, seed, epoch)
    return second if second is not None and second.is_strong and not second.is_per_epoch else found


def _test_losses(log: Log, trimmed: Mapping[str, TrimmedCurve], seed: int, epoch: float | None) -> Oscillation | None:
    """The strongest cycle, as it is."""
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
    if p_value <= SIGNIFICANCE_LEVEL and spectrum.is_regular:
        gap = float(np.median(np.diff(curve.step)))
        p_value = min(1.0, max(p_value, confirm_cycle(curve.value, gap / cycle.period, seed=seed) * len(tested)))
    cross_spectrum: Mapping[str, float | None] = UNKNOWN_COHERENCE
    if len(trimmed) == 2 and not is_zero_sum(log):
        first, second = ((trimmed[name].step, trimmed[name].value) for name in LOSS_ROLES)
        cross_spectrum = compute_coherence(first, second, 1 / cycle.period)
    if not epoch and p_value <= SIGNIFICANCE_LEVEL:
        epoch = find_sawtooth_period(curve.step, curve.value, cycle.period)
    return Oscillation(
        role=role,
        curve=log.curves[role],
        trimmed=curve,
        spectrum=spectrum,
        cycle=cycle,
        p_value=p_value,
        is_line=is_line,
        cross_spectrum=cross_spectrum,
        is_per_epoch=is_epoch_harmonic(cycle.period, curve.step, epoch),
        is_persistent=cycle.is_persistent
        or (p_value <= SIGNIFICANCE_LEVEL and _oscillates_in_second_half(curve, seed)),
        is_shared=_share_noise(trimmed, 1 / cycle.period),
        epoch=epoch,
    )


def _share_noise(trimmed: Mapping[str, TrimmedCurve], frequency: float) -> bool:
    """Whether both losses, without the cycle, still move together: one mini-batch made both."""
    if len(trimmed) < 2:
        return False
    rest = []
    for role in LOSS_ROLES:
        curve = trimmed[role]
        value = remove_quadratic_trend(curve.step, curve.value)
        wave = fit_sinusoid(curve.step, value, frequency)
        rest.append(value - np.real(wave * np.exp(2j * np.pi * frequency * curve.step)))
    n = min(map(len, rest))
    first, second = (value[len(value) - n :] for value in rest)
    if np.ptp(first) * np.ptp(second) == 0:
        return False
    return abs(float(np.corrcoef(first, second)[0, 1])) > SHARED_NOISE_CORRELATION


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
        "epoch": oscillation.epoch,
        "strong": oscillation.is_strong,
        "coherent": oscillation.is_coherent,
        "sharp": oscillation.is_line,
        "lasting": oscillation.is_persistent,
    }
