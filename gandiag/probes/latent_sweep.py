"""How the variety of the outputs follows the scale of z: the same latents, enlarged and shrunk. Where that does nothing, truncation.

A linear generator spreads in proportion to the scale, one that has split z into hard regions hardly at all, and both are
healthy; a collapsed one has no spread at any scale. What is told apart here is collapse from a wrong latent scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gandiag.errors import OutputError
from gandiag.exhibits.images import line_plot
from gandiag.interfaces import MetricResult, OutputSpec
from gandiag.probes.output_distances import (
    DISTANCE_QUANTILE,
    OutputDistances,
    compute_output_distances,
    nearest_distances,
    upper_triangle,
)
from gandiag.record import Measurement

N_REPLICATES = 12
DUPLICATE_DISTANCE = (
    0.1  # two outputs are one if nearer than that share of the median distance to the nearest neighbour at scale 1
)
MIN_REACTION = 1e-3  # G does not react to scale if doubling z moves its outputs by less than that share of the distance between them
MEASUREMENT_KEYS = ("scale_reaction", "scale_gain", "spread_smallest_scale")
TRUNCATION_PSIS = (
    0.0,
    0.25,
    0.5,
    0.7,
    0.85,
    1.0,
    1.15,
)  # truncations swept where scale does nothing: 1 is the network as trained
NO_FLOOR_REASON = "asked of the generator: real data have no latent"


def sweep_latent_scale(
    sample_at_scale: Callable[[float], Tensor],
    scales: Sequence[float],
    *,
    seed: int = 0,
    output: OutputSpec | None = None,
    truncation: tuple[Callable[[float], Tensor], Sequence[float]] | None = None,
) -> MetricResult:
    """The section `response`, its curve, and three measurements.

    `sample_at(scale)`: outputs (N, *shape) of the *same* base latents at that scale, in the declared range of `output`.
    First G(z) is compared with G(2z): a generator that normalises z, or ignores it, is not swept over scale, and `reason` says
    why. `truncated`: outputs of the same latents at a truncation psi, and the psi to try; then the sweep is over psi, and
    `axis` and the points say "psi" in place of "scale".
    Per point: `spread`, the 5 % quantile of the pairwise distance in output space relative to scale (psi) 1 (`spread_median` and
    `spread_mean` alike, `interval` from half-samples); `duplicated`, the share of outputs with another nearer than a tenth of
    the median nearest-neighbour distance at 1; `effective`, the inverse Simpson number of such groups, in [1, N];
    `saturated`, the share of output values within 1 % of the range's ends.

    Where 1 itself has no spread, the reference is the largest scale, and `reason` says so. A scale at which the output
    is not finite has null numbers. Cost: N samples a scale, and N² x output size multiplications (N = 256 takes moments).
    Above 1 the sweep is extrapolation: report it, judge nothing by it. Reads as "still" for style-based generators, which
    normalise z by construction, and with batch statistics instead of stored ones.
    """
    span = None if output is None else output.range
    base, doubled = sample_at_scale(1.0), sample_at_scale(2.0)
    known = {1.0: compute_output_distances(base, span), 2.0: compute_output_distances(doubled, span)}
    moved, between = _reaction(base, doubled, known)
    still = _still(moved, between, known)
    measured = {"scale_reaction": _relative(moved, between, len(base))}
    del base, doubled
    if still is None:
        sweep = _sweep(sample_at_scale, sorted({float(scale) for scale in scales}), known, span)
        return _told(sweep, known[1.0], measured, seed)
    why = f"does not react to scale: {still}"
    measured |= {key: Measurement.missing(why) for key in MEASUREMENT_KEYS[1:]}
    if truncation is None:
        return MetricResult(measured, {"response": {"axis": None, "reason": why, "points": []}})
    sample_psi, psis = truncation
    one = compute_output_distances(sample_psi(1.0), span)
    sweep = _sweep(sample_psi, sorted({float(psi) for psi in psis}), {1.0: one}, span)
    found = _told(sweep, one, {}, seed, axis="psi")
    reason = "; ".join(
        part for part in (f"{why}; the truncation psi is swept instead", found.sections["response"]["reason"]) if part
    )
    return MetricResult(measured, {"response": {**found.sections["response"], "reason": reason}}, found.exhibits)


def _reaction(base: Tensor, doubled: Tensor, known: dict[float, OutputDistances]) -> tuple[Tensor, float]:
    """How far each output moves when z doubles, (N,), and the mean distance between outputs, the larger of the two scales'."""
    moved = torch.stack([(a.double() - b.double()).norm() for a, b in zip(base, doubled, strict=True)]).cpu()
    return moved, max(float(upper_triangle(spread.distances).mean()) for spread in known.values())


def _still(moved: Tensor, between: float, known: dict[float, OutputDistances]) -> str | None:
    """Why there is nothing to sweep, or None."""
    resolution = max(spread.resolution for spread in known.values())
    if between <= resolution and float(moved.mean()) <= resolution:
        return "every output is the same, whatever z"
    if float(moved.mean()) < MIN_REACTION * between:
        share = float(moved.mean()) / between
        return f"doubling z moves its outputs by {share:.1g} of the distance between them (z is normalised, or batch statistics undo it)"
    return None


