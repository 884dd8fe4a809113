"""A losses document as one self-contained page: verdict, spectrogram, curves, spectrum, amplitude over time, findings with remedies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gandiag import __version__
from gandiag.record import Exhibit, Finding
from gandiag.report import formatting
from gandiag.report.html_page import load_css, mark_safe, template_environment
from gandiag.report.log_text import CURVE_LABELS, VERDICT_TEXT, describe_columns, describe_oscillation
from gandiag.report.record_view import LEVEL_LABELS, build_remedy

ACCENT_CLASSES = {"settled": "good", "inconclusive": "doubt"}


def render_losses_page(document: Mapping[str, Any], findings: Sequence[Finding] = ()) -> str:
    """The whole page, about 90 kB. Loads jinja2 and matplotlib. Nothing is loaded from anywhere when it is shown."""
    verdict = str(document["verdict"])
    read = document["read"]
    told = formatting.first_rule_per_remedy(findings)
    return (
        template_environment()
        .get_template("losses.html.jinja")
        .render(
            accent=ACCENT_CLASSES.get(verdict, "bad"),
            word=formatting.capitalize_first(verdict.replace("_", " ")),
            told=VERDICT_TEXT.get(verdict, ""),
            files=", ".join(map(str, read.get("files") or ())) or "series",
            facts=[
                f"{read['format']}, {read['rows']:,} rows read, {read['skipped']:,} lines without losses",
                describe_columns(document),
            ],
            line=formatting.capitalize_first(describe_oscillation(document)) + "."
            if document["oscillation"].get("p_value") is not None
            else "",
            charts=[_chart(exhibit) for exhibit in _exhibits(document)],
            spectrogram=_spectrogram(document),
            findings=[_finding(finding, told) for finding in findings],
            remarks=[formatting.capitalize_first(str(note)) for note in (*document["doubts"], *document["notes"])],
            css=load_css(),
            version=__version__,
        )
    )


def _exhibits(document: Mapping[str, Any]) -> list[Exhibit]:
    unit, found = document["unit"], []
    for title, roles in _groups(document["curves"]):
        lines = {
            CURVE_LABELS[role]: {"x": (curve := document["curves"][role])["step"], "y": curve["value"]}
            for role in roles
        }
        found.append(Exhibit(title, "series", f"{title} over {unit}", {"lines": lines}))
    line = document.get("spectrum")
    if line:
        told = f"{line['curve']}, by period in {unit}: where the power rises above the 5 % line, noise alone would hardly do it"
        names = (("power", "power"), ("noise expected", "background"), ("5 % line", "critical"))
        lines = {name: {"x": line["period"], "y": line[key]} for name, key in names}
        found.append(
            Exhibit("Which periods", "series", told, {"lines": lines, "scale": "log", "within": _within(line)})
        )
        course = line["course"]
        if len(course["step"]) > 2:
            curve = {"amplitude": {"x": course["step"], "y": course["amplitude"]}}
            found.append(
                Exhibit(
                    "How far it swings",
                    "series",
                    f"Amplitude of the strongest line, in units of the loss, over {unit}",
                    {"lines": curve},
                )
            )
    return found


def _groups(curves: Mapping[str, Any]) -> list[tuple[str, tuple[str, ...]]]:
    """Which curves share a chart: both losses, unless one axis would flatten them."""
    losses = tuple(role for role in ("generator", "discriminator") if curves.get(role))
    scores = tuple(role for role in ("score_real", "score_fake") if curves.get(role))
    ranges = [
        (min(known), max(known))
        for role in losses
        if (known := [value for value in curves[role]["value"] if value is not None])
    ]
    whole = max((high for _, high in ranges), default=0.0) - min((low for low, _ in ranges), default=0.0)
    flat = len(ranges) == 2 and max(high - low for low, high in ranges) < 0.4 * whole
    groups = [(f"Loss of {CURVE_LABELS[role]}", (role,)) for role in losses] if flat else [("Losses", losses)]
    return [(title, roles) for title, roles in [*groups, ("Scores of D", scores)] if roles]


def _within(line: Mapping[str, Any]) -> tuple[float, float]:
    """The values that a reader must see: from a hundredth of the noise to above the largest."""
    positive = [value for key in ("background", "critical") for value in line[key] if value > 0] or [1.0]
    return min(positive) / 100, 2 * max([*positive, *line["power"]])


def _spectrogram(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """The change of the spectrum over time, and how to read it; None where there is none."""
    from gandiag.report.spectrogram import draw_spectrogram

    found = (document.get("spectrum") or {}).get("spectrogram")
    if not found:
        return None
    line, unit = document["oscillation"], str(document["unit"])
    told = f"How strong each period is over time, in {document['spectrum']['curve']}: yellow is far above the noise, blue is noise."
    told += f" Dashed: the strongest line, {formatting.format_number(line['period'])} {unit}. Hatched: too near the ends of the log to be judged."
    return {
        "title": "When it oscillates",
        "caption": told,
        "svg": mark_safe(draw_spectrogram(found, line["period"], unit)),
    }


def _chart(exhibit: Exhibit) -> dict[str, Any]:
    from gandiag.report.charts import ChartError, draw_chart

    about = {"kind": "chart", "title": exhibit.id, "caption": exhibit.caption}
    try:
        drawn = draw_chart(exhibit)
    except ChartError:
        return about | {"svg": None, "legend": ()}
    return about | {"svg": mark_safe(drawn.svg), "legend": drawn.legend}


def _finding(finding: Finding, told: Mapping[str, str]) -> dict[str, Any]:
    return {
        "rule": finding.rule,
        "level": finding.level,
        "label": LEVEL_LABELS.get(finding.level, "Note"),
        "text": finding.text,
        "evidence": [
            (formatting.key_to_text(key), formatting.format_value(value))
            for key, value in formatting.sort_entries(finding.evidence)
            if value is not None
        ],
        "remedies": [build_remedy(entry, finding.rule, told) for entry in finding.remedies],
    }
