"""Describes the strongest line as a cycle: refined period, amplitude over time, coherence and phase between players."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gandiag.training_logs.multitaper import MIN_CYCLES
from gandiag.training_logs.series import Array

WINDOW_PERIODS = 6  # periods in one window of the amplitude over time
MAX_WINDOWS = 48
MAX_COHERENCE_WINDOWS = 256
MIN_WINDOW_ROWS = 8  # a window with fewer rows is left out
MIN_COHERENCE_ROWS = 16
UNKNOWN_COHERENCE: dict[str, float | None] = {"coherence": None, "phase": None, "chance": None}


@dataclass(frozen=True, slots=True, eq=False)
class CycleFit:
    """One cycle of a loss.

    `period` in steps; `amplitude` in units of the loss; `variance_fraction`: share of the variance; `growth` of the
    amplitude as a factor per step; window_centers, window_amplitude (W,): amplitude over time; `start`: the step from
    which the cycle is present.
    """

    period: float
    amplitude: float
    variance_fraction: float
    growth: float
    window_centers: Array
    window_amplitude: Array
    start: float

    @property
    def is_persistent(self) -> bool:
        """Whether the last quarter of the log has at least half the amplitude of the strongest quarter."""
        if len(self.window_amplitude) < 4:
            return True
        quarters = [float(np.median(quarter)) for quarter in np.array_split(self.window_amplitude, 4)]
        return quarters[-1] >= 0.5 * max(quarters)


def fit_cycle(step: Array, value: Array, peak_frequency: float) -> CycleFit:
    """The cycle near `peak_frequency` of a series (n,) without warm-up."""
    detrended = remove_quadratic_trend(step, value)
    frequency = refine_frequency(step, detrended, peak_frequency)
    centers, amplitudes = measure_amplitude(step, detrended, frequency)
    # A cycle whose phase wanders is smaller in one fit of the whole log than in any part of it.
    rms_amplitude = float(np.sqrt(np.mean(amplitudes**2))) if len(amplitudes) else 0.0
    amplitude = max(float(abs(fit_sinusoid(step, detrended, frequency))), rms_amplitude)
    return CycleFit(
        period=1 / frequency,
        amplitude=amplitude,
        variance_fraction=min(1.0, amplitude**2 / 2 / (float(detrended.var()) or 1.0)),
        growth=_estimate_growth(centers, amplitudes),
        window_centers=centers,
        window_amplitude=amplitudes,
        start=_find_start(centers, amplitudes, step, 1 / frequency),
    )


def remove_quadratic_trend(step: Array, value: Array) -> Array:
    """The series without its quadratic trend; of fewer than three values, without all that they say."""
    degree = min(2, len(value) - 1)
    centered = (step - step.mean()) / ((step[-1] - step[0]) or 1.0)
    return np.asarray(value - np.polyval(np.polyfit(centered, value, degree), centered))


def fit_sinusoid(step: Array, value: Array, frequency: float) -> complex:
    """Least-squares sinusoid: value ≈ Re(c exp(2πi f step)); |c| is its amplitude."""
    angle = 2 * np.pi * frequency * step
    table = np.stack([np.cos(angle), -np.sin(angle)], axis=1)  # (n, 2)
    cos, sin = np.linalg.lstsq(table, value, rcond=None)[0]
    return complex(cos, sin)


def refine_frequency(step: Array, value: Array, peak_frequency: float) -> float:
    """The frequency of the largest Hann-weighted Fourier sum within a bin of the peak, to ten thousandths of a bin."""
    width = 1.0 / (step[-1] - step[0])
    window = np.sin(np.pi * (step - step[0]) / (step[-1] - step[0])) ** 2 * value
    best = peak_frequency
    for _ in range(4):
        candidates = best + width * np.linspace(-1, 1, 21)
        candidates = candidates[candidates > 0.9 * MIN_CYCLES / (step[-1] - step[0])]  # fewer cycles are trend
        sums = np.abs(np.exp(-2j * np.pi * np.outer(candidates, step)) @ window)
        best, width = float(candidates[sums.argmax()]), width / 8
    return best


def demodulate_series(
    step: Array, value: Array, frequency: float, max_windows: int = MAX_WINDOWS
) -> tuple[Array, NDArray[np.complex128]]:
    """Fourier coefficients in overlapping Hann windows of WINDOW_PERIODS periods.

    Returns center step (W,) and complex amplitude (W,) of each window.
    """
    span, length = step[-1] - step[0], WINDOW_PERIODS / frequency
    length = min(length, span)
    count = int(np.clip(2 * span / length - 1, 1, max_windows))
    starts = step[0] + np.linspace(0, span - length, count)
    centers, coefficients = [], []
    for start in starts:
        low, high = np.searchsorted(step, start), np.searchsorted(step, start + length, side="right")
        if high - low < MIN_WINDOW_ROWS:
            continue
        window_step, window_value = step[low:high], value[low:high] - value[low:high].mean()
        weight = np.sin(np.pi * (window_step - start) / length) ** 2
        total = float(weight.sum()) or 1.0
        phasor = np.exp(-2j * np.pi * frequency * window_step)
        coefficients.append(2 * np.sum(weight * window_value * phasor) / total)
        centers.append(start + length / 2)
    return np.array(centers), np.array(coefficients, dtype=np.complex128)


def measure_amplitude(step: Array, value: Array, frequency: float) -> tuple[Array, Array]:
    """Amplitude over time: window centers (W,), amplitudes (W,)."""
    centers, coefficients = demodulate_series(step, value, frequency)
    return centers, np.abs(coefficients)


def compute_coherence(
    series_a: tuple[Array, Array], series_b: tuple[Array, Array], frequency: float
) -> dict[str, float | None]:
    """Coherence of two series at a frequency, and the phase by which the second lags, in degrees of (-180, 180].

    Each series is (step, value). `chance`: the coherence that 5 % of unrelated series exceed, 1 - 0.05^(1/(M-1)) for M
    windows. All three are None if the common part of the series is too short.
    """
    low, high = max(series_a[0][0], series_b[0][0]), min(series_a[0][-1], series_b[0][-1])
    overlap = [
        (step[(step >= low) & (step <= high)], value[(step >= low) & (step <= high)])
        for step, value in (series_a, series_b)
    ]
    if min(len(step) for step, _ in overlap) < MIN_COHERENCE_ROWS or (high - low) * frequency < MIN_CYCLES:
        return dict(UNKNOWN_COHERENCE)
    (centers_a, first), (centers_b, second) = (
        demodulate_series(step, remove_quadratic_trend(step, value), frequency, MAX_COHERENCE_WINDOWS)
        for step, value in overlap
    )
    if len(centers_a) != len(centers_b) or len(centers_a) < 2:
        return dict(UNKNOWN_COHERENCE)
    cross = np.sum(first * np.conj(second))
    scale = float(np.sum(np.abs(first) ** 2) * np.sum(np.abs(second) ** 2)) or 1.0
    independent = max(2.0, len(centers_a) / 1.9)  # half-overlapping Hann windows
    return {
        "coherence": float(abs(cross) ** 2 / scale),
        "phase": float(np.degrees(np.angle(cross))),
        "chance": 1 - 0.05 ** (1 / (independent - 1)),
    }


def _estimate_growth(centers: Array, amplitudes: Array) -> float:
    """Growth factor of the amplitude per step: the slope of its logarithm."""
    positive = amplitudes > 0
    if positive.sum() < 3:
        return 1.0
    return float(np.exp(np.polyfit(centers[positive], np.log(amplitudes[positive]), 1)[0]))


def _find_start(centers: Array, amplitudes: Array, step: Array, period: float) -> float:
    """The step from which the cycle is present.

    The center of the first window with half the median amplitude, less half the overlap of windows; the first step of
    the log if that is the first window.
    """
    strong = np.flatnonzero(amplitudes >= 0.5 * np.median(amplitudes)) if len(amplitudes) else np.array([0])
    first = int(strong[0]) if len(strong) else 0
    if first == 0 or not len(centers):
        return float(step[0])
    return float(max(step[0], centers[first] - WINDOW_PERIODS * period / 4))
