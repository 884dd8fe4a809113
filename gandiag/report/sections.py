"""The tables and bars of the terminal report: profile, aspects, modes, classes, response, measurements, provenance.

Each function gives the renderables of one section, or an empty list where the Record has nothing for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gandiag.record import Measurement, Record, Score
from gandiag.report import game, numbers, origin, words

if TYPE_CHECKING:
    from rich.table import Table

BAR = 20
DIAL = 40
ROWS = 10
SPARKS = "▁▂▃▄▅▆▇█"
POINT_COLUMNS = 4
SHORT = 6  # of a unit


def all_of(record: Record, verbose: bool = False) -> Iterator[tuple[str, list[Any]]]:
    """(title, renderables) of every section that this Record has something for, in reading order."""
    entries: tuple[tuple[str, Callable[[Record], list[Any]]], ...] = (
        ("Where the variety went", _profile), ("Which aspect", _aspects), ("Modes", _modes), ("Classes, worst first", _classes),
        ("Reaction to the latent scale", _response), ("Training", _training), ("The game between G and D", _game),
        ("Measurements", _measurements), ("The generator", _generator),
        ("Assumed", _assumed), ("Good to know", origin.remarks), ("How it was measured", _provenance),
    )
    for title, build in entries:
        body = build(record)
        if body:
            yield title, body
    if verbose and numbers.split(record)[1]:
        yield "More measurements", [measured(numbers.split(record)[1])]
    seconds = record.provenance.get("seconds")
    if verbose and isinstance(seconds, Mapping):
        yield "Seconds per stage", _pairs([(words.name(stage), words.number(took)) for stage, took in seconds.items()])


def bar(value: float | None, low: float | None, high: float | None, size: int = BAR, limit: float | None = None) -> str:
    """A share in [0, 1] as text: █ up to the lower end, ▒ the interval, · the rest, | the limit."""
    if value is None:
        return ""
    low, high = value if low is None else low, value if high is None else high
    solid, soft = (round(min(max(end, 0.0), 1.0) * size) for end in (low, high))
    soft = max(soft, round(min(max(value, 0.0), 1.0) * size))
    cells = list("█" * solid + "▒" * (soft - solid) + "·" * (size - soft))
    if limit is None:
        return "".join(cells)
    cells.insert(round(min(max(limit, 0.0), 1.0) * size), "|")
    return "".join(cells)


def dial(score: Score) -> str:
    """The score on its scale, with interval and limit."""
    if score.value is None:
        return ""
    return f"all variety {bar(score.value, score.low, score.high, DIAL, score.limit)} none   limit {words.score2(score.limit)}"


def grid(*columns: str, header: Sequence[str] = ()) -> Table:
    """A table without lines; columns are "left" or "right"."""
    from rich.table import Table

    table = Table(box=None, show_header=bool(header), padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for place, side in enumerate(columns):
        table.add_column(header[place] if header else "", justify="right" if side == "right" else "left", overflow="fold")
    return table


def _shares(entries: Mapping[str, Any], meaning: Mapping[str, str]) -> list[Any]:
    if not entries:
        return []
    table = grid("left", "left", "left", "left")
    for key in words.known_first(entries, meaning):
        entry = entries[key] or {}
        strip = bar(entry.get("value"), entry.get("low"), entry.get("high"))
        table.add_row(words.name(key), words.estimate(entry), strip, meaning.get(key, ""))
    return [table]


def _profile(record: Record) -> list[Any]:
    return _shares(record.profile, words.PROFILE)


def _aspects(record: Record) -> list[Any]:
    return _shares(record.aspects, words.ASPECTS)


def _counted(modes: Mapping[str, Any]) -> str:
    found = words.shown(modes["found"])
    if modes["covered"] is None:
        return f"modes found: {found}; how many of the data's are covered is not known"
    return f"{words.shown(modes['covered'])} of {found} modes of the real data are covered"


def _modes(record: Record) -> list[Any]:
    modes = record.modes
    if not modes:
        return []
    counts = {"covered", "found"} <= modes.keys()
    facts = [_counted(modes)] if counts else []
    facts += [f"{key} {words.shown(modes[key])}" for key in ("effective", "stability") if modes.get(key) is not None]
    missed = list(modes.get("missed") or ())
    if not missed:
        return [" · ".join(facts)]
    table = grid("right", "right", "right", header=("missed mode", "share of real", "share of generated"))
    for entry in missed[:ROWS]:
        table.add_row(words.shown(entry.get("mode")), _percent(entry.get("share_real")), _percent(entry.get("share_fake")))
    return [" · ".join(facts), table, *_rest(missed, "missed modes")]


def _percent(share: float | None) -> str:
    return words.NONE if share is None else f"{100 * share:.1f} %"


def _rest(rows: Sequence[Any], what: str) -> list[str]:
    return [f"and {len(rows) - ROWS} more {what}, in the record"] if len(rows) > ROWS else []


def _classes(record: Record) -> list[Any]:
    if not record.classes:
        return []
    table = grid("left", "left", "left", "left")
    for entry in record.classes[:ROWS]:
        score, inside = numbers.of_class(entry)
        table.add_row(words.shown(entry.get("label")), words.estimate(score), bar(score.get("value"), score.get("low"), score.get("high")), inside)
    return [table, *_rest(record.classes, "classes")]


def _response(record: Record) -> list[Any]:
    axis, keys, points = numbers.sweep(record)
    keys = keys[:POINT_COLUMNS]
    if not points:
        return [words.clean(record.response["reason"])] if record.response.get("reason") else []
    table = grid("right", *("right" for _ in keys), "left", header=(words.name(axis), *(words.name(key) for key in keys), ""))
    for point in points:
        table.add_row(words.scale(point.get(axis)), *(words.number(point.get(key)) for key in keys), _mark(record, axis, point.get(axis)))
    spark = sparkline([point.get("spread") for point in points])
    caption = f"spread {spark}  (5 % quantile of the distance between samples; 1 = as at {words.name(axis)} 1)" if spark else ""
    why = words.clean(record.response["reason"]) if axis == "psi" and record.response.get("reason") else ""
    return [table, *(line for line in (caption, why, noise(record)) if line)]


def noise(record: Record) -> str:
    """How much of the output is noise, in words; nothing for a network without noise inputs."""
    found = record.measurements.get("noise_share")
    if found is None or found.value is None:
        return ""
    share = words.estimate({"value": found.value, "low": found.low, "high": found.high})
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


def sparkline(values: Sequence[float | None]) -> str:
    """Values as one line of blocks, from 0 to the largest; nothing for fewer than three."""
    known = [value for value in values if value is not None]
    if len(known) < 3 or not max(known) > 0:
        return ""
    top = max(known)
    return "".join(" " if value is None else SPARKS[min(int(max(value, 0.0) / top * len(SPARKS)), len(SPARKS) - 1)] for value in values)


def _training(record: Record) -> list[Any]:
    losses = record.training
    if not losses:
        return []
    rows = [f"losses: {words.name(losses.get('verdict') or 'not judged')}"]
    rows += [f"oscillation: {words.evidence(losses['oscillation'])}"] if losses.get("oscillation") else []
    events = list(losses.get("events") or ())
    rows += [f"step {words.shown(event.get('step'))}: {words.name(event.get('kind'))} ({words.shown(event.get('evidence'))})" for event in events[:ROWS]]
    return [*rows, *_rest(events, "events")]


def _game(record: Record) -> list[Any]:
    return _pairs(game.rows(record))


def _measurements(record: Record) -> list[Any]:
    telling, rest = numbers.split(record)
    if not telling:
        return []
    floors = ["floor: the same number between two parts of the real data"] if any(entry.floor is not None for _, entry in telling) else []
    return [measured(telling), *floors, *([f"and {len(rest)} more with -v"] if rest else [])]


def measured(rows: Sequence[tuple[str, Measurement]]) -> Table:
    """A table of measurements: value, interval, floor, n and direction."""
    table = grid("left", "right", "left", "right", "right", "left", header=("", "value", "interval", "floor", "n", "better"))
    for key, entry in rows:
        table.add_row(words.clean(key), *cells(entry))
    return table


def cells(entry: Measurement) -> tuple[str, str, str, str, str]:
    """value, interval, floor, n, direction as text. Long units are left to the page."""
    unit = words.clean(numbers.unit(entry))
    return (
        f"{words.number(entry.value)} {unit if len(unit) <= SHORT else ''}".rstrip(),
        words.interval(entry.low, entry.high),
        words.number(entry.floor),
        f"{entry.n:,}" if entry.n else words.NONE,
        words.BETTER[entry.better],
    )


def _pairs(rows: Sequence[tuple[str, str]]) -> list[Any]:
    table = grid("left", "left")
    for left, right in rows:
        table.add_row(left, right)
    return [table] if rows else []


def _generator(record: Record) -> list[Any]:
    about, line = record.subject, origin.model(record)
    rows = [("file", words.subject(record))]
    rows += [("model", line)] if line else []
    rows += [(key, words.shown(about[key])) for key in ("loader", "sha256") if about.get(key)]
    return _pairs(rows)


def _assumed(record: Record) -> list[Any]:
    entries = record.subject.get("assumptions") or ()
    return [f"{words.shown(entry.get('what'))}: {words.shown(entry.get('value'))} ({words.shown(entry.get('source'))})" for entry in entries]


def _provenance(record: Record) -> list[Any]:
    return _pairs(origin.circumstances(record))
