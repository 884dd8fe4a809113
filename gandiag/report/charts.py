"""Draws exhibits of kind series and histogram as SVG, with matplotlib (loaded with the first chart).

Charts are transparent and every color in them is a CSS variable of the page, so the same SVG suits light, dark and
print. No text of the Record enters the SVG: names are in the legend, which is HTML and escaped there.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gandiag.record import Exhibit
from gandiag.report import formatting
from gandiag.report.plot_style import load_matplotlib, plot_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIGURE_SIZE = (5.2, 3.0)  # inches at 72 dpi; the page enlarges the text on a phone
WIDE_FIGURE_SIZE = (9.6, 3.2)  # over the whole page
SQUARE_FIGURE_SIZE = (4.6, 4.4)  # for points in the plane
TEXT_COLOR, GRID_COLOR = "#010203", "#010204"
# Placeholder colors that matplotlib accepts -> the CSS color of the page.
CSS_COLORS = {
    TEXT_COLOR: "var(--muted)",
    GRID_COLOR: "var(--rule)",
    "#010205": "var(--real)",
    "#010206": "var(--fake)",
    "#010207": "var(--line-1)",
    "#010208": "var(--line-2)",
    "#010209": "var(--line-3)",
    "#01020a": "var(--line-4)",
}
ROLE_COLORS = {
    "real": "#010205",
    "fake": "#010206",
    "generated": "#010206",
    **dict.fromkeys(("G", "D(G(z))", "D fake"), "#010208"),  # the same whatever the verdict, unlike the accent
    **dict.fromkeys(("D", "D(x)", "D real"), "#010207"),
}
LINE_COLORS = ("#010206", "#010207", "#010208", "#010209", "#01020a")  # in the order of the lines
TRAINED_RANGE_COLOR = "color-mix(in srgb, var(--muted) 30%, transparent)"
X_LABELS = {
    "response": "latent scale",
    "distances": "distance between two samples",
    "pairwise": "distance between two samples",
}
MAX_MARKED_POINTS = 30  # lines with more points have no markers

Legend = list[tuple[str, str]]  # (name, CSS color)


class ChartError(ValueError):
    """The data of an exhibit does not match its kind."""


@dataclass(frozen=True, slots=True)
class Chart:
    """An SVG and its legend: (name, CSS color)."""

    svg: str
    legend: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ScaleMarkers:
    """Markers of a response curve: the scale sampled at, and the interval of the trained one."""

    sampled_scale: float | None = None
    trained_range: tuple[float, float] | None = None


def draw_chart(exhibit: Exhibit, markers: ScaleMarkers | None = None) -> Chart:
    """Draw one exhibit: about 50 ms, after 0.5 s for matplotlib. ChartError if the data does not match the kind."""
    load_matplotlib()
    from matplotlib.figure import Figure

    draw = {"series": _draw_series, "histogram": _draw_histogram}.get(exhibit.kind)
    if draw is None:
        raise ChartError(f"kind {exhibit.kind}")
    is_scatter = exhibit.data.get("marks") == "points"
    with svg_settings(exhibit.id):
        size = WIDE_FIGURE_SIZE if exhibit.data.get("wide") else FIGURE_SIZE
        figure = Figure(figsize=SQUARE_FIGURE_SIZE if is_scatter else size, dpi=72, layout="constrained")
        try:
            legend = draw(figure, exhibit)
            if markers is not None:
                legend += _draw_markers(figure.axes[0], markers)
            return Chart(figure_to_svg(figure), tuple(legend))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ChartError(str(error)) from None


def svg_settings(salt: str) -> AbstractContextManager[None]:
    """matplotlib's settings for an SVG; `salt` makes its ids reproducible and unique on the page."""
    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "text.parse_math": False,
        "font.size": 10,
        "hatch.linewidth": 0.7,
        "axes.unicode_minus": True,
    }
    return plot_style(settings)


def style_axes(axes: Axes) -> None:
    """A transparent ground, horizontal grid lines and no frame but the x axis."""
    axes.patch.set_visible(False)
    for edge, spine in axes.spines.items():
        spine.set_visible(edge == "bottom")
        spine.set_color(GRID_COLOR)
    axes.grid(axis="y", color=GRID_COLOR, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=TEXT_COLOR, length=0, which="both")


def _make_axes(figure: Figure, exhibit: Exhibit) -> Axes:
    figure.patch.set_visible(False)
    axes: Axes = figure.add_subplot()
    style_axes(axes)
    axes.tick_params(pad=5, which="both")
    is_psi = exhibit.id == "response" and "truncation psi" in exhibit.caption
    x_label = "truncation psi" if is_psi else X_LABELS.get(exhibit.id, "")
    axes.set_xlabel(x_label, color=TEXT_COLOR, labelpad=7)
    return axes


def _line_color(name: str, index: int) -> str:
    return ROLE_COLORS.get(name) or LINE_COLORS[index % len(LINE_COLORS)]


