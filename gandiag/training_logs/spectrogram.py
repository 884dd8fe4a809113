"""How the oscillation changes over time: power over the background, by step and period.

A Gaussian window of a few periods slides over the series, so that every period is seen in as many of its own turns (a Morlet
wavelet transform, Torrence & Compo 1998, Bull. Amer. Meteor. Soc. 79; here as weighted sums, which need no regular steps).
Near the ends a window reaches beyond the log: the *cone* says which periods are whole there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gandiag.training_logs.multitaper import MIN_CYCLES
from gandiag.training_logs.series import Array
from gandiag.training_logs.spectrum import Spectrum

WINDOW_WIDTH = 1.2  # periods in one standard deviation of a window: about six in the whole
N_PERIODS, N_STEPS = 32, 60  # cells: 1,920 numbers in the document
MAX_WINDOWS_PER_CELL = 6  # windows averaged in a cell at most: short periods need many to fill it
MIN_EFFECTIVE_ROWS = 8  # rows of the log that a window must rest on


@dataclass(frozen=True, slots=True, eq=False)
class Spectrogram:
    """ratio (R, W): power over the background, 1 for noise, NaN where a window is too empty. period (R,) falls, step (W,) grows.

    cone (W,): the longest period whose window still lies within the log at each step.
    """

    step: Array
    period: Array
    power_ratio: Array
    cone: Array


def compute_spectrogram(step: Array, value: Array, spectrum: Spectrum) -> Spectrogram:
    """Of a series (n,) without trend, against the background of its spectrum. Cost: ROWS × COLUMNS × n."""
    span = float(step[-1] - step[0])
    at = step[0] + span * (np.arange(N_STEPS) + 0.5) / N_STEPS
    periods = np.geomspace(span / MIN_CYCLES, max(spectrum.period_range[0], 2 * span / len(step)), N_PERIODS)
    ground = np.interp(1 / periods, spectrum.frequency, spectrum.background)
    width = periods * WINDOW_WIDTH
    ratio = (
        np.array([_row(step, value, 1 / period, at, sigma) for period, sigma in zip(periods, width, strict=True)])
        / ground[:, None]
    )  # (R, W)
    edge = np.minimum(at - step[0], step[-1] - at)
    return Spectrogram(at, periods, ratio, edge / (np.sqrt(2) * WINDOW_WIDTH))


def _row(step: Array, value: Array, frequency: float, at: Array, sigma: float) -> Array:
    """Power at one frequency in the cells around `at`, in the unit of the spectrum: white noise has its variance. (W,)"""
    cell = float(at[1] - at[0])
    count = int(np.clip(round(cell / (2 * sigma)), 1, MAX_WINDOWS_PER_CELL))
    places = (at[:, None] + cell * ((np.arange(count) + 0.5) / count - 0.5)).reshape(-1)  # (W count,)
    weight = np.exp(-0.5 * np.square((step[None, :] - places[:, None]) / sigma))  # (W count, n)
    energy = np.maximum(np.square(weight).sum(1), 1e-300)
    effective = np.square(weight.sum(1)) / energy
    power = np.square(np.abs(weight @ (value * np.exp(-2j * np.pi * frequency * step)))) / energy
    enough = (effective >= MIN_EFFECTIVE_ROWS).reshape(-1, count)
    mean = np.where(enough, power.reshape(-1, count), 0.0).sum(1) / np.maximum(enough.sum(1), 1)
    return np.where(enough.any(1), mean, np.nan)
