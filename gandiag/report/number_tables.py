"""Renders the numbers of a record as CSV, as a LaTeX table and as an SVG figure, for spreadsheets and papers."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator

from gandiag.record import Record
from gandiag.report import formatting
from gandiag.report.measurement_view import split_measurements

CSV_HEADER = ("key", "value", "low", "high", "floor", "unit", "n", "better", "status", "reason")
_FORMULA_START = re.compile(r"^[=+\-@\t\r]")  # what a spreadsheet would run
_LATEX_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{char: "\\" + char for char in "&%$#_{}"},
    "−": "$-$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "–": "--",
}


def render_csv(record: Record) -> str:
    """One line per number: score, profile, aspects, shares of classes or regions, and every measurement."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for row in _iter_rows(record):
        writer.writerow([_make_cell(value) for value in row])
    return stream.getvalue()


def _iter_rows(record: Record) -> Iterator[tuple[object, ...]]:
    score = record.score
    yield "score", score.value, score.low, score.high, None, "", score.n_fake, "lower", "ok", record.verdict
    for section, entries in (("profile", record.profile), ("aspects", record.aspects)):
        for name, entry in entries.items():
            entry = entry or {}
            bounds = (entry.get("value"), entry.get("low"), entry.get("high"))
            yield f"{section}.{name}", *bounds, None, "share", score.n_fake, "lower", "ok", ""
    groups = record.modes.get("groups") or {}
    for row in groups.get("rows") or ():
        fake, real = row["fake"], row["real"]
        numbers = (fake.get("value"), fake.get("low"), fake.get("high"), real.get("value"))
        yield f"{groups['kind']}.{row['name']}", *numbers, "share", score.n_fake, "neither", "ok", row["state"]
    for key, entry in record.measurements.items():
        if key == "score":
            continue
        yield (
            key,
            entry.value,
            entry.low,
            entry.high,
            entry.floor,
            entry.unit,
            entry.n,
            entry.better,
            entry.status,
            entry.reason or "",
        )


def _make_cell(value: object) -> object:
    """Numbers as they are; text on one line, and none that a spreadsheet would run as a formula."""
    if value is None or isinstance(value, (int, float)):
        return "" if value is None else value
    text = formatting.escape_unprintable(value)
    return f"'{text}" if _FORMULA_START.match(text) else text


def render_latex(record: Record) -> str:
    """A booktabs table of the score and the main measurements, each beside real against real."""
    rows = [("Collapse score", formatting.format_score(record.score.value), _score_interval(record), "")]
    main_rows, _ = split_measurements(record)
    rows += [(row.title or row.key, row.value, row.interval, row.floor) for row in main_rows if row.key != "score"]
    lines = [
        f"% {formatting.escape_unprintable(formatting.format_subject(record))}",
        r"\begin{tabular}{lrlr}",
        r"\toprule",
        r"Measurement & Value & 95\,\% interval & Real against real \\",
        r"\midrule",
        *(" & ".join(map(escape_latex, row)) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _score_interval(record: Record) -> str:
    return formatting.format_interval(record.score.low, record.score.high, formatting.format_score)


def escape_latex(text: str) -> str:
    """Text without LaTeX meaning."""
    return "".join(_LATEX_SPECIAL.get(char, char) for char in formatting.escape_unprintable(text))


def render_svg(record: Record) -> str:
    """The collapse score and the losses by cause and aspect as bars with their intervals. Loads matplotlib."""
    from gandiag.report.loss_figure import draw_loss_figure

    return draw_loss_figure(record)
