"""A run for a terminal: a row for each checkpoint, where variety fell, and what the losses say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gandiag.record import Record
from gandiag.report import formatting
from gandiag.report.terminal_sections import draw_bar


def render_run(
    points: Sequence[tuple[float, Record]],
    log: Mapping[str, Any] | None,
    brackets: Sequence[Mapping[str, Any]],
    failed: Sequence[tuple[str, str]] = (),
    paths: Sequence[str] = (),
) -> str:
    """The whole view as plain text that ends with a newline; 80 columns."""
    worst = [formatting.format_verdict(record) for _, record in points]
    rows = [f"{worst[-1]}  at the last of {len(points)} checkpoints", ""]
    rows += [formatting.capitalize_first(formatting.escape_unprintable(entry["text"])) + "." for entry in brackets] or [
        "Variety fell between no two checkpoints by more than their intervals."
    ]
    rows += ["", f"  {'step':>10}  {'score':<20}  {'':<20}  verdict"]
    for step, record in points:
        score = record.score
        told = formatting.format_estimate({"value": score.value, "low": score.low, "high": score.high})
        rows.append(
            f"  {step:>10,.0f}  {told:<20}  {draw_bar(score.value, score.low, score.high):<20}  {formatting.format_verdict(record).lower()}"
        )
    rows += ["", "Losses"]
    if log is None:
        rows.append("  no log was found: give --log FILE")
    else:
        rows.append(f"  {formatting.key_to_text(log['verdict'])}")
        unit = formatting.escape_unprintable(log["unit"])
        rows += [
            f"  {formatting.format_number(event['step'])} {unit}: {formatting.key_to_text(event['kind'])}, {formatting.escape_unprintable(event['evidence'])}"
            for event in log["events"]
        ]
    rows += (
        [
            "",
            "Not audited",
            *(f"  {formatting.escape_unprintable(name)}: {formatting.escape_unprintable(why)}" for name, why in failed),
        ]
        if failed
        else []
    )
    rows += ["", "   ".join(map(formatting.escape_unprintable, paths))] if paths else []
    return "\n".join(rows) + "\n"
