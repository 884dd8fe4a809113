"""Renders a losses document as one self-contained page: verdict, findings, spectrogram, curves, spectrum, amplitude."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gandiag.record import Exhibit, Finding
from gandiag.report import formatting
from gandiag.report.exhibit_view import build_chart
from gandiag.report.finding_view import build_findings
from gandiag.report.html_templates import mark_safe, render_template
from gandiag.report.log_text import (
    CURVE_LABELS,
    VERDICT_COLORS,
    describe_columns,
    describe_oscillation,
    describe_parts,
    describe_side_columns,
    describe_source,
    describe_summary,
    describe_verdict,
    name_curve,
    name_verdict,
    shows_spectrum,
)

ACCENT_CLASSES = {"green": "good", "yellow": "doubt"}
BAND_FACTOR = 1.3  # half the band of periods that the band test averages, as a factor
MAX_NAMED_MARKS = 6
FLAT_RATIO = 0.4  # of the common range: both losses share a chart only if one of them fills this much of it


def render_losses_page(document: Mapping[str, Any], findings: Sequence[Finding] = ()) -> str:
    """The whole page, about 90 kB; it loads nothing when shown. Loads jinja2 and matplotlib."""
    verdict, is_shown = str(document["verdict"]), shows_spectrum(document)
    spectrum = document["spectrum"] if is_shown else None
    details = _build_spectrum_exhibits(spectrum, document) if spectrum else []
    return render_template(
        "losses.html.jinja",
        accent=ACCENT_CLASSES.get(VERDICT_COLORS.get(verdict, ""), "bad"),
        word=formatting.capitalize_first(name_verdict(document)),
        summary=describe_verdict(document),
        sentences=describe_summary(document),
        files=", ".join(map(str, document["read"].get("files") or ())) or "series",
        facts=[describe_source(document), describe_columns(document)],
        parts=describe_parts(document),
        beside=describe_side_columns(document),
        oscillation=f"{formatting.capitalize_first(describe_oscillation(document))}." if is_shown else "",
        charts=[build_chart(exhibit, exhibit.id) for exhibit in _build_loss_exhibits(document)],
        details=[build_chart(exhibit, exhibit.id) for exhibit in details],
        spectrogram=_build_spectrogram(document) if is_shown else None,
        findings=build_findings(findings),
        notes=[formatting.capitalize_first(str(note)) for note in (*document["doubts"], *document["notes"])],
    )


def _build_loss_exhibits(document: Mapping[str, Any]) -> list[Exhibit]:
    """The losses and scores over the whole width, with the events and the drops of the learning rate marked."""
    unit, curves, tested_from = document["unit"], document["curves"], _find_tested_start(document)
    events = [event for event in document["events"] if event["kind"] != "settled"]
    drops = list(document.get("rate_drops") or ())
    marks = [*(event["step"] for event in events), *drops]
    words = dict.fromkeys(f"{event['kind'].replace('_', ' ')} from {event['step']:,.6g}" for event in events)
    words |= dict.fromkeys(f"the learning rate drops at {drop:,.6g}" for drop in drops)
    exhibits = []
    for title, roles in _group_curves(curves):
        lines = {name_curve(role, document): {"x": curves[role]["step"], "y": curves[role]["value"]} for role in roles}
        data = {"lines": lines, "wide": True, "events": marks, "plateau": tested_from}
        caption = f"{title} over {unit}" + (f"; dashed: {', '.join(list(words)[:MAX_NAMED_MARKS])}" if marks else "")
        caption += " …" if len(words) > MAX_NAMED_MARKS else ""
        caption += "; shaded: left out of the cycle test" if tested_from is not None else ""
        exhibits.append(Exhibit(title, "series", caption, data))
    return exhibits


def _find_tested_start(document: Mapping[str, Any]) -> float | None:
    """The step up to which both losses were left out of the cycle test, as warm-up; None if they were not."""
    starts = [level.get("tested_from") for level in (document.get("levels") or {}).values()]
    known = [start for start in starts if start is not None]
    first = min((curve["step"][0] for curve in document["curves"].values() if curve["step"]), default=0.0)
    return min(known) if known and min(known) > first else None


def _build_spectrum_exhibits(spectrum: Mapping[str, Any], document: Mapping[str, Any]) -> list[Exhibit]:
    unit, oscillation = document["unit"], document["oscillation"]
    caption = f"{spectrum['curve']}, by period in {unit}: power above the 5 % line is unlikely to be noise"
    names = (("power", "power"), ("noise expected", "background"), ("5 % line", "critical"))
    lines = {name: {"x": spectrum["period"], "y": spectrum[key]} for name, key in names}
    data: dict[str, Any] = {"lines": lines, "scale": "log", "within": _find_power_range(spectrum)}
    if not oscillation.get("sharp", True):
        data["band"] = (oscillation["period"] / BAND_FACTOR, oscillation["period"] * BAND_FACTOR)
        caption += "; shaded: the band of periods that decided"
    exhibits = [Exhibit("Power spectrum", "series", caption, data)]
    trend = spectrum["course"]
    if len(trend["step"]) > 2:
        curve = {"amplitude": {"x": trend["step"], "y": trend["amplitude"]}}
        caption = f"Amplitude of the strongest oscillation, in units of the loss, over {unit}"
        exhibits.append(Exhibit("Amplitude over time", "series", caption, {"lines": curve}))
    return exhibits


def _group_curves(curves: Mapping[str, Any]) -> list[tuple[str, tuple[str, ...]]]:
    """(title, roles) per chart: both losses share one, unless both would look flat on a common axis."""
    losses = tuple(role for role in ("generator", "discriminator") if curves.get(role))
    scores = tuple(role for role in ("score_real", "score_fake") if curves.get(role))
    ranges = [
        (min(known), max(known))
        for role in losses
        if (known := [value for value in curves[role]["value"] if value is not None])
    ]
    whole = max((high for _, high in ranges), default=0.0) - min((low for low, _ in ranges), default=0.0)
    is_flat = len(ranges) == 2 and max(high - low for low, high in ranges) < FLAT_RATIO * whole
    groups = [(f"Loss of {CURVE_LABELS[role]}", (role,)) for role in losses] if is_flat else [("Losses", losses)]
    return [(title, roles) for title, roles in [*groups, ("Scores of D", scores)] if roles]


def _find_power_range(spectrum: Mapping[str, Any]) -> tuple[float, float]:
    """The range of the power axis: from a hundredth of the noise to above the largest power."""
    positive = [value for key in ("background", "critical") for value in spectrum[key] if value > 0] or [1.0]
    return min(positive) / 100, 2 * max([*positive, *spectrum["power"]])


def _build_spectrogram(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """The spectrum over time and how to read it; None if the document has none."""
    from gandiag.report.spectrogram import draw_spectrogram

    spectrogram = (document.get("spectrum") or {}).get("spectrogram")
    if not spectrogram:
        return None
    period, unit = document["oscillation"]["period"], str(document["unit"])
    caption = (
        f"Power of each period over time, in {document['spectrum']['curve']}: yellow is far above the noise, blue is"
        f" noise. Dashed: the strongest period, {formatting.format_number(period)} {unit}. Hatched: too close to the"
        " ends of the log to be reliable."
    )
    return {
        "title": "Oscillation over time",
        "caption": caption,
        "svg": mark_safe(draw_spectrogram(spectrogram, period, unit)),
    }
