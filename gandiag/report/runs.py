"""A run for a terminal: a row for each checkpoint, where variety fell, and what the losses say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gandiag.record import Record
from gandiag.report import words
from gandiag.report.sections import bar


def render_run(points: Sequence[tuple[float, Record]], log: Mapping[str, Any] | None, brackets: Sequence[Mapping[str, Any]],
               failed: Sequence[tuple[str, str]] = (), paths: Sequence[str] = ()) -> str:  # fmt: skip
    """The whole view as plain text that ends with a newline; 80 columns."""
    worst = [words.verdict(record) for _, record in points]
    rows = [f"{worst[-1]}  at the last of {len(points)} checkpoints", ""]
    rows += [words.capital(words.clean(entry["text"])) + "." for entry in brackets] or ["Variety fell between no two checkpoints by more than their intervals."]
    rows += ["", f"  {'step':>10}  {'score':<20}  {'':<20}  verdict"]
    for step, record in points:
        score = record.score
        told = words.estimate({"value": score.value, "low": score.low, "high": score.high})
        rows.append(f"  {step:>10,.0f}  {told:<20}  {bar(score.value, score.low, score.high):<20}  {words.verdict(record).lower()}")
    rows += ["", "Losses"]
    if log is None:
        rows.append("  no log was found: give --log FILE")
    else:
        rows.append(f"  {words.name(log['verdict'])}")
        unit = words.clean(log["unit"])
        rows += [f"  {words.number(event['step'])} {unit}: {words.name(event['kind'])}, {words.clean(event['evidence'])}" for event in log["events"]]
    rows += ["", "Not audited", *(f"  {words.clean(name)}: {words.clean(why)}" for name, why in failed)] if failed else []
    rows += ["", "   ".join(map(words.clean, paths))] if paths else []
    return "\n".join(rows) + "\n"
