"""Renders a run as one self-contained page: scores and profiles of all checkpoints above the losses, then a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gandiag.errors import ExitCode
from gandiag.record import Record
from gandiag.report import formatting
from gandiag.report.exhibit_view import build_image
from gandiag.report.html_templates import mark_safe, render_template
from gandiag.report.series_text import describe_score_jumps
from gandiag.report.timeline import CheckpointRecords, LossDocument, ScoreJumps, draw_timeline, find_profile_keys
from gandiag.verdict.policy import verdict_exit_code

ACCENT_CLASSES = {"healthy": "good", "not_degenerate": "known", "inconclusive": "doubt", "unrealistic": "doubt"}
MAX_STRIPS = 12
MAX_STRIP_CHARS = 2_400_000  # of all pictures of a page


def render_run_page(
    folder: str,
    points: CheckpointRecords,
    log: LossDocument | None,
    score_jumps: ScoreJumps,
    failed: Sequence[tuple[str, str]] = (),
    advice: Sequence[str] = (),
) -> str:
    """The whole page; it loads nothing when shown. `failed`: (checkpoint, reason). Loads jinja2 and matplotlib."""
    svg, legend = draw_timeline(points, log, score_jumps)
    last = points[-1][1]
    keys = find_profile_keys(points)
    n_collapsed = sum(verdict_exit_code(record) == ExitCode.COLLAPSED for _, record in points)
    unit = str((log or {}).get("unit"))
    return render_template(
        "runs.html.jinja",
        accent=ACCENT_CLASSES.get(last.verdict, "bad"),
        word=formatting.capitalize_first(formatting.format_verdict(last).lower()),
        folder=folder,
        summary=f"at the last of {len(points)} checkpoints; {n_collapsed} of them collapsed.",
        drops=describe_score_jumps(score_jumps),
        svg=mark_safe(svg),
        legend=legend,
        columns=[formatting.key_to_text(key) for key in keys],
        rows=[_build_row(step, record, keys) for step, record in points],
        losses=None if log is None else formatting.capitalize_first(formatting.key_to_text(log["verdict"])),
        events=[_describe_event(event, unit) for event in (log or {}).get("events") or ()],
        failed=failed,
        advice=advice,
        strips=_build_strips(points),
    )


def _build_strips(points: CheckpointRecords) -> list[tuple[str, str, str]]:
    """(step, verdict, PNG) of at most twelve checkpoints, evenly chosen, first and last among them; fewer if large."""
    count = min(MAX_STRIPS, len(points))
    chosen = sorted({round(i * (len(points) - 1) / max(1, count - 1)) for i in range(count)})
    strips, room = [], MAX_STRIP_CHARS
    for index in chosen:
        step, record = points[index]
        sheet = next((entry for entry in record.exhibits if entry.id == "samples" and entry.kind == "image"), None)
        png = None if sheet is None else build_image(sheet).png
        if png is None or len(png) > room:
            continue
        room -= len(png)
        strips.append((f"{step:,.10g}", formatting.format_verdict(record).lower(), png))
    return strips


def _build_row(step: float, record: Record, keys: Sequence[str]) -> dict[str, Any]:
    score = {"value": record.score.value, "low": record.score.low, "high": record.score.high}
    return {
        "step": f"{step:,.10g}",
        "score": formatting.format_estimate(score),
        "cells": [formatting.format_estimate(record.profile.get(key) or {}) for key in keys],
        "verdict": formatting.format_verdict(record).lower(),
    }


def _describe_event(event: Mapping[str, Any], unit: str) -> str:
    return f"{event['step']:,.6g} {unit}: {formatting.key_to_text(event['kind'])}, {event['evidence']}"
