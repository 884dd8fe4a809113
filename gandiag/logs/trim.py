"""A curve made ready for testing: numbers only, warm-up dropped, long ones binned; what was done is said."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gandiag.logs.power import is_regular
from gandiag.logs.series import Array, Curve

MOST = {True: 4096, False: 1024}  # points tested, on regular and on irregular steps
GROUPS = 256  # places at which the warm-up may end
WARMUP = 0.5  # of the log at most


@dataclass(frozen=True, slots=True, eq=False)
class Trimmed:
    """step, value (n,): what is tested. `start`: first step after the warm-up. `bin`: rows averaged into one point."""

    step: Array
    value: Array
    start: float
    dropped: int
    bin: int


def trimmed(curve: Curve) -> Trimmed:
    """The finite part of a curve without its warm-up, in at most MOST points."""
    finite = np.isfinite(curve.value)
    step, value = curve.step[finite], curve.value[finite]
    dropped = warmup(value)
    step, value = step[dropped:], value[dropped:]
    start = float(step[0]) if len(step) else 0.0
    most = MOST[len(step) > 2 and is_regular(step)]
    size = -(-len(step) // most) if len(step) > most else 1
    if size > 1:
        step, value = binned(step, value, len(step) // size)
    return Trimmed(step, value, start, dropped, size)


def binned(step: Array, value: Array, bins: int) -> tuple[Array, Array]:
    """Means over `bins` runs of equally many rows."""
    size = len(step) // bins
    one, other = (part[: bins * size].reshape(bins, size).mean(1) for part in (step, value))
    return one, other


def warmup(value: Array) -> int:
    """Rows to drop: those whose loss shortens the standard error of the mean of the rest most (MSER, White 1997, Simulation 69).

    A transient is dropped, noise and oscillations are not; at most half of the log goes. MSER stops where the transient is no larger
    than the noise, and what is left of it reads as a slow oscillation: as many rows again go with it.
    """
    if len(value) < 16:
        return 0
    size = max(1, len(value) // GROUPS)
    means = value[: len(value) // size * size].reshape(-1, size).mean(1)
    left = np.arange(len(means), 0, -1)  # groups that remain
    mean = np.cumsum(means[::-1])[::-1] / left
    spread = np.maximum(np.cumsum(np.square(means)[::-1])[::-1] / left - mean**2, 0.0)
    score = spread / left
    most = int(len(means) * WARMUP)
    return min(2 * int(score[: most + 1].argmin()), most) * size
