"""Measures how the diversity of outputs changes with the scale of z: the same latents, enlarged and shrunk.

Where the scale has no effect, the truncation psi is swept instead. A linear generator spreads in proportion to the
scale, one that divides z into hard regions hardly at all, and both are healthy; a collapsed one has no spread at any
scale. The sweep distinguishes collapse from a wrong latent scale.
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
from gandiag.record import Exhibit, Measurement
from gandiag.stats.resampling import draw_halves

N_REPLICATES = 12
# Two outputs are duplicates if nearer than this share of the median distance to the nearest neighbor at scale 1.
DUPLICATE_DISTANCE = 0.1
# G does not react to scale if doubling z moves its outputs by less than this share of the distance between them.
MIN_REACTION = 1e-3
MEASUREMENT_KEYS = ("scale_reaction", "scale_gain", "spread_smallest_scale")
TRUNCATION_PSIS = (0.0, 0.25, 0.5, 0.7, 0.85, 1.0, 1.15)  # swept where scale has no effect; 1 is the network as trained
NO_FLOOR_REASON = "no floor: real data have no latent"
POINT_KEYS = ("spread", "spread_median", "spread_mean", "interval", "duplicated", "effective", "saturated")
PLOTTED_KEYS = ("spread", "spread_median", "duplicated", "saturated")

Sweep = dict[float, OutputDistances | None]  # scale or psi -> distances, None where the output cannot be measured


def sweep_latent_scale(
    sample_at_scale: Callable[[float], Tensor],
    scales: Sequence[float],
    *,
    seed: int = 0,
    output: OutputSpec | None = None,
    truncation: tuple[Callable[[float], Tensor], Sequence[float]] | None = None,
) -> MetricResult:
    """Sweep the latent scale, or psi: the section `response`, its curve, and three measurements.

    `sample_at_scale(scale)`: outputs (N, *shape) of the *same* base latents at that scale, in the declared range of
    `output`. First G(z) is compared with G(2z): a generator that normalizes or ignores z is not swept over scale, and
    `reason` states why. `truncation`: a function that samples the same latents at a truncation psi, and the psis; then
    the sweep is over psi, and `axis` and the points are labeled "psi" instead of "scale".

    Per point: `spread`, the 5 % quantile of the pairwise distance in output space relative to scale (psi) 1
    (`spread_median` and `spread_mean` likewise, `interval` from half-samples); `duplicated`, the share of outputs with
    another nearer than a tenth of the median nearest-neighbor distance at 1; `effective`, the inverse Simpson number of
    such groups, in [1, N]; `saturated`, the share of output values within 1 % of the range's ends.

    Where the outputs at 1 have no spread, the reference is the largest scale, and `reason` states that. A scale at
    which the output is not finite has null numbers. Above 1 the sweep extrapolates: it is reported but supports no
    verdict. Style-based generators do not react to scale, as they normalize z by construction; nor do generators with
    batch statistics. Cost: N samples per scale, and N² x output size multiplications (moments for N = 256).
    """
    value_range = None if output is None else output.range
    base, doubled = sample_at_scale(1.0), sample_at_scale(2.0)
    known = {
        1.0: compute_output_distances(base, value_range),
        2.0: compute_output_distances(doubled, value_range),
    }
    shifts, mean_distance = _compare_doubled(base, doubled, known)
    no_reaction = _explain_no_reaction(shifts, mean_distance, known)
    measurements = {"scale_reaction": _reaction_measurement(shifts, mean_distance, len(base))}
    del base, doubled
    if no_reaction is None:
        sweep = _sweep(sample_at_scale, scales, known, value_range)
        section, curve = _describe_sweep(sweep, known[1.0], "scale", seed)
        measurements["scale_gain"] = _gain_measurement(section["points"])
        measurements["spread_smallest_scale"] = _smallest_scale_measurement(section["points"], known[1.0])
        return MetricResult(measurements, {"response": section}, (curve,))
    reason = f"does not react to scale: {no_reaction}"
    measurements |= {key: Measurement.missing(reason) for key in MEASUREMENT_KEYS[1:]}
    if truncation is None:
        return MetricResult(measurements, {"response": {"axis": None, "reason": reason, "points": []}})
    sample_at_psi, psis = truncation
    untruncated = compute_output_distances(sample_at_psi(1.0), value_range)
    sweep = _sweep(sample_at_psi, psis, {1.0: untruncated}, value_range)
    section, curve = _describe_sweep(sweep, untruncated, "psi", seed)
    reason = f"{reason}; the truncation psi is swept instead"
    section["reason"] = reason if section["reason"] is None else f"{reason}; {section['reason']}"
    return MetricResult(measurements, {"response": section}, (curve,))


def _compare_doubled(base: Tensor, doubled: Tensor, known: dict[float, OutputDistances]) -> tuple[Tensor, float]:
    """How far each output moves when z doubles, (N,), and the mean distance between outputs, the larger of the two."""
    shifts = torch.stack([(a.double() - b.double()).norm() for a, b in zip(base, doubled, strict=True)]).cpu()
    return shifts, max(float(upper_triangle(entry.distances).mean()) for entry in known.values())


def _explain_no_reaction(shifts: Tensor, mean_distance: float, known: dict[float, OutputDistances]) -> str | None:
    """Why the scale is not worth sweeping, or None if it is."""
    resolution = max(entry.resolution for entry in known.values())
    mean_shift = float(shifts.mean())
    if mean_distance <= resolution and mean_shift <= resolution:
        return "every output is the same, whatever z"
    if mean_shift < MIN_REACTION * mean_distance:
        share = f"{mean_shift / mean_distance:.1g}"
        return (
            f"doubling z moves its outputs by {share} of the distance between them "
            "(z is normalized, or batch statistics cancel the scale)"
        )
    return None


def _reaction_measurement(shifts: Tensor, mean_distance: float, n: int) -> Measurement:
    value, error = 0.0, 0.0
    if mean_distance > 0:
        ratio = shifts / mean_distance
        value, error = float(ratio.mean()), 1.96 * float(ratio.std()) / math.sqrt(n)
    unit = "of the distance between outputs"
    return Measurement(value, max(0.0, value - error), value + error, None, unit, "neither", n, reason=NO_FLOOR_REASON)


def _sweep(
    sample_at: Callable[[float], Tensor],
    values: Sequence[float],
    known: dict[float, OutputDistances],
    value_range: tuple[float, float] | None,
) -> Sweep:
    """The distances at every scale (or psi) in ascending order; those already known are not sampled again."""
    sweep: Sweep = {}
    for at in sorted({float(value) for value in values}):
        try:
            sweep[at] = known[at] if at in known else compute_output_distances(sample_at(at), value_range)
        except OutputError:
            sweep[at] = None
    return sweep


def _choose_reference(sweep: Sweep, at_one: OutputDistances, axis: str) -> tuple[OutputDistances | None, str | None]:
    """What spreads are relative to, and the explanation where that is not scale (psi) 1."""
    if at_one.quantile > at_one.resolution:
        return at_one, None
    measured = [(at, entry) for at, entry in sweep.items() if entry is not None]
    at, largest = measured[-1] if measured else (1.0, at_one)
    share = f"at least {DISTANCE_QUANTILE:.0%} of the pairs of outputs are the same"
    if largest.quantile > largest.resolution:
        return largest, f"at {axis} 1 {share}; spread is relative to {axis} {at:g}"
    return None, f"{share} at every {axis}, so spread cannot be expressed as a ratio"


def _describe_sweep(sweep: Sweep, at_one: OutputDistances, axis: str, seed: int) -> tuple[dict[str, Any], Exhibit]:
    """The record's `response` and its curve."""
    reference, reason = _choose_reference(sweep, at_one, axis)
    threshold = max(DUPLICATE_DISTANCE * (reference or at_one).nearest_distance, at_one.resolution)
    points = [{axis: at} | _describe_point(entry, reference, threshold, seed) for at, entry in sweep.items()]
    not_finite = [f"{at:g}" for at, entry in sweep.items() if entry is None]
    if not_finite:
        note = f"the output is not finite at {axis} {', '.join(not_finite)}"
        reason = note if reason is None else f"{reason}; {note}"
    swept = "latent scale" if axis == "scale" else "truncation psi"
    plotted = [key for key in PLOTTED_KEYS if any(point[key] is not None for point in points)]
    curve = line_plot(
        "response",
        f"Spread of the outputs over the {swept}, for the same latents",
        [point[axis] for point in points],
        {key: [point[key] for point in points] for key in plotted},
    )
    return {"axis": axis, "reason": reason, "points": points}, curve


