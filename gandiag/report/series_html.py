"""A run as one self-contained page: the checkpoints' profiles lined up with the losses, where variety fell, and after what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gandiag import __version__
from gandiag.record import Record
from gandiag.report import formatting
from gandiag.report.html_page import load_css, mark_safe, template_environment
from gandiag.report.timeline import draw_timeline
from gandiag.verdict.policy import verdict_exit_code

ACCENT_CLASSES = {"healthy": "good", "not_degenerate": "known", "inconclusive": "doubt"}


def render_run_page(
    folder: str,
    points: Sequence[tuple[float, Record]],
    log: Mapping[str, Any] | None,
    brackets: Sequence[Mapping[str, Any]],
    failed: Sequence[tuple[str, str]] = (),
) -> str:
    """The whole page. Loads jinja2 and matplotlib. Nothing is loaded from anywhere when it is shown."""
    svg, legend = draw_timeline(points, log, brackets)
    last = points[-1][1]
    return (
        template_environment()
        .get_template("runs.html.jinja")
        .render(
            accent=ACCENT_CLASSES.get(last.verdict, "bad"),
            word=formatting.capitalize_first(formatting.format_verdict(last).lower()),
            folder=folder,
            told=f"at the last of {len(points)} checkpoints; {sum(int(verdict_exit_code(record)) == 1 for _, record in points)} of them fail.",
            fell=[formatting.capitalize_first(str(entry["text"])) + "." for entry in brackets]
            or ["Variety fell between no two checkpoints by more than their intervals."],
            svg=mark_safe(svg),
            legend=legend,
            parts=[formatting.key_to_text(key) for key in _parts(points)],
            rows=[_row(step, record, _parts(points)) for step, record in points],
            losses=None if log is None else formatting.capitalize_first(formatting.key_to_text(log["verdict"])),
            events=[_event(event, str((log or {}).get("unit"))) for event in (log or {}).get("events") or ()],
            failed=failed,
            css=load_css(),
            version=__version__,
        )
    )


def _parts(points: Sequence[tuple[float, Record]]) -> list[str]:
    """The parts of the profile that any checkpoint has."""
    return [
        key
        for key in formatting.PROFILE_TEXT
        if any(
            formatting.format_estimate(record.profile.get(key)) != formatting.NOT_AVAILABLE
            for _, record in points
            if record.profile.get(key)
        )
    ]


def _row(step: float, record: Record, parts: Sequence[str]) -> dict[str, Any]:
    score = {"value": record.score.value, "low": record.score.low, "high": record.score.high}
    cells = [
        formatting.format_estimate(record.profile.get(key)) if record.profile.get(key) else formatting.NOT_AVAILABLE
        for key in parts
    ]
    return {
        "step": f"{step:,.10g}",
        "score": formatting.format_estimate(score),
        "cells": cells,
        "verdict": formatting.format_verdict(record).lower(),
    }


def _event(event: Mapping[str, Any], unit: str) -> str:
    return f"{event['step']:,.6g} {unit}: {formatting.key_to_text(event['kind'])}, {event['evidence']}"
