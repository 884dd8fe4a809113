"""A losses document as one self-contained page: verdict, curves, spectrum, amplitude over time, findings with remedies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gandiag import __version__
from gandiag.record import Exhibit, Finding
from gandiag.report import words
from gandiag.report.html import _css, _environment, _safe
from gandiag.report.losses import ROLES, TOLD, columns, told_line
from gandiag.report.view import LEVELS, remedy

ACCENTS = {"settled": "good", "inconclusive": "doubt"}


def render_losses_page(document: Mapping[str, Any], findings: Sequence[Finding] = ()) -> str:
    """The whole page, about 80 kB. Loads jinja2 and matplotlib. Nothing is loaded from anywhere when it is shown."""
    verdict = str(document["verdict"])
    read = document["read"]
    told = words.introduced(findings)
    return (
        _environment()
        .get_template("losses.html.jinja")
        .render(
            accent=ACCENTS.get(verdict, "bad"),
            word=words.capital(verdict.replace("_", " ")),
            told=TOLD.get(verdict, ""),
            files=", ".join(map(str, read.get("files") or ())) or "series",
            facts=[f"{read['format']}, {read['rows']:,} rows read, {read['skipped']:,} lines without losses", columns(document)],
            line=told_line(document) if document["oscillation"].get("p_value") is not None else "",
            charts=[_chart(exhibit) for exhibit in _exhibits(document)],
            findings=[_finding(finding, told) for finding in findings],
            remarks=[words.capital(str(note)) for note in (*document["doubts"], *document["notes"])],
            css=_css(),
            version=__version__,
        )
    )


def _exhibits(document: Mapping[str, Any]) -> list[Exhibit]:
    unit, found = document["unit"], []
    groups = (("losses", ("generator", "discriminator")), ("scores of D", ("score_real", "score_fake")))
    for title, roles in groups:
        curves = {ROLES[role]: {"x": curve["step"], "y": curve["value"]} for role in roles if (curve := document["curves"].get(role))}
        if curves:
            found.append(Exhibit(title.replace(" ", "_"), "series", f"The {title} over {unit}", {"lines": curves}))
    line = document.get("spectrum")
    if line:
        told = f"Power of {line['curve']} against noise, over turns per 1,000 {unit}"
        turns = [1000 / period for period in line["period"]]
        lines = {name: {"x": turns, "y": line[key]} for name, key in (("power", "power"), ("background of noise", "background"), ("5 % line", "critical"))}
        found.append(Exhibit("spectrum", "series", told, {"lines": lines}))
        course = line["course"]
        if len(course["step"]) > 2:
            curve = {"amplitude": {"x": course["step"], "y": course["amplitude"]}}
            found.append(Exhibit("amplitude", "series", f"Amplitude of the strongest line over {unit}", {"lines": curve}))
    return found


def _chart(exhibit: Exhibit) -> dict[str, Any]:
    from gandiag.report.charts import Undrawable, chart

    about = {"kind": "chart", "title": words.capital(words.name(exhibit.id)), "caption": exhibit.caption}
    try:
        drawn = chart(exhibit)
    except Undrawable:
        return about | {"svg": None, "legend": ()}
    return about | {"svg": _safe(drawn.svg), "legend": drawn.legend}


def _finding(finding: Finding, told: Mapping[str, str]) -> dict[str, Any]:
    return {
        "rule": finding.rule, "level": finding.level, "label": LEVELS.get(finding.level, "Note"), "text": finding.text,
        "evidence": [(words.name(key), words.shown(value)) for key, value in words.ordered(finding.evidence) if value is not None],
        "remedies": [remedy(entry, finding.rule, told) for entry in finding.remedies],
    }  # fmt: skip
