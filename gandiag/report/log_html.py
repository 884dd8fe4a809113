"""Renders a losses document as one self-contained page: verdict, findings, spectrogram, curves, spectrum, amplitude."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gandiag.record import Exhibit, Finding
from gandiag.report import formatting
from gandiag.report.exhibit_view import build_chart
from gandiag.report.finding_view import build_findings
from gandiag.report.html_templates import mark_safe, render_template
from gandiag.report.log_text import CURVE_LABELS, VERDICT_TEXT, describe_columns, describe_oscillation, describe_source

ACCENT_CLASSES = {"settled": "good", "inconclusive": "doubt"}
FLAT_RATIO = 0.4  # of the common range: both losses share a chart only if one of them fills this much of it


def render_losses_page(document: Mapping[str, Any], findings: Sequence[Finding] = ()) -> str:
    """The whole page, about 90 kB; it loads nothing when shown. Loads jinja2 and matplotlib."""
    verdict = str(document["verdict"])
    has_oscillation = document["oscillation"].get("p_value") is not None
    return render_template(
        "losses.html.jinja",
        accent=ACCENT_CLASSES.get(verdict, "bad"),
        word=formatting.capitalize_first(verdict.replace("_", " ")),
        summary=VERDICT_TEXT.get(verdict, ""),
        files=", ".join(map(str, document["read"].get("files") or ())) or "series",
        facts=[describe_source(document), describe_columns(document)],
        oscillation=f"{formatting.capitalize_first(describe_oscillation(document))}." if has_oscillation else "",
        charts=[build_chart(exhibit, exhibit.id) for exhibit in _build_exhibits(document)],
        spectrogram=_build_spectrogram(document),
        findings=build_findings(findings),
        notes=[formatting.capitalize_first(str(note)) for note in (*document["doubts"], *document["notes"])],
    )


def _build_exhibits(document: Mapping[str, Any]) -> list[Exhibit]:
    unit, curves = document["unit"], document["curves"]
    exhibits = []
    for title, roles in _group_curves(curves):
        lines = {CURVE_LABELS[role]: {"x": curves[role]["step"], "y": curves[role]["value"]} for role in roles}
        exhibits.append(Exhibit(title, "series", f"{title} over {unit}", {"lines": lines}))
    spectrum = document.get("spectrum")
    return [*exhibits, *_build_spectrum_exhibits(spectrum, unit)] if spectrum else exhibits


def _build_spectrum_exhibits(spectrum: Mapping[str, Any], unit: str) -> list[Exhibit]:
    caption = f"{spectrum['curve']}, by period in {unit}: power above the 5 % line is unlikely to be noise"
    names = (("power", "power"), ("noise expected", "background"), ("5 % line", "critical"))
    lines = {name: {"x": spectrum["period"], "y": spectrum[key]} for name, key in names}
    data = {"lines": lines, "scale": "log", "within": _find_power_range(spectrum)}
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
