"""Exhibits of kind series and histogram as SVG, drawn by matplotlib (loaded when the first chart is asked for).

The pictures are transparent, and every color in them is a CSS variable of the page, so that the same SVG serves light,
dark and print. No text of the Record enters the SVG: names stand in the legend, which is HTML and escaped there.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gandiag.record import Exhibit
from gandiag.report import formatting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIGURE_SIZE = (5.2, 3.0)  # inches at 72 dpi; the page enlarges the text on a phone
TEXT_COLOR, GRID_COLOR = "#010203", "#010204"
# Stand-ins that matplotlib accepts -> what the page paints. Order of the last ones: the order of the lines.
CSS_COLORS = {
    TEXT_COLOR: "var(--muted)",
    GRID_COLOR: "var(--rule)",
    "#010205": "var(--real)",
    "#010206": "var(--accent)",
    "#010207": "var(--line-1)",
    "#010208": "var(--line-2)",
    "#010209": "var(--line-3)",
    "#01020a": "var(--line-4)",
}
ROLE_COLORS = {"real": "#010205", "fake": "#010206", "generated": "#010206"}
LINE_COLORS = ("#010206", "#010207", "#010208", "#010209", "#01020a")
SQUARE_FIGURE_SIZE = (4.6, 4.4)  # for points in the plane
X_LABELS = {
    "response": "latent scale",
    "distances": "distance between two samples",
    "pairwise": "distance between two samples",
}


class ChartError(ValueError):
    """The data of an exhibit is not what its kind promises."""


@dataclass(frozen=True, slots=True)
class Chart:
    """An SVG and its legend: (name, CSS color)."""

    svg: str
    legend: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ScaleMarkers:
    """What is drawn into a response curve: the scale sampled at, and the interval of the trained one."""

    sampled_scale: float | None = None
    trained_range: tuple[float, float] | None = None


def draw_chart(exhibit: Exhibit, markers: ScaleMarkers | None = None) -> Chart:
    """Draw one exhibit. Raises Undrawable where the data does not fit the kind. About 50 ms, after 0.5 s for matplotlib."""
    import matplotlib
    from matplotlib.figure import Figure

    draw = {"series": _series, "histogram": _histogram}.get(exhibit.kind)
    if draw is None:
        raise ChartError(f"kind {exhibit.kind}")
    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": exhibit.id,
        "text.parse_math": False,
        "font.size": 10,
        "axes.unicode_minus": True,
    }
    with matplotlib.rc_context(style):
        figure = Figure(
            figsize=SQUARE_FIGURE_SIZE if exhibit.data.get("marks") == "points" else FIGURE_SIZE,
            dpi=72,
            layout="constrained",
        )
        try:
            legend = draw(figure, exhibit)
            if markers is not None:
                legend += _marks(figure.axes[0], markers)
            return Chart(figure_to_svg(figure), tuple(legend))
        except (KeyError, TypeError, ValueError, AttributeError) as wrong:
            raise ChartError(str(wrong)) from None


def _axes(figure: Figure, exhibit: Exhibit) -> Axes:
    axes: Axes = figure.add_subplot()
    axes.patch.set_visible(False)
    figure.patch.set_visible(False)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(GRID_COLOR)
    axes.grid(axis="y", color=GRID_COLOR, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=TEXT_COLOR, length=0, pad=5, which="both")
    across = (
        "truncation psi"
        if exhibit.id == "response" and "truncation psi" in exhibit.caption
        else X_LABELS.get(exhibit.id, "")
    )
    axes.set_xlabel(across, color=TEXT_COLOR, labelpad=7)
    return axes


def _paint(name: str, place: int) -> str:
    return ROLE_COLORS.get(name) or LINE_COLORS[place % len(LINE_COLORS)]


def _ordered(lines: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Real first, so that the generated lies over it, then the spread; the others by name, as JSON has them."""
    return [(name, lines[name]) for name in formatting.sort_known_first(lines, ("real", "fake", "generated", "spread"))]


def _legend(name: str, paint: str) -> tuple[str, str]:
    return ("generated" if name == "fake" else formatting.key_to_text(name), CSS_COLORS[paint])


