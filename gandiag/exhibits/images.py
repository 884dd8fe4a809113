"""Pictures and points to look at: tensors to Exhibits that JSON can hold."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gandiag.record import Exhibit, to_json_value

TILE_SIZE = 64  # pixels: smaller images are enlarged by a whole factor, larger ones reduced
MAX_IMAGES = 64
MAX_POINTS = 2_000  # of a curve or a cloud
MAX_TOTAL_CHARS = 2_000_000  # characters of JSON that all exhibits may take
MIN_TILE_SIZE = 16  # sheets are never shrunk below that
TILE_GAP = 2  # pixels between tiles
GROUP_GAP = 8  # more between groups of them
BACKGROUND = 255


def image_grid(
    name: str,
    caption: str,
    images: Tensor,
    value_range: tuple[float, float] | None,
    columns: int = 8,
    group_size: int = 0,
) -> Exhibit:
    """A sheet of at most 64 tiles, with a wider gap after every `group` columns.

    `images` (N, C, H, W): C of 1, 3 or more (the first three are shown); a row of NaN is an empty tile.
    `span`: the declared range; without one, the range of the images. Values outside are clipped. Grey stays grey.
    Returns an Exhibit of kind image: {"png": base64, "columns", "rows", "tile": pixels}.
    """
    images = images[:MAX_IMAGES].detach().float().cpu()
    columns = max(1, min(columns, len(images)))
    rows = max(1, -(-len(images) // columns))
    tiles = [_tile(image) for image in _bytes(images, value_range)]
    height, width = tiles[0].shape[:2] if tiles else (TILE_SIZE, TILE_SIZE)
    channels = tiles[0].shape[2] if tiles else 1
    lefts = [
        TILE_GAP + at * (width + TILE_GAP) + (at // group_size * GROUP_GAP if group_size else 0)
        for at in range(columns)
    ]
    page = np.full(
        (rows * (height + TILE_GAP) + TILE_GAP, lefts[-1] + width + TILE_GAP, channels), BACKGROUND, dtype=np.uint8
    )
    for at, tile in enumerate(tiles):
        top, left = TILE_GAP + at // columns * (height + TILE_GAP), lefts[at % columns]
        page[top : top + height, left : left + width] = tile
    return Exhibit(
        name, "image", caption, {"png": _png(page), "columns": columns, "rows": rows, "tile": max(height, width)}
    )


def line_plot(name: str, caption: str, x: Sequence[float], lines: Mapping[str, Sequence[float | None]]) -> Exhibit:
    """Curves over a shared x, at most 2,000 points each (every k-th where there are more)."""
    step = max(1, -(-len(x) // MAX_POINTS))
    return Exhibit(
        name,
        "series",
        caption,
        {"x": list(x)[::step], "lines": {key: list(values)[::step] for key, values in lines.items()}},
    )


def scatter_plot(name: str, caption: str, point_sets: Mapping[str, Tensor]) -> Exhibit:
    """Clouds of 2-D points, name -> (N, >= 2): the first two coordinates, at most 2,000 points in all, the clouds sharing them evenly."""
    each = MAX_POINTS // max(1, len(point_sets))
    lines = {}
    for key, cloud in point_sets.items():
        kept = cloud[torch.isfinite(cloud[:, :2]).all(1)][:each, :2].double()
        lines[key] = {"x": [round(v, 6) for v in kept[:, 0].tolist()], "y": [round(v, 6) for v in kept[:, 1].tolist()]}
    return Exhibit(name, "series", caption, {"lines": lines, "marks": "points"})


def histogram_plot(name: str, caption: str, values: Mapping[str, Tensor], n_bins: int = 40) -> Exhibit:
    """Shares of values, name -> (N,), over common bins. Values that are not finite are left out."""
    finite = {
        key: cloud.flatten()[torch.isfinite(cloud.flatten())].double().cpu().numpy() for key, cloud in values.items()
    }
    together = np.concatenate(list(finite.values())) if finite else np.zeros(0)
    low, high = (float(together.min()), float(together.max())) if len(together) else (0.0, 1.0)
    edges = np.linspace(low, high if high > low else low + 1.0, n_bins + 1)
    counts = {key: (np.histogram(cloud, edges)[0] / max(1, len(cloud))).tolist() for key, cloud in finite.items()}
    return Exhibit(name, "histogram", caption, {"edges": edges.tolist(), "counts": counts})


def limit_total_size(exhibits: Sequence[Exhibit], max_chars: int = MAX_TOTAL_CHARS) -> tuple[Exhibit, ...]:
    """The same exhibits within `limit` characters of JSON: the largest sheet is halved until all fit, then the largest of all is left out."""
    kept = list(exhibits)
    sizes = [_size(exhibit) for exhibit in kept]
    while kept and sum(sizes) > max_chars:
        order = sorted(range(len(kept)), key=lambda at: -sizes[at])
        largest = next(
            (at for at in order if kept[at].kind == "image" and kept[at].data["tile"] >= 2 * MIN_TILE_SIZE), None
        )
        if largest is None:
            del kept[order[0]], sizes[order[0]]
        else:
            kept[largest] = _halved(kept[largest])
            sizes[largest] = _size(kept[largest])
    return tuple(kept)


def _bytes(images: Tensor, span: tuple[float, float] | None) -> Tensor:
    """(N, H, W, 1 or 3) uint8; what is not finite is paper."""
    finite = torch.isfinite(images)
    known = images[finite]
    low, high = span or ((float(known.min()), float(known.max())) if len(known) else (0.0, 1.0))
    scaled = (images - low) / (high - low if high > low else 1.0)
    shown = torch.where(finite, scaled.clamp(0, 1) * 255, float(BACKGROUND)).round().to(torch.uint8)
    shown = shown[:, :3] if images.shape[1] >= 3 else shown[:, :1]
    return shown.permute(0, 2, 3, 1)  # (N, H, W, C)


def _tile(image: Tensor) -> np.ndarray:
    """About 64 pixels high or wide: (h, w, C) uint8."""
    pixels = image.numpy()
    longest = max(pixels.shape[:2])
    if longest <= TILE_SIZE:
        factor = max(1, TILE_SIZE // longest)
        return pixels.repeat(factor, 0).repeat(factor, 1)
    height, width = (max(1, round(side * TILE_SIZE / longest)) for side in pixels.shape[:2])
    return _resized(pixels, width, height)


def _resized(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    grey = pixels.shape[2] == 1
    small = Image.fromarray(pixels[:, :, 0] if grey else pixels).resize((width, height), Image.Resampling.BOX)
    return np.asarray(small).reshape(height, width, pixels.shape[2])


def _png(page: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(page[:, :, 0] if page.shape[2] == 1 else page).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _halved(exhibit: Exhibit) -> Exhibit:
    with Image.open(io.BytesIO(base64.b64decode(exhibit.data["png"]))) as opened:
        pixels = np.asarray(opened)
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    small = _resized(pixels, max(1, pixels.shape[1] // 2), max(1, pixels.shape[0] // 2))
    return Exhibit(
        exhibit.id,
        exhibit.kind,
        exhibit.caption,
        {**exhibit.data, "png": _png(small), "tile": exhibit.data["tile"] // 2},
    )


def _size(exhibit: Exhibit) -> int:
    return len(json.dumps(to_json_value(exhibit)))
