"""Renders a run for a terminal: a row per checkpoint, where variety dropped, and the verdict on the losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gandiag.record import Record
from gandiag.report import formatting
from gandiag.report.terminal_sections import draw_bar


def render_run(
    points: Sequence[tuple[float, Record]],
    log: Mapping[str, Any] | None,
    score_jumps: Sequence[Mapping[str, Any]],
    failed: Sequence[tuple[str, str]] = (),
    paths: Sequence[str] = (),
    advice: Sequence[str] = (),
) -> str:
    """Plain text in 80 columns that ends with a newline. `points`: (step, record); `failed`: (checkpoint, reason).

    `advice`: sentences on which checkpoint to keep.
    """
    lines = [
        f"{formatting.format_verdict(points[-1][1])}  at the last of {len(points)} checkpoints",
        "",
        *(formatting.escape_unprintable(line) for line in describe_score_jumps(score_jumps)),
        "",
        f"  {'step':>10}  {'score':<20}  {'':<20}  verdict",
        *(_format_point(step, record) for step, record in points),
        "",
        "Losses",
        *_format_losses(log),
    ]
    if advice:
        lines += ["", "Which checkpoint", *(f"  {formatting.escape_unprintable(line)}" for line in advice)]
    if failed:
        escaped = (tuple(map(formatting.escape_unprintable, entry)) for entry in failed)
        lines += ["", "Not audited", *(f"  {name}: {reason}" for name, reason in escaped)]
    if paths:
        lines += ["", "   ".join(map(formatting.escape_unprintable, paths))]
    return "\n".join(lines) + "\n"


def describe_score_jumps(score_jumps: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each pair of checkpoints between which variety dropped."""
    if not score_jumps:
        return ["Variety did not drop between any two checkpoints by more than their intervals."]
    return [f"{formatting.capitalize_first(str(jump['text']))}." for jump in score_jumps]


def _format_point(step: float, record: Record) -> str:
    score = record.score
    estimate = formatting.format_estimate({"value": score.value, "low": score.low, "high": score.high})
    bar = draw_bar(score.value, score.low, score.high)
    return f"  {step:>10,.0f}  {estimate:<20}  {bar:<20}  {formatting.format_verdict(record).lower()}"


def _format_losses(log: Mapping[str, Any] | None) -> list[str]:
    if log is None:
        return ["  no log found: give --log FILE"]
    unit = formatting.escape_unprintable(log["unit"])
    return [
        f"  {formatting.key_to_text(log['verdict'])}",
        *(f"  {formatting.format_number(event['step'])} {unit}: {_describe_event(event)}" for event in log["events"]),
    ]


def _describe_event(event: Mapping[str, Any]) -> str:
    return f"{formatting.key_to_text(event['kind'])}, {formatting.escape_unprintable(event['evidence'])}"