def _column(values: Sequence[Any]) -> list[float]:
    return [float("nan") if value is None else float(value) for value in values]


def _series(figure: Figure, exhibit: Exhibit) -> list[tuple[str, str]]:
    axes, lines, legend = _axes(figure, exhibit), exhibit.data["lines"], []
    points, places = exhibit.data.get("marks") == "points", []
    for place, (name, line) in enumerate(_ordered(lines)):
        x, y = (line["x"], line["y"]) if isinstance(line, Mapping) else (exhibit.data["x"], line)
        paint = _paint(name, place)
        _draw(axes, _column(x), _column(y), paint, points)
        places += _column(x)
        legend.append(_legend(name, paint))
    if points:
        axes.set_aspect("equal", adjustable="datalim")
        axes.grid(axis="x", color=GRID_COLOR, linewidth=0.8)
    else:
        _spread_axis(axes, places, exhibit.id)
    if exhibit.data.get("scale") == "log":
        axes.set(xscale="log", yscale="log", ylim=exhibit.data["within"])
        axes.minorticks_off()
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value:,.10g}" if value >= 1e-3 else f"{value:.0e}")
    return legend


def _draw(axes: Axes, x: list[float], y: list[float], paint: str, points: bool) -> None:
    if len(x) != len(y):
        raise ChartError(f"{len(x)} places for {len(y)} values")
    if points:
        axes.plot(x, y, linestyle="none", marker="o", markersize=3, markeredgewidth=0, color=paint, alpha=0.55)
    else:
        few = len(x) <= 30
        axes.plot(
            x,
            y,
            color=paint,
            linewidth=2,
            marker="o" if few else "",
            markersize=4.5,
            solid_capstyle="round",
            solid_joinstyle="round",
        )


def _spread_axis(axes: Axes, x: list[float], kind: str) -> None:
    """A response curve is read on a logarithmic scale, with its own points as ticks; the value axis starts at 0."""
    low, high = axes.get_ylim()
    if low > 0 and low < 0.5 * high:
        axes.set_ylim(bottom=0)
    known = sorted({at for at in x if at == at})
    if kind != "response" or not known or not known[0] > 0:
        return
    axes.set_xscale("log")
    ticks = known[:1]
    for at in known[1:]:
        ticks += [at] if at / ticks[-1] > 1.9 else []
    axes.set_xticks(ticks, [f"{at:g}" for at in ticks])
    axes.minorticks_off()


def _histogram(figure: Figure, exhibit: Exhibit) -> list[tuple[str, str]]:
    """Shares, not counts, so that sides of different size compare."""
    axes, edges, legend = _axes(figure, exhibit), _column(exhibit.data["edges"]), []
    for place, (name, counts) in enumerate(_ordered(exhibit.data["counts"])):
        paint = _paint(name, place)
        heights = _column(counts)
        shares = [height / (sum(heights) or 1.0) for height in heights]
        axes.stairs(shares, edges, color=paint, fill=True, alpha=0.18)
        axes.stairs(shares, edges, color=paint, linewidth=1.8)
        legend.append(_legend(name, paint))
    axes.set_ylim(bottom=0)
    axes.margins(x=0)
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    return legend


def _marks(axes: Axes, marks: ScaleMarkers) -> list[tuple[str, str]]:
    legend = []
    if marks.trained_range is not None:
        axes.axvspan(*marks.trained_range, color=TEXT_COLOR, alpha=0.2, linewidth=0)
        legend.append(("trained scale", "color-mix(in srgb, var(--muted) 30%, transparent)"))
    if marks.sampled_scale is not None and marks.sampled_scale > 0:
        axes.axvline(marks.sampled_scale, color=TEXT_COLOR, linewidth=1.2, linestyle=(0, (3, 3)))
        legend.append(("scale sampled", CSS_COLORS[TEXT_COLOR]))
    return legend


def figure_to_svg(figure: Figure) -> str:
    """The figure as inline SVG without prolog, metadata, namespaces, fonts or fixed size; paints put in."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r'\sxmlns(:xlink)?="[^"]*"', "", text)
    text = re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1), count=1
    )
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    for stand_in, paint in CSS_COLORS.items():
        text = text.replace(stand_in, paint)
    return text
