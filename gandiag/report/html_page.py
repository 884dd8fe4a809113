"""A Record as one self-contained page, or as a fragment for notebooks.

Nothing is loaded from anywhere: style, script, pictures and the Record itself are in the file, and its own content
security policy forbids the rest. Strings of a checkpoint are attacker text: the template escapes every one.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from gandiag import __version__
from gandiag.record import Exhibit, Record
from gandiag.report import duality_gap, formatting, measurement_table, provenance, record_view

if TYPE_CHECKING:
    from jinja2 import Environment

DOWNLOAD_SCRIPT = (
    "const a=document.getElementById('download');"
    "a.href=URL.createObjectURL(new Blob([document.getElementById('record').textContent],{type:'application/json'}));a.hidden=false;"
)
# What would end the script element; controls and marks of direction; lone surrogates. All of them stand inside JSON strings only.
UNSAFE_CHARACTERS = re.compile("[<>&\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


def render_html(record: Record) -> str:
    """The whole page, about 60 kB plus twice the pictures (shown, and inside the embedded record). Loads jinja2 and matplotlib."""
    digest = base64.b64encode(hashlib.sha256(DOWNLOAD_SCRIPT.encode()).digest()).decode()
    exhibits = [_exhibit(entry, record) for entry in (*record.exhibits, *_response(record))]
    return (
        template_environment()
        .get_template("page.html.jinja")
        .render(
            **_parts(record),
            exhibits=exhibits,
            placed=_placed(exhibits),
            css=load_css(),
            script=mark_safe(DOWNLOAD_SCRIPT),
            digest=digest,
            record=_embedded(record),
        )
    )


def render_fragment(record: Record) -> str:
    """A piece of HTML for a notebook: verdict, findings, profile and the first picture, with its own scoped style. No matplotlib."""
    pictures = [record_view.build_image(entry) for entry in record.exhibits if entry.kind == "image"]
    return (
        template_environment()
        .get_template("fragment.html.jinja")
        .render(**_parts(record), pictures=pictures[:1], css=load_css())
    )


def _parts(record: Record) -> dict[str, Any]:
    telling, rest = measurement_table.split_measurements(record)
    return {
        "hero": record_view.build_banner(record),
        "findings": record_view.build_findings(record),
        "profile": record_view.build_share_rows(record.profile, formatting.PROFILE_TEXT),
        "aspects": record_view.build_share_rows(record.aspects, formatting.ASPECT_TEXT),
        "modes": record_view.build_modes(record),
        "classes": record_view.build_class_rows(record),
        "response": record_view.build_response(record),
        "training": record_view.build_training(record),
        "game": duality_gap.build_duality_gap_rows(record),
        "measurements": record_view.build_measurement_rows(telling),
        "rest": record_view.build_measurement_rows(rest),
        "unmeasured": formatting.group_missing_measurements(record),
        "generator": record_view.build_generator_rows(record),
        "assumptions": [
            [formatting.format_value(entry.get(part)) for part in ("what", "value", "source")]
            for entry in record.subject.get("assumptions") or ()
        ],
        "circumstances": provenance.build_provenance_rows(record),
        "remarks": provenance.collect_notes(record),
        "version": __version__,
    }


def _exhibit(exhibit: Exhibit, record: Record) -> dict[str, Any]:
    """One exhibit as the template shows it; data that does not fit its kind is said, not shown."""
    if exhibit.kind == "image":
        return record_view.build_image(exhibit)
    from gandiag.report.charts import ChartError, draw_chart

    about = {
        "kind": "chart",
        "id": exhibit.id,
        "title": record_view.get_exhibit_label(exhibit),
        "caption": exhibit.caption,
    }
    try:
        drawn = draw_chart(exhibit, _marks(record) if exhibit.id == "response" else None)
    except ChartError:
        return about | {"svg": None, "legend": ()}
    return about | {"svg": mark_safe(drawn.svg), "legend": drawn.legend}


def _marks(record: Record) -> Any:
    from gandiag.report.charts import ScaleMarkers

    latent = record.subject.get("latent") or {}
    if record.response.get("axis") == "psi":
        psi = latent.get("psi")
        return ScaleMarkers(sampled_scale=psi if isinstance(psi, (int, float)) else None, trained_range=None)
    trained, sampled = latent.get("trained_scale") or {}, latent.get("scale")
    low, high = trained.get("low"), trained.get("high")
    interval = (float(low), float(high)) if isinstance(low, (int, float)) and isinstance(high, (int, float)) else None
    return ScaleMarkers(sampled_scale=sampled if isinstance(sampled, (int, float)) else None, trained_range=interval)


def _response(record: Record) -> list[Exhibit]:
    """The curve of the sweep, drawn from its points where the record keeps no exhibit of it."""
    table = record_view.build_response(record)
    if not table["rows"] or any(exhibit.id == "response" for exhibit in record.exhibits):
        return []
    points, axis = record.response["points"], record.response.get("axis") or "scale"
    lines = {key: [point.get(key) for point in points] for key in table["keys"]}
    over = "truncation psi" if axis == "psi" else "latent scale"
    return [
        Exhibit(
            "response",
            "series",
            f"Samples over the {over}",
            {"x": [point.get(axis) for point in points], "lines": lines},
        )
    ]


def _placed(exhibits: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Exhibits by the section that shows them."""
    places: dict[str, list[dict[str, Any]]] = {
        "samples": [],
        "repeats": [],
        "modes": [],
        "response": [],
        "game": [],
        "rest": [],
    }
    for entry in exhibits:
        places[record_view.EXHIBIT_SECTIONS.get(entry["id"], "rest")].append(entry)
    if not any(
        entry["kind"] == "image" for entry in places["repeats"]
    ):  # a chart alone stands better beside the samples
        places["samples"] += places["repeats"]
        places["repeats"] = []
    return places


def mark_safe(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)


def _embedded(record: Record) -> Any:
    """The record as JSON inside a script element: no character in it can end the element, turn the text around, or be unencodable."""
    return mark_safe(UNSAFE_CHARACTERS.sub(lambda found: f"\\u{ord(found.group()):04x}", record.to_json(indent=None)))


def load_css() -> Any:
    return mark_safe(files("gandiag.data").joinpath("page.css").read_text(encoding="utf-8"))


@cache
def template_environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("gandiag", "data"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _finalize(value: Any) -> Any:
    """Every string that is not ours is shown without control and direction characters."""
    return formatting.escape_unprintable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
