"""Series inside a JSON document, each with its own steps, as ClearML reports its scalars.

{"Loss": {"D": {"name": "D", "x": [0, 100, …], "y": [0.9, 0.8, …]}, "G": {…}}}
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

MAX_DEPTH = 20


def join_scalar_series(document: Any) -> list[dict[str, float]]:
    """The rows of ClearML's scalars: {"x": […], "y": […]} at any depth, named by their path; [] without any."""
    rows: dict[float, dict[str, float]] = {}
    for name, steps, values in _iter_series(document, "", 0):
        for step, value in zip(steps, values, strict=False):
            if isinstance(step, (int, float)) and isinstance(value, (int, float)):
                number = float("inf") if value != value else float(value)
                rows.setdefault(float(step), {"step": float(step)})[name] = number
    return [rows[step] for step in sorted(rows)]


def _iter_series(document: Any, name: str, depth: int) -> Iterator[tuple[str, list[Any], list[Any]]]:
    if not isinstance(document, dict) or depth > MAX_DEPTH:
        return
    x, y = document.get("x"), document.get("y")
    if isinstance(x, list) and isinstance(y, list):
        yield name, x, y
        return
    for key, value in document.items():
        yield from _iter_series(value, f"{name}/{key}" if name else str(key), depth + 1)
