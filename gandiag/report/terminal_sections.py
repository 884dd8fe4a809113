"""The sections of the terminal report: profile, aspects, modes, classes, latent sweep, measurements, provenance.

Each builder returns the renderables of one section, or an empty list if the Record has nothing for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gandiag.record import Record, Score
from gandiag.report import duality_gap, formatting, group_view, measurement_view, mode_view, provenance, record_view
from gandiag.report.measurement_view import MeasurementRow
from gandiag.report.record_view import EstimateView, ShareRow
from gandiag.report.sparkline import draw_sparkline
from gandiag.report.text_page import make_pairs_table, make_table

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

BAR_WIDTH = 20
SCORE_BAR_WIDTH = 40
MAX_ROWS = 10  # of tables that could be long
MAX_RESPONSE_COLUMNS = 4
MAX_UNIT_LENGTH = 6  # longer units are shown on the page only
FLOOR_TEXT = "floor: the same metric between two disjoint subsets of the real data"
GROUP_FLOOR_TEXT = "floor: where the subject varies as the reference does"
MEASUREMENT_HEADER = ("", "value", "interval", "floor", "n", "better")

SectionBuilder = Callable[[Record], "list[RenderableType]"]


def iter_sections(record: Record, verbose: bool = False) -> Iterator[tuple[str, list[RenderableType]]]:
    """(title, renderables) of every section that this Record has something for, in reading order."""
    builders: tuple[tuple[str, SectionBuilder], ...] = (
        ("Where variety is lost", _build_profile),
        ("Loss by image aspect", _build_aspects),
        ("Modes", _build_modes),
        ("Classes, worst first", _build_classes),
        ("Groups, worst first", _build_groups),
        ("Columns, worst first", _build_columns),
        ("Response to the latent scale", _build_response),
        ("Training", _build_training),
        ("Duality gap between G and D", _build_duality_gap),
        ("Measurements", _build_measurements),
        ("Generator", _build_generator),
        ("Assumptions", _build_assumptions),
        ("Notes", _build_notes),
        ("Run", _build_provenance),
    )
    for title, build in builders:
        body = build(record)
        if body:
            yield title, body
    if verbose:
        yield from _iter_verbose_sections(record)


def _iter_verbose_sections(record: Record) -> Iterator[tuple[str, list[RenderableType]]]:
    _, other_rows = measurement_view.split_measurements(record)
    if other_rows:
        yield "More measurements", [_make_measurement_table(other_rows)]
    seconds = record.provenance.get("seconds")
    if isinstance(seconds, Mapping):
        rows = [
            (formatting.key_to_text(stage), formatting.format_number(duration)) for stage, duration in seconds.items()
        ]
        yield "Seconds per stage", make_pairs_table(rows)


def draw_bar(
    value: float | None, low: float | None, high: float | None, width: int = BAR_WIDTH, limit: float | None = None
) -> str:
    """Draw a number in [0, 1]: █ up to the lower end of its interval, ▒ the interval, · the rest, | the limit."""
    if value is None:
        return ""
    low, high = value if low is None else low, value if high is None else high
    solid, shaded = (round(min(max(end, 0.0), 1.0) * width) for end in (low, high))
    shaded = max(shaded, round(min(max(value, 0.0), 1.0) * width))
    cells = list("█" * solid + "▒" * (shaded - solid) + "·" * (width - shaded))
    if limit is not None:
        cells.insert(round(min(max(limit, 0.0), 1.0) * width), "|")
    return "".join(cells)


def draw_score_bar(score: Score) -> str:
    """The score with its interval and the limit, on a scale from 0 to 1."""
    if score.value is None:
        return ""
    bar = draw_bar(score.value, score.low, score.high, SCORE_BAR_WIDTH, score.limit)
    return f"full variety {bar} none   limit {formatting.format_score(score.limit)}"


def _draw_estimate_bar(estimate: EstimateView | None) -> str:
    return "" if estimate is None else draw_bar(estimate.value, estimate.low, estimate.high)


def _format_estimate(estimate: EstimateView | None) -> str:
    return formatting.NOT_AVAILABLE if estimate is None else str(estimate)


def _make_share_table(rows: Sequence[ShareRow]) -> list[RenderableType]:
    table = make_table("left", "left", "left", "left")
    for row in rows:
        table.add_row(row.name, _format_estimate(row.estimate), _draw_estimate_bar(row.estimate), row.meaning)
    return [table] if rows else []


def _build_profile(record: Record) -> list[RenderableType]:
    return _make_share_table(record_view.build_share_rows(record.profile, formatting.PROFILE_TEXT))


def _build_aspects(record: Record) -> list[RenderableType]:
    return _make_share_table(record_view.build_share_rows(record.aspects, formatting.ASPECT_TEXT))


def _build_modes(record: Record) -> list[RenderableType]:
    modes = record.modes
    if not modes:
        return []
    body: list[RenderableType] = [mode_view.NO_CLUSTERS]
    if not mode_view.has_no_clusters(record):
        facts = [_describe_mode_count(modes)] if {"covered", "found"} <= modes.keys() else []
        labels = (("effective", "effective number"), ("stability", "cluster stability"))
        facts += [
            f"{label} {formatting.format_value(modes[key])}" for key, label in labels if modes.get(key) is not None
        ]
        body = [" · ".join(facts), *_build_missed_modes(record)]
    return [*body, *_build_group_shares(record)]


def _build_missed_modes(record: Record) -> list[RenderableType]:
    rows = mode_view.build_missed_modes(record)
    if not rows:
        return []
    table = make_table("right", "right", "right", header=("missed cluster", "share of real", "share of generated"))
    for row in rows[:MAX_ROWS]:
        table.add_row(*row)
    return [table, *_note_hidden_rows(len(rows), "missed clusters")]


def _build_group_shares(record: Record) -> list[RenderableType]:
    shares = mode_view.build_group_shares(record)
    if shares is None:
        return []
    table = make_table(
        "left", "right", "right", "left", "left", header=(shares.title.lower(), "real", "generated", "", "")
    )
    for row in shares.rows[:MAX_ROWS]:
        table.add_row(row.name, row.real, row.fake, row.interval, row.state)
    return [
        shares.note,
        table,
        *_note_hidden_rows(len(shares.rows), "classes" if shares.title == "Class" else "regions"),
    ]


def _describe_mode_count(modes: Mapping[str, Any]) -> str:
    found = formatting.format_count(modes["found"], "mode")
    if modes["covered"] is None:
        return f"{found} found; unknown how many of the real modes they cover"
    return f"{formatting.format_value(modes['covered'])} of {found} of the real data are covered"


def _note_hidden_rows(n_rows: int, name: str) -> list[RenderableType]:
    return [f"{n_rows - MAX_ROWS} more {name} in the record"] if n_rows > MAX_ROWS else []


def _build_columns(record: Record) -> list[RenderableType]:
    return _make_class_table(record_view.build_column_rows(record), "columns")


def _build_classes(record: Record) -> list[RenderableType]:
    return _make_class_table(record_view.build_class_rows(record), "classes")


def _make_class_table(rows: Sequence[record_view.ClassRow], name: str) -> list[RenderableType]:
    table = make_table("left", "left", "left", "left")
    for row in rows[:MAX_ROWS]:
        table.add_row(row.label, _format_estimate(row.estimate), _draw_estimate_bar(row.estimate), row.spread)
    return [table, *_note_hidden_rows(len(rows), name)] if rows else []


def _build_groups(record: Record) -> list[RenderableType]:
    rows = group_view.build_group_rows(record)
    if not rows:
        return []
    table = make_table("left", "left", "left", "left", "left", header=("group", "kept", "", "samples", ""))
    for row in rows[:MAX_ROWS]:
        table.add_row(row.name, row.kept, _draw_estimate_bar(row.estimate), row.counts, row.state)
    facts = [f"{label}: {value}" for label, value in group_view.build_group_facts(record)]
    return [*facts, table, *_note_hidden_rows(len(rows), "groups")]


def _build_response(record: Record) -> list[RenderableType]:
    response = measurement_view.build_response(record)
    if not response.points:
        return [response.reason] if response.reason else []
    columns = response.columns[:MAX_RESPONSE_COLUMNS]
    table = make_table("right", *("right" for _ in columns), "left", header=(response.axis_title, *columns, ""))
    for point, row in zip(response.points, response.rows, strict=True):
        table.add_row(*row[: 1 + len(columns)], _mark_scale(record, response.axis, point.get(response.axis)))
    sparkline = draw_sparkline([point.get("spread") for point in response.points])
    caption = f"spread {sparkline}  5 % quantile of pairwise distances, relative to {response.axis_title} 1"
    lines = (
        caption if sparkline else "",
        response.reason if response.axis == "psi" else "",
        _describe_noise_share(record),
    )
    return [table, *(line for line in lines if line)]


def _describe_noise_share(record: Record) -> str:
    """The share of the output's variance due to noise inputs; empty for a network without them."""
    noise_share = record.measurements.get("noise_share")
    if noise_share is None or noise_share.value is None:
        return ""
    estimate = formatting.format_estimate(
        {"value": noise_share.value, "low": noise_share.low, "high": noise_share.high}
    )
    return f"noise inputs alone, at a fixed latent: {estimate} of the output's variance"


