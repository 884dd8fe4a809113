"""Tests whether the spectrum holds a line that the background does not explain, by Monte Carlo.

    statistic   max over frequencies of power / max(fitted background, level of the neighbors)
    p-value     share of series drawn from the fitted background whose own maximum is as large, after the same trend
                removal and a fit of their own background. A white-noise test is wrong on 70 to 100 % of such series.

The level of the neighbors is the geometric mean of those below and those above. It is exact for any power law, so a
spectrum steeper than AR(1) (a smoothed loss) does not pass for a line.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from gandiag.training_logs.multitaper import SpectrumEstimator, is_regular, make_band_estimator, make_line_estimator
from gandiag.training_logs.red_noise import RedNoiseGrid, build_red_noise_grid, sample_background
from gandiag.training_logs.series import Array

MIN_ROWS = 32  # rows below which nothing is tested
N_DRAWS = 999
FIRST_DRAWS = 256  # after which a p-value above MAX_UNDECIDED is not refined (Besag & Clifford 1991, Biometrika 78)
MAX_UNDECIDED = 0.1
BAND_FACTOR = 1.3  # half a band, as a factor of frequency: a cycle that stays in phase for two or three periods
DRAW_BATCH_SIZE = 128  # draws at a time, to bound memory
INNER_FACTOR, OUTER_FACTOR = 1.25, 3.0  # the neighbors of f: [f/3, f/1.25] and [1.25 f, 3 f]


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """frequency, power, background, critical_power (F,): the last is the power at which a line is significant at 5 %.

    `line_p_value`, `line_frequency`, `line_ratio` (power over background): the strongest line. `band_p_value`,
    `band_frequency`: the strongest band, such as a cycle whose period wanders. `combined_p_value`: of the smaller of
    the two p-values, from the same draws. `phi`, `ar1_fraction`: the fitted background. `period_range`: (shortest,
    longest) period tested.
    """

    frequency: Array
    power: Array
    background: Array
    critical_power: Array
    line_p_value: float
    line_frequency: float
    line_ratio: float
    phi: float
    ar1_fraction: float
    period_range: tuple[float, float]
    is_regular: bool
    method: str
    band_p_value: float = 1.0
    band_frequency: float = 0.0
    combined_p_value: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class _EstimatorWithBackground:
    """A spectrum estimator with its grid of backgrounds. It depends on the steps alone."""

    estimator: SpectrumEstimator
    grid: RedNoiseGrid
    neighbor_ranges: tuple[Array, ...]
    band_ranges: tuple[NDArray[np.intp], NDArray[np.intp]]

    def analyze(self, series: Array) -> tuple[Array, Array, NDArray[np.intp]]:
        """Series (B, n) -> power (B, F), background (B, F), index of the fitted background in the grid (B,)."""
        power = self.estimator.compute_power(series)
        index, level = self.grid.fit(power)
        background = np.maximum(self.grid.spectra[index] * level[:, None], self._compute_neighbor_level(power))
        return power, np.maximum(background, 1e-300), index

    def compute_band_ratio(self, power: Array, background: Array) -> Array:
        """Mean power of the band around each frequency, over the background: (B, F)."""
        total = np.concatenate([np.zeros((len(power), 1)), np.cumsum(power, axis=1)], axis=1)
        low, high = self.band_ranges
        return np.asarray((total[:, high] - total[:, low]) / (high - low) / background)

    def _compute_neighbor_level(self, power: Array) -> Array:
        below_from, below_to, above_from, above_to, has_both = self.neighbor_ranges
        total = np.concatenate([np.zeros((len(power), 1)), np.cumsum(power, axis=1)], axis=1)
        low = (total[:, below_to.astype(int)] - total[:, below_from.astype(int)]) / np.maximum(below_to - below_from, 1)
        high = (total[:, above_to.astype(int)] - total[:, above_from.astype(int)]) / np.maximum(
            above_to - above_from, 1
        )
        return np.asarray(np.where(has_both > 0, np.sqrt(np.maximum(low * high, 0)), 0.0))


@dataclass(frozen=True, slots=True, eq=False)
class _SpectralStatistics:
    """What the test computes for a batch of series.

    power, background (B, F) and background_index (B,) of the line estimate; line_ratio (B, F): power over background;
    band_ratio (B, F'): mean power of a band over the background.
    """

    power: Array
    background: Array
    background_index: NDArray[np.intp]
    line_ratio: Array
    band_ratio: Array


@dataclass(frozen=True, slots=True, eq=False)
class SpectralTest:
    """Everything that depends on the steps alone: the line and the band estimate, the same on irregular steps."""

    step: Array
    lines: _EstimatorWithBackground
    bands: _EstimatorWithBackground

    def compute_statistics(self, series: Array) -> _SpectralStatistics:
        """The statistics of series (B, n)."""
        power, background, index = self.lines.analyze(series)
        band = (power, background) if self.bands is self.lines else self.bands.analyze(series)[:2]
        band_ratio = self.bands.compute_band_ratio(*band)
        return _SpectralStatistics(power, background, index, power / background, band_ratio)


def estimate_spectrum(step: Array, value: Array, *, n_draws: int = N_DRAWS, seed: int = 0) -> Spectrum:
    """The spectrum of values (n,) at increasing steps (n,), n >= 32, with the warm-up already dropped.

    p-values down to 1 / (n_draws + 1), large ones from fewer draws. Cost: O(draws n log n), on irregular steps
    O(draws n²).
    """
    regular = is_regular(step)
    gap = float(np.median(np.diff(step)))
    test = make_regular_test(len(step)) if regular else _make_test(step / gap)
    scaled = (value - value.mean()) / (float(value.std()) or 1.0)
    observed = test.compute_statistics(scaled[None])
    line_ratio, band_ratio = observed.line_ratio[0], observed.band_ratio[0]
    index, grid = observed.background_index[0], test.lines.grid
    phi, ar1_fraction = float(grid.phi[index]), float(grid.ar1_fraction[index])
    line, band = int(line_ratio.argmax()), int(band_ratio.argmax())
    observed_maxima = float(line_ratio[line]), float(band_ratio[band])
    null_lines, null_bands = _sample_null_maxima(test, (phi, ar1_fraction), observed_maxima, n_draws, seed)
    n_draws = len(null_lines)
    line_p_value = (1 + int((null_lines >= line_ratio[line]).sum())) / (1 + n_draws)
    band_p_value = (1 + int((null_bands >= band_ratio[band]).sum())) / (1 + n_draws)
    frequency = test.lines.estimator.frequency / gap
    power, background = observed.power[0], observed.background[0]
    critical_power = background * float(np.quantile(null_lines, 0.95))
    variance = float(value.std()) ** 2
    return Spectrum(
        frequency=frequency,
        power=power * variance,
        background=background * variance,
        critical_power=critical_power * variance,
        line_p_value=line_p_value,
        line_frequency=float(frequency[line]),
        line_ratio=float(line_ratio[line]),
        phi=phi,
        ar1_fraction=ar1_fraction,
        period_range=(1 / float(frequency[-1]), 1 / float(frequency[0])),
        is_regular=regular,
        method="tapered periodogram for lines, multitaper for bands" if regular else "Lomb–Scargle with floating trend",
        band_p_value=band_p_value,
        band_frequency=float(test.bands.estimator.frequency[band]) / gap,
        combined_p_value=combine_p_values(null_lines, null_bands, min(line_p_value, band_p_value)),
    )


def _sample_null_maxima(
    test: SpectralTest, noise: tuple[float, float], observed: tuple[float, float], draws: int, seed: int
) -> tuple[Array, Array]:
    """The largest line ratio (draws,) and band ratio (draws,) of each draw of the background process.

    `noise`: phi and the AR(1) part of the variance. `observed`: the largest ratios of the log itself; where neither is
    rare among the first draws, these are all.
    """
    maxima = _draw_maxima(test, noise, min(FIRST_DRAWS, draws), seed)
    is_rare = any(float(np.mean(null >= limit)) < MAX_UNDECIDED for null, limit in zip(maxima, observed, strict=True))
    return _draw_maxima(test, noise, draws, seed) if is_rare and draws > FIRST_DRAWS else maxima


def _draw_maxima(test: SpectralTest, noise: tuple[float, float], draws: int, seed: int) -> tuple[Array, Array]:
    """The largest ratios of this many draws. On regular steps they depend on the length alone, and are kept."""
    if test.lines.estimator.is_regular:
        return _draw_regular_maxima(len(test.step), noise, draws, seed)
    return _draw_new_maxima(test, noise, draws, seed)


@lru_cache(maxsize=256)
def _draw_regular_maxima(n: int, noise: tuple[float, float], draws: int, seed: int) -> tuple[Array, Array]:
    return _draw_new_maxima(make_regular_test(n), noise, draws, seed)


def _draw_new_maxima(test: SpectralTest, noise: tuple[float, float], draws: int, seed: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed + 1)
    lines, bands = [], []
    for start in range(0, draws, DRAW_BATCH_SIZE):
        series = sample_background(test.step, *noise, min(DRAW_BATCH_SIZE, draws - start), rng, 1.0)
        statistics = test.compute_statistics(series)
        lines.append(statistics.line_ratio.max(1))
        bands.append(statistics.band_ratio.max(1))
    return np.concatenate(lines), np.concatenate(bands)


def combine_p_values(null_lines: Array, null_bands: Array, smaller: float) -> float:
    """How often the smaller p-value of a draw is as small: both tests as one, without a Bonferroni correction."""
    p_values = [(len(null) - np.searchsorted(np.sort(null), null)) / len(null) for null in (null_lines, null_bands)]
    return float(1 + (np.minimum(*p_values) <= smaller).sum()) / (1 + len(null_lines))


def _make_test(step: Array) -> SpectralTest:
    lines = _add_background(step, make_line_estimator(step))
    bands = _add_background(step, make_band_estimator(step)) if lines.estimator.is_regular else lines
    return SpectralTest(step, lines, bands)


@lru_cache(maxsize=8)
def make_regular_test(n: int) -> SpectralTest:
    return _make_test(np.arange(n, dtype=np.float64))


def _add_background(step: Array, estimator: SpectrumEstimator) -> _EstimatorWithBackground:
    f = estimator.frequency
    bands = np.searchsorted(f, f / BAND_FACTOR), np.searchsorted(f, f * BAND_FACTOR, side="right")
    return _EstimatorWithBackground(estimator, build_red_noise_grid(step, estimator), _find_neighbors(f), bands)


def _find_neighbors(frequency: Array) -> tuple[Array, ...]:
    """Where the neighbors below and above each frequency begin and end, and whether both exist: 5 × (F,)."""
    ends = [
        np.searchsorted(frequency, frequency / OUTER_FACTOR),
        np.searchsorted(frequency, frequency / INNER_FACTOR, side="right"),
        np.searchsorted(frequency, frequency * INNER_FACTOR),
        np.searchsorted(frequency, frequency * OUTER_FACTOR, side="right"),
    ]
    has_both = (ends[1] > ends[0]) & (ends[3] > ends[2])
    return (*(end.astype(np.float64) for end in ends), has_both.astype(np.float64))
