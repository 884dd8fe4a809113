"""Spikes: rows far from their neighbors, one or two at a time, in one loss or in both at once.

Heavy-tailed noise has outliers too, but in between as well: spikes stand apart from the bulk of the rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gandiag.training_logs.events import running_median
from gandiag.training_logs.series import LOSS_ROLES, Array, Curve

SPIKE_THRESHOLD = 6.0  # robust standard deviations of a spike …
BULK_THRESHOLD = 4.0  # … and above this, but below that, it would belong to a heavy tail
JOINT_SPIKE_THRESHOLD = 4.0  # of the other loss at the same rows
MIN_SPIKES = 3
MIN_APART_HEIGHT = 9.0
MAX_SPIKE_ROWS = 2  # longer ones are bursts
MAX_SPIKE_FRACTION = 0.1  # of the rows
MIN_SPIKE_CURVE_ROWS = 24


@dataclass(frozen=True, slots=True, eq=False)
class Spikes:
    """Spikes of one loss. `rows`: first row of each; `mask` (n,): all their rows; `height`: median, in deviations.

    `largest`: the value of the highest; `n_joint`: spikes that the other loss shows too; `n_tail`: rows between the
    noise and the spikes.
    """

    rows: NDArray[np.intp]
    mask: NDArray[np.bool_]
    height: float
    largest: float
    n_joint: int
    n_tail: int

    @property
    def is_apart(self) -> bool:
        """Whether they stand far above the noise, with little in between: no heavy tail."""
        return self.height >= MIN_APART_HEIGHT and 2 * self.n_tail <= len(self.rows)


def find_spikes(curve: Curve, others: Mapping[str, Curve]) -> Spikes | None:
    """The spikes of a loss; None if there are fewer than MIN_SPIKES, or if they are the tail of its noise."""
    finite = np.isfinite(curve.value)
    step, value = curve.step[finite], curve.value[finite]
    if len(value) < MIN_SPIKE_CURVE_ROWS:
        return None
    z = _deviations(value)
    beyond = z > SPIKE_THRESHOLD
    starts = np.flatnonzero(np.diff(beyond.astype(np.int8), prepend=0) == 1)
    ends = np.flatnonzero(np.diff(beyond.astype(np.int8), append=0) == -1) + 1
    short = ends - starts <= MAX_SPIKE_ROWS
    starts, ends = starts[short], ends[short]
    in_tail = int(((z > BULK_THRESHOLD) & ~beyond).sum())
    if len(starts) < MIN_SPIKES or len(starts) > MAX_SPIKE_FRACTION * len(z) or len(starts) < in_tail:
        return None
    if _stays_near_start(starts, len(z)):
        return None
    mask = np.zeros(len(curve), dtype=np.bool_)
    heights = np.array([z[low:high].max() for low, high in zip(starts, ends, strict=True)])
    known = np.flatnonzero(finite)
    for low, high in zip(starts, ends, strict=True):
        mask[known[low:high]] = True
    peak = int(starts[heights.argmax()])
    height, largest = float(np.median(heights)), float(value[peak])
    return Spikes(known[starts], mask, height, largest, _count_joint(step[starts], others), in_tail)


def replace_spikes(curve: Curve, spikes: Spikes | None) -> Curve:
    """The curve with running medians in the rows of its spikes."""
    if spikes is None:
        return curve
    return Curve(curve.name, curve.step, np.where(spikes.mask, running_median(curve.value), curve.value))


def _stays_near_start(starts: NDArray[np.intp], n: int) -> bool:
    """Whether all spikes fall into the first tenth: a warm-up."""
    return bool(starts[-1] < 0.1 * n)


def _deviations(value: Array) -> Array:
    """Distance from the running median, in robust standard deviations."""
    distance = np.abs(value - running_median(value))
    spread = 1.4826 * float(np.median(distance))
    return np.asarray(distance / (spread or float(distance.std()) or 1.0))


def _count_joint(steps: Array, others: Mapping[str, Curve]) -> int:
    """How many of the spikes at `steps` the other loss shows too."""
    for role in LOSS_ROLES:
        other = others.get(role)
        if other is None:
            continue
        finite = np.isfinite(other.value)
        step, z = other.step[finite], _deviations(other.value[finite]) if finite.any() else other.value[:0]
        rows = np.searchsorted(step, steps)
        inside = (
            (rows < len(step)) & (step[np.minimum(rows, max(len(step) - 1, 0))] == steps) if len(step) else rows < 0
        )
        return int((z[rows[inside]] > JOINT_SPIKE_THRESHOLD).sum())
    return 0