def _describe_point(
    entry: OutputDistances | None, reference: OutputDistances | None, threshold: float, seed: int
) -> dict[str, Any]:
    point: dict[str, Any] = dict.fromkeys(POINT_KEYS)
    if entry is None:
        return point
    duplicate_distance = max(threshold, entry.resolution)
    is_duplicated = nearest_distances(entry.distances) <= duplicate_distance
    point["duplicated"] = float(is_duplicated.double().mean())
    point["effective"] = len(entry.distances) ** 2 / float((entry.distances <= duplicate_distance).sum())
    point["saturated"] = entry.saturated_fraction
    if reference is None:
        return point
    distances, reference_distances = upper_triangle(entry.distances), upper_triangle(reference.distances)
    point["spread"] = entry.quantile / reference.quantile
    point["spread_median"] = float(distances.median() / reference_distances.median())
    point["spread_mean"] = float(distances.mean() / reference_distances.mean())
    point["interval"] = _spread_interval(point["spread"], entry, reference, seed)
    return point


def _spread_interval(
    value: float, entry: OutputDistances, reference: OutputDistances, seed: int
) -> dict[str, float] | None:
    """95 % interval from half-samples of the latents, the same halves at both scales; None for too few outputs.

    The variance among halves is that of the whole.
    """
    rng = torch.Generator().manual_seed(seed)
    n = len(entry.distances)
    halves = [draw_halves((n,), rng)[0] for _ in range(N_REPLICATES)]
    if n < 8:
        return None
    quantiles = [(entry.subset_quantile(half), reference.subset_quantile(half)) for half in halves]
    ratios = [top / bottom for top, bottom in quantiles if bottom > reference.resolution]
    if len(ratios) < 3:
        return None
    error = 1.96 * float(torch.tensor(ratios, dtype=torch.float64).std())
    return {"low": max(0.0, value - error), "high": value + error}


