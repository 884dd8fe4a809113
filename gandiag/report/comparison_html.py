"""Renders a comparison of two records as one self-contained page: sample sheets under a slider, and what changed."""

from __future__ import annotations

from gandiag.record import Exhibit, Record
from gandiag.report import exhibit_view, formatting
from gandiag.report.comparison import RESULT_LABELS, ComparisonReport, build_cells, summarize
from gandiag.report.exhibit_view import ImageView
from gandiag.report.html_templates import hash_script, load_script, mark_safe, render_template

ACCENT_CLASSES = {"violated": "bad", "passed": "good"}
PAIRED_EXHIBITS = ("samples", "scales")  # of the same latents, where seed and size are the same


def render_comparison_page(report: ComparisonReport, old: Record, new: Record, *, verbose: bool = False) -> str:
    """The whole page; it loads nothing when shown. Loads jinja2."""
    visible, n_hidden = report.visible_changes(verbose)
    script = load_script()
    return render_template(
        "compare.html.jinja",
        accent=ACCENT_CLASSES.get(report.check.state, "doubt"),
        word=formatting.capitalize_first(RESULT_LABELS[report.check.state].lower()),
        old=formatting.escape_unprintable(report.old),
        new=formatting.escape_unprintable(report.new),
        summary=summarize(report),
        remarks=[formatting.capitalize_first(text) for text in report.comparison.remarks],
        rows=[build_cells(change) for change in visible],
        n_hidden=n_hidden,
        pairs=_pair_images(old, new),
        script=mark_safe(script),
        digest=hash_script(script),
    )


def _pair_images(old: Record, new: Record) -> list[tuple[str, ImageView, ImageView]]:
    """(title, before, after) of the sheets that both records have with the same layout."""
    pairs = []
    for name in PAIRED_EXHIBITS:
        before, after = (_find_image(record, name) for record in (old, new))
        if before is None or after is None or _get_layout(before) != _get_layout(after):
            continue
        views = [exhibit_view.build_image(exhibit) for exhibit in (before, after)]
        if all(view.png for view in views):
            pairs.append((views[0].title, views[0], views[1]))
    return pairs


def _find_image(record: Record, name: str) -> Exhibit | None:
    return next((entry for entry in record.exhibits if entry.id == name and entry.kind == "image"), None)


def _get_layout(exhibit: Exhibit) -> tuple[object, ...]:
    return tuple(exhibit.data.get(key) for key in ("columns", "rows", "tile"))
