"""Draws numbers as one line of block characters."""

from __future__ import annotations

from collections.abc import Sequence

BLOCK_CHARACTERS = "▁▂▃▄▅▆▇█"
MIN_POINTS = 3  # fewer say nothing as a curve


def draw_sparkline(values: Sequence[float | None]) -> str:
    """Draw one block per value, on a scale from 0 to the largest value.

    Missing values are blank. Empty if fewer than three values are known or none is positive.
    """
    known = [value for value in values if value is not None]
    if len(known) < MIN_POINTS or not max(known) > 0:
        return ""
    top = max(known)
    return "".join(" " if value is None else _block(max(value, 0.0) / top) for value in values)


def draw_minmax_sparkline(values: Sequence[float | None], width: int | None = None) -> str:
    """Draw values on a scale from the smallest to the largest, in at most `width` blocks (default: one per value).

    Where several values share a block, the one farthest from the median is drawn, so that short peaks stay visible.
    """
    known = sorted(value for value in values if value is not None)
    if not known:
        return ""
    low, high, median = known[0], known[-1], known[len(known) // 2]
    span = (high - low) or 1.0
    n_blocks = len(values) if width is None else max(1, min(width, len(values)))
    blocks = []
    for index in range(n_blocks):
        shared = values[index * len(values) // n_blocks : (index + 1) * len(values) // n_blocks]
        candidates = [value for value in shared if value is not None]
        if candidates:
            farthest = max(candidates, key=lambda value: abs(value - median))
            blocks.append(_block((farthest - low) / span))
        else:
            blocks.append(" ")
    return "".join(blocks)


def _block(fraction: float) -> str:
    """The block for a height in [0, 1]."""
    return BLOCK_CHARACTERS[min(int(fraction * len(BLOCK_CHARACTERS)), len(BLOCK_CHARACTERS) - 1)]
