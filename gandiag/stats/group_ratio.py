"""How much of the reference's variety is left within groups: one robust ratio, its interval, and the collapsed groups.

x_g = log(d_g / D_g) compares the mean distance within group g of the subject with that of the reference. The common
ratio exp(m) solves sum tanh((x_g - m) / 2) = 0: the maximum-likelihood location of a logistic distribution. It is close
to the mean where groups agree, and a group without any distance left (x_g = -inf) counts with bounded weight, where a
mean of logs would be -inf. All intervals resample groups, never samples: samples of one group are not exchangeable with
those of another, and resampling samples with replacement would create duplicates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

from gandiag.interfaces import Estimate

MAX_LOG_RATIO = math.log(100.0)  # ratios above 100 are reported as 100: the reference does not vary there
MIN_LOG_RATIO = math.log(1e-3)  # smaller ratios are reported as 0
RESAMPLES = 400
FEW_GROUPS = 10
BISECTION_STEPS = 40
COLLAPSE_RATIO = 0.5  # a group has collapsed where at least half of its variety is shown to be gone …
FALSE_DISCOVERY_RATE = 0.1  # … with at most this share of wrong names among those named
LOW_QUANTILE = 0.1
Z95 = float(norm.ppf(0.975))
Z_POWER = float(norm.ppf(0.95))

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LogRatios:
    """x_g and its standard error from the group's own samples, (G,) each."""

    values: Floats
    errors: Floats

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", np.clip(self.values, MIN_LOG_RATIO, MAX_LOG_RATIO))


def locate(values: Floats, weights: Floats | None = None) -> Floats:
    """The location m of each row of weights, (R,): sum w_g tanh((x_g - m) / 2) = 0. `weights` (R, G) or None.

    Bisection: the sum falls monotonically in m, so the solution is unique and always found.
    """
    weights = np.ones((1, len(values))) if weights is None else weights  # (R, G)
    low = np.full(len(weights), values.min() - 1.0)
    high = np.full(len(weights), values.max() + 1.0)
    for _ in range(BISECTION_STEPS):
        middle = (low + high) / 2
        balance = (weights * np.tanh((values[None, :] - middle[:, None]) / 2)).sum(1)
        low, high = np.where(balance > 0, middle, low), np.where(balance > 0, high, middle)
    locations: Floats = (low + high) / 2
    return locations


def resample_weights(n_groups: int, seed: int, resamples: int = RESAMPLES) -> Floats:
    """How often each group is drawn in each resample of groups with replacement: (R, G)."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=resamples).astype(np.float64)


def estimate_ratio(ratios: LogRatios, *, seed: int = 0) -> Estimate:
    """The common ratio exp(m) with its 95 % interval.

    The quantiles of m over resamples of the groups, widened about m by Student's t over the normal quantile, which
    allows for few groups, and never narrower than the samples within the groups permit. One group: its own samples'
    error alone.
    """
    values, n = ratios.values, len(ratios.values)
    middle = float(locate(values)[0])
    sampling = Z95 * float(np.sqrt(np.square(ratios.errors).sum())) / n
    if n == 1:
        return _to_estimate(middle, sampling, sampling)
    low, high = np.quantile(locate(values, resample_weights(n, seed)), [0.025, 0.975])
    factor = float(t.ppf(0.975, n - 1)) / Z95 * math.sqrt(n / (n - 1))
    below, above = factor * (middle - float(low)), factor * (float(high) - middle)
    if n < FEW_GROUPS:  # the spread of a few groups may be small by chance
        below, above = max(below, sampling), max(above, sampling)
    return _to_estimate(middle, max(below, 0.0), max(above, 0.0))


def _to_estimate(middle: float, below: float, above: float) -> Estimate:
    low, value, high = (_to_ratio(edge) for edge in (middle - below, middle, middle + above))
    return Estimate(value, low, high)


@dataclass(frozen=True, slots=True)
class GroupRatio:
    """The ratio of one group with its 95 % interval; `q`: false discovery rate at which it is named as collapsed."""

    value: float
    low: float
    high: float
    q: float


def judge_groups(ratios: LogRatios) -> list[GroupRatio]:
    """Each group's ratio, interval and q for the hypothesis that at least half of its variety is left."""
    scores = (ratios.values - math.log(COLLAPSE_RATIO)) / np.maximum(ratios.errors, 1e-6)
    q_values = adjust_benjamini_hochberg(norm.cdf(scores))
    half = Z95 * ratios.errors
    rows = zip(ratios.values, ratios.values - half, ratios.values + half, q_values, strict=True)
    return [GroupRatio(_to_ratio(x), _to_ratio(low), _to_ratio(high), float(q)) for x, low, high, q in rows]


