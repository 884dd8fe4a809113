"""Is there a line in the spectrum that the background does not explain? The strongest, with a p-value by Monte Carlo.

    statistic   max over frequencies of power / max(fitted background, level of the neighbours)
    p-value     share of series drawn from the fitted background whose own maximum, after the same trend removal and a fit of
                their own background, is as large. A white-noise test is wrong on 70 to 100 % of such series.

The level of the neighbours is the geometric mean of those below and those above: exact for any power law, so that
a spectrum steeper than AR(1) (a smoothed loss) does not pass for a line.
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
BAND_FACTOR = 1.3  # half a band, as a factor of frequency: a cycle that keeps step for two or three turns
DRAW_BATCH_SIZE = 128  # draws at a time: memory
INNER_FACTOR, OUTER_FACTOR = 1.25, 3.0  # the neighbours of f: [f/3, f/1.25] and [1.25 f, 3 f]


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """frequency, power, background, critical (F,): the last is what a line must reach to be significant at 5 %.

    `p_value` of the strongest line, at `peak`; `p_broad` of the strongest band, at `hump`: a cycle whose period wanders is a band.
    `p_either`: of the smaller of both, from the same draws.
    `phi` and `share` of the fitted background; `band`: (shortest, longest) period tested.
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
class _View:
    """One estimate of the spectrum with the backgrounds that belong to it; it depends on the steps alone."""

    meter: SpectrumEstimator
    grid: RedNoiseGrid
    sides: tuple[Array, ...]
    bands: tuple[NDArray[np.intp], NDArray[np.intp]]

    def look(self, series: Array) -> tuple[Array, Array, NDArray[np.intp]]:
        """Series (B, n) → power (B, F), background (B, F), chosen shape (B,)."""
        power = self.meter.compute_power(series)
        shape, level = self.grid.fit(power)
        ground = np.maximum(self.grid.spectra[shape] * level[:, None], self._neighbours(power))
        return power, np.maximum(ground, 1e-300), shape

    def broad(self, power: Array, ground: Array) -> Array:
        """Mean power of the band around each frequency, over the background: (B, F)."""
        total = np.concatenate([np.zeros((len(power), 1)), np.cumsum(power, axis=1)], axis=1)
        low, high = self.bands
        return np.asarray((total[:, high] - total[:, low]) / (high - low) / ground)

    def _neighbours(self, power: Array) -> Array:
        below_from, below_to, above_from, above_to, both = self.sides
        total = np.concatenate([np.zeros((len(power), 1)), np.cumsum(power, axis=1)], axis=1)
        low = (total[:, below_to.astype(int)] - total[:, below_from.astype(int)]) / np.maximum(below_to - below_from, 1)
        high = (total[:, above_to.astype(int)] - total[:, above_from.astype(int)]) / np.maximum(
            above_to - above_from, 1
        )
        return np.asarray(np.where(both > 0, np.sqrt(np.maximum(low * high, 0)), 0.0))


@dataclass(frozen=True, slots=True, eq=False)
class _Bench:
    """Everything that depends on the steps alone: where lines are sought, and where bands are; on irregular steps both are the same."""

    step: Array
    lines: _View
    bands: _View

    def ratio(self, series: Array) -> tuple[Array, Array, NDArray[np.intp], Array, Array]:
        """Series (B, n) → power, background, chosen shape, ratio of both, and ratio of the band's mean power: (B, F), (B, F), (B,), (B, F), (B, F')."""
        power, ground, shape = self.lines.look(series)
        wide = (power, ground) if self.bands is self.lines else self.bands.look(series)[:2]
        return power, ground, shape, power / ground, self.bands.broad(*wide)


