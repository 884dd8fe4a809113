"""Draws the spectrogram of a losses document: as SVG for the page, and in characters for a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gandiag.report import formatting
from gandiag.report.plot_style import load_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

MIN_RATIO, MAX_RATIO = 0.5, 16.0  # ends of the color scale, in multiples of the noise
RATIO_TICKS = ((0.5, "½"), (1, "1"), (2, "2"), (4, "4"), (8, "8"), (16, "16"))
COLORMAP = "cividis"  # looks the same with every kind of color vision, and in gray
INTENSITY_CHARACTERS = " ░▒▓█"
INTENSITY_THRESHOLDS = (1.5, 3.0, 6.0, 12.0)  # multiples of the noise at which the next shade starts
MAX_TEXT_ROWS = 9
UNKNOWN_CHARACTER = "·"


def draw_spectrogram(spectrogram: Mapping[str, Any], period: float | None, unit: str) -> str:
    """Draw a spectrogram of R periods × W windows as SVG: time along x, period along y, color for power over noise.

    The strongest period is dashed, and cells whose windows reach beyond the log are hatched. Loads matplotlib. The only
    text in it is numbers and `unit`, which comes from gandiag, not from the log.
    """
    load_matplotlib()
    from matplotlib.figure import Figure

    from gandiag.report.charts import figure_to_svg, svg_settings

    with svg_settings("spectrogram"):
        figure = Figure(figsize=(9.6, 3.6), dpi=72, layout="constrained")
        _draw(figure, spectrogram, period, unit)
        return figure_to_svg(figure)


def _draw(figure: Figure, spectrogram: Mapping[str, Any], period: float | None, unit: str) -> None:
    import numpy as np
    from matplotlib.colors import LogNorm

    from gandiag.report.charts import TEXT_COLOR

    figure.patch.set_visible(False)
    axes: Axes = figure.add_subplot()
    axes.patch.set_visible(False)
    ratios = [[math.nan if ratio is None else ratio for ratio in row] for row in spectrogram["ratio"]]
    steps, periods = np.array(spectrogram["step"]), np.array(spectrogram["period"])
    mesh = axes.pcolormesh(
        _cell_edges(steps),
        np.exp(_cell_edges(np.log(periods))),
        np.maximum(np.array(ratios, dtype=np.float64), 1e-6),  # (R, W)
        norm=LogNorm(MIN_RATIO, MAX_RATIO),
        cmap=COLORMAP,
        rasterized=True,
    )
    axes.set_yscale("log")
    _hatch_edges(axes, steps, np.array(spectrogram["cone"]))
    if period is not None:
        axes.axhline(period, color="white", linewidth=3.2, alpha=0.85)
        axes.axhline(period, color="black", linewidth=1.4, linestyle=(0, (5, 3)))
    axes.set_xlabel(unit, color=TEXT_COLOR)
    axes.set_ylabel(f"period, {unit}", color=TEXT_COLOR)
    _set_period_ticks(axes, periods)
    colorbar = figure.colorbar(mesh, ax=axes, extend="max", pad=0.015, aspect=18)
    colorbar.ax.set_yticks([tick for tick, _ in RATIO_TICKS], [label for _, label in RATIO_TICKS])
    colorbar.set_label("times the noise", color=TEXT_COLOR)
    colorbar.outline.set_visible(False)
    for part in (axes, colorbar.ax):
        _style_frame(part)


def _style_frame(axes: Axes) -> None:
    from gandiag.report.charts import GRID_COLOR, TEXT_COLOR

    axes.tick_params(colors=TEXT_COLOR, length=0, which="both")
    axes.minorticks_off()
    for spine in axes.spines.values():
        spine.set_color(GRID_COLOR)


def _cell_edges(centers: NDArray[Any]) -> list[float]:
    """Edges of evenly spaced cells (n + 1,) from their centers (n,)."""
    half = (centers[1] - centers[0]) / 2
    return [*(centers - half), centers[-1] + half]


def _hatch_edges(axes: Axes, steps: NDArray[Any], cone: NDArray[Any]) -> None:
    """Hatch the periods above the cone of influence, whose windows reach beyond the log."""
    import numpy as np

    from gandiag.report.charts import TEXT_COLOR

    low, high = axes.get_ylim()
    edges = _cell_edges(steps)
    x = np.array([edges[0], *steps, edges[-1]])
    border = np.clip(np.array([0.0, *cone, 0.0]), low, high)
    axes.fill_between(x, border, high, facecolor="none", edgecolor="white", hatch="////", linewidth=0, alpha=0.75)
    axes.plot(x, border, color=TEXT_COLOR, linewidth=1)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(low, high)


def _set_period_ticks(axes: Axes, periods: NDArray[Any]) -> None:
    """Ticks at 1, 2 and 5 times powers of ten; fewer on a wide range."""
    low, high = float(min(periods)), float(max(periods))
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    mantissas: tuple[int, ...] = (1,)
    if high < 300 * low:
        mantissas = (1, 2, 5)
    elif high < 3000 * low:
        mantissas = (1, 3)
    candidates = [mantissa * 10.0**exponent for exponent in exponents for mantissa in mantissas]
    ticks = [tick for tick in candidates if low <= tick <= high]
    axes.set_yticks(ticks, [f"{tick:,.10g}" for tick in ticks])


def draw_text_spectrogram(spectrogram: Mapping[str, Any], period: float | None, width: int) -> list[str]:
    """The spectrogram in `width` columns: a row per band of periods, longest first, shaded by power over noise."""
    n_columns = max(min(width - 12, len(spectrogram["step"])), 4)
    all_periods, all_rows = spectrogram["period"], spectrogram["ratio"]
    rows_per_band = max(1, -(-len(all_periods) // MAX_TEXT_ROWS))
    strongest = None if period is None else _find_nearest(all_periods, period)
    lines = []
    for start in range(0, len(all_periods), rows_per_band):
        band = slice(start, start + rows_per_band)
        periods = all_periods[band]
        is_strongest = strongest is not None and start <= strongest < start + len(periods)
        cells = [_draw_cell(spectrogram, all_rows[band], periods, index, n_columns) for index in range(n_columns)]
        center = formatting.format_number(math.sqrt(periods[0] * periods[-1]))
        lines.append(f"{center:>8}{'▸' if is_strongest else ' '} {''.join(cells).rstrip()}")
    return lines


def _find_nearest(periods: Sequence[float], period: float) -> int:
    return min(range(len(periods)), key=lambda index: abs(math.log(periods[index] / period)))


def _draw_cell(
    spectrogram: Mapping[str, Any],
    rows: Sequence[Sequence[float | None]],
    periods: Sequence[float],
    index: int,
    n_columns: int,
) -> str:
    """The shade of the strongest ratio in one cell; a dot if all its windows reach beyond the log."""
    n_windows = len(spectrogram["step"])
    first, end = index * n_windows // n_columns, (index + 1) * n_windows // n_columns
    known = [
        ratio
        for period, row in zip(periods, rows, strict=True)
        for window in range(first, max(end, first + 1))
        if (ratio := row[window]) is not None and period <= spectrogram["cone"][window]
    ]
    if not known:
        return UNKNOWN_CHARACTER
    return INTENSITY_CHARACTERS[sum(max(known) >= threshold for threshold in INTENSITY_THRESHOLDS)]
