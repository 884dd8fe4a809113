"""A mean over seeds with its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from scipy.stats import t as student


def estimate_mean(values: Sequence[float], minimum: float = 0.0, maximum: float = math.inf) -> dict[str, Any]:
    """{value, low, high, n}: mean with its 95 % interval by Student's t, cut at the least and the greatest value that there can be."""
    n = len(values)
    if not n:
        return {"value": None, "low": None, "high": None, "n": 0}
    mean = sum(values) / n
    if n == 1:
        return {"value": mean, "low": None, "high": None, "n": 1}
    half = float(student.ppf(0.975, n - 1)) * math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1) / n)
    return {"value": mean, "low": max(minimum, mean - half), "high": min(maximum, mean + half), "n": n}


def format_estimate(estimate: Mapping[str, Any], digits: int, scale: float = 1.0) -> str:
    """0.12 [0.10, 0.14]"""
    if estimate["value"] is None:
        return "–"
    spread = (
        ""
        if estimate["low"] is None
        else f" [{scale * estimate['low']:.{digits}f}, {scale * estimate['high']:.{digits}f}]"
    )
    return f"{scale * estimate['value']:.{digits}f}{spread}"