def estimate_spectrum(step: Array, value: Array, *, n_draws: int = N_DRAWS, seed: int = 0) -> Spectrum:
    """The spectrum of values (n,) at steps (n,) that grow, n >= 32, warm-up already dropped. p-values down to 1 / (draws + 1).

    Cost: O(draws n log n) on regular steps, O(draws n²) on irregular ones.
    """
    regular = is_regular(step)
    gap = float(np.median(np.diff(step)))
    bench = _regular_bench(len(step)) if regular else _bench(step / gap)
    scaled = (value - value.mean()) / (float(value.std()) or 1.0)
    powers, grounds, shapes, ratios, broads = bench.ratio(scaled[None])
    power, ground, ratio = powers[0], grounds[0], ratios[0]
    phi, share = float(bench.lines.grid.phi[shapes[0]]), float(bench.lines.grid.ar1_fraction[shapes[0]])
    null, null_broad = _null(bench, phi, share, n_draws, seed)
    peak, hump = int(ratio.argmax()), int(broads[0].argmax())
    center = float(bench.bands.meter.frequency[hump]) / gap
    p_value = (1 + int((null >= ratio[peak]).sum())) / (1 + n_draws)
    p_broad = (1 + int((null_broad >= broads[0, hump]).sum())) / (1 + n_draws)
    frequency = bench.lines.meter.frequency / gap
    limit = ground * float(np.quantile(null, 0.95))
    variance = float(value.std()) ** 2
    band = (1 / float(frequency[-1]), 1 / float(frequency[0]))
    method = "tapered periodogram for lines, multitaper for bands" if regular else "Lomb–Scargle with floating trend"
    return Spectrum(
        frequency,
        power * variance,
        ground * variance,
        limit * variance,
        p_value,
        float(frequency[peak]),
        float(ratio[peak]),
        phi,
        share,
        band,
        regular,
        method,
        p_broad,
        center,
        _either(null, null_broad, min(p_value, p_broad)),
    )


def _null(bench: _Bench, phi: float, share: float, draws: int, seed: int) -> tuple[Array, Array]:
    """The maximum ratio of each of `draws` series of the background process: (draws,) of lines, (draws,) of bands."""
    rng = np.random.default_rng(seed + 1)
    found, broad = [], []
    for start in range(0, draws, DRAW_BATCH_SIZE):
        series = sample_background(bench.step, phi, share, min(DRAW_BATCH_SIZE, draws - start), rng, 1.0)
        ratios = bench.ratio(series)
        found.append(ratios[3].max(1))
        broad.append(ratios[4].max(1))
    return np.concatenate(found), np.concatenate(broad)


def _either(line: Array, band: Array, smaller: float) -> float:
    """How often the smaller p-value of a draw is as small: both tests as one, without the price of a Bonferroni correction."""
    own = [(len(null) - np.searchsorted(np.sort(null), null)) / len(null) for null in (line, band)]
    return float(1 + (np.minimum(*own) <= smaller).sum()) / (1 + len(line))


def _bench(step: Array) -> _Bench:
    lines = _view(step, make_line_estimator(step))
    return _Bench(step, lines, _view(step, make_band_estimator(step)) if lines.meter.is_regular else lines)


def _view(step: Array, meter: SpectrumEstimator) -> _View:
    f = meter.frequency
    bands = np.searchsorted(f, f / BAND_FACTOR), np.searchsorted(f, f * BAND_FACTOR, side="right")
    return _View(meter, build_red_noise_grid(step, meter), _sides(f), bands)


@lru_cache(maxsize=8)
def _regular_bench(n: int) -> _Bench:
    return _bench(np.arange(n, dtype=np.float64))


def _sides(frequency: Array) -> tuple[Array, ...]:
    """Where the neighbours of each frequency begin and end; `both`: whether there are some on either side."""
    ends = [
        np.searchsorted(frequency, frequency / OUTER_FACTOR),
        np.searchsorted(frequency, frequency / INNER_FACTOR, side="right"),
        np.searchsorted(frequency, frequency * INNER_FACTOR),
        np.searchsorted(frequency, frequency * OUTER_FACTOR, side="right"),
    ]
    both = (ends[1] > ends[0]) & (ends[3] > ends[2])
    return (*(end.astype(np.float64) for end in ends), both.astype(np.float64))
