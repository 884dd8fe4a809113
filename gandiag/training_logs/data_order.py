"""Cycles that come from the order of the data: unshuffled samples repeat with the epoch, and so does the loss.

With a known epoch, every harmonic of it is excluded. Without, a sawtooth with an exact period tells: within an epoch
the loss drifts one way, and at its end it jumps back.
"""

from __future__ import annotations

import numpy as np

from gandiag.training_logs.multitaper import is_regular
from gandiag.training_logs.series import Array
from gandiag.training_logs.sinusoid import remove_quadratic_trend

MIN_EPOCHS = 4  # in the log
MANY_EPOCHS = 10  # from which on all harmonics are excluded; with fewer, they would cover too many frequencies
FEW_HARMONICS = 3
TOLERANCE = 0.75  # of the resolution of the log
MIN_SAWTOOTH_ROWS = 8  # of a period
MIN_SAWTOOTH_CYCLES = 5
MAX_SAWTOOTH_HARMONIC = 3  # the strongest line may be a harmonic of the sawtooth
PHASE_BINS = 20
MIN_JUMP_FRACTION = 0.55  # of the range of the waveform, that falls between two neighboring phases
MIN_RAMP_FRACTION = 0.75  # of the rest of the way, that runs back
MIN_WAVEFORM_CORRELATION = 0.85  # of the two halves of the log
N_CANDIDATES = 81
MAX_FITTED_HARMONICS = 40


def is_epoch_harmonic(period: float, step: Array, steps_per_epoch: float | None) -> bool:
    """Whether the period is an epoch or a whole fraction of one, to within the resolution of the log."""
    if not steps_per_epoch or steps_per_epoch <= 2 * float(np.median(np.diff(step))):
        return False
    span = float(step[-1] - step[0])
    cycles = steps_per_epoch / period
    harmonic = round(cycles)
    if span <= MIN_EPOCHS * steps_per_epoch or harmonic < 1:
        return False
    if span < MANY_EPOCHS * steps_per_epoch and harmonic > FEW_HARMONICS:
        return False
    return abs(cycles - harmonic) / steps_per_epoch < TOLERANCE / span


def find_sawtooth_period(step: Array, value: Array, period: float) -> float | None:
    """The period of a sawtooth whose fundamental or harmonic has this period; None if there is none."""
    if not is_regular(step):
        return None
    rows = period / float(np.median(np.diff(step)))
    detrended = remove_quadratic_trend(step, value)
    for multiple in range(1, MAX_SAWTOOTH_HARMONIC + 1):
        length = rows * multiple
        if length < MIN_SAWTOOTH_ROWS or len(step) < MIN_SAWTOOTH_CYCLES * length:
            continue
        length = _refine_length(detrended, length)
        if _is_sawtooth(detrended, length):
            return length * float(np.median(np.diff(step)))
    return None


def _refine_length(value: Array, length: float) -> float:
    """The length of a cycle in rows at which the folded series varies most."""
    width = length**2 / len(value)
    candidates = np.linspace(length - width, length + width, N_CANDIDATES)
    return float(max(candidates, key=lambda rows: float(np.var(_fold(value, rows)))))


def _fold(value: Array, length: float) -> Array:
    """Mean waveform over a cycle of `length` rows, in phase bins."""
    n_bins = int(min(PHASE_BINS, length))
    phase = (np.arange(len(value)) / length % 1 * n_bins).astype(np.intp)
    count = np.bincount(phase, minlength=n_bins)
    return np.bincount(phase, weights=value, minlength=n_bins) / np.maximum(count, 1)


def _is_sawtooth(value: Array, length: float) -> bool:
    half = int(len(value) / 2 / length) * length
    first, second = _fold(value[: round(half)], length), _fold(value[round(half) :], length)
    if np.ptp(first) * np.ptp(second) == 0 or np.corrcoef(first, second)[0, 1] < MIN_WAVEFORM_CORRELATION:
        return False
    waveform = _fold(value, length)
    ways = np.diff(np.append(waveform, waveform[0]))
    # A jump may fall inside a bin and then takes two ways.
    pairs = ways + np.roll(ways, -1)
    at = int(np.abs(pairs).argmax())
    jump = float(pairs[at])
    rest = np.delete(ways, [at, (at + 1) % len(ways)])
    back = float(np.abs(rest[rest * np.sign(jump) < 0]).sum())
    return abs(jump) >= MIN_JUMP_FRACTION * float(np.ptp(waveform)) and back >= MIN_RAMP_FRACTION * np.abs(rest).sum()


def remove_harmonics(step: Array, value: Array, epoch: float) -> Array:
    """The series without its epoch's harmonics, by least squares; with as many as the rows can bear."""
    gap = float(np.median(np.diff(step)))
    n_harmonics = int(min(MAX_FITTED_HARMONICS, epoch / (2 * gap) + 0.01, len(step) // 8))
    if n_harmonics < 1:
        return value
    angle = 2 * np.pi * np.outer(step - step[0], np.arange(1, n_harmonics + 1) / epoch)
    table = np.concatenate([np.ones((len(step), 1)), np.cos(angle), np.sin(angle)], axis=1)
    coefficients = np.linalg.lstsq(table, value, rcond=None)[0]
    return np.asarray(value - table[:, 1:] @ coefficients[1:])
