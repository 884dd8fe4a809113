"""The spectrogram of a losses document, as a picture for the page and as cells for a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gandiag.report import formatting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MIN_RATIO, MAX_RATIO = 0.5, 16.0  # times the noise: the ends of the scale
COLORMAP = "cividis"  # reads the same for every kind of color vision, and in grey
INTENSITY_CHARACTERS = " ░▒▓█"
INTENSITY_THRESHOLDS = (1.5, 3.0, 6.0, 12.0)  # times the noise at which the next shade begins
MAX_TEXT_ROWS = 9  # rows of the terminal's picture


def draw_spectrogram(spectrogram: Mapping[str, Any], period: float | None, unit: str) -> str:
    """Spectrogram (R × W) → SVG: time across, period upwards, color for power over noise; the line found is dashed, and the cone hatched.

    Loads matplotlib. The text in it is numbers and `unit`, of which the log says nothing but its kind.
    """
    import matplotlib
    from matplotlib.figure import Figure

    from gandiag.report.charts import figure_to_svg

    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "spectrogram",
        "text.parse_math": False,
        "font.size": 10,
        "hatch.linewidth": 0.7,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(9.6, 3.6), dpi=72, layout="constrained")
        _draw(figure, spectrogram, period, unit)
        return figure_to_svg(figure)


def _draw(figure: Figure, found: Mapping[str, Any], period: float | None, unit: str) -> None:
    import numpy as np
    from matplotlib.colors import LogNorm

    from gandiag.report.charts import GRID_COLOR, TEXT_COLOR

    figure.patch.set_visible(False)
    axes = figure.add_subplot()
    ratio = np.array(
        [[math.nan if cell is None else cell for cell in row] for row in found["ratio"]], dtype=np.float64
    )  # (R, W)
    step, periods = np.array(found["step"]), np.array(found["period"])
    axes.patch.set_visible(False)
    scale = LogNorm(MIN_RATIO, MAX_RATIO)
    cells = axes.pcolormesh(
        _edges(step),
        np.exp(_edges(np.log(periods))),
        np.maximum(ratio, 1e-6),
        norm=scale,
        cmap=COLORMAP,
        rasterized=True,
    )
    axes.set_yscale("log")
    _hatched(axes, step, periods, np.array(found["cone"]))
    if period is not None:
        axes.axhline(period, color="white", linewidth=3.2, alpha=0.85)
        axes.axhline(period, color="black", linewidth=1.4, linestyle=(0, (5, 3)))
    axes.set_xlabel(unit, color=TEXT_COLOR)
    axes.set_ylabel(f"period, {unit}", color=TEXT_COLOR)
    _ticks(axes, periods)
    bar = figure.colorbar(cells, ax=axes, extend="max", pad=0.015, aspect=18)
    bar.ax.set_yticks([0.5, 1, 2, 4, 8, 16], ["½", "1", "2", "4", "8", "16"])
    bar.set_label("times the noise", color=TEXT_COLOR)
    bar.outline.set_visible(False)
    for part in (axes, bar.ax):
        part.tick_params(colors=TEXT_COLOR, length=0, which="both")
        part.minorticks_off()
        for spine in part.spines.values():
            spine.set_color(GRID_COLOR)


def _edges(middle: Any) -> Any:
    """Edges of evenly spaced cells (n + 1,) from their middles (n,)."""
    half = (middle[1] - middle[0]) / 2
    return [*(middle - half), middle[-1] + half]


def _hatched(axes: Axes, step: Any, periods: Any, cone: Any) -> None:
    """Where the windows reach beyond the log."""
    import numpy as np

    from gandiag.report.charts import TEXT_COLOR

    low, high = axes.get_ylim()
    edges = np.array(_edges(step))
    across, border = np.array([edges[0], *step, edges[-1]]), np.clip(np.array([0.0, *cone, 0.0]), low, high)
    axes.fill_between(across, border, high, facecolor="none", edgecolor="white", hatch="////", linewidth=0, alpha=0.75)
    axes.plot(across, border, color=TEXT_COLOR, linewidth=1)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(low, high)


def _ticks(axes: Axes, periods: Any) -> None:
    """1, 2 and 5 times powers of ten, as many as there is room for."""
    low, high = float(min(periods)), float(max(periods))
    tens = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    mantissas = (1, 2, 5) if high < 300 * low else (1, 3) if high < 3000 * low else (1,)
    places = [mantissa * 10.0**ten for ten in tens for mantissa in mantissas if low <= mantissa * 10.0**ten <= high]
    axes.set_yticks(places, [f"{place:,.10g}" for place in places])


def draw_text_spectrogram(spectrogram: Mapping[str, Any], period: float | None, width: int) -> list[str]:
    """The same in text of `room` columns: a row for each band of periods, the longest on top, shaded by power over noise."""
    size = max(min(width - 12, len(spectrogram["step"])), 4)
    tall = max(1, -(-len(spectrogram["period"]) // MAX_TEXT_ROWS))
    shown = []
    for start in range(0, len(spectrogram["period"]), tall):
        periods, rows = spectrogram["period"][start : start + tall], spectrogram["ratio"][start : start + tall]
        marked = period is not None and _nearest(spectrogram["period"], period) in range(start, start + len(periods))
        text = "".join(_cell(spectrogram, rows, periods, at, size) for at in range(size))
        shown.append(
            f"{formatting.format_number(math.sqrt(periods[0] * periods[-1])):>8}{'▸' if marked else ' '} {text.rstrip()}"
        )
    return shown


def _nearest(periods: Sequence[float], period: float) -> int:
    return min(range(len(periods)), key=lambda at: abs(math.log(periods[at] / period)))


def _cell(
    found: Mapping[str, Any], rows: Sequence[Sequence[float | None]], periods: Sequence[float], at: int, size: int
) -> str:
    """The strongest of what falls on one cell; a dot where its windows reach beyond the log."""
    columns = range(
        at * len(found["step"]) // size, max((at + 1) * len(found["step"]) // size, at * len(found["step"]) // size + 1)
    )
    known = [
        value
        for period, row in zip(periods, rows, strict=True)
        for place in columns
        if (value := row[place]) is not None and period <= found["cone"][place]
    ]
    return INTENSITY_CHARACTERS[sum(max(known) >= step for step in INTENSITY_THRESHOLDS)] if known else "·"
