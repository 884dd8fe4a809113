"""Which checkpoint of a run to keep: the latest healthy one, the best within its interval, and whether the loss agrees.

Works on records alone. Torch-free.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from gandiag.errors import GandiagError
from gandiag.record import Record
from gandiag.verdict.compare import compare

Points = Sequence[tuple[float, Record]]
IDENTICAL = 1e-4  # relative difference of every number below which two checkpoints cannot be told apart
MIN_POINTS_FOR_CORRELATION = 5
CURVES = ("generator", "loss", "train", "discriminator")  # of the log: the one that is ranked, the first one there is
DEGENERATE_SHARE = 0.5  # share of constant images from which a checkpoint counts as degenerate


def advise_checkpoint(
    points: Points, log: Mapping[str, Any] | None, failed: Sequence[tuple[str, str]] = ()
) -> dict[str, Any]:
    """{latest_healthy, best, tied, no_difference, identical, degenerate, loss, text}; steps are numbers or None.

    `tied`: checkpoints whose score differs from the best one's by less than the interval of the difference. `text`:
    the same as sentences, the recommendation first.
    """
    healthy = [step for step, record in points if record.verdict in ("healthy", "not_degenerate")]
    best, tied = _find_best(points)
    advice: dict[str, Any] = {
        "latest_healthy": healthy[-1] if healthy else None,
        "best": best,
        "tied": tied,
        "no_difference": best is not None and len(points) > 1 and len(tied) == len(points) - 1,
        "identical": _find_identical(points),
        "degenerate": [step for step, record in points if is_degenerate(record)],
        "loss": _rank_loss(points, log),
    }
    return {**advice, "text": _describe_advice(advice, points, failed)}


def is_degenerate(record: Record) -> bool:
    """Whether the outputs are black or otherwise constant: nothing but one value."""
    share = _value(record, "constant_samples")
    low, high = _value(record, "output_min"), _value(record, "output_max")
    return (share is not None and share >= DEGENERATE_SHARE) or (low is not None and low == high)


def _value(record: Record, key: str) -> float | None:
    measurement = record.measurements.get(key)
    return None if measurement is None or measurement.status != "ok" else measurement.value


def _find_best(points: Points) -> tuple[float | None, list[float]]:
    """The step with the lowest score, the later one of equals, and those that do not differ from it."""
    scored = [(step, record) for step, record in points if record.score.value is not None and not is_degenerate(record)]
    if not scored:
        return None, []
    best_step, best = min(scored, key=lambda point: (point[1].score.value, -point[0]))
    return best_step, [step for step, record in scored if record is not best and not _differs(best, record)]


def _differs(first: Record, second: Record) -> bool:
    try:
        change = compare(first, second).change("score")
    except GandiagError:
        return True
    return change is None or change.direction != "same"


def _find_identical(points: Points) -> list[dict[str, Any]]:
    """Neighboring checkpoints whose numbers are all equal, or equal but for rounding: {from, to, exact}."""
    found = []
    for (start, before), (end, after) in pairwise(points):
        pairs = list(zip(_numbers(before), _numbers(after), strict=False))
        if not pairs or len(_numbers(before)) != len(_numbers(after)) or before.score.value is None:
            continue
        if all(first == second for first, second in pairs):
            found.append({"from": start, "to": end, "exact": True})
        elif all(math.isclose(first, second, rel_tol=IDENTICAL, abs_tol=IDENTICAL) for first, second in pairs):
            found.append({"from": start, "to": end, "exact": False})
    return found


def _numbers(record: Record) -> list[float]:
    """Every number that depends on the outputs: score, measurements, and widths of groups."""
    values: list[Any] = [record.score.value, record.score.low, record.score.high, *record.score.replicates]
    values += [entry.value for _, entry in sorted(record.measurements.items())]
    rows = sorted(record.groups.get("rows") or (), key=lambda row: str(row.get("group")))
    values += [row.get("width", row.get("ratio")) for row in rows]
    return [float(value) for value in values if isinstance(value, (int, float))]


def _rank_loss(points: Points, log: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Spearman's correlation between loss and score over the checkpoints, {curve, value, low, high, n}; else None.

    The interval is Fisher's with Bonett and Wright's variance (2000, Psychometrika 65:23).
    """
    curves = (log or {}).get("curves") or {}
    name = next((key for key in (*CURVES, *curves) if curves.get(key)), None)
    if name is None:
        return None
    steps, values = _unpack_curve(curves[name])
    pairs = [
        (loss, record.score.value)
        for step, record in points
        if record.score.value is not None and (loss := _loss_near(step, steps, values)) is not None
    ]
    losses, scores = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    if len(pairs) < MIN_POINTS_FOR_CORRELATION or len(set(scores)) < 2 or len(set(losses)) < 2:
        return None
    rho = statistics.correlation(_ranks(losses), _ranks(scores))
    center = math.atanh(max(-1 + 1e-9, min(1 - 1e-9, rho)))
    half = 1.959964 * math.sqrt((1 + rho * rho / 2) / (len(pairs) - 3))
    return {
        "curve": name,
        "value": rho,
        "low": math.tanh(center - half),
        "high": math.tanh(center + half),
        "n": len(pairs),
    }