def _sort_lines(lines: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Real first, so that generated lies on top, then the spread; the others by name, as in the JSON."""
    return [(name, lines[name]) for name in formatting.sort_known_first(lines, ("real", "fake", "generated", "spread"))]


def _legend_entry(name: str, color: str) -> tuple[str, str]:
    return ("generated" if name == "fake" else formatting.key_to_text(name), CSS_COLORS[color])


def _to_floats(values: Sequence[Any]) -> list[float]:
    """Values with NaN for None, which matplotlib draws as a gap."""
    return [float("nan") if value is None else float(value) for value in values]


def _draw_series(figure: Figure, exhibit: Exhibit) -> Legend:
    axes = _make_axes(figure, exhibit)
    legend: Legend = []
    is_scatter = exhibit.data.get("marks") == "points"
    all_x: list[float] = []
    for index, (name, line) in enumerate(_sort_lines(exhibit.data["lines"])):
        x, y = (line["x"], line["y"]) if isinstance(line, Mapping) else (exhibit.data["x"], line)
        color = _line_color(name, index)
        _draw_line(axes, _to_floats(x), _to_floats(y), color, is_scatter)
        all_x += _to_floats(x)
        legend.append(_legend_entry(name, color))
    if is_scatter:
        axes.set_aspect("equal", adjustable="datalim")
        axes.grid(axis="x", color=GRID_COLOR, linewidth=0.8)
    else:
        _scale_axes(axes, all_x, exhibit.id)
    _mark_events(axes, exhibit.data)
    if exhibit.data.get("scale") == "log":
        axes.set(xscale="log", yscale="log", ylim=exhibit.data["within"])
        axes.minorticks_off()
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value:,.10g}" if value >= 1e-3 else f"{value:.0e}")
    return legend


def _mark_events(axes: Axes, data: Mapping[str, Any]) -> None:
    """Dashed lines where events begin, a ground for what was cut off before a plateau, and the band that decided."""
    for step in data.get("events") or ():
        axes.axvline(float(step), color=TEXT_COLOR, linewidth=1.2, linestyle=(0, (3, 3)))
    if data.get("plateau") is not None:
        axes.axvspan(axes.get_xlim()[0], float(data["plateau"]), color=TEXT_COLOR, alpha=0.12, linewidth=0)
    if data.get("band") is not None:
        low, high = data["band"]
        axes.axvspan(float(low), float(high), color=TEXT_COLOR, alpha=0.2, linewidth=0)


def _draw_line(axes: Axes, x: list[float], y: list[float], color: str, is_scatter: bool) -> None:
    if len(x) != len(y):
        raise ChartError(f"{len(x)} x values for {len(y)} y values")
    if is_scatter:
        axes.plot(x, y, linestyle="none", marker="o", markersize=3, markeredgewidth=0, color=color, alpha=0.55)
        return
    marker = "o" if len(x) <= MAX_MARKED_POINTS else ""
    (line,) = axes.plot(x, y, color=color, linewidth=2, marker=marker, markersize=4.5)
    line.set_solid_capstyle("round")
    line.set_solid_joinstyle("round")


def _scale_axes(axes: Axes, x: list[float], kind: str) -> None:
    """The y axis starts at 0; a response curve has a logarithmic x axis with its own points as ticks."""
    low, high = axes.get_ylim()
    if low > 0 and low < 0.5 * high:
        axes.set_ylim(bottom=0)
    known = sorted({value for value in x if value == value})
    if kind != "response" or not known or not known[0] > 0:
        return
    axes.set_xscale("log")
    ticks = known[:1]
    for value in known[1:]:
        ticks += [value] if value / ticks[-1] > 1.9 else []
    axes.set_xticks(ticks, [f"{value:g}" for value in ticks])
    axes.minorticks_off()


def _draw_histogram(figure: Figure, exhibit: Exhibit) -> Legend:
    """Shares, not counts, so that real and generated compare at different sample sizes."""
    axes, edges = _make_axes(figure, exhibit), _to_floats(exhibit.data["edges"])
    legend: Legend = []
    for index, (name, counts) in enumerate(_sort_lines(exhibit.data["counts"])):
        color = _line_color(name, index)
        heights = _to_floats(counts)
        shares = [height / (sum(heights) or 1.0) for height in heights]
        axes.stairs(shares, edges, color=color, fill=True, alpha=0.18)
        axes.stairs(shares, edges, color=color, linewidth=1.8)
        legend.append(_legend_entry(name, color))
    axes.set_ylim(bottom=0)
    axes.margins(x=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    return legend


def _draw_markers(axes: Axes, markers: ScaleMarkers) -> Legend:
    legend: Legend = []
    if markers.trained_range is not None:
        axes.axvspan(*markers.trained_range, color=TEXT_COLOR, alpha=0.2, linewidth=0)
        legend.append(("trained scale", TRAINED_RANGE_COLOR))
    if markers.sampled_scale is not None and markers.sampled_scale > 0:
        axes.axvline(markers.sampled_scale, color=TEXT_COLOR, linewidth=1.2, linestyle=(0, (3, 3)))
        legend.append(("sampling scale", CSS_COLORS[TEXT_COLOR]))
    return legend


def figure_to_svg(figure: Figure) -> str:
    """The figure as inline SVG without prolog, metadata, namespaces, fonts or fixed size, in the page's colors."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r'\sxmlns(:xlink)?="[^"]*"', "", text)
    for attribute in ("height", "width"):
        text = re.sub(rf'(<svg[^>]*?) {attribute}="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    for placeholder, css_color in CSS_COLORS.items():
        text = text.replace(placeholder, css_color)
    return text