def _relative(moved: Tensor, between: float, n: int) -> Measurement:
    if between <= 0:
        return Measurement(0.0, 0.0, 0.0, None, "of the distance between outputs", "neither", n, reason=NO_FLOOR_REASON)
    ratio = moved / between
    value, error = float(ratio.mean()), 1.96 * float(ratio.std()) / math.sqrt(n)
    return Measurement(
        value,
        max(0.0, value - error),
        value + error,
        None,
        "of the distance between outputs",
        "neither",
        n,
        reason=NO_FLOOR_REASON,
    )


def _sweep(
    sample_at: Callable[[float], Tensor],
    places: Sequence[float],
    known: dict[float, OutputDistances],
    span: tuple[float, float] | None,
) -> dict[float, OutputDistances | None]:
    """Every scale (or psi), those already sampled not again; None where the output cannot be measured."""
    sweep: dict[float, OutputDistances | None] = {}
    for place in places:
        try:
            sweep[place] = known[place] if place in known else compute_output_distances(sample_at(place), span)
        except OutputError:
            sweep[place] = None
    return sweep


def _reference(
    sweep: dict[float, OutputDistances | None], one: OutputDistances, axis: str
) -> tuple[OutputDistances | None, str | None]:
    """What spreads are relative to, and what to say where that is not scale (psi) 1."""
    if one.quantile > one.resolution:
        return one, None
    seen = [(place, spread) for place, spread in sweep.items() if spread is not None]
    place, largest = seen[-1] if seen else (1.0, one)
    if largest.quantile > largest.resolution:
        return (
            largest,
            f"at {axis} 1 at least {DISTANCE_QUANTILE:.0%} of the pairs of outputs are the same; spread is relative to {axis} {place:g}",
        )
    return (
        None,
        f"at least {DISTANCE_QUANTILE:.0%} of the pairs of outputs are the same at every {axis}: spread is not a ratio of anything",
    )


def _told(
    sweep: dict[float, OutputDistances | None],
    one: OutputDistances,
    measured: dict[str, Measurement],
    seed: int,
    axis: str = "scale",
) -> MetricResult:
    reference, reason = _reference(sweep, one, axis)
    threshold = max(DUPLICATE_DISTANCE * (reference or one).nearest_distance, one.resolution)
    points = [{axis: place} | _point(spread, reference, threshold, seed) for place, spread in sweep.items()]
    failed = [f"{place:g}" for place, spread in sweep.items() if spread is None]
    if failed:
        said = f"the output is not finite at {axis} {', '.join(failed)}"
        reason = said if reason is None else f"{reason}; {said}"
    if axis == "scale":
        measured = measured | {"scale_gain": _gain(points), "spread_smallest_scale": _smallest(points, one)}
    shown = [
        key
        for key in ("spread", "spread_median", "duplicated", "saturated")
        if any(point[key] is not None for point in points)
    ]
    lines = {key: [point[key] for point in points] for key in shown}
    over = "latent scale" if axis == "scale" else "truncation psi"
    curve = line_plot(
        "response",
        f"Spread of the outputs over the {over}, the same latents throughout",
        [point[axis] for point in points],
        lines,
    )
    return MetricResult(measured, {"response": {"axis": axis, "reason": reason, "points": points}}, (curve,))


def _point(
    spread: OutputDistances | None, reference: OutputDistances | None, threshold: float, seed: int
) -> dict[str, Any]:
    keys = ("spread", "spread_median", "spread_mean", "interval", "duplicated", "effective", "saturated")
    if spread is None:
        return dict.fromkeys(keys)
    near = max(threshold, spread.resolution)
    point = {
        **dict.fromkeys(keys),
        "duplicated": float((nearest_distances(spread.distances) <= near).double().mean()),
        "effective": len(spread.distances) ** 2 / float((spread.distances <= near).sum()),
        "saturated": spread.saturated_fraction,
    }
    if reference is None:
        return point
    here, there = upper_triangle(spread.distances), upper_triangle(reference.distances)
    value = spread.quantile / reference.quantile
    return point | {
        "spread": value,
        "spread_median": float(here.median() / there.median()),
        "spread_mean": float(here.mean() / there.mean()),
        "interval": _interval(value, spread, reference, seed),
    }


def _interval(value: float, spread: OutputDistances, reference: OutputDistances, seed: int) -> dict[str, float] | None:
    """95 % from half-samples of the latents, the same halves at both scales: the variance among halves is that of the whole."""
    draw = torch.Generator().manual_seed(seed)
    n = len(spread.distances)
    halves = [torch.randperm(n, generator=draw)[: n // 2] for _ in range(N_REPLICATES)]
    if n < 8:
        return None
    found = [(spread.subset_quantile(half), reference.subset_quantile(half)) for half in halves]
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
    return Measurement(
        value, value - error, value + error, None, "d log spread / d log scale", "neither", 0, reason=NO_FLOOR_REASON
    )


def _smallest(points: list[dict[str, Any]], one: OutputDistances) -> Measurement:
    """The spread at the smallest scale above 0."""
    found = [point for point in points if point["scale"] > 0 and point["spread"] is not None]
    if not found:
        return Measurement.missing("no scale has a spread")
    first = found[0]
    low, high = (first["interval"]["low"], first["interval"]["high"]) if first["interval"] else (None, None)
    reason = f"at scale {first['scale']:g}; {NO_FLOOR_REASON}"
    return Measurement(
        first["spread"], low, high, None, "of the spread at scale 1", "neither", len(one.distances), reason=reason
    )
