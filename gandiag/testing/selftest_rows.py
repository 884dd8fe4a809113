"""Rows and summary of the self-test: averages over seeds, tolerances, and how well each metric detects a loss.

A metric *detects* a row's loss where it lies further in its documented bad direction than real against real does by
chance.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import torch
from scipy.stats import t

from gandiag.interfaces import Estimate
from gandiag.testing.competing_metrics import metric_direction
from gandiag.testing.toy_mixtures import ValidityCase

# Tolerance of the mean score over seeds in a row with a loss, and in one without. It is never less than
# MAX_STANDARD_ERRORS standard errors of that mean, from its own interval: few seeds prove little.
TOLERANCE = 0.10
NULL_TOLERANCE = 0.05
MAX_STANDARD_ERRORS = 3.0
DETECTION_LEVEL = 0.995  # one-sided level at which a metric distinguishes a row from real against real
MIN_LOSS = 0.25  # smallest loss that metrics are expected to detect


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One comparison: the true loss, the score, its verdict at the default limit, and the other metrics by key."""

    target: float
    score: Estimate
    verdict: str
    off_manifold: float
    metrics: Mapping[str, float]


def make_case_row(
    dim: int, case: ValidityCase, results: Sequence[CaseResult], null_sets: Sequence[Sequence[CaseResult]]
) -> dict[str, Any]:
    """The row of a case: the mean over seeds. A metric detects the loss where it does so for most seeds.

    `results`: one per seed; `null_sets`: the null comparisons of each seed.
    """
    metrics = {}
    for key in results[0].metrics:
        detections = [
            is_detected(result.metrics[key], [null.metrics[key] for null in null_set], metric_direction(key))
            for result, null_set in zip(results, null_sets, strict=True)
        ]
        metrics[key] = {"value": _mean_metric(results, key), "told": fmean(detections) > 0.5}
    return {**_common_columns(dim, case.name, case.group, results), "metrics": metrics}


def make_null_row(dim: int, results: Sequence[CaseResult]) -> dict[str, Any]:
    """The row of all null comparisons; it also fails if any of them gives the verdict collapsed."""
    metrics = {key: {"value": _mean_metric(results, key), "told": False} for key in results[0].metrics}
    row = {**_common_columns(dim, "real against real", "null", results), "metrics": metrics}
    return {**row, "ok": row["ok"] and "collapsed" not in row["verdicts"]}


def _mean_metric(results: Sequence[CaseResult], key: str) -> float:
    return fmean(result.metrics[key] for result in results)


def _common_columns(dim: int, name: str, group: str, results: Sequence[CaseResult]) -> dict[str, Any]:
    target = fmean(result.target for result in results)
    value = fmean(result.score.value for result in results)
    low = fmean(result.score.low for result in results)
    high = fmean(result.score.high for result in results)
    half_width = max(high - value, value - low)  # the wider half: the other may be clipped at 0 or 1
    standard_error = half_width / 1.96 / math.sqrt(len(results))
    tolerance = max(TOLERANCE if target > 0 else NULL_TOLERANCE, MAX_STANDARD_ERRORS * standard_error)
    return {
        "dim": dim,
        "name": name,
        "group": group,
        "target": target,
        "score": {"value": value, "low": low, "high": high},
        "error": value - target,
        "tolerance": tolerance,
        "ok": abs(value - target) <= tolerance,
        "covered": fmean(result.score.low <= result.target <= result.score.high for result in results),
        "off_manifold": fmean(result.off_manifold for result in results),
        "verdicts": dict(Counter(result.verdict for result in results)),
        "repeats": len(results),
    }


def is_detected(value: float, null_values: Sequence[float], direction: str) -> bool:
    """Whether `value` is worse than one more null value would be at DETECTION_LEVEL, by a t prediction bound.

    `direction`: which values are better, "higher", "lower" or "neither".
    """
    n = len(null_values)
    margin = float(t.ppf(DETECTION_LEVEL, n - 1)) * stdev(null_values) * math.sqrt(1 + 1 / n)
    difference = value - fmean(null_values)
    if direction == "neither":
        return abs(difference) > margin
    return (difference if direction == "lower" else -difference) > margin


def summarize_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Detections of the score and of each metric: `found` among rows with a loss, `alarms` among those without, `auc`.

    A loss is MIN_LOSS or more.     The score detects a row by its verdict, collapsed. `auc`: the probability that a row
    with such a loss looks worse than one with none, averaged over dimensions.
    """
    lossy = [row for row in rows if row["target"] >= MIN_LOSS]
    lossless = [row for row in rows if row["target"] == 0]
    return {
        key: {
            "found": sum(_detects(row, key) for row in lossy),
            "of": len(lossy),
            "alarms": sum(_detects(row, key) for row in lossless),
            "of_none": len(lossless),
            "auc": _mean_auc(rows, key),
        }
        for key in ("score", *rows[0]["metrics"])
    }


def _detects(row: Mapping[str, Any], key: str) -> bool:
    if key != "score":
        return bool(row["metrics"][key]["told"])
    return bool(row["verdicts"].get("collapsed", 0) > row["repeats"] / 2)


def _mean_auc(rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """The area under the ROC curve, averaged over dimensions."""
    lossy, lossless = defaultdict(list), defaultdict(list)  # by dimension
    for row in rows:
        value = row["score"]["value"] if key == "score" else row["metrics"][key]["value"]
        if row["target"] == 0:
            lossless[row["dim"]].append(value)
        elif row["target"] >= MIN_LOSS:
            lossy[row["dim"]].append(value)
    direction = "lower" if key == "score" else metric_direction(key)
    areas = [roc_auc(values, lossless[dim], direction) for dim, values in lossy.items() if lossless[dim]]
    return fmean(areas) if areas else None


def roc_auc(loss_values: Sequence[float], null_values: Sequence[float], direction: str) -> float:
    """The probability that a value with a loss is worse than one without, ties counting half, in [0, 1].

    `direction`: which values are better; "neither": whichever separates more, in the metric's favor.
    """
    a, b = torch.tensor(loss_values, dtype=torch.float64), torch.tensor(null_values, dtype=torch.float64)
    higher = float((a[:, None] > b).double().mean() + (a[:, None] == b).double().mean() / 2)
    if direction == "neither":
        return max(higher, 1 - higher)
    return higher if direction == "lower" else 1 - higher
