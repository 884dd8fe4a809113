"""Whether a loss wanders like a random walk, or comes back to a level: two tests with opposite null hypotheses.

`find_wandering_losses` asks for evidence of a walk. The null hypothesis is AR(1) noise around a level, correlated by at
most STATIONARY_CORRELATION between neighboring rows; the statistic is the logarithm of the likelihood ratio of a walk
to it, each with its own level and scale, on bin means (King 1980, Sankhyā A 42). Thresholds were chosen for 1 to 2 % of
false alarms at that correlation, on two losses with independent or shared noise, Gaussian or heavy-tailed, and 5 % on
smoothed ones. No test can do much better: the best one for two independent losses without any other noise, at 2 % of
false alarms, finds

    rows                    60    100   200   300   450   600   800   1,000
    walks that it finds     9 %   20 %  46 %  64 %  86 %  95 %  99 %  100 %

so on a short log a slow wander and a walk look alike. `returns_to_level` therefore asks for the opposite: a plateau is
claimed only where a walk is ruled out at 5 % (Dickey & Fuller 1979, J. Amer. Stat. Assoc. 74).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gandiag.training_logs.series import Array

STATIONARY_CORRELATION = 0.98
WALK_BINS = 64
MIN_WALK_ROWS = 48
WALK_EVIDENCE = 3.5  # log likelihood ratio, of one loss alone or of the sum of two …
SHARED_EVIDENCE = 4.0  # … and more, where both losses have the same noise: times their squared correlation
SINGLE_EVIDENCE = 5.5  # of one of two losses
LATER_EVIDENCE = -1.0  # of the rows after the warm-up
MAX_SMOOTHING = 0.95  # weight of an exponential moving average that is undone
MIN_LEVEL_ROWS = 16
MAX_SQUARED = 1e100  # of values whose squares are summed
LEVEL_STATISTIC = -13.5  # n (φ - 1) below which a random walk is ruled out at 5 %


def find_wandering_losses(values: Sequence[Array], later: Sequence[Array]) -> list[bool]:
    """Which of one or two losses (n,) wander without a level; all False where the evidence is too weak.

    `later`: their rows after the warm-up, which must not speak for a level: a warm-up that decays wanders, too.
    """
    if not values or any(len(value) < MIN_WALK_ROWS for value in values):
        return [False] * len(values)
    bins = [_average_bins(_undo_smoothing(_rescale(value))) for value in values]
    evidence = [_compare_with_noise(means, size) for means, size in bins]
    rest = [_compare_with_noise(*_average_bins(_undo_smoothing(_rescale(value)))) for value in later]
    total = WALK_EVIDENCE
    if len(bins) > 1:
        total += SHARED_EVIDENCE * _correlate_changes(bins[0][0], bins[1][0]) ** 2
    wanders = sum(evidence) > total or (len(evidence) > 1 and max(evidence) > SINGLE_EVIDENCE)
    return [wanders and entry > 0 and after > LATER_EVIDENCE for entry, after in zip(evidence, rest, strict=True)]


def returns_to_level(value: Array) -> bool:
    """Whether a random walk is ruled out at 5 % for values (n,) without warm-up; never on fewer than 16 rows."""
    if len(value) < MIN_LEVEL_ROWS:
        return False
    bins, _ = _average_bins(_rescale(value))
    if _is_constant(bins) or _is_constant(bins[:-1]):
        return True
    before, after = bins[:-1] - bins[:-1].mean(), bins[1:] - bins[1:].mean()
    return len(bins) * (float(before @ after) / float(before @ before) - 1) < LEVEL_STATISTIC


def _rescale(value: Array) -> Array:
    """Values whose squares have a sum: the tests do not depend on the scale."""
    largest = float(np.abs(value).max(initial=0))
    return value / largest if largest > MAX_SQUARED else value


def _is_constant(value: Array) -> bool:
    return float(value.std()) <= 1e-12 * max(1.0, float(np.abs(value).max()))


def _average_bins(value: Array) -> tuple[Array, int]:
    """At least WALK_BINS means of equally many rows, where there are as many rows; and the rows of each."""
    size = max(1, len(value) // WALK_BINS)
    return np.asarray(value[len(value) % size :].reshape(-1, size).mean(1)), size


def _undo_smoothing(value: Array) -> Array:
    """The values before an exponential moving average, up to their scale. Its weight is the correlation of changes."""
    change = np.diff(value)
    change = change - change.mean()
    squares = float(change @ change)
    if squares <= 0:
        return value
    weight = float(change[1:] @ change[:-1]) / squares + 1 / len(change)
    if weight < 2 / np.sqrt(len(change)):
        return value
    weight = min(weight, MAX_SMOOTHING)
    return np.asarray(value[1:] - weight * value[:-1])


def _compare_with_noise(bins: Array, size: int) -> float:
    """The logarithm of the likelihood ratio of a walk to AR(1) noise around a level."""
    if _is_constant(bins):
        return -float(len(bins))
    phi, n = STATIONARY_CORRELATION**size, len(bins)
    scale = np.sqrt(1 - phi**2)
    innovation = np.concatenate([scale * bins[:1], bins[1:] - phi * bins[:-1]])
    level = np.concatenate([[scale], np.full(n - 1, 1 - phi)])
    innovation = innovation - float(innovation @ level) / float(level @ level) * level
    walk, noise = float(np.square(np.diff(bins)).sum()), float(innovation @ innovation)
    return (n - 1) / 2 * float(np.log(max(noise, 1e-300)) - np.log(max(walk, 1e-300)))


def _correlate_changes(first: Array, second: Array) -> float:
    """Correlation of the changes of two series, aligned at their ends."""
    n = min(len(first), len(second))
    changes = np.diff(first[-n:]), np.diff(second[-n:])
    if any(_is_constant(change) for change in changes):
        return 0.0
    return float(np.corrcoef(*changes)[0, 1])