def _mark_scale(record: Record, axis: str, value: Any) -> str:
    """Marks the row of the scale sampled at and those of the trained scale."""
    latent = record.subject.get("latent") or {}
    if axis == "psi":
        return "◂ sampled here" if value is not None and latent.get("psi", 1.0) == value else ""
    scale, trained = latent.get("scale"), latent.get("trained_scale") or {}
    marks = ["sampled here"] if scale is not None and scale == value else []
    low, high = trained.get("low"), trained.get("high")
    if value is not None and low is not None and high is not None and low <= value <= high:
        marks.append("trained here")
    return f"◂ {', '.join(marks)}" if marks else ""


def _build_training(record: Record) -> list[RenderableType]:
    training = record_view.build_training(record)
    if training is None:
        return []
    rows: list[RenderableType] = [f"losses: {training.verdict}"]
    if training.facts:
        rows.append("oscillation: " + " · ".join(f"{name} {value}" for name, value in training.facts))
    rows += [f"step {step}: {kind} ({evidence})" for step, kind, evidence in training.events[:MAX_ROWS]]
    return [*rows, *_note_hidden_rows(len(training.events), "events")]


def _build_duality_gap(record: Record) -> list[RenderableType]:
    return make_pairs_table(duality_gap.build_duality_gap_rows(record))


