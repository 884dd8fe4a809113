"""How the variety of the outputs follows the scale of z: the same latents, enlarged and shrunk.

A linear generator spreads in proportion to the scale, one that has split z into hard regions hardly at all, and both are
healthy; a collapsed one has no spread at any scale. What is told apart here is collapse from a wrong latent scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gandiag.contracts import Outcome, Output
from gandiag.errors import OutputError
from gandiag.record import Measurement
from gandiag.stats.sheets import curves

REPLICATES = 12
QUANTILE = 0.05  # low, because one repeated output among many leaves the mean distance where it was
NEAR = 0.1  # two outputs are one if nearer than that share of the median distance to the nearest neighbour at scale 1
RESOLUTION = 2.0**-20  # of the outputs' rms length: what two evaluations of one network differ by in float32
STILL = 1e-3  # G does not react to scale if doubling z moves its outputs by less than that share of the distance between them
EDGE = 0.01  # a value is saturated within that share of the range from either end
CHUNK = 1 << 15  # output values multiplied at a time: images of any size in little memory
KEYS = ("scale_reaction", "scale_gain", "spread_smallest_scale")
NO_FLOOR = "asked of the generator: real data have no latent"


@dataclass(frozen=True, slots=True)
class Spread:
    """The outputs at one scale. `distances` (N, N) float64 with zeros on the diagonal; `size`: their rms length."""

    distances: Tensor
    size: float
    saturated: float | None

    @property
    def quantile(self) -> float:
        return self.quantile_of(torch.arange(len(self.distances)))

    def quantile_of(self, rows: Tensor) -> float:
        """The 5 % quantile of the distances among some rows."""
        return float(torch.quantile(_off_diagonal(self.distances[rows][:, rows]), QUANTILE))

    @property
    def spacing(self) -> float:
        """The median distance to the nearest other output."""
        return float(_nearest(self.distances).median())

    @property
    def resolution(self) -> float:
        """Below this, two outputs are the same."""
        return max(RESOLUTION * self.size, 1e-30)


def response(sample_at: Callable[[float], Tensor], scales: Sequence[float], *, seed: int = 0, output: Output | None = None) -> Outcome:
    """The section `response`, its curve, and three measurements.

    `sample_at(scale)`: outputs (N, *shape) of the *same* base latents at that scale, in the declared range of `output`.
    First G(z) is compared with G(2z): a generator that normalises z, or ignores it, is not swept, and `reason` says why.
    Per scale: `spread`, the 5 % quantile of the pairwise distance in output space relative to scale 1 (`spread_median` and
    `spread_mean` alike, `interval` from half-samples); `duplicated`, the share of outputs with another nearer than a tenth of
    the median nearest-neighbour distance at scale 1; `effective`, the inverse Simpson number of such groups, in [1, N];
    `saturated`, the share of output values within 1 % of the range's ends.

    Where scale 1 itself has no spread, the reference is the largest scale, and `reason` says so. A scale at which the output
    is not finite has null numbers. Cost: N samples a scale, and N² x output size multiplications (N = 256 takes moments).
    Above 1 the sweep is extrapolation: report it, judge nothing by it. Reads as "still" for style-based generators, which
    normalise z by construction, and with batch statistics instead of stored ones.
    """
    span = None if output is None else output.range
    base, doubled = sample_at(1.0), sample_at(2.0)
    known = {1.0: spread_of(base, span), 2.0: spread_of(doubled, span)}
    moved, between = _reaction(base, doubled, known)
    still = _still(moved, between, known)
    measured = {"scale_reaction": _relative(moved, between, len(base))}
    if still is not None:
        why = f"does not react to scale: {still}"
        measured |= {key: Measurement.missing(why) for key in KEYS[1:]}
        return Outcome(measured, {"response": {"axis": None, "reason": why, "points": []}})
    del base, doubled
    sweep, failed = _sweep(sample_at, sorted({float(scale) for scale in scales}), known, span)
    return _told(sweep, failed, known[1.0], measured, seed)


def spread_of(outputs: Tensor, span: tuple[float, float] | None) -> Spread:
    """Distances between outputs (N, *shape); centred first, so that nearly equal outputs keep their digits."""
    flat = outputs.detach().flatten(1)  # (N, D)
    gram = torch.zeros(len(flat), len(flat), dtype=torch.float64)
    square = 0.0
    for start in range(0, flat.shape[1], CHUNK):
        part = flat[:, start : start + CHUNK].cpu().double()  # (N, d)
        if not bool(torch.isfinite(part).all()):
            raise OutputError("the generator's output is not finite at this latent scale", "leave this scale out with --scales")
        square += float(part.square().sum())
        part = part - part.mean(0)
        gram += part @ part.T
    squared = gram.diagonal()[:, None] + gram.diagonal()[None] - 2 * gram
    distances = squared.clamp_min(0).sqrt().fill_diagonal_(0.0)  # (N, N)
    return Spread(distances, math.sqrt(square / max(1, len(flat))), None if span is None else _saturated(flat, span))


def _saturated(flat: Tensor, span: tuple[float, float]) -> float:
    low, high = span
    margin = EDGE * (high - low)
    return float(((flat <= low + margin) | (flat >= high - margin)).double().mean())


def _off_diagonal(square: Tensor) -> Tensor:
    """The upper triangle of (N, N) without its diagonal, flat."""
    row, column = torch.triu_indices(len(square), len(square), 1)
    return square[row, column]


def _nearest(distances: Tensor) -> Tensor:
    """Distance to the nearest other row, (N,)."""
    return distances.clone().fill_diagonal_(math.inf).amin(1)


def _reaction(base: Tensor, doubled: Tensor, known: dict[float, Spread]) -> tuple[Tensor, float]:
    """How far each output moves when z doubles, (N,), and the mean distance between outputs, the larger of the two scales'."""
    moved = torch.stack([(a.double() - b.double()).norm() for a, b in zip(base, doubled, strict=True)]).cpu()
    return moved, max(float(_off_diagonal(spread.distances).mean()) for spread in known.values())


