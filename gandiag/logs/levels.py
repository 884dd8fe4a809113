"""What levels say: who has won, since when; what is no number; what has run away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gandiag.logs.family import family, probabilities
from gandiag.logs.series import Array, Curve

SURE = 0.05  # D's scores within this of 1 and 0: it is right nearly always
PINNED = 0.02  # a cross-entropy at which the right answer has a probability of 98 %; least squares: within 0.14 of its target
SHARE = 0.9  # of the rows since the start that must be beyond a level
LAST = 0.1  # of the log that must be there at the end, at least
BLOW_UP = 1e3  # times the usual size
WINDOW = 0.02  # of the log: width of the running median
BLOCKS = 2048  # a longer curve is smoothed over the medians of so many blocks


@dataclass(frozen=True, slots=True)
class Event:
    """Something that began at `step`; `kind` is a verdict word, `evidence` a sentence with its numbers."""

    step: float
    kind: str
    evidence: str


def failed(curve: Curve) -> Event | None:
    """A loss that stops being a number, or grows past a thousand times its usual size, and stays so to the end."""
    bad = ~np.isfinite(curve.value)
    since = _to_the_end(bad)
    if since is not None:
        return Event(float(curve.step[since]), "failed", f"{curve.name} is not a number from here on")
    value = np.where(bad, 0.0, curve.value)
    half = np.abs(value[: max(len(value) // 2, 1)])
    usual = float(np.median(half)) + float(half.std() if half.max() < BLOW_UP * (np.median(half) + 1e-9) else 0.0)
    since = _to_the_end(np.abs(value) > BLOW_UP * max(usual, 1e-3))
    if since is None or len(value) < 10:
        return None
    return Event(float(curve.step[since]), "failed", f"{curve.name} blows up: {value[-1]:.3g} at the end, {usual:.3g} usually")


def glitches(curve: Curve) -> str | None:
    """Rows without a number that the run survived, as a note."""
    bad = ~np.isfinite(curve.value)
    count = int(bad.sum())
    return f"{count:,} of {len(bad):,} rows of {curve.name} are not finite, the first at step {curve.step[bad.argmax()]:,.0f}" if count else None


def discriminator_wins(curves: Mapping[str, Curve]) -> Event | None:
    """D tells real from generated without error, to the end: from its scores, else from its loss where 0 is its lowest value."""
    pair = probabilities(curves)
    if pair is not None and len(pair[0]) == len(pair[1]):
        real, fake = smooth(pair[0].value), smooth(pair[1].value)
        since = _stays((real > 1 - SURE) & (fake < SURE))
        if since is None:
            return None
        told = f"D(x) {np.median(real[since:]):.3f}, D(G(z)) {np.median(fake[since:]):.2g}: D is right nearly always"
        return Event(float(pair[0].step[since]), "discriminator_wins", told + _vanishing(curves))
    loss = curves.get("discriminator")
    if loss is None or family(curves) != "bounded":
        return None
    value = smooth(loss.value)
    since = _stays(value < PINNED)
    if since is None:
        return None
    before = f", {np.median(value[:since]):.2g} before" if since else ""
    told = f"{loss.name} is pinned near 0: {np.median(value[since:]):.2g} since then{before}"
    return Event(float(loss.step[since]), "discriminator_wins", told + _vanishing(curves))


def generator_wins(curves: Mapping[str, Curve]) -> Event | None:
    """D takes generated samples for real, to the end: D(G(z)) near 1; or, without scores, G's loss pinned near 0 while D's is at its worst."""
    pair = probabilities(curves)
    if pair is not None:
        fake = smooth(pair[1].value)
        since = _stays(fake > 1 - SURE)
        if since is None:
            return None
        return Event(float(pair[1].step[since]), "generator_wins", f"D(G(z)) {np.median(fake[since:]):.3f}: D takes every sample for real")
    loss, other = curves.get("generator"), curves.get("discriminator")
    if loss is None or other is None or family(curves) != "bounded" or float(np.nanmin(loss.value)) < 0:
        return None
    value, against = smooth(loss.value), smooth(other.value)
    since = _stays(value < PINNED)
    if since is None:
        return None
    later = against[other.step >= loss.step[since]]
    if len(later) == 0 or float(np.median(later)) < float(np.median(against[: max(len(against) // 10, 1)])):
        return None
    told = f"{loss.name} is pinned near 0 ({np.median(value[since:]):.2g}) while {other.name} is {np.median(later):.2g}"
    return Event(float(loss.step[since]), "generator_wins", told)


def smooth(value: Array) -> Array:
    """Running median over WINDOW of the log, at least 5 rows; what is not finite counts as large. Long curves: over block medians."""
    value = np.where(np.isfinite(value), value, np.inf)
    if len(value) > 2 * BLOCKS:
        size = len(value) // BLOCKS
        blocks = np.median(value[: len(value) // size * size].reshape(-1, size), axis=1)
        return np.asarray(smooth(blocks)[np.minimum(np.arange(len(value)) // size, len(blocks) - 1)])
    width = min(max(5, int(WINDOW * len(value)) | 1), 201)
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
    if len(last) and float(np.median(np.abs(last))) < PINNED:
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
    if n < 10 or beyond[-max(int(LAST * n), 5) :].mean() < SHARE:
        return None
    share = np.cumsum(beyond[::-1])[::-1] / np.arange(n, 0, -1)
    starts = np.flatnonzero((share >= SHARE) & beyond)
    return int(starts[0]) if len(starts) and n - starts[0] >= LAST * n else None
