"""The tables and bars of the terminal report: profile, aspects, modes, classes, response, measurements, provenance.

Each function gives the renderables of one section, or an empty list where the Record has nothing for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gandiag.record import Measurement, Record, Score
from gandiag.report import duality_gap, formatting, measurement_table, provenance

if TYPE_CHECKING:
    from rich.table import Table

BAR_WIDTH = 20
SCORE_BAR_WIDTH = 40
MAX_ROWS = 10
BLOCK_CHARACTERS = "▁▂▃▄▅▆▇█"
MAX_RESPONSE_COLUMNS = 4
MAX_UNIT_LENGTH = 6  # of a unit


def iter_sections(record: Record, verbose: bool = False) -> Iterator[tuple[str, list[Any]]]:
    """(title, renderables) of every section that this Record has something for, in reading order."""
    entries: tuple[tuple[str, Callable[[Record], list[Any]]], ...] = (
        ("Where the variety went", _profile),
        ("Which aspect", _aspects),
        ("Modes", _modes),
        ("Classes, worst first", _classes),
        ("Reaction to the latent scale", _response),
        ("Training", _training),
        ("The game between G and D", _game),
        ("Measurements", _measurements),
        ("The generator", _generator),
        ("Assumed", _assumed),
        ("Good to know", provenance.collect_notes),
        ("How it was measured", _provenance),
    )
    for title, build in entries:
        body = build(record)
        if body:
            yield title, body
    if verbose and measurement_table.split_measurements(record)[1]:
        yield "More measurements", [make_measurement_table(measurement_table.split_measurements(record)[1])]
    seconds = record.provenance.get("seconds")
    if verbose and isinstance(seconds, Mapping):
        yield (
            "Seconds per stage",
            _pairs(
                [(formatting.key_to_text(stage), formatting.format_number(took)) for stage, took in seconds.items()]
            ),
        )


def draw_bar(
    value: float | None, low: float | None, high: float | None, width: int = BAR_WIDTH, limit: float | None = None
) -> str:
    """A share in [0, 1] as text: █ up to the lower end, ▒ the interval, · the rest, | the limit."""
    if value is None:
        return ""
    low, high = value if low is None else low, value if high is None else high
    solid, soft = (round(min(max(end, 0.0), 1.0) * width) for end in (low, high))
    soft = max(soft, round(min(max(value, 0.0), 1.0) * width))
    cells = list("█" * solid + "▒" * (soft - solid) + "·" * (width - soft))
    if limit is None:
        return "".join(cells)
    cells.insert(round(min(max(limit, 0.0), 1.0) * width), "|")
    return "".join(cells)


def draw_score_bar(score: Score) -> str:
    """The score on its scale, with interval and limit."""
    if score.value is None:
        return ""
    return f"all variety {draw_bar(score.value, score.low, score.high, SCORE_BAR_WIDTH, score.limit)} none   limit {formatting.format_score(score.limit)}"


def make_table(*columns: str, header: Sequence[str] = ()) -> Table:
    """A table without lines; columns are "left" or "right"."""
    from rich.table import Table

    table = Table(box=None, show_header=bool(header), padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for place, side in enumerate(columns):
        table.add_column(
            header[place] if header else "", justify="right" if side == "right" else "left", overflow="fold"
        )
    return table


def _shares(entries: Mapping[str, Any], meaning: Mapping[str, str]) -> list[Any]:
    if not entries:
        return []
    table = make_table("left", "left", "left", "left")
    for key in formatting.sort_known_first(entries, meaning):
        entry = entries[key] or {}
        strip = draw_bar(entry.get("value"), entry.get("low"), entry.get("high"))
        table.add_row(formatting.key_to_text(key), formatting.format_estimate(entry), strip, meaning.get(key, ""))
    return [table]


def _profile(record: Record) -> list[Any]:
    return _shares(record.profile, formatting.PROFILE_TEXT)


def _aspects(record: Record) -> list[Any]:
    return _shares(record.aspects, formatting.ASPECT_TEXT)


def _counted(modes: Mapping[str, Any]) -> str:
    found = formatting.format_value(modes["found"])
    if modes["covered"] is None:
        return f"modes found: {found}; how many of the data's are covered is not known"
    return f"{formatting.format_value(modes['covered'])} of {found} modes of the real data are covered"


def _modes(record: Record) -> list[Any]:
    modes = record.modes
    if not modes:
        return []
    counts = {"covered", "found"} <= modes.keys()
    facts = [_counted(modes)] if counts else []
    facts += [
        f"{key} {formatting.format_value(modes[key])}"
        for key in ("effective", "stability")
        if modes.get(key) is not None
    ]
    missed = list(modes.get("missed") or ())
    if not missed:
        return [" · ".join(facts)]
    table = make_table("right", "right", "right", header=("missed mode", "share of real", "share of generated"))
    for entry in missed[:MAX_ROWS]:
        table.add_row(
            formatting.format_value(entry.get("mode")),
            _percent(entry.get("share_real")),
            _percent(entry.get("share_fake")),
        )
    return [" · ".join(facts), table, *_rest(missed, "missed modes")]


def _percent(share: float | None) -> str:
    return formatting.NOT_AVAILABLE if share is None else f"{100 * share:.1f} %"


def _rest(rows: Sequence[Any], what: str) -> list[str]:
    return [f"and {len(rows) - MAX_ROWS} more {what}, in the record"] if len(rows) > MAX_ROWS else []


def _classes(record: Record) -> list[Any]:
    if not record.classes:
        return []
    table = make_table("left", "left", "left", "left")
    for entry in record.classes[:MAX_ROWS]:
        score, inside = measurement_table.read_class_score(entry)
        table.add_row(
            formatting.format_value(entry.get("label")),
            formatting.format_estimate(score),
            draw_bar(score.get("value"), score.get("low"), score.get("high")),
            inside,
        )
    return [table, *_rest(record.classes, "classes")]


def _response(record: Record) -> list[Any]:
    axis, keys, points = measurement_table.read_response(record)
    keys = keys[:MAX_RESPONSE_COLUMNS]
    if not points:
        return [formatting.escape_unprintable(record.response["reason"])] if record.response.get("reason") else []
    table = make_table(
        "right",
        *("right" for _ in keys),
        "left",
        header=(formatting.key_to_text(axis), *(formatting.key_to_text(key) for key in keys), ""),
    )
    for point in points:
        table.add_row(
            formatting.format_scale(point.get(axis)),
            *(formatting.format_number(point.get(key)) for key in keys),
            _mark(record, axis, point.get(axis)),
        )
    spark = draw_sparkline([point.get("spread") for point in points])
    caption = (
        f"spread {spark}  (5 % quantile of the distance between samples; 1 = as at {formatting.key_to_text(axis)} 1)"
        if spark
        else ""
    )
    why = (
        formatting.escape_unprintable(record.response["reason"])
        if axis == "psi" and record.response.get("reason")
        else ""
    )
    return [table, *(line for line in (caption, why, describe_noise_share(record)) if line)]


def describe_noise_share(record: Record) -> str:
    """How much of the output is noise, in words; nothing for a network without noise inputs."""
    found = record.measurements.get("noise_share")
    if found is None or found.value is None:
        return ""
    share = formatting.format_estimate({"value": found.value, "low": found.low, "high": found.high})
    return f"noise inputs alone, at a fixed latent: {share} of the output's variance"


def _mark(record: Record, axis: str, at: Any) -> str:
    latent = record.subject.get("latent") or {}
    if axis == "psi":
        return "◂ sampled here" if at is not None and latent.get("psi", 1.0) == at else ""
    scale, found = latent.get("scale"), latent.get("trained_scale") or {}
    marks = ["sampled here"] if scale is not None and scale == at else []
    low, high = found.get("low"), found.get("high")
    marks += ["trained here"] if at is not None and low is not None and high is not None and low <= at <= high else []
    return "◂ " + ", ".join(marks) if marks else ""


def draw_sparkline(values: Sequence[float | None]) -> str:
    """Values as one line of blocks, from 0 to the largest; nothing for fewer than three."""
    known = [value for value in values if value is not None]
    if len(known) < 3 or not max(known) > 0:
        return ""
    top = max(known)
    return "".join(
        " "
        if value is None
        else BLOCK_CHARACTERS[min(int(max(value, 0.0) / top * len(BLOCK_CHARACTERS)), len(BLOCK_CHARACTERS) - 1)]
        for value in values
    )


def _training(record: Record) -> list[Any]:
    losses = record.training
    if not losses:
        return []
    rows = [f"losses: {formatting.key_to_text(losses.get('verdict') or 'not judged')}"]
    rows += [f"oscillation: {formatting.format_evidence(losses['oscillation'])}"] if losses.get("oscillation") else []
    events = list(losses.get("events") or ())
    rows += [
        f"step {formatting.format_value(event.get('step'))}: {formatting.key_to_text(event.get('kind'))} ({formatting.format_value(event.get('evidence'))})"
        for event in events[:MAX_ROWS]
    ]
    return [*rows, *_rest(events, "events")]


def _game(record: Record) -> list[Any]:
    return _pairs(duality_gap.build_duality_gap_rows(record))


def _measurements(record: Record) -> list[Any]:
    telling, rest = measurement_table.split_measurements(record)
    if not telling:
        return []
    floors = (
        ["floor: the same number between two parts of the real data"]
        if any(entry.floor is not None for _, entry in telling)
        else []
    )
    return [make_measurement_table(telling), *floors, *([f"and {len(rest)} more with -v"] if rest else [])]


def make_measurement_table(rows: Sequence[tuple[str, Measurement]]) -> Table:
    """A table of measurements: value, interval, floor, n and direction."""
    table = make_table(
        "left", "right", "left", "right", "right", "left", header=("", "value", "interval", "floor", "n", "better")
    )
    for key, entry in rows:
        table.add_row(formatting.escape_unprintable(key), *format_measurement(entry))
    return table


def format_measurement(entry: Measurement) -> tuple[str, str, str, str, str]:
    """value, interval, floor, n, direction as text. Long units are left to the page."""
    unit = formatting.escape_unprintable(measurement_table.display_unit(entry))
    return (
        f"{formatting.format_number(entry.value)} {unit if len(unit) <= MAX_UNIT_LENGTH else ''}".rstrip(),
        formatting.format_interval(entry.low, entry.high),
        formatting.format_number(entry.floor),
        f"{entry.n:,}" if entry.n else formatting.NOT_AVAILABLE,
        formatting.DIRECTION_SYMBOLS[entry.better],
    )


def _pairs(rows: Sequence[tuple[str, str]]) -> list[Any]:
    table = make_table("left", "left")
    for left, right in rows:
        table.add_row(left, right)
    return [table] if rows else []


def _generator(record: Record) -> list[Any]:
    about, line = record.subject, provenance.describe_model(record)
    rows = [("file", formatting.format_subject(record))]
    rows += [("model", line)] if line else []
    rows += [(key, formatting.format_value(about[key])) for key in ("loader", "sha256") if about.get(key)]
    return _pairs(rows)


def _assumed(record: Record) -> list[Any]:
    entries = record.subject.get("assumptions") or ()
    return [
        f"{formatting.format_value(entry.get('what'))}: {formatting.format_value(entry.get('value'))} ({formatting.format_value(entry.get('source'))})"
        for entry in entries
    ]


def _provenance(record: Record) -> list[Any]:
    return _pairs(provenance.build_provenance_rows(record))
