"""A second test of a cycle, against a wider class of noise: AR(2) with two real poles, plus white noise.

A loss that is smoothed before it is logged, or whose correlation the log is too short to show, has a spectrum steeper
than AR(1): what the first test takes for a slow cycle may be that. Noise with real poles has no period of its own. It
is fitted to the spectrum without the neighborhood of the cycle (Whittle), and the test is repeated on series drawn
from the best fit and from the reddest one that the spectrum does not rule out; the larger p-value counts.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from gandiag.training_logs.series import Array
from gandiag.training_logs.spectrum import SpectralTest, combine_p_values, make_regular_test

POLES = (0.0, 0.3, 0.5, 0.7, 0.8, 0.88, 0.93, 0.96, 0.98, 0.99)
WHITE_FRACTIONS = (0.0, 0.05, 0.2, 0.5)
MASK_FACTOR = 1.4  # of the frequency, on either side of the cycle, that is left out of the fit
MIN_MASK_BINS = 6
MAX_LIKELIHOOD_LOSS = 2.0  # of a background that the spectrum does not rule out
N_DRAWS = 299
BURN_IN = 400
DRAW_BATCH = 100
MIN_FITTED_BINS = 8


def confirm_cycle(value: Array, frequency: float, *, seed: int = 0) -> float:
    """The p-value of the strongest cycle of values (n,) at regular steps; `frequency` of the cycle in cycles a row."""
    test = make_regular_test(len(value))
    scaled = (value - value.mean()) / (float(value.std()) or 1.0)
    observed = test.compute_statistics(scaled[None])
    backgrounds = _fit(test.lines.estimator.frequency, observed.power[0], frequency)
    line, band = float(observed.line_ratio.max()), float(observed.band_ratio.max())
    return max(_compute_p_value(test, poles, line, band, seed) for poles in backgrounds)


def _compute_p_value(
    test: SpectralTest, noise: tuple[float, float, float], line: float, band: float, seed: int
) -> float:
    rng = np.random.default_rng(seed + 2)
    lines, bands = [], []
    for low in range(0, N_DRAWS, DRAW_BATCH):
        series = _sample(noise, len(test.step), min(DRAW_BATCH, N_DRAWS - low), rng)
        statistics = test.compute_statistics(series)
        lines.append(statistics.line_ratio.max(1))
        bands.append(statistics.band_ratio.max(1))
    null_lines, null_bands = np.concatenate(lines), np.concatenate(bands)
    line_p = (1 + int((null_lines >= line).sum())) / (1 + N_DRAWS)
    band_p = (1 + int((null_bands >= band).sum())) / (1 + N_DRAWS)
    return combine_p_values(null_lines, null_bands, min(line_p, band_p))


@lru_cache(maxsize=1)
def _list_noises() -> tuple[tuple[float, float, float], ...]:
    """(pole, pole, white fraction), the first pole no larger than the second."""
    return tuple(
        (first, second, white)
        for index, second in enumerate(POLES)
        for first in POLES[: index + 1]
        for white in (WHITE_FRACTIONS if second else (0.0,))
    )


def _compute_spectrum(noise: tuple[float, float, float], frequency: Array) -> Array:
    """Power (F,) of noise of unit variance."""
    first, second, white = noise
    turn = np.exp(-2j * np.pi * frequency)
    shape = 1 / np.square(np.abs((1 - first * turn) * (1 - second * turn)))
    # Variance of AR(2) with these poles and innovations of variance 1.
    product, total = first * second, first + second
    variance = (1 + product) / ((1 - product) * ((1 + product) ** 2 - total**2))
    return np.asarray((1 - white) * shape / variance + white)


def _fit(frequency: Array, power: Array, cycle: float) -> list[tuple[float, float, float]]:
    """The most likely noise, and the reddest that is not ruled out."""
    away = np.abs(np.log(frequency / cycle)) > np.log(MASK_FACTOR)
    spacing = float(frequency[1] - frequency[0])
    away &= np.abs(frequency - cycle) > MIN_MASK_BINS * spacing
    if int(away.sum()) < MIN_FITTED_BINS:
        away = np.abs(frequency - cycle) > spacing * MIN_MASK_BINS / 2
    if int(away.sum()) < MIN_FITTED_BINS:
        away = np.ones(len(frequency), dtype=np.bool_)
    spectra = np.array([_compute_spectrum(noise, frequency[away]) for noise in _list_noises()])  # (G, F)
    level = np.maximum((power[away] / spectra).mean(1), 1e-300)
    # Twice as many frequencies as the FFT has: half of them are independent.
    loss = 0.5 * int(away.sum()) * (np.log(level) + np.log(spectra).mean(1))
    likely = np.flatnonzero(loss <= loss.min() + MAX_LIKELIHOOD_LOSS)
    reddest = max(likely, key=lambda index: float(spectra[index][0] / spectra[index].mean()))
    chosen = dict.fromkeys((int(loss.argmin()), int(reddest)))
    return [_list_noises()[index] for index in chosen]


def _sample(noise: tuple[float, float, float], n: int, draws: int, rng: np.random.Generator) -> Array:
    """Series (draws, n) of unit variance."""
    first, second, white = noise
    series = rng.standard_normal((n + BURN_IN, draws))
    for pole in (first, second):
        if pole:
            for i in range(1, len(series)):
                series[i] += pole * series[i - 1]
    red = series[BURN_IN:].T
    red = red / (float(red.std()) or 1.0)
    if white:
        red = np.sqrt(1 - white) * red + np.sqrt(white) * rng.standard_normal(red.shape)
    return np.ascontiguousarray(red)
