"""Power spectra of many series on the same steps at once, with the trend taken out: what the Monte Carlo test stands on.

Regular steps: periodogram of the tapered series, by FFT. One light taper and no averaging over tapers or segments: the test
is for a line, which every average spreads (n = 1,024, φ = 0.5, amplitude half the noise: three tapers found 68 %, this one 98 %).
Irregular steps: least-squares (Lomb–Scargle) with the trend fitted together with each sinusoid, as floating-mean
Lomb–Scargle does for the mean (Zechmeister & Kürster 2009, A&A 496). The projections depend on the steps alone, so that a
thousand draws cost one matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gandiag.logs.series import Array

EDGE = 0.05  # of the length, tapered at either end
DEGREE = 2  # of the polynomial that is taken out as trend
CYCLES = 4  # fewer turns than this within the log are trend, not oscillation
REGULAR = 0.02  # spread of the gaps, relative to their median, below which steps count as regular


@dataclass(frozen=True, slots=True, eq=False)
class Spectrometer:
    """frequency (F,) in cycles per step; `regular` steps or not; the estimator's own tables."""

    frequency: Array
    regular: bool
    spacing: float
    trend: Array  # (n, DEGREE + 1) orthonormal
    taper: Array  # (n,), or (0,)
    waves: Array  # (2 F, n) orthonormal in pairs and to the trend, or (0, n)

    def detrend(self, series: Array) -> Array:
        """Series (B, n) without their least-squares polynomial."""
        return np.asarray(series - (series @ self.trend) @ self.trend.T)

    def power(self, series: Array) -> Array:
        """Power (B, F) of series (B, n); white noise of variance 1 has mean power 1 everywhere."""
        if not self.regular:
            found = (series @ self.waves.T).reshape(len(series), -1, 2)  # (B, F, 2)
            return np.asarray(np.square(found).sum(2) / 2)
        flat = self.detrend(series)
        line = np.fft.rfft(flat * self.taper, axis=1)[:, -len(self.frequency) :]
        return np.asarray(line.real**2 + line.imag**2)  # (B, F)


def _taper(n: int) -> Array:
    """A split cosine bell over EDGE of the length at either end, of unit energy: (n,)."""
    at = (np.arange(n) + 0.5) / n
    edge = np.minimum(np.minimum(at, 1 - at) / EDGE, 1.0)
    taper = 0.5 - 0.5 * np.cos(np.pi * edge)
    return np.asarray(taper / np.linalg.norm(taper))


def is_regular(step: Array) -> bool:
    """Whether steps (n,) are evenly spaced."""
    gaps = np.diff(step)
    middle = float(np.median(gaps))
    return middle > 0 and float(np.abs(gaps - middle).max()) <= REGULAR * middle


def spectrometer(step: Array) -> Spectrometer:
    """For steps (n,) that grow. Frequencies from CYCLES turns a log to the Nyquist frequency of the median gap."""
    n = len(step)
    spacing, span = float(np.median(np.diff(step))), float(step[-1] - step[0])
    place = (step - step.mean()) / span
    trend = np.asarray(np.linalg.qr(np.vander(place, DEGREE + 1))[0], dtype=np.float64)
    if is_regular(step):
        frequency = np.asarray(np.fft.rfftfreq(n, spacing)[CYCLES:], dtype=np.float64)
        return Spectrometer(frequency, True, spacing, trend, _taper(n), np.zeros((0, n)))
    most = min(int(0.5 / spacing * span), n // 2)
    frequency = np.arange(CYCLES, most + 1) / span
    return Spectrometer(frequency, False, spacing, trend, np.zeros(0), _waves(step, frequency, trend))


def _waves(step: Array, frequency: Array, trend: Array) -> Array:
    """Cosine and sine of every frequency, made orthogonal to the trend and to each other: (2 F, n)."""
    angle = 2 * np.pi * np.outer(frequency, step - step[0])  # (F, n)
    cos, sin = np.cos(angle), np.sin(angle)
    cos -= (cos @ trend) @ trend.T
    sin -= (sin @ trend) @ trend.T
    cos /= np.linalg.norm(cos, axis=1, keepdims=True) + 1e-12
    sin -= np.einsum("fn,fn->f", cos, sin)[:, None] * cos
    norm = np.linalg.norm(sin, axis=1, keepdims=True)
    sin = np.where(norm > 1e-6, sin / (norm + 1e-12), 0.0)
    return np.stack([cos, sin], axis=1).reshape(-1, len(step))
