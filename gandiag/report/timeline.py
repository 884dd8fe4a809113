"""Draws a training run in one figure: score and profile of every checkpoint above the losses, on one axis of steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gandiag.record import Record
from gandiag.report import formatting
from gandiag.report.plot_style import load_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOSS_LABELS = (("generator", "loss of G"), ("discriminator", "loss of D"))
CheckpointRecords = Sequence[tuple[float, Record]]  # (step, record), by step
LossDocument = Mapping[str, Any]
ScoreJumps = Sequence[Mapping[str, Any]]


def draw_timeline(
    points: CheckpointRecords, log: LossDocument | None, score_jumps: ScoreJumps
) -> tuple[str, list[tuple[str, str]]]:
    """SVG, and the legend of the profile as (name, CSS color). Loads matplotlib.

    Shaded: intervals in which variety dropped (`score_jumps`). Dotted: events of the log.
    """
    load_matplotlib()
    from matplotlib.figure import Figure

    from gandiag.report.charts import figure_to_svg, style_axes, svg_settings

    loss_curves = (log or {}).get("curves") or {}
    curves = [(label, loss_curves[role]) for role, label in LOSS_LABELS if loss_curves.get(role)]
    keys = find_profile_keys(points)
    n_rows = 1 + bool(keys) + len(curves)
    with svg_settings("timeline"):
        figure = Figure(figsize=(9.6, 1.75 * n_rows + 0.5), dpi=72, layout="constrained")
        figure.patch.set_visible(False)
        panels: list[Axes] = list(figure.subplots(n_rows, 1, sharex=True, squeeze=False)[:, 0])
        _draw_scores(panels[0], points)
        legend = _draw_profile(panels[1], points, keys) if keys else []
        for axes, (label, curve) in zip(panels[1 + bool(keys) :], curves, strict=True):
            _draw_loss(axes, label, curve)
        for axes in panels:
            style_axes(axes)
            _draw_events(axes, log, score_jumps)
        _label_steps(panels[-1], log)
        return figure_to_svg(figure), legend


def find_profile_keys(points: CheckpointRecords) -> list[str]:
    """The profile entries that at least one checkpoint has a number for."""
    return [
        key
        for key in formatting.PROFILE_TEXT
        if any(_get_value(record.profile.get(key)) is not None for _, record in points)
    ]


def _get_value(entry: Any) -> float | None:
    value = entry.get("value") if isinstance(entry, Mapping) else None
    return float(value) if isinstance(value, (int, float)) else None


def _draw_scores(axes: Axes, points: CheckpointRecords) -> None:
    """The score with its interval; a checkpoint without a score is a gap."""
    from gandiag.report.charts import ROLE_COLORS

    steps, values, below, above = [], [], [], []
    for step, record in points:
        score = record.score
        if score.value is None:
            continue
        value = float(score.value)
        steps.append(step)
        values.append(value)
        below.append(max(0.0, value - float(value if score.low is None else score.low)))
        above.append(max(0.0, float(value if score.high is None else score.high) - value))
    color = ROLE_COLORS["fake"]
    axes.errorbar(steps, values, yerr=[below, above], color=color, marker="o", markersize=5, linewidth=1.8, capsize=3)
    _label_values(axes, "score")
    axes.set_ylim(-0.03, 1.03)


def _draw_profile(axes: Axes, points: CheckpointRecords, keys: Sequence[str]) -> list[tuple[str, str]]:
    from gandiag.report.charts import CSS_COLORS, LINE_COLORS

    steps = [step for step, _ in points]
    legend = []
    for key, color in zip(keys, LINE_COLORS, strict=False):
        values = [_get_value(record.profile.get(key)) for _, record in points]
        heights = [math.nan if value is None else value for value in values]
        axes.plot(steps, heights, color=color, marker="o", markersize=3.5)
        legend.append((f"{formatting.key_to_text(key)}: {formatting.PROFILE_TEXT[key]}", CSS_COLORS[color]))
    _label_values(axes, "profile")
    axes.set_ylim(-0.03, 1.03)
    return legend


def _draw_loss(axes: Axes, label: str, curve: Mapping[str, Any]) -> None:
    from gandiag.report.charts import ROLE_COLORS

    values = [math.nan if value is None else float(value) for value in curve["value"]]
    axes.plot(curve["step"], values, color=ROLE_COLORS["real"], linewidth=1.2)
    _label_values(axes, label)


def _label_values(axes: Axes, label: str) -> None:
    from gandiag.report.charts import TEXT_COLOR

    axes.set_ylabel(label, color=TEXT_COLOR)


def _label_steps(axes: Axes, log: LossDocument | None) -> None:
    from gandiag.report.charts import TEXT_COLOR

    axes.set_xlabel(str((log or {}).get("unit") or "steps"), color=TEXT_COLOR)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")


def _draw_events(axes: Axes, log: LossDocument | None, score_jumps: ScoreJumps) -> None:
    from gandiag.report.charts import ROLE_COLORS, TEXT_COLOR

    for jump in score_jumps:
        axes.axvspan(jump["from"], jump["to"], color=ROLE_COLORS["fake"], alpha=0.14, linewidth=0)
    for event in (log or {}).get("events") or ():
        if event["kind"] != "settled":
            axes.axvline(event["step"], color=TEXT_COLOR, linewidth=1.2, linestyle=(0, (2, 3)))