def _still(moved: Tensor, between: float, known: dict[float, Spread]) -> str | None:
    """Why there is nothing to sweep, or None."""
    resolution = max(spread.resolution for spread in known.values())
    if between <= resolution and float(moved.mean()) <= resolution:
        return "every output is the same, whatever z"
    if float(moved.mean()) < STILL * between:
        share = float(moved.mean()) / between
        return f"doubling z moves its outputs by {share:.1g} of the distance between them (z is normalised, or batch statistics undo it)"
    return None


def _relative(moved: Tensor, between: float, n: int) -> Measurement:
    if between <= 0:
        return Measurement(0.0, 0.0, 0.0, None, "of the distance between outputs", "neither", n, reason=NO_FLOOR)
    ratio = moved / between
    value, error = float(ratio.mean()), 1.96 * float(ratio.std()) / math.sqrt(n)
    return Measurement(value, max(0.0, value - error), value + error, None, "of the distance between outputs", "neither", n, reason=NO_FLOOR)


def _sweep(sample_at: Callable[[float], Tensor], scales: Sequence[float], known: dict[float, Spread],
           span: tuple[float, float] | None) -> tuple[dict[float, Spread | None], list[float]]:
    """Every scale, those already sampled not again; None where the output cannot be measured."""
    sweep: dict[float, Spread | None] = {}
    for scale in scales:
        try:
            sweep[scale] = known[scale] if scale in known else spread_of(sample_at(scale), span)
        except OutputError:
            sweep[scale] = None
    return sweep, [scale for scale, spread in sweep.items() if spread is None]


def _reference(sweep: dict[float, Spread | None], one: Spread) -> tuple[Spread | None, str | None]:
    """What spreads are relative to, and what to say where that is not scale 1."""
    if one.quantile > one.resolution:
        return one, None
    seen = [(scale, spread) for scale, spread in sweep.items() if spread is not None]
    scale, largest = seen[-1] if seen else (1.0, one)
    if largest.quantile > largest.resolution:
        return largest, f"at scale 1 at least {QUANTILE:.0%} of the pairs of outputs are the same; spread is relative to scale {scale:g}"
    return None, f"at least {QUANTILE:.0%} of the pairs of outputs are the same at every scale: spread is not a ratio of anything"


