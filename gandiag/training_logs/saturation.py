"""What levels say: who has won, since when; what is no number; what has run away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gandiag.training_logs.loss_type import get_discriminator_probabilities, infer_loss_type
from gandiag.training_logs.series import Array, Curve

SCORE_TOLERANCE = 0.05  # D's scores within this of 1 and 0: it is right nearly always
NEAR_ZERO_LOSS = 0.02  # a cross-entropy at which the right answer has a probability of 98 %; least squares: within 0.14 of its target
MIN_ROW_FRACTION = 0.9  # of the rows since the start that must be beyond a level
MIN_DURATION_FRACTION = 0.1  # of the log that must be there at the end, at least
FAILURE_FACTOR = 1e3  # times the usual size
MEDIAN_WINDOW_FRACTION = 0.02  # of the log: width of the running median
MAX_MEDIAN_BLOCKS = 2048  # a longer curve is smoothed over the medians of so many blocks


@dataclass(frozen=True, slots=True)
class LossEvent:
    """Something that began at `step`; `kind` is a verdict word, `evidence` a sentence with its numbers."""

    step: float
    kind: str
    evidence: str


def find_failure(curve: Curve) -> LossEvent | None:
    """A loss that stops being a number, or grows past a thousand times its usual size, and stays so to the end."""
    bad = ~np.isfinite(curve.value)
    since = _to_the_end(bad)
    if since is not None:
        return LossEvent(float(curve.step[since]), "failed", f"{curve.name} is not a number from here on")
    value = np.where(bad, 0.0, curve.value)
    half = np.abs(value[: max(len(value) // 2, 1)])
    usual = float(np.median(half)) + float(
        half.std() if half.max() < FAILURE_FACTOR * (np.median(half) + 1e-9) else 0.0
    )
    since = _to_the_end(np.abs(value) > FAILURE_FACTOR * max(usual, 1e-3))
    if since is None or len(value) < 10:
        return None
    return LossEvent(
        float(curve.step[since]), "failed", f"{curve.name} blows up: {value[-1]:.3g} at the end, {usual:.3g} usually"
    )


def describe_non_finite_rows(curve: Curve) -> str | None:
    """Rows without a number that the run survived, as a note."""
    bad = ~np.isfinite(curve.value)
    count = int(bad.sum())
    return (
        f"{count:,} of {len(bad):,} rows of {curve.name} are not finite, the first at step {curve.step[bad.argmax()]:,.0f}"
        if count
        else None
    )


def find_discriminator_win(curves: Mapping[str, Curve]) -> LossEvent | None:
    """D tells real from generated without error, to the end: from its scores, else from its loss where 0 is its lowest value."""
    pair = get_discriminator_probabilities(curves)
    if pair is not None and len(pair[0]) == len(pair[1]):
        real, fake = running_median(pair[0].value), running_median(pair[1].value)
        since = _stays((real > 1 - SCORE_TOLERANCE) & (fake < SCORE_TOLERANCE))
        if since is None:
            return None
        told = f"D(x) {np.median(real[since:]):.3f}, D(G(z)) {np.median(fake[since:]):.2g}: D is right nearly always"
        return LossEvent(float(pair[0].step[since]), "discriminator_wins", told + _vanishing(curves))
    loss = curves.get("discriminator")
    if loss is None or infer_loss_type(curves) != "bounded":
        return None
    value = running_median(loss.value)
    since = _stays(value < NEAR_ZERO_LOSS)
    if since is None:
        return None
    before = f", {np.median(value[:since]):.2g} before" if since else ""
    told = f"{loss.name} is pinned near 0: {np.median(value[since:]):.2g} since then{before}"
    return LossEvent(float(loss.step[since]), "discriminator_wins", told + _vanishing(curves))


def find_generator_win(curves: Mapping[str, Curve]) -> LossEvent | None:
    """D takes generated samples for real, to the end: D(G(z)) near 1; or, without scores, G's loss pinned near 0 while D's is at its worst."""
    pair = get_discriminator_probabilities(curves)
    if pair is not None:
        fake = running_median(pair[1].value)
        since = _stays(fake > 1 - SCORE_TOLERANCE)
        if since is None:
            return None
        return LossEvent(
            float(pair[1].step[since]),
            "generator_wins",
            f"D(G(z)) {np.median(fake[since:]):.3f}: D takes every sample for real",
        )
    loss, other = curves.get("generator"), curves.get("discriminator")
    if loss is None or other is None or infer_loss_type(curves) != "bounded" or float(np.nanmin(loss.value)) < 0:
        return None
    value, against = running_median(loss.value), running_median(other.value)
    since = _stays(value < NEAR_ZERO_LOSS)
    if since is None:
        return None
    later = against[other.step >= loss.step[since]]
    if len(later) == 0 or float(np.median(later)) < float(np.median(against[: max(len(against) // 10, 1)])):
        return None
    told = f"{loss.name} is pinned near 0 ({np.median(value[since:]):.2g}) while {other.name} is {np.median(later):.2g}"
    return LossEvent(float(loss.step[since]), "generator_wins", told)


def running_median(value: Array) -> Array:
    """Running median over WINDOW of the log, at least 5 rows; what is not finite counts as large. Long curves: over block medians."""
    value = np.where(np.isfinite(value), value, np.inf)
    if len(value) > 2 * MAX_MEDIAN_BLOCKS:
        size = len(value) // MAX_MEDIAN_BLOCKS
        blocks = np.median(value[: len(value) // size * size].reshape(-1, size), axis=1)
        return np.asarray(running_median(blocks)[np.minimum(np.arange(len(value)) // size, len(blocks) - 1)])
    width = min(max(5, int(MEDIAN_WINDOW_FRACTION * len(value)) | 1), 201)
    if len(value) < width:
        return np.full(len(value), np.median(value)) if len(value) else value
    windows = np.lib.stride_tricks.sliding_window_view(value, width)
    middle = np.median(windows, axis=1)
    edge = width // 2
    return np.concatenate([np.full(edge, middle[0]), middle, np.full(len(value) - len(middle) - edge, middle[-1])])


def _vanishing(curves: Mapping[str, Curve]) -> str:
    """Whether G still moves where D has won."""
    loss = curves.get("generator")
    if loss is None or len(loss) < 10:
        return ""
    last = loss.value[-max(len(loss) // 10, 5) :]
    last = last[np.isfinite(last)]
    if len(last) and float(np.median(np.abs(last))) < NEAR_ZERO_LOSS:
        return "; G's loss is flat at 0 too: its gradient has vanished"
    return f"; {loss.name} is {np.median(last):.3g} at the end" if len(last) else ""


def _to_the_end(bad: np.ndarray) -> int | None:
    """Where the last unbroken stretch of `bad` begins, if it reaches the end."""
    if len(bad) == 0 or not bad[-1]:
        return None
    good = np.flatnonzero(~bad)
    return 0 if len(good) == 0 else int(good[-1]) + 1


def _stays(beyond: np.ndarray) -> int | None:
    """The first row from which on SHARE of the rows are beyond, if that lasts for LAST of the log and to its end."""
    n = len(beyond)
    if n < 10 or beyond[-max(int(MIN_DURATION_FRACTION * n), 5) :].mean() < MIN_ROW_FRACTION:
        return None
    share = np.cumsum(beyond[::-1])[::-1] / np.arange(n, 0, -1)
    starts = np.flatnonzero((share >= MIN_ROW_FRACTION) & beyond)
    return int(starts[0]) if len(starts) and n - starts[0] >= MIN_DURATION_FRACTION * n else None
