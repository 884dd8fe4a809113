"""A Record as the page sees it: plain values in reading order, every number already in words. Escaping is the template's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gandiag import catalogue
from gandiag.record import Exhibit, Record
from gandiag.report import formatting, measurement_table, provenance

ACCENT_CLASSES = {"healthy": "good", "collapsed": "bad", "inconclusive": "doubt", "not_degenerate": "known"}
LEVEL_LABELS = {"error": "Fails", "warning": "Warning", "note": "Note"}
PNG_BASE64 = re.compile(r"^iVBORw0KGgo[A-Za-z0-9+/]+=*$")
ROW_LABELS_PATTERN = re.compile(r"(?:rows|each|data): ([^:;()]+?)(?: \(|;|$)")
# Where each exhibit stands on the page; those without a place come last.
EXHIBIT_SECTIONS = {
    "samples": "samples",
    "scales": "samples",
    "pairs": "repeats",
    "distances": "repeats",
    "pairwise": "repeats",
    "clusters": "modes",
    "missed": "modes",
    "response": "response",
    "scatter": "samples",
    "maximin": "game",
}
EXHIBIT_LABELS = {
    "samples": "Samples",
    "scales": "The same latents at every scale",
    "pairs": "The most similar pairs",
    "clusters": "Clusters and their shares",
    "missed": "Real samples that it never makes",
    "response": "Reaction to the latent scale",
    "distances": "Distances between samples",
    "pairwise": "Distances between samples",
    "scatter": "Real and generated points",
    "maximin": "G against a frozen discriminator",
}


def build_banner(record: Record) -> dict[str, Any]:
    """The verdict banner."""
    score, label = record.score, formatting.format_verdict(record)
    facts = [formatting.describe_sample_size(record), provenance.describe_trained_scale(record)]
    return {
        "accent": ACCENT_CLASSES.get(record.verdict, "doubt"),
        "word": formatting.capitalize_first(label.lower()),
        "subject": formatting.format_subject(record),
        "caveat": formatting.capitalize_first(formatting.describe_caveat(record)),
        "told": formatting.capitalize_first(formatting.describe_score(record)),
        "score": build_interval(score.value, score.low, score.high),
        "limit": to_bar_position(score.limit),
        "limit_text": formatting.format_score(score.limit),
        "kinds": [split_kind(kind) for kind in formatting.describe_kinds(record)],
        "facts": [formatting.capitalize_first(fact) for fact in facts if fact],
    }


def split_kind(text: str) -> dict[str, str]:
    """ "partial collapse: part of the variety is left" -> a short name and what it means."""
    short, _, meaning = text.partition(": ")
    return {"name": formatting.capitalize_first(short), "meaning": meaning}


def to_bar_position(value: float | None) -> float:
    """A share in [0, 1] as a place on a scale, 0 to 100."""
    return 0.0 if value is None else round(100 * min(max(float(value), 0.0), 1.0), 2)


def build_interval(value: Any, low: Any, high: Any) -> dict[str, Any] | None:
    """An estimate in words and as places on a scale; None where there is no number."""
    if not isinstance(value, (int, float)):
        return None
    low, high = value if low is None else low, value if high is None else high
    return {
        "text": formatting.format_score(value),
        "interval": formatting.format_interval(low, high, formatting.format_score),
        "at": to_bar_position(value),
        "from": to_bar_position(low),
        "to": to_bar_position(high),
    }


def build_share_rows(entries: Mapping[str, Any], meanings: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rows of the profile or the aspects."""
    rows = []
    for key in formatting.sort_known_first(entries, meanings):
        entry = entries[key] if isinstance(entries[key], Mapping) else {}
        mark = build_interval(entry.get("value"), entry.get("low"), entry.get("high"))
        rows.append(
            {
                "name": formatting.capitalize_first(formatting.key_to_text(key)),
                "meaning": meanings.get(key, ""),
                "span": mark,
                "beside": key == "off_manifold",
            }
        )
    return rows


def build_findings(record: Record) -> list[dict[str, Any]]:
    """Failing first; each with evidence as pairs and remedies in order."""
    found = formatting.sort_findings(record)
    told = formatting.first_rule_per_remedy(found)
    return [
        {
            "rule": finding.rule,
            "level": finding.level if finding.level in LEVEL_LABELS else "note",
            "label": LEVEL_LABELS.get(finding.level, "Note"),
            "text": formatting.capitalize_first(finding.text),
            "evidence": [
                (formatting.key_to_text(key), formatting.format_value(value))
                for key, value in formatting.sort_entries(finding.evidence)
                if value is not None
            ],
            "remedies": [build_remedy(entry, finding.rule, told) for entry in finding.remedies],
        }
        for finding in found
    ]


def build_remedy(entry: Mapping[str, Any], rule: str, first_rules: Mapping[str, str]) -> dict[str, str]:
    """One remedy, every part as text; how, price and source only where it is told first, elsewhere `see` names that rule."""
    texts = {
        part: formatting.format_value(entry[part]) if entry.get(part) else ""
        for part in ("title", "why", "how", "price", "source")
    }
    texts |= {
        "title": formatting.capitalize_first(texts["title"] or formatting.format_value(entry.get("key"))),
        "why": formatting.capitalize_first(texts["why"]),
        "see": "",
    }
    first = first_rules.get(formatting.escape_unprintable(entry.get("key")), rule)
    return texts if first == rule else texts | {"how": "", "price": "", "source": "", "see": first}


