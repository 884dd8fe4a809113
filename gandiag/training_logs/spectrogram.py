"""How the oscillation changes over time: power over the background, by step and period.

A Gaussian window of a few periods slides over the series, so every period is observed over the same number of its own
cycles (a Morlet wavelet transform, Torrence & Compo 1998, Bull. Amer. Meteor. Soc. 79; computed as weighted sums, which
need no regular steps). Near the ends a window reaches beyond the log: the *cone of influence* gives the longest period
that is unaffected there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gandiag.training_logs.multitaper import MIN_CYCLES
from gandiag.training_logs.series import Array
from gandiag.training_logs.spectrum import Spectrum

WINDOW_WIDTH = 1.2  # standard deviation of a window in periods: about six periods in all
N_PERIODS, N_STEPS = 32, 60  # cells: 1,920 numbers in the document
MAX_WINDOWS_PER_CELL = 6  # windows averaged in one cell: short periods need many to fill it
MIN_EFFECTIVE_ROWS = 8  # rows of the log that a window must rest on


@dataclass(frozen=True, slots=True, eq=False)
class Spectrogram:
    """power_ratio (R, W): power over the background, 1 for noise, NaN where a window holds too few rows.

    period (R,) decreases, step (W,) increases. cone (W,): the longest period whose window lies within the log.
    """

    step: Array
    period: Array
    power_ratio: Array
    cone: Array


def compute_spectrogram(step: Array, value: Array, spectrum: Spectrum) -> Spectrogram:
    """The spectrogram of a detrended series (n,) over the background of its spectrum. Cost: N_PERIODS × N_STEPS × n."""
    span = float(step[-1] - step[0])
    centers = step[0] + span * (np.arange(N_STEPS) + 0.5) / N_STEPS
    periods = np.geomspace(span / MIN_CYCLES, max(spectrum.period_range[0], 2 * span / len(step)), N_PERIODS)
    background = np.interp(1 / periods, spectrum.frequency, spectrum.background)
    widths = periods * WINDOW_WIDTH
    rows = [
        _compute_row(step, value, 1 / period, centers, sigma) for period, sigma in zip(periods, widths, strict=True)
    ]
    ratio = np.array(rows) / background[:, None]  # (R, W)
    edge = np.minimum(centers - step[0], step[-1] - centers)
    return Spectrogram(centers, periods, ratio, edge / (np.sqrt(2) * WINDOW_WIDTH))


def _compute_row(step: Array, value: Array, frequency: float, centers: Array, sigma: float) -> Array:
    """Power (W,) at one frequency in the cells around `centers`. White noise has its variance, as in the spectrum."""
    cell = float(centers[1] - centers[0])
    count = int(np.clip(round(cell / (2 * sigma)), 1, MAX_WINDOWS_PER_CELL))
    offsets = cell * ((np.arange(count) + 0.5) / count - 0.5)
    windows = (centers[:, None] + offsets).reshape(-1)  # (W count,)
    weight = np.exp(-0.5 * np.square((step[None, :] - windows[:, None]) / sigma))  # (W count, n)
    energy = np.maximum(np.square(weight).sum(1), 1e-300)
    effective_rows = np.square(weight.sum(1)) / energy
    power = np.square(np.abs(weight @ (value * np.exp(-2j * np.pi * frequency * step)))) / energy
    enough = (effective_rows >= MIN_EFFECTIVE_ROWS).reshape(-1, count)
    mean = np.where(enough, power.reshape(-1, count), 0.0).sum(1) / np.maximum(enough.sum(1), 1)
    return np.where(enough.any(1), mean, np.nan)
