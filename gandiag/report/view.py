"""A Record as the page sees it: plain values in reading order, every number already in words. Escaping is the template's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gandiag import catalogue
from gandiag.record import Exhibit, Record
from gandiag.report import numbers, origin, words

ACCENTS = {"healthy": "good", "collapsed": "bad", "inconclusive": "doubt", "not_degenerate": "known"}
LEVELS = {"error": "Fails", "warning": "Warning", "note": "Note"}
BASE64 = re.compile(r"^iVBORw0KGgo[A-Za-z0-9+/]+=*$")
ROWS = re.compile(r"(?:rows|each|data): ([^:;()]+?)(?: \(|;|$)")
# Where each exhibit stands on the page; those without a place come last.
PLACES = {
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
TITLES = {
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


def hero(record: Record) -> dict[str, Any]:
    """The verdict banner."""
    score, label = record.score, words.verdict(record)
    facts = [words.samples(record), origin.trained(record)]
    return {
        "accent": ACCENTS.get(record.verdict, "doubt"),
        "word": words.capital(label.lower()),
        "subject": words.subject(record),
        "caveat": words.capital(words.caveat(record)),
        "told": words.capital(words.told(record)),
        "score": span(score.value, score.low, score.high),
        "limit": percent(score.limit),
        "limit_text": words.score2(score.limit),
        "kinds": [kind_parts(kind) for kind in words.kinds(record)],
        "facts": [words.capital(fact) for fact in facts if fact],
    }


def kind_parts(text: str) -> dict[str, str]:
    """ "partial collapse: part of the variety is left" -> a short name and what it means."""
    short, _, meaning = text.partition(": ")
    return {"name": words.capital(short), "meaning": meaning}


def percent(value: float | None) -> float:
    """A share in [0, 1] as a place on a scale, 0 to 100."""
    return 0.0 if value is None else round(100 * min(max(float(value), 0.0), 1.0), 2)


def span(value: Any, low: Any, high: Any) -> dict[str, Any] | None:
    """An estimate in words and as places on a scale; None where there is no number."""
    if not isinstance(value, (int, float)):
        return None
    low, high = value if low is None else low, value if high is None else high
    return {"text": words.score2(value), "interval": words.interval(low, high, words.score2), "at": percent(value), "from": percent(low), "to": percent(high)}


def shares(entries: Mapping[str, Any], meanings: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rows of the profile or the aspects."""
    rows = []
    for key in words.known_first(entries, meanings):
        entry = entries[key] if isinstance(entries[key], Mapping) else {}
        mark = span(entry.get("value"), entry.get("low"), entry.get("high"))
        rows.append({"name": words.capital(words.name(key)), "meaning": meanings.get(key, ""), "span": mark, "beside": key == "off_manifold"})
    return rows


def findings(record: Record) -> list[dict[str, Any]]:
    """Failing first; each with evidence as pairs and remedies in order."""
    found = words.findings(record)
    told = words.introduced(found)
    return [
        {
            "rule": finding.rule,
            "level": finding.level if finding.level in LEVELS else "note",
            "label": LEVELS.get(finding.level, "Note"),
            "text": words.capital(finding.text),
            "evidence": [(words.name(key), words.shown(value)) for key, value in words.ordered(finding.evidence) if value is not None],
            "remedies": [remedy(entry, finding.rule, told) for entry in finding.remedies],
        }
        for finding in found
    ]


def remedy(entry: Mapping[str, Any], rule: str, told: Mapping[str, str]) -> dict[str, str]:
    """One remedy, every part as text; how, price and source only where it is told first, elsewhere `see` names that rule."""
    texts = {part: words.shown(entry[part]) if entry.get(part) else "" for part in ("title", "why", "how", "price", "source")}
    texts |= {"title": words.capital(texts["title"] or words.shown(entry.get("key"))), "why": words.capital(texts["why"]), "see": ""}
    first = told.get(words.clean(entry.get("key")), rule)
    return texts if first == rule else texts | {"how": "", "price": "", "source": "", "see": first}


def measurements(entries: numbers.Rows) -> list[dict[str, Any]]:
    """Rows of a table; the catalogue lends title and meaning."""
    rows = []
    for key, entry in entries:
        known = catalogue.entry(key)
        rows.append(
            {
                "key": key,
                "title": known.title if known else "",
                "value": words.number(entry.value),
                "unit": numbers.unit(entry),
                "interval": words.interval(entry.low, entry.high),
                "floor": words.number(entry.floor),
                "reason": entry.reason,
                "n": f"{entry.n:,}" if entry.n else words.NONE,
                "better": words.BETTER[entry.better],
                "aloud": words.BETTER_ALOUD[entry.better],
            }
        )
    return rows