def _unpack_curve(curve: Any) -> tuple[list[float], list[float]]:
    """(steps, values) of a curve of the losses document, {step, value} or pairs."""
    if isinstance(curve, Mapping):
        steps = curve.get("step") or curve.get("steps") or curve.get("x") or []
        values = curve.get("value") or curve.get("values") or curve.get("y") or curve.get("mean") or []
        rows = list(zip(steps, values, strict=False))
    else:
        rows = [(entry[0], entry[1]) for entry in curve]
    kept = [(float(step), float(value)) for step, value in rows if step is not None and value is not None]
    return [step for step, _ in kept], [value for _, value in kept]


def _loss_near(step: float, steps: Sequence[float], values: Sequence[float]) -> float | None:
    """The mean of the five values of the log nearest before a step; None outside the log."""
    if not steps or not steps[0] <= step <= steps[-1] + (steps[-1] - steps[0]) * 0.02 + 1:
        return None
    end = min(bisect_left(steps, step) + 1, len(steps))
    return statistics.fmean(values[max(0, end - 5) : end])


def _ranks(values: Sequence[float]) -> list[float]:
    """Ranks with ties averaged."""
    ordered = sorted(values)
    return [(bisect_left(ordered, value) + bisect_right(ordered, value) - 1) / 2 for value in values]


def _describe_advice(advice: Mapping[str, Any], points: Points, failed: Sequence[tuple[str, str]]) -> list[str]:
    lines = [_describe_choice(advice, points)]
    last_step, last = points[-1]
    if is_degenerate(last):
        lines.append(f"The last checkpoint ({last_step:,.0f}) is degenerate: its outputs are black or constant.")
    broken = [name for name, reason in failed if "NaN" in reason or "infinit" in reason]
    if broken:
        lines.append(f"Degenerate: {', '.join(broken[-3:])} with NaN or infinite outputs.")
    for pair in advice["identical"]:
        how = "bit-identical" if pair["exact"] else "indistinguishable"
        lines.append(
            f"{pair['from']:,.0f} and {pair['to']:,.0f} give {how} outputs: training does not reach these weights."
        )
    if advice["loss"] is not None:
        lines.append(_describe_loss(advice["loss"]))
    return lines


def _describe_choice(advice: Mapping[str, Any], points: Points) -> str:
    best, healthy = advice["best"], advice["latest_healthy"]
    if best is None:
        return "No recommendation: no checkpoint has a score. Pass --real, or --against with groups."
    score = next(record.score.value for step, record in points if step == best)
    if advice["no_difference"]:
        keep = points[-1][0] if healthy is None else healthy
        return f"Keep {keep:,.0f}: no difference between the checkpoints is shown by their intervals."
    tied = ", ".join(f"{step:,.0f}" for step in advice["tied"][-5:])
    beside = f"; no difference to {tied} is shown" if tied else ""
    if healthy is None:
        return f"No checkpoint is shown to be healthy. The best score has {best:,.0f} ({score:.2f}){beside}."
    if healthy == best or healthy in advice["tied"]:
        return f"Keep {healthy:,.0f}, the latest healthy one. The best score has {best:,.0f} ({score:.2f}){beside}."
    return (
        f"Keep {best:,.0f}, the best score ({score:.2f}){beside}. The latest healthy one, {healthy:,.0f}, is worse "
        "by more than the intervals."
    )


def _describe_loss(loss: Mapping[str, Any]) -> str:
    estimate = (
        f"rank correlation {loss['value']:.2f} [{loss['low']:.2f}, {loss['high']:.2f}] over {loss['n']} checkpoints"
    )
    if loss["low"] > 0:
        return f"The loss agrees with the score: {estimate}."
    if loss["high"] < 0:
        return f"The loss misleads: it falls as variety is lost ({estimate})."
    return f"The loss is no guide to the score: {estimate}."
