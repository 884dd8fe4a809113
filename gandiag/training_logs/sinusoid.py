"""The strongest line as an oscillation: exact period, amplitude and its change, coherence and phase between the players."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gandiag.training_logs.multitaper import MIN_CYCLES
from gandiag.training_logs.series import Array

WINDOW_PERIODS = 6  # periods in a window of the amplitude over time
MAX_WINDOWS = 48


@dataclass(frozen=True, slots=True, eq=False)
class CycleFit:
    """`period` in steps; `amplitude` in units of the loss; `share` of the variance; `growth` of the amplitude, as a factor per step.

    at, course (W,): amplitude over time. `start`: the step from which on it is there.
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
        """Whether it is as strong in the last quarter of the log as in its best, to half."""
        quarters = (
            [float(np.median(part)) for part in np.array_split(self.window_amplitude, 4)]
            if len(self.window_amplitude) >= 4
            else [1.0]
        )
        return quarters[-1] >= 0.5 * max(quarters)


def fit_cycle(step: Array, value: Array, peak_frequency: float) -> CycleFit:
    """The oscillation near frequency `peak` of a series (n,) without warm-up."""
    flat = remove_quadratic_trend(step, value)
    frequency = refine_frequency(step, flat, peak_frequency)
    at, course = measure_amplitude(step, flat, frequency)
    # A cycle whose phase wanders is smaller in one fit of the whole log than in any part of it.
    amplitude = max(
        float(abs(fit_sinusoid(step, flat, frequency))), float(np.sqrt(np.mean(course**2))) if len(course) else 0.0
    )
    share = min(1.0, amplitude**2 / 2 / (float(flat.var()) or 1.0))
    return CycleFit(
        1 / frequency, amplitude, share, _growth(at, course), at, course, _start(at, course, step, 1 / frequency)
    )


def remove_quadratic_trend(step: Array, value: Array) -> Array:
    """The series without its quadratic trend."""
    place = (step - step.mean()) / ((step[-1] - step[0]) or 1.0)
    return np.asarray(value - np.polyval(np.polyfit(place, value, 2), place))


def fit_sinusoid(step: Array, value: Array, frequency: float) -> complex:
    """Least-squares sinusoid: value ≈ Re(c exp(2πi f step)); |c| is its amplitude."""
    angle = 2 * np.pi * frequency * step
    table = np.stack([np.cos(angle), -np.sin(angle)], axis=1)  # (n, 2)
    cos, sin = np.linalg.lstsq(table, value, rcond=None)[0]
    return complex(cos, sin)


def refine_frequency(step: Array, value: Array, peak_frequency: float) -> float:
    """The frequency of the largest Hann-weighted Fourier sum within a bin of `peak`: ten thousandths of a bin."""
    width = 1.0 / (step[-1] - step[0])
    window = np.sin(np.pi * (step - step[0]) / (step[-1] - step[0])) ** 2 * value
    best = peak_frequency
    for _ in range(4):
        tried = best + width * np.linspace(-1, 1, 21)
        tried = tried[tried > 0.9 * MIN_CYCLES / (step[-1] - step[0])]  # fewer turns are trend
        sums = np.abs(np.exp(-2j * np.pi * np.outer(tried, step)) @ window)
        best, width = float(tried[sums.argmax()]), width / 8
    return best


def demodulate_series(
    step: Array, value: Array, frequency: float, max_windows: int = MAX_WINDOWS
) -> tuple[Array, NDArray[np.complex128]]:
    """Fourier coefficient in overlapping Hann windows of SEGMENT periods: middle step (W,), complex amplitude (W,)."""
    span, length = step[-1] - step[0], WINDOW_PERIODS / frequency
    length = min(length, span)
    count = int(np.clip(2 * span / length - 1, 1, max_windows))
    starts = step[0] + np.linspace(0, span - length, count)
    at, found = [], []
    for start in starts:
        low, high = np.searchsorted(step, start), np.searchsorted(step, start + length, side="right")
        if high - low < 8:
            continue
        place, part = step[low:high], value[low:high] - value[low:high].mean()
        weight = np.sin(np.pi * (place - start) / length) ** 2
        total = float(weight.sum()) or 1.0
        found.append(2 * np.sum(weight * part * np.exp(-2j * np.pi * frequency * place)) / total)
        at.append(start + length / 2)
    return np.array(at), np.array(found, dtype=np.complex128)


def measure_amplitude(step: Array, value: Array, frequency: float) -> tuple[Array, Array]:
    """Amplitude over time: (W,), (W,)."""
    at, found = demodulate_series(step, value, frequency)
    return at, np.abs(found)


def compute_coherence(
    series_a: tuple[Array, Array], series_b: tuple[Array, Array], frequency: float
) -> dict[str, float | None]:
    """Coherence of two series at a frequency, and the phase by which the second follows the first, in degrees of (-180, 180].

    Each series is (step, value). Coherence from M windows is above 1 - 0.05^(1/(M-1)) in 5 % of unrelated series: `chance`.
    """
    low, high = max(series_a[0][0], series_b[0][0]), min(series_a[0][-1], series_b[0][-1])
    cut = [
        (step[(step >= low) & (step <= high)], value[(step >= low) & (step <= high)])
        for step, value in (series_a, series_b)
    ]
    if min(len(step) for step, _ in cut) < 16 or (high - low) * frequency < MIN_CYCLES:
        return {"coherence": None, "phase": None, "chance": None}
    (at, first), (at_other, second) = (
        demodulate_series(step, remove_quadratic_trend(step, value), frequency, 256) for step, value in cut
    )
    if len(at) != len(at_other) or len(at) < 2:
        return {"coherence": None, "phase": None, "chance": None}
    cross = np.sum(first * np.conj(second))
    scale = float(np.sum(np.abs(first) ** 2) * np.sum(np.abs(second) ** 2)) or 1.0
    independent = max(2.0, len(at) / 1.9)  # half-overlapping Hann windows
    return {
        "coherence": float(abs(cross) ** 2 / scale),
        "phase": float(np.degrees(np.angle(cross))),
        "chance": 1 - 0.05 ** (1 / (independent - 1)),
    }


def _growth(at: Array, course: Array) -> float:
    """Factor per step of the amplitude: slope of its logarithm."""
    known = course > 0
    if known.sum() < 3:
        return 1.0
    return float(np.exp(np.polyfit(at[known], np.log(course[known]), 1)[0]))


def _start(at: Array, course: Array, step: Array, period: float) -> float:
    """The step of the first window that has half of the later amplitude, less half a window; the first step where all have it."""
    strong = np.flatnonzero(course >= 0.5 * np.median(course)) if len(course) else np.array([0])
    first = int(strong[0]) if len(strong) else 0
    return float(step[0]) if first == 0 or not len(at) else float(max(step[0], at[first] - WINDOW_PERIODS * period / 4))