def classes(record: Record) -> list[dict[str, Any]]:
    """Rows of the table of classes, in the Record's order: worst first."""
    rows = []
    for entry in record.classes:
        score, inside = numbers.of_class(entry)
        rows.append({"label": words.shown(entry.get("label")), "inside": inside, "span": span(score.get("value"), score.get("low"), score.get("high"))})
    return rows


def modes(record: Record) -> dict[str, Any]:
    """What is known about modes: facts as (label, value), and rows of those missed."""
    about = record.modes
    found = "in the data" if about.get("covered") is not None else "found"
    facts = [
        (name, words.shown(about[key]))
        for key, name in (("found", found), ("covered", "covered"), ("effective", "effective number"), ("stability", "stability"))
        if about.get(key) is not None
    ]
    missed = [(words.shown(entry.get("mode")), share(entry.get("share_real")), share(entry.get("share_fake"))) for entry in about.get("missed") or ()]
    return {"facts": facts, "missed": missed}


def share(value: Any) -> str:
    """0.12 -> 12.0 %."""
    return f"{100 * value:.1f} %" if isinstance(value, (int, float)) else words.NONE


def response(record: Record) -> dict[str, Any]:
    """The sweep as a table: axis, columns, rows."""
    axis, columns, points = numbers.sweep(record)
    rows = [[words.scale(point.get(axis)), *(words.number(point.get(key)) for key in columns)] for point in points]
    return {"axis": words.name(axis), "keys": columns, "columns": [words.name(key) for key in columns], "rows": rows, "reason": record.response.get("reason")}


def training(record: Record) -> dict[str, Any] | None:
    """The verdict on the loss curves."""
    losses = record.training
    if not losses:
        return None
    facts = [(words.name(key), words.shown(value)) for key, value in (losses.get("oscillation") or {}).items() if value is not None]
    events = [(words.shown(event.get("step")), words.name(event.get("kind")), words.shown(event.get("evidence"))) for event in losses.get("events") or ()]
    return {"verdict": words.capital(words.name(losses.get("verdict") or "not judged")), "facts": facts, "events": events[:50]}


def generator(record: Record) -> list[tuple[str, str]]:
    """What was audited, as pairs."""
    about = record.subject
    rows = [
        ("File", words.subject(record)),
        ("Model", origin.model(record)),
        ("Read as", words.shown(about.get("loader") or "")),
        ("SHA-256", words.shown(about.get("sha256") or "")),
    ]
    return [row for row in rows if row[1]]


def picture(exhibit: Exhibit) -> dict[str, Any]:
    """An image exhibit: PNG checked to be base64 of a PNG, so that nothing else gets into the address of the image."""
    png = exhibit.data.get("png")
    valid = isinstance(png, str) and BASE64.match(png) is not None
    columns, tile = exhibit.data.get("columns"), exhibit.data.get("tile")
    high_by = exhibit.data.get("rows")
    wide, high = 512, 512
    if isinstance(columns, int) and isinstance(high_by, int) and isinstance(tile, int) and min(columns, high_by, tile) > 0:
        wide, high = columns * tile, high_by * tile
    labels = [words.shown(label) for label in exhibit.data.get("row_labels") or rows_named(exhibit)]
    return {
        "kind": "image",
        "id": exhibit.id,
        "title": title(exhibit),
        "caption": exhibit.caption,
        "png": png if valid else None,
        "labels": labels if len(labels) == exhibit.data.get("rows") else [],
        "width": round(wide * max(min(3.0, 1080 / wide, 640 / high), 0.5)),
        "crisp": isinstance(tile, int) and tile < 48,
    }


def rows_named(exhibit: Exhibit) -> list[str]:
    """What the caption says of each row ("… rows: 0.02, 0.1"; "data: 61 %, 30 % (…)"); of use where it names as many as there are."""
    found = ROWS.search(exhibit.caption)
    return [("× " if exhibit.id == "scales" else "") + part.strip() for part in found.group(1).split(",")] if found else []


def title(exhibit: Exhibit) -> str:
    """The heading of an exhibit."""
    return TITLES.get(exhibit.id) or words.capital(words.name(exhibit.id))