def _to_ratio(log_ratio: float) -> float:
    """exp, with 0 below the smallest ratio told apart (but for rounding), and at most 100."""
    return 0.0 if log_ratio <= MIN_LOG_RATIO + 1e-6 else round(math.exp(min(log_ratio, MAX_LOG_RATIO)), 9)


def adjust_benjamini_hochberg(p_values: Floats) -> Floats:
    """Adjusted p-values (Benjamini and Hochberg 1995): naming all with q <= a keeps the false discovery rate <= a."""
    n = len(p_values)
    order = np.argsort(p_values)
    scaled = p_values[order] * n / np.arange(1, n + 1)
    adjusted = np.minimum.accumulate(scaled[::-1])[::-1]
    q_values = np.empty(n)
    q_values[order] = np.minimum(adjusted, 1.0)
    return q_values


def estimate_low_quantile(ratios: LogRatios, *, seed: int = 0) -> tuple[Estimate, float]:
    """The 10 % quantile of the groups' ratios with its interval over resampled groups, and its floor.

    The floor is the quantile that the noise of so few samples alone would give if every group kept all variety.
    """
    values = np.sort(ratios.values)
    value = float(_low_quantile(values))
    generator = np.random.default_rng(seed)
    draws = generator.integers(0, len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(_low_quantile(values[draws]), [0.025, 0.975])
    floor = math.exp(float(norm.ppf(LOW_QUANTILE)) * float(np.sqrt(np.square(ratios.errors).mean())))
    quantile, lowest, highest = (_to_ratio(float(edge)) for edge in (value, low, high))
    return Estimate(quantile, min(lowest, quantile), max(highest, quantile)), floor


def _low_quantile(values: Floats) -> Floats:
    """The smallest value that at least a tenth of the groups do not exceed, along the last axis."""
    quantile: Floats = np.quantile(values, LOW_QUANTILE, axis=-1, method="inverted_cdf")
    return quantile


def estimate_worst_loss(ratios: LogRatios) -> Estimate:
    """Share of variety lost in the worst group, with an interval that holds for all groups at once (Sidak)."""
    z = float(norm.ppf(1 - (1 - 0.95 ** (1 / len(ratios.values))) / 2))
    worst = int(np.argmin(ratios.values))
    value = _to_loss(float(ratios.values[worst]))
    low = _to_loss(float((ratios.values + z * ratios.errors).min()))
    high = _to_loss(float((ratios.values - z * ratios.errors).min()))
    return Estimate(value, min(low, value), max(high, value))


def _to_loss(log_ratio: float) -> float:
    return min(1.0, max(0.0, 1 - _to_ratio(log_ratio)))


def smallest_detectable_loss(ratios: LogRatios) -> float:
    """The smallest common loss that these groups and samples show with probability 0.95, where groups do not differ."""
    error = float(np.sqrt(np.square(ratios.errors).sum())) / len(ratios.errors)
    return 1 - math.exp(-(Z95 + Z_POWER) * error)


def estimate_center_ratio(subject: Floats, reference: Floats, *, seed: int = 0) -> Estimate | None:
    """Ratio of the variety between groups: root of the mean squared distances between centers, with its interval.

    `subject`, `reference` (G, G) from squared_center_distances. None with fewer than three groups, or where the
    reference's groups do not differ.
    """
    n = len(subject)
    if n < 3 or not reference.sum() > 0:
        return None
    ones = np.ones((1, n))
    value = float(_center_ratio(ones, subject, reference)[0])
    values = _center_ratio(resample_weights(n, seed), subject, reference)
    low, high = np.quantile(values, [0.025, 0.975])
    return Estimate(value, min(float(low), value), max(float(high), value))


def _center_ratio(weights: Floats, subject: Floats, reference: Floats) -> Floats:
    top = np.maximum(((weights @ subject) * weights).sum(1), 0.0)
    bottom = ((weights @ reference) * weights).sum(1)
    ratio: Floats = np.sqrt(np.minimum(top / np.maximum(bottom, 1e-300), 1e4))
    return ratio