def _build_measurements(record: Record) -> list[RenderableType]:
    main_rows, other_rows = measurement_view.split_measurements(record)
    if not main_rows:
        return []
    body: list[RenderableType] = [_make_measurement_table(main_rows)]
    if any(row.floor != formatting.NOT_AVAILABLE for row in main_rows):
        is_grouped = record.score.basis == "groups"
        body.append(GROUP_FLOOR_TEXT if is_grouped else FLOOR_TEXT)
    return [*body, f"{len(other_rows)} more with -vv"] if other_rows else body


def _make_measurement_table(rows: Sequence[MeasurementRow]) -> Table:
    table = make_table("left", "right", "left", "right", "right", "left", header=MEASUREMENT_HEADER)
    for row in rows:
        unit = row.unit if len(row.unit) <= MAX_UNIT_LENGTH else ""
        table.add_row(row.key, f"{row.value} {unit}".rstrip(), row.interval, row.floor, row.n, row.direction)
    return table


def _build_generator(record: Record) -> list[RenderableType]:
    return make_pairs_table(record_view.build_generator_rows(record))


def _build_assumptions(record: Record) -> list[RenderableType]:
    return [f"{setting}: {value} ({source})" for setting, value, source in record_view.build_assumption_rows(record)]


def _build_notes(record: Record) -> list[RenderableType]:
    return list(provenance.collect_notes(record))


def _build_provenance(record: Record) -> list[RenderableType]:
    return make_pairs_table(provenance.build_provenance_rows(record))