def _gain_measurement(points: list[dict[str, Any]]) -> Measurement:
    """The slope of log spread over log scale, between the scales on either side of 1."""
    usable = [point for point in points if point["scale"] > 0 and point["spread"]]
    below = [point for point in usable if point["scale"] < 1]
    above = [point for point in usable if point["scale"] > 1]
    if not below or not above:
        return Measurement.missing("there are no scales with a spread on both sides of 1")
    left, right = below[-1], above[0]
    log_ratio = math.log(right["scale"] / left["scale"])
    value = math.log(right["spread"] / left["spread"]) / log_ratio
    error = math.hypot(*(_relative_error(point) for point in (left, right))) / log_ratio
    unit = "d log spread / d log scale"
    return Measurement(value, value - error, value + error, None, unit, "neither", 0, reason=NO_FLOOR_REASON)


def _relative_error(point: dict[str, Any]) -> float:
    half_width = point["interval"]["high"] - point["spread"] if point["interval"] else 0.0
    return float(half_width / point["spread"])


def _smallest_scale_measurement(points: list[dict[str, Any]], at_one: OutputDistances) -> Measurement:
    """The spread at the smallest scale above 0."""
    point = next((point for point in points if point["scale"] > 0 and point["spread"] is not None), None)
    if point is None:
        return Measurement.missing("no scale has a spread")
    interval = point["interval"] or {}
    reason = f"at scale {point['scale']:g}; {NO_FLOOR_REASON}"
    return Measurement(
        point["spread"],
        interval.get("low"),
        interval.get("high"),
        None,
        "of the spread at scale 1",
        "neither",
        len(at_one.distances),
        reason=reason,
    )