def _told(sweep: dict[float, Spread | None], failed: list[float], one: Spread, measured: dict[str, Measurement], seed: int) -> Outcome:
    reference, reason = _reference(sweep, one)
    threshold = max(NEAR * (reference or one).spacing, one.resolution)
    points = [_point(scale, spread, reference, threshold, seed) for scale, spread in sweep.items()]
    if failed:
        said = f"the output is not finite at scale {', '.join(f'{scale:g}' for scale in failed)}"
        reason = said if reason is None else f"{reason}; {said}"
    measured = measured | {"scale_gain": _gain(points), "spread_smallest_scale": _smallest(points, one)}
    shown = [key for key in ("spread", "spread_median", "duplicated", "saturated") if any(point[key] is not None for point in points)]
    lines = {key: [point[key] for point in points] for key in shown}
    curve = curves("response", "Spread of the outputs over the latent scale, the same latents throughout", [point["scale"] for point in points], lines)
    return Outcome(measured, {"response": {"axis": "scale", "reason": reason, "points": points}}, (curve,))


def _point(scale: float, spread: Spread | None, reference: Spread | None, threshold: float, seed: int) -> dict[str, Any]:
    keys = ("spread", "spread_median", "spread_mean", "interval", "duplicated", "effective", "saturated")
    if spread is None:
        return {"scale": scale} | dict.fromkeys(keys)
    near = max(threshold, spread.resolution)
    point = {
        "scale": scale, **dict.fromkeys(keys), "duplicated": float((_nearest(spread.distances) <= near).double().mean()),
        "effective": len(spread.distances) ** 2 / float((spread.distances <= near).sum()), "saturated": spread.saturated,
    }
    if reference is None:
        return point
    here, there = _off_diagonal(spread.distances), _off_diagonal(reference.distances)
    value = spread.quantile / reference.quantile
    return point | {
        "spread": value, "spread_median": float(here.median() / there.median()), "spread_mean": float(here.mean() / there.mean()),
        "interval": _interval(value, spread, reference, seed),
    }


def _interval(value: float, spread: Spread, reference: Spread, seed: int) -> dict[str, float] | None:
    """95 % from half-samples of the latents, the same halves at both scales: the variance among halves is that of the whole."""
    draw = torch.Generator().manual_seed(seed)
    n = len(spread.distances)
    halves = [torch.randperm(n, generator=draw)[: n // 2] for _ in range(REPLICATES)]
    if n < 8:
        return None
    found = [(spread.quantile_of(half), reference.quantile_of(half)) for half in halves]
    ratios = torch.tensor([top / bottom for top, bottom in found if bottom > reference.resolution], dtype=torch.float64)
    if len(ratios) < 3:
        return None
    error = 1.96 * float(ratios.std())
    return {"low": max(0.0, value - error), "high": value + error}


def _gain(points: list[dict[str, Any]]) -> Measurement:
    """The slope of log spread over log scale, between the scales on either side of 1."""
    usable = [point for point in points if point["scale"] > 0 and point["spread"]]
    below = [point for point in usable if point["scale"] < 1]
    above = [point for point in usable if point["scale"] > 1]
    if not below or not above:
        return Measurement.missing("there are no scales with a spread on both sides of 1")
    left, right = below[-1], above[0]
    run = math.log(right["scale"] / left["scale"])
    value = math.log(right["spread"] / left["spread"]) / run
    doubts = [point["interval"]["high"] - point["spread"] if point["interval"] else 0.0 for point in (left, right)]
    error = math.hypot(*(doubt / point["spread"] for doubt, point in zip(doubts, (left, right), strict=True))) / run
    return Measurement(value, value - error, value + error, None, "d log spread / d log scale", "neither", 0, reason=NO_FLOOR)


def _smallest(points: list[dict[str, Any]], one: Spread) -> Measurement:
    """The spread at the smallest scale above 0."""
    found = [point for point in points if point["scale"] > 0 and point["spread"] is not None]
    if not found:
        return Measurement.missing("no scale has a spread")
    first = found[0]
    low, high = (first["interval"]["low"], first["interval"]["high"]) if first["interval"] else (None, None)
    reason = f"at scale {first['scale']:g}; {NO_FLOOR}"
    return Measurement(first["spread"], low, high, None, "of the spread at scale 1", "neither", len(one.distances), reason=reason)
