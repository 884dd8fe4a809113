"""Draws the collapse score and what it is made of as an SVG figure with plain colors, for papers and slides."""

from __future__ import annotations

import io

from gandiag.record import Record
from gandiag.report import formatting
from gandiag.report.record_view import build_estimate, build_share_rows

MAX_LABEL = 28  # characters
_SCORED, _UNSCORED, _LIMIT = "#be185d", "#64748b", "#1a1c1f"


def draw_loss_figure(record: Record) -> str:
    """Bars from 0 to 1 with 95 % intervals: score, causes, aspects. Loads matplotlib."""
    import matplotlib
    from matplotlib.figure import Figure

    score = record.score
    rows = [("collapse score", build_estimate({"value": score.value, "low": score.low, "high": score.high}), True)]
    for entries, meanings in ((record.profile, formatting.PROFILE_TEXT), (record.aspects, formatting.ASPECT_TEXT)):
        rows += [(row.name, row.estimate, row.scored) for row in build_share_rows(entries, meanings)]
    shown = [(name, estimate, scored) for name, estimate, scored in rows if estimate is not None]
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "gandiag"}):
        figure = Figure(figsize=(5.2, 1.0 + 0.3 * len(shown)), layout="constrained")
        axes = figure.add_subplot()
        for position, (_, estimate, scored) in enumerate(shown):
            axes.barh(position, estimate.value, height=0.6, color=_SCORED if scored else _UNSCORED)
            if estimate.low is not None and estimate.high is not None:
                axes.plot([estimate.low, estimate.high], [position] * 2, color=_LIMIT, linewidth=1.5)
        axes.axvline(score.limit, color=_LIMIT, linestyle=":", linewidth=1)
        axes.set_yticks(range(len(shown)), [_make_label(name) for name, _, _ in shown])
        axes.set(xlim=(0, 1), xlabel="share of the variety that is lost (dotted: limit)")
        axes.invert_yaxis()
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": "gandiag"})
    return stream.getvalue()


def _make_label(name: str) -> str:
    """A name as plain text: no formula, and not wider than the figure."""
    return (name if len(name) <= MAX_LABEL else name[: MAX_LABEL - 1] + "…").replace("$", r"\$")
