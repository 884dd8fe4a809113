"""The background process, AR(1) plus white measurement noise: fitted to a spectrum and simulated.

A loss is a slowly changing state of the game, observed through one mini-batch at a time: AR(1) plus white noise. The
fit is Whittle's likelihood on a grid. The spectra of the grid are mean spectra of simulated series from the same
estimator, so they include trend removal, leakage and irregular steps (Schulz & Mudelsee 2002, REDFIT, section 2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gandiag.training_logs.multitaper import SpectrumEstimator
from gandiag.training_logs.series import Array

# Correlation over one median gap.
PHI_GRID = (0.2, 0.35, 0.5, 0.6, 0.7, 0.78, 0.85, 0.9, 0.93, 0.955, 0.97, 0.98, 0.987, 0.993, 0.997)
AR1_FRACTION_GRID = (0.15, 0.3, 0.45, 0.6, 0.75, 0.88, 0.95, 1.0)  # of the AR(1) part in the variance
SERIES_PER_SPECTRUM = 48  # simulated series for each spectrum
MASK_BINS = 3  # bins of the plain FFT on either side of the strongest line


@dataclass(frozen=True, slots=True, eq=False)
class RedNoiseGrid:
    """spectra (G, F): mean spectra of unit variance; phi, ar1_fraction (G,): their parameters. First: white noise."""

    spectra: Array
    phi: Array
    ar1_fraction: Array
    inverse_spectra: Array  # 1 / spectra
    mean_log: Array  # (G,) mean logarithm of each spectrum
    mask_bins: int = MASK_BINS  # bins of these spectra that a line occupies on either side

    def fit(self, power: Array) -> tuple[NDArray[np.intp], Array]:
        """Power (B, F) -> the index of the most likely spectrum of each (B,), and its level (B,).

        The strongest line is left out, because it would redden the fit.
        """
        total = power @ self.inverse_spectra.T  # (B, G)
        best, _ = self._choose(total, power.shape[1], self.mean_log)
        peak = (power * self.inverse_spectra[best]).argmax(1)  # (B,)
        window = peak[:, None] + np.arange(-self.mask_bins, self.mask_bins + 1)  # (B, W)
        inside = (window >= 0) & (window < power.shape[1])
        window = np.where(inside, window, 0)
        line_power = np.where(inside, power[np.arange(len(power))[:, None], window], 0.0)
        masked = total - np.einsum("bw,bwg->bg", line_power, self.inverse_spectra.T[window])
        return self._choose(masked, power.shape[1] - inside.sum(1, keepdims=True), self.mean_log)

    def _choose(self, total: Array, count: int | NDArray[np.intp], logs: Array) -> tuple[NDArray[np.intp], Array]:
        level = np.maximum(total, 1e-300) / np.maximum(count, 1)  # (B, G)
        best = (np.log(level) + logs).argmin(1)  # Whittle's likelihood with the level profiled out
        return best, level[np.arange(len(level)), best]


def sample_ar1(step: Array, phi: float, draws: int, rng: np.random.Generator, spacing: float) -> Array:
    """Stationary AR(1) series of unit variance (draws, n) on steps (n,), with correlation phi over one `spacing`."""
    decay = phi ** (np.diff(step) / spacing)  # (n - 1,)
    innovation_std = np.sqrt(1 - decay**2)
    series = rng.standard_normal((len(step), draws))
    for i in range(1, len(step)):
        series[i] = decay[i - 1] * series[i - 1] + innovation_std[i - 1] * series[i]
    return np.ascontiguousarray(series.T)


def sample_background(
    step: Array, phi: float, ar1_fraction: float, draws: int, rng: np.random.Generator, spacing: float
) -> Array:
    """Series (draws, n) of the background process, of unit variance."""
    white = rng.standard_normal((draws, len(step)))
    if ar1_fraction == 0.0:
        return white
    red = sample_ar1(step, phi, draws, rng, spacing)
    return red if ar1_fraction == 1.0 else np.sqrt(ar1_fraction) * red + np.sqrt(1 - ar1_fraction) * white


def build_red_noise_grid(step: Array, estimator: SpectrumEstimator, seed: int = 0) -> RedNoiseGrid:
    """The grid for one set of steps. Cost: 720 simulated series through the estimator."""
    rng = np.random.default_rng(seed)
    spectra, phis, fractions = [np.ones(len(estimator.frequency))], [0.0], [0.0]
    for phi in PHI_GRID:
        series = sample_ar1(step, phi, SERIES_PER_SPECTRUM, rng, estimator.spacing)
        mean = _smooth(estimator.compute_power(series).mean(0))
        for fraction in AR1_FRACTION_GRID:
            spectra.append(fraction * mean + (1 - fraction))
            phis.append(phi)
            fractions.append(fraction)
    table = np.array(spectra)
    return RedNoiseGrid(
        spectra=table,
        phi=np.array(phis),
        ar1_fraction=np.array(fractions),
        inverse_spectra=1 / table,
        mean_log=np.log(table).mean(1),
        mask_bins=MASK_BINS * estimator.padding,
    )


def _smooth(mean: Array) -> Array:
    """Running geometric mean over a tenth of an octave or more: a mean over few draws is still rough."""
    octave = np.log2(np.arange(1, len(mean) + 1) + 3.0)
    total = np.r_[0.0, np.cumsum(np.log(mean))]
    low = np.searchsorted(octave, octave - 0.15)
    high = np.searchsorted(octave, octave + 0.15, side="right")
    return np.asarray(np.exp((total[high] - total[low]) / (high - low)))
