"""Renders a Record as one self-contained HTML page, or as a fragment for notebooks.

The page loads nothing: style, script, images and the Record itself are in the file, and its own content security policy
forbids the rest. Strings of a checkpoint are untrusted: the template escapes every one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gandiag.record import Exhibit, Record
from gandiag.report import (
    duality_gap,
    exhibit_view,
    finding_view,
    formatting,
    group_view,
    measurement_view,
    mode_view,
    provenance,
    record_view,
)
from gandiag.report.exhibit_view import ChartView, ImageView
from gandiag.report.html_templates import hash_script, load_script, mark_safe, render_template

if TYPE_CHECKING:
    from markupsafe import Markup

# What could end the script element, control and direction characters, lone surrogates: all inside JSON strings only.
UNSAFE_CHARACTERS = re.compile("[<>&\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
MAX_EVENTS = 50
MAX_GROUPS = 200
SECTIONS = ("samples", "repeats", "modes", "groups", "response", "game", "rest")


def render_html(record: Record) -> str:
    """The whole page: about 60 kB plus twice the images (shown and embedded). Loads jinja2 and matplotlib."""
    script = load_script()
    exhibits = [
        exhibit_view.build_exhibit(entry, record)
        for entry in (*record.exhibits, *_draw_missing_response(record))
        if not group_view.is_group_exhibit(entry)
    ]
    return render_template(
        "page.html.jinja",
        **_build_sections(record),
        exhibits=_group_by_section(exhibits),
        script=mark_safe(script),
        digest=hash_script(script),
        record=_embed(record),
    )


def render_fragment(record: Record) -> str:
    """HTML for a notebook: verdict, findings, profile and the first image, with its own scoped style. No matplotlib."""
    images = [exhibit_view.build_image(entry) for entry in record.exhibits if entry.kind == "image"]
    return render_template("fragment.html.jinja", **_build_sections(record), images=images[:1])


def _build_sections(record: Record) -> dict[str, Any]:
    main_rows, other_rows = measurement_view.split_measurements(record)
    return {
        "banner": record_view.build_banner(record),
        "findings": finding_view.build_findings(finding_view.sort_findings(record)),
        "profile": record_view.build_share_rows(record.profile, formatting.PROFILE_TEXT),
        "aspects": record_view.build_share_rows(record.aspects, formatting.ASPECT_TEXT),
        "mode_facts": mode_view.build_mode_facts(record),
        "missed_modes": mode_view.build_missed_modes(record),
        "no_clusters": mode_view.NO_CLUSTERS if mode_view.has_no_clusters(record) else "",
        "group_shares": mode_view.build_group_shares(record),
        "classes": record_view.build_class_rows(record),
        "groups": group_view.build_group_rows(record),
        "group_facts": group_view.build_group_facts(record),
        "columns": record_view.build_column_rows(record),
        "response": measurement_view.build_response(record),
        "training": record_view.build_training(record),
        "max_events": MAX_EVENTS,
        "max_groups": MAX_GROUPS,
        "game": duality_gap.build_duality_gap_rows(record),
        "measurements": main_rows,
        "other_measurements": other_rows,
        "missing": measurement_view.group_missing_measurements(record),
        "generator": record_view.build_generator_rows(record),
        "assumptions": record_view.build_assumption_rows(record),
        "provenance": provenance.build_provenance_rows(record),
        "notes": provenance.collect_notes(record),
    }


def _draw_missing_response(record: Record) -> list[Exhibit]:
    """The curve of the latent sweep, from its points, if the record has no exhibit of it."""
    response = measurement_view.build_response(record)
    if not response.rows or any(exhibit.id == "response" for exhibit in record.exhibits):
        return []
    lines = {key: [point.get(key) for point in response.points] for key in response.keys}
    axis_text = "truncation psi" if response.axis == "psi" else "latent scale"
    data = {"x": [point.get(response.axis) for point in response.points], "lines": lines}
    return [Exhibit("response", "series", f"Samples over the {axis_text}", data)]


def _group_by_section(exhibits: Sequence[ImageView | ChartView]) -> dict[str, list[ImageView | ChartView]]:
    """Exhibits by the section that shows them."""
    groups: dict[str, list[ImageView | ChartView]] = {section: [] for section in SECTIONS}
    for exhibit in exhibits:
        groups[exhibit_view.EXHIBIT_SECTIONS.get(exhibit.id, "rest")].append(exhibit)
    if not any(exhibit.kind == "image" for exhibit in groups["repeats"]):  # a lone chart goes beside the samples
        groups["samples"] += groups["repeats"]
        groups["repeats"] = []
    return groups


def _embed(record: Record) -> Markup:
    """The record as JSON for a script element; nothing in it can end the element, reverse text or fail to encode."""
    text = record.to_json(indent=None)
    return mark_safe(UNSAFE_CHARACTERS.sub(lambda match: f"\\u{ord(match.group()):04x}", text))
