"""Turns the `groups` of a Record into display values, shared by the terminal, the HTML page and Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gandiag.record import Exhibit, Record
from gandiag.report import exhibit_view, formatting
from gandiag.report.exhibit_view import ImageView
from gandiag.report.record_view import EstimateView, build_estimate, to_bar_position

EXHIBIT_PREFIX = "group:"  # of the exhibit that shows a group's samples
STRIP_END = 2.0  # of the reference's mean distance: where the strips of distances end


@dataclass(frozen=True, slots=True)
class GroupRow:
    """One group as text. `kept`: variety kept, with its interval; `estimate`: the same on a bar from 0 to 1.

    `strips`: (title, five positions in percent) of the distances within the group, of subject and reference.
    """

    name: str
    kept: str
    estimate: EstimateView | None
    counts: str
    state: str
    image: ImageView | None
    strips: tuple[tuple[str, tuple[float, ...]], ...] = ()


def _describe_collapsed(groups: Mapping[str, Any]) -> str:
    if groups.get("basis") != "reference":
        return "not judged without a reference"
    return f"{len(groups.get('collapsed') or ())} of {formatting.format_value(groups.get('count'))}"


def build_group_facts(record: Record) -> list[tuple[str, str]]:
    """(label, value) of what holds for all groups."""
    groups = record.groups
    if not groups:
        return []
    is_relative = groups.get("basis") == "between"
    quantile = groups.get("low_quantile")
    quantile = quantile if isinstance(quantile, Mapping) else {}
    reasons = groups.get("left_out_reasons")
    left_out = [
        f"{formatting.format_value(count)} {formatting.key_to_text(why)}"
        for why, count in (reasons.items() if isinstance(reasons, Mapping) else ())
        if count
    ]
    rows = [
        ("within groups" + (", relative to between" if is_relative else ""), _percent(groups.get("within"))),
        ("between groups", "" if is_relative else _percent(groups.get("between"))),
        ("a tenth of the groups keep less than", _percent(quantile) if quantile else ""),
        ("… by noise alone", _percent({"value": quantile.get("floor")}) if quantile else ""),
        ("collapsed", _describe_collapsed(groups)),
        ("left out", ", ".join(left_out)),
        *_describe_real(groups.get("real")),
    ]
    return [(label, value) for label, value in rows if value and value != formatting.NOT_AVAILABLE]


def build_group_rows(record: Record) -> list[GroupRow]:
    """The groups in the record's order: worst first."""
    collapsed = {
        str(entry.get("group")) for entry in record.groups.get("collapsed") or () if isinstance(entry, Mapping)
    }
    images = {exhibit.id: exhibit for exhibit in record.exhibits if exhibit.kind == "image"}
    rows = record.groups.get("rows") or ()
    return [
        _build_row(row, str(row.get("group")) in collapsed, images.get(f"{EXHIBIT_PREFIX}{row.get('group')}"))
        for row in rows
        if isinstance(row, Mapping)
    ]


def is_group_exhibit(exhibit: Exhibit) -> bool:
    """Whether an exhibit is shown in the table of groups."""
    return exhibit.kind == "image" and exhibit.id.startswith(EXHIBIT_PREFIX)


def _build_row(row: Mapping[str, Any], is_collapsed: bool, exhibit: Exhibit | None) -> GroupRow:
    entry = {"value": row.get("ratio"), "low": row.get("low"), "high": row.get("high")}
    n, n_reference = formatting.format_value(row.get("n")), row.get("n_reference")
    state = "collapsed" if is_collapsed else "does not vary, nor does the reference" if row.get("still") else ""
    return GroupRow(
        name=formatting.format_value(row.get("group")),
        kept=_percent(entry),
        estimate=build_estimate(entry),
        counts=f"{n} against {formatting.format_value(n_reference)}" if n_reference else n,
        state=state,
        image=None if exhibit is None else exhibit_view.build_image(exhibit),
        strips=tuple(
            (title, positions)
            for title, key in (("subject", "distances"), ("reference", "reference_distances"))
            if (positions := _build_strip(row.get(key)))
        ),
    )


def _build_strip(distances: Any) -> tuple[float, ...]:
    """Least, quartiles and greatest distance as positions on a strip that ends at twice the reference's mean."""
    if not isinstance(distances, (list, tuple)) or len(distances) != 5:
        return ()
    if not all(isinstance(value, (int, float)) for value in distances):
        return ()
    return tuple(to_bar_position(float(value) / STRIP_END) for value in distances)


def _describe_real(real: Any) -> list[tuple[str, str]]:
    """Subject and reference beside the real data, where both were given."""
    if not isinstance(real, Mapping):
        return []
    return [
        ("within groups, against real data", _percent(real.get("within"))),
        ("the reference itself, against real data", _percent(real.get("reference_within"))),
    ]


def _percent(entry: Any) -> str:
    return formatting.format_percent_interval(entry) if isinstance(entry, Mapping) else ""