def build_measurement_rows(entries: measurement_table.MeasurementRows) -> list[dict[str, Any]]:
    """Rows of a table; the catalogue lends title and meaning."""
    rows = []
    for key, entry in entries:
        known = catalogue.find_entry(key)
        rows.append(
            {
                "key": key,
                "title": known.title if known else "",
                "value": formatting.format_number(entry.value),
                "unit": measurement_table.display_unit(entry),
                "interval": formatting.format_interval(entry.low, entry.high),
                "floor": formatting.format_number(entry.floor),
                "reason": entry.reason,
                "n": f"{entry.n:,}" if entry.n else formatting.NOT_AVAILABLE,
                "better": formatting.DIRECTION_SYMBOLS[entry.better],
                "aloud": formatting.DIRECTION_TEXT[entry.better],
            }
        )
    return rows


def build_class_rows(record: Record) -> list[dict[str, Any]]:
    """Rows of the table of classes, in the Record's order: worst first."""
    rows = []
    for entry in record.classes:
        score, inside = measurement_table.read_class_score(entry)
        rows.append(
            {
                "label": formatting.format_value(entry.get("label")),
                "inside": inside,
                "span": build_interval(score.get("value"), score.get("low"), score.get("high")),
            }
        )
    return rows


def build_modes(record: Record) -> dict[str, Any]:
    """What is known about modes: facts as (label, value), and rows of those missed."""
    about = record.modes
    found = "in the data" if about.get("covered") is not None else "found"
    facts = [
        (name, formatting.format_value(about[key]))
        for key, name in (
            ("found", found),
            ("covered", "covered"),
            ("effective", "effective number"),
            ("stability", "stability"),
        )
        if about.get(key) is not None
    ]
    missed = [
        (
            formatting.format_value(entry.get("mode")),
            format_percent(entry.get("share_real")),
            format_percent(entry.get("share_fake")),
        )
        for entry in about.get("missed") or ()
    ]
    return {"facts": facts, "missed": missed}


def format_percent(value: Any) -> str:
    """0.12 -> 12.0 %."""
    return f"{100 * value:.1f} %" if isinstance(value, (int, float)) else formatting.NOT_AVAILABLE


def build_response(record: Record) -> dict[str, Any]:
    """The sweep as a table: axis, columns, rows."""
    axis, columns, points = measurement_table.read_response(record)
    rows = [
        [formatting.format_scale(point.get(axis)), *(formatting.format_number(point.get(key)) for key in columns)]
        for point in points
    ]
    return {
        "axis": formatting.key_to_text(axis),
        "keys": columns,
        "columns": [formatting.key_to_text(key) for key in columns],
        "rows": rows,
        "reason": record.response.get("reason"),
    }


def build_training(record: Record) -> dict[str, Any] | None:
    """The verdict on the loss curves."""
    losses = record.training
    if not losses:
        return None
    facts = [
        (formatting.key_to_text(key), formatting.format_value(value))
        for key, value in (losses.get("oscillation") or {}).items()
        if value is not None
    ]
    events = [
        (
            formatting.format_value(event.get("step")),
            formatting.key_to_text(event.get("kind")),
            formatting.format_value(event.get("evidence")),
        )
        for event in losses.get("events") or ()
    ]
    return {
        "verdict": formatting.capitalize_first(formatting.key_to_text(losses.get("verdict") or "not judged")),
        "facts": facts,
        "events": events[:50],
    }


def build_generator_rows(record: Record) -> list[tuple[str, str]]:
    """What was audited, as pairs."""
    about = record.subject
    rows = [
        ("File", formatting.format_subject(record)),
        ("Model", provenance.describe_model(record)),
        ("Read as", formatting.format_value(about.get("loader") or "")),
        ("SHA-256", formatting.format_value(about.get("sha256") or "")),
    ]
    return [row for row in rows if row[1]]


def build_image(exhibit: Exhibit) -> dict[str, Any]:
    """An image exhibit: PNG checked to be base64 of a PNG, so that nothing else gets into the address of the image."""
    png = exhibit.data.get("png")
    valid = isinstance(png, str) and PNG_BASE64.match(png) is not None
    columns, tile = exhibit.data.get("columns"), exhibit.data.get("tile")
    high_by = exhibit.data.get("rows")
    wide, high = 512, 512
    if (
        isinstance(columns, int)
        and isinstance(high_by, int)
        and isinstance(tile, int)
        and min(columns, high_by, tile) > 0
    ):
        wide, high = columns * tile, high_by * tile
    labels = [formatting.format_value(label) for label in exhibit.data.get("row_labels") or read_row_labels(exhibit)]
    return {
        "kind": "image",
        "id": exhibit.id,
        "title": get_exhibit_label(exhibit),
        "caption": exhibit.caption,
        "png": png if valid else None,
        "labels": labels if len(labels) == exhibit.data.get("rows") else [],
        "width": round(wide * max(min(3.0, 1080 / wide, 640 / high), 0.5)),
        "crisp": isinstance(tile, int) and tile < 48,
    }


def read_row_labels(exhibit: Exhibit) -> list[str]:
    """What the caption says of each row ("… rows: 0.02, 0.1"; "data: 61 %, 30 % (…)"); of use where it names as many as there are."""
    found = ROW_LABELS_PATTERN.search(exhibit.caption)
    return (
        [("× " if exhibit.id == "scales" else "") + part.strip() for part in found.group(1).split(",")] if found else []
    )


def get_exhibit_label(exhibit: Exhibit) -> str:
    """The heading of an exhibit."""
    return EXHIBIT_LABELS.get(exhibit.id) or formatting.capitalize_first(formatting.key_to_text(exhibit.id))
