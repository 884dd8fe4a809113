"""Turns exhibits into what the HTML pages show: titles, sections, checked images, charts with legends."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gandiag.record import Exhibit, Record
from gandiag.report import formatting
from gandiag.report.html_templates import mark_safe

if TYPE_CHECKING:
    from gandiag.report.charts import ScaleMarkers

PNG_BASE64 = re.compile(r"^iVBORw0KGgo[A-Za-z0-9+/]+=*$")
ROW_LABELS_PATTERN = re.compile(r"(?:rows|each|data): ([^:;()]+?)(?: \(|;|$)")
# The section of the page that shows each exhibit; all others come last.
EXHIBIT_SECTIONS = {
    "samples": "samples",
    "scales": "samples",
    "pairs": "repeats",
    "distances": "repeats",
    "pairwise": "repeats",
    "clusters": "modes",
    "missed": "modes",
    "named_groups": "modes",
    "missing_groups": "modes",
    "uncovered": "modes",
    "map": "modes",
    "group_map": "groups",
    "response": "response",
    "scatter": "samples",
    "structure": "samples",
    "maximin": "game",
}
EXHIBIT_TITLES = {
    "samples": "Samples",
    "scales": "The same latents at each scale",
    "pairs": "The most similar pairs",
    "clusters": "Clusters and their shares",
    "missed": "Real samples without a generated counterpart",
    "named_groups": "Classes or regions, largest deficit first",
    "missing_groups": "Real samples of what is missing",
    "map": "Map of the samples",
    "uncovered": "Real samples farthest from any generated one",
    "group_map": "Within against between",
    "response": "Response to the latent scale",
    "distances": "Distances between samples",
    "pairwise": "Distances between samples",
    "scatter": "Real and generated points",
    "structure": "Wholes unlike any real one",
    "maximin": "G against a frozen discriminator",
}
DEFAULT_SIZE = 512  # pixels, of an image whose grid is unknown
MAX_WIDTH, MAX_HEIGHT = 1080, 640  # pixels on the page
CRISP_TILE = 48  # pixels below which tiles are enlarged without smoothing


@dataclass(frozen=True, slots=True)
class ImageView:
    """An image exhibit. `png`: base64, None if the data is not a PNG; `width`: pixels on the page.

    `grid`: columns, rows and columns between wider gaps of a sheet of tiles; zeros where they are unknown.
    """

    id: str
    title: str
    caption: str
    png: str | None
    labels: tuple[str, ...]
    width: int
    crisp: bool
    grid: tuple[int, int, int] = (0, 0, 0)
    kind: str = "image"


@dataclass(frozen=True, slots=True)
class ChartView:
    """A drawn chart. `svg`: markup, None if the data does not fit its kind; `legend`: (name, CSS color)."""

    id: str
    title: str
    caption: str
    svg: Any
    legend: tuple[tuple[str, str], ...]
    kind: str = "chart"


def get_exhibit_title(exhibit: Exhibit) -> str:
    """The heading of an exhibit."""
    return EXHIBIT_TITLES.get(exhibit.id) or formatting.capitalize_first(formatting.key_to_text(exhibit.id))


def build_exhibit(exhibit: Exhibit, record: Record) -> ImageView | ChartView:
    """An image, or a chart; the latent sweep gets its scale markers. Loads matplotlib for charts."""
    if exhibit.kind == "image":
        return build_image(exhibit)
    return build_chart(exhibit, get_exhibit_title(exhibit), _find_markers(record) if exhibit.id == "response" else None)


def build_image(exhibit: Exhibit) -> ImageView:
    """An image exhibit. Only the base64 text of a PNG is let through, so nothing else can enter the image's address."""
    png = exhibit.data.get("png")
    is_png = isinstance(png, str) and PNG_BASE64.match(png) is not None
    columns, rows, tile = (exhibit.data.get(key) for key in ("columns", "rows", "tile"))
    width, height, grid = DEFAULT_SIZE, DEFAULT_SIZE, (0, 0, 0)
    group = exhibit.data.get("group")  # not in records of version 0.1
    if isinstance(columns, int) and isinstance(rows, int) and isinstance(tile, int) and min(columns, rows, tile) > 0:
        width, height = columns * tile, rows * tile
        grid = (columns, rows, group) if isinstance(group, int) else grid
    labels = tuple(
        formatting.format_value(label) for label in exhibit.data.get("row_labels") or read_row_labels(exhibit)
    )
    return ImageView(
        id=exhibit.id,
        title=get_exhibit_title(exhibit),
        caption=exhibit.caption,
        png=png if is_png else None,
        labels=labels if len(labels) == rows else (),
        width=round(width * max(min(3.0, MAX_WIDTH / width, MAX_HEIGHT / height), 0.5)),
        crisp=isinstance(tile, int) and tile < CRISP_TILE,
        grid=grid,
    )


def read_row_labels(exhibit: Exhibit) -> list[str]:
    """The row labels that a caption lists ("… rows: 0.02, 0.1", "data: 61 %, 30 % (…)"), for data without them."""
    match = ROW_LABELS_PATTERN.search(exhibit.caption)
    prefix = "× " if exhibit.id == "scales" else ""
    return [prefix + label.strip() for label in match.group(1).split(",")] if match else []


def build_chart(exhibit: Exhibit, title: str, markers: ScaleMarkers | None = None) -> ChartView:
    """A drawn chart, or one without SVG if its data does not fit its kind. Loads matplotlib."""
    from gandiag.report.charts import ChartError, draw_chart

    try:
        chart = draw_chart(exhibit, markers)
    except ChartError:
        return ChartView(exhibit.id, title, exhibit.caption, None, ())
    return ChartView(exhibit.id, title, exhibit.caption, mark_safe(chart.svg), chart.legend)


def _find_markers(record: Record) -> ScaleMarkers:
    """The scale sampled at and the interval of the trained one."""
    from gandiag.report.charts import ScaleMarkers

    latent = record.subject.get("latent") or {}
    if record.response.get("axis") == "psi":
        psi = latent.get("psi")
        return ScaleMarkers(sampled_scale=psi if isinstance(psi, (int, float)) else None, trained_range=None)
    trained, sampled = latent.get("trained_scale") or {}, latent.get("scale")
    low, high = trained.get("low"), trained.get("high")
    interval = (float(low), float(high)) if isinstance(low, (int, float)) and isinstance(high, (int, float)) else None
    return ScaleMarkers(sampled_scale=sampled if isinstance(sampled, (int, float)) else None, trained_range=interval)
