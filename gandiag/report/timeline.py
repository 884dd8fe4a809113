"""A run over time in one picture: score and profile of every checkpoint above the losses, on one axis of steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gandiag.record import Record
from gandiag.report import formatting

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOSS_LABELS = (("generator", "loss of G"), ("discriminator", "loss of D"))
CheckpointRecords = Sequence[tuple[float, Record]]


def draw_timeline(
    points: CheckpointRecords, log: Mapping[str, Any] | None, brackets: Sequence[Mapping[str, Any]]
) -> tuple[str, list[tuple[str, str]]]:
    """SVG, and the legend of the profile (name, CSS color). Shaded: where variety fell; dotted: events of the log. Loads matplotlib."""
    import matplotlib
    from matplotlib.figure import Figure

    from gandiag.report.charts import figure_to_svg

    curves = [(title, curve) for role, title in LOSS_LABELS if (curve := ((log or {}).get("curves") or {}).get(role))]
    parts = [
        key
        for key in formatting.PROFILE_TEXT
        if any(_value(record.profile.get(key)) is not None for _, record in points)
    ]
    rows = 1 + bool(parts) + len(curves)
    style: Any = {"svg.fonttype": "none", "svg.hashsalt": "timeline", "text.parse_math": False, "font.size": 10}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(9.6, 1.75 * rows + 0.5), dpi=72, layout="constrained")
        figure.patch.set_visible(False)
        every = list(figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0])
        _scores(every[0], points)
        legend = _profile(every[1], points, parts) if parts else []
        for axes, (title, curve) in zip(every[1 + bool(parts) :], curves, strict=True):
            _curve(axes, title, curve)
        for axes in every:
            _quiet(axes)
            _marked(axes, log, brackets)
        _across(every[-1], points, log)
        return figure_to_svg(figure), legend


def _across(axes: Axes, points: CheckpointRecords, log: Mapping[str, Any] | None) -> None:
    from gandiag.report.charts import TEXT_COLOR

    axes.set_xlabel(str((log or {}).get("unit") or "steps"), color=TEXT_COLOR)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")


def _value(entry: Any) -> float | None:
    value = entry.get("value") if isinstance(entry, Mapping) else None
    return float(value) if isinstance(value, (int, float)) else None


def _scores(axes: Axes, points: CheckpointRecords) -> None:
    """Score with its interval; a checkpoint without a score leaves a gap."""
    from gandiag.report.charts import ROLE_COLORS

    known = [(step, record.score) for step, record in points if record.score.value is not None]
    step, value = [step for step, _ in known], [float(score.value or 0.0) for _, score in known]
    low = [
        float(score.value or 0.0) - float(score.low if score.low is not None else score.value or 0.0)
        for _, score in known
    ]
    high = [
        float(score.high if score.high is not None else score.value or 0.0) - float(score.value or 0.0)
        for _, score in known
    ]
    spans = [[max(0.0, bar) for bar in low], [max(0.0, bar) for bar in high]]
    axes.errorbar(
        step, value, yerr=spans, color=ROLE_COLORS["fake"], marker="o", markersize=5, linewidth=1.8, capsize=3
    )
    _named(axes, "score")
    axes.set_ylim(-0.03, 1.03)


def _profile(axes: Axes, points: CheckpointRecords, parts: Sequence[str]) -> list[tuple[str, str]]:
    from gandiag.report.charts import CSS_COLORS, LINE_COLORS

    for key, paint in zip(parts, LINE_COLORS, strict=False):
        values = [_value(record.profile.get(key)) for _, record in points]
        axes.plot(
            [step for step, _ in points],
            [math.nan if value is None else value for value in values],
            color=paint,
            marker="o",
            markersize=3.5,
        )
    _named(axes, "profile")
    axes.set_ylim(-0.03, 1.03)
    return [
        (f"{formatting.key_to_text(key)}: {formatting.PROFILE_TEXT[key]}", CSS_COLORS[paint])
        for key, paint in zip(parts, LINE_COLORS, strict=False)
    ]


def _curve(axes: Axes, title: str, curve: Mapping[str, Any]) -> None:
    from gandiag.report.charts import ROLE_COLORS

    values = [math.nan if value is None else float(value) for value in curve["value"]]
    axes.plot(curve["step"], values, color=ROLE_COLORS["real"], linewidth=1.2)
    _named(axes, title)


def _named(axes: Axes, title: str) -> None:
    from gandiag.report.charts import TEXT_COLOR

    axes.set_ylabel(title, color=TEXT_COLOR)


def _quiet(axes: Axes) -> None:
    from gandiag.report.charts import GRID_COLOR, TEXT_COLOR

    axes.patch.set_visible(False)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(GRID_COLOR)
    axes.grid(axis="y", color=GRID_COLOR, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=TEXT_COLOR, length=0, which="both")


def _marked(axes: Axes, log: Mapping[str, Any] | None, brackets: Sequence[Mapping[str, Any]]) -> None:
    from gandiag.report.charts import ROLE_COLORS, TEXT_COLOR

    for entry in brackets:
        axes.axvspan(entry["from"], entry["to"], color=ROLE_COLORS["fake"], alpha=0.14, linewidth=0)
    for event in (log or {}).get("events") or ():
        if event["kind"] != "settled":
            axes.axvline(event["step"], color=TEXT_COLOR, linewidth=1.2, linestyle=(0, (2, 3)))
