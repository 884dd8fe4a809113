"""Builds exhibits: tensors as image grids, curves, point clouds and histograms that JSON can hold."""

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
from gandiag.sampling.image_opener import open_image

TILE_SIZE = 64  # pixels: smaller images are enlarged by an integer factor, larger ones reduced
MAX_IMAGES = 64
MAX_POINTS = 2_000  # of a curve or a point cloud
MAX_TOTAL_CHARS = 2_000_000  # of JSON, for all exhibits together
MIN_TILE_SIZE = 16  # grids are never shrunk below this
TILE_GAP = 2  # pixels between tiles
GROUP_GAP = 8  # added between groups of tiles
BACKGROUND = 255


def image_grid(
    name: str,
    caption: str,
    images: Tensor,
    value_range: tuple[float, float] | None,
    columns: int = 8,
    group_size: int = 0,
) -> Exhibit:
    """A grid of at most 64 tiles, with a wider gap after every `group_size` columns.

    `images` (N, C, H, W): C of 1, 3 or more (the first three are shown). Pixels that are not finite get the background
    color, so an image of NaN is an empty tile. `value_range`: the declared range; without one, the range of the images.
    Values outside are clipped. Grayscale images stay grayscale. Returns an Exhibit of kind image: {"png": base64,
    "columns", "rows", "tile": pixels, "group": group_size}.
    """
    images = images[:MAX_IMAGES].detach().float().cpu()
    columns = max(1, min(columns, len(images)))
    rows = max(1, -(-len(images) // columns))
    tiles = [_resize_to_tile(image) for image in _to_uint8(images, value_range).numpy()]
    height, width, channels = tiles[0].shape if tiles else (TILE_SIZE, TILE_SIZE, 1)
    lefts = [
        TILE_GAP + column * (width + TILE_GAP) + (column // group_size * GROUP_GAP if group_size else 0)
        for column in range(columns)
    ]
    page_shape = (rows * (height + TILE_GAP) + TILE_GAP, lefts[-1] + width + TILE_GAP, channels)
    page = np.full(page_shape, BACKGROUND, dtype=np.uint8)
    for i, tile in enumerate(tiles):
        top, left = TILE_GAP + i // columns * (height + TILE_GAP), lefts[i % columns]
        page[top : top + height, left : left + width] = tile
    data = {"png": _encode_png(page), "columns": columns, "rows": rows, "tile": max(height, width), "group": group_size}
    return Exhibit(name, "image", caption, data)


def line_plot(name: str, caption: str, x: Sequence[float], lines: Mapping[str, Sequence[float | None]]) -> Exhibit:
    """Curves over a shared x, at most 2,000 points each (every k-th of longer ones)."""
    step = max(1, -(-len(x) // MAX_POINTS))
    data = {"x": list(x)[::step], "lines": {key: list(values)[::step] for key, values in lines.items()}}
    return Exhibit(name, "series", caption, data)


def scatter_plot(name: str, caption: str, point_sets: Mapping[str, Tensor]) -> Exhibit:
    """Point clouds, name -> (N, >= 2): the first two coordinates, at most 2,000 points in all, shared evenly."""
    max_points = MAX_POINTS // max(1, len(point_sets))
    lines = {}
    for key, points in point_sets.items():
        shown = points[torch.isfinite(points[:, :2]).all(1)][:max_points, :2].double()
        lines[key] = {axis: [round(v, 6) for v in shown[:, i].tolist()] for i, axis in enumerate("xy")}
    return Exhibit(name, "series", caption, {"lines": lines, "marks": "points"})


def histogram_plot(name: str, caption: str, values: Mapping[str, Tensor], n_bins: int = 40) -> Exhibit:
    """Shares of values, name -> (N,), over common bins. Values that are not finite are left out."""
    finite = {
        key: tensor.flatten()[torch.isfinite(tensor.flatten())].double().cpu().numpy() for key, tensor in values.items()
    }
    pooled = np.concatenate(list(finite.values())) if finite else np.zeros(0)
    low, high = (float(pooled.min()), float(pooled.max())) if len(pooled) else (0.0, 1.0)
    edges = np.linspace(low, high if high > low else low + 1.0, n_bins + 1)
    counts = {key: (np.histogram(array, edges)[0] / max(1, len(array))).tolist() for key, array in finite.items()}
    return Exhibit(name, "histogram", caption, {"edges": edges.tolist(), "counts": counts})


def limit_total_size(exhibits: Sequence[Exhibit], max_chars: int = MAX_TOTAL_CHARS) -> tuple[Exhibit, ...]:
    """The exhibits reduced to `max_chars` characters of JSON.

    The largest image grid is halved until all fit; once none can be halved, the largest exhibit is dropped.
    """
    kept = list(exhibits)
    sizes = [_json_size(exhibit) for exhibit in kept]
    while kept and sum(sizes) > max_chars:
        by_size = sorted(range(len(kept)), key=lambda i: -sizes[i])
        largest_grid = next((i for i in by_size if _can_be_halved(kept[i])), None)
        if largest_grid is None:
            del kept[by_size[0]], sizes[by_size[0]]
        else:
            kept[largest_grid] = _halve(kept[largest_grid])
            sizes[largest_grid] = _json_size(kept[largest_grid])
    return tuple(kept)


def _to_uint8(images: Tensor, value_range: tuple[float, float] | None) -> Tensor:
    """(N, H, W, 1 or 3) uint8; the background color where a value is not finite."""
    is_finite = torch.isfinite(images)
    values = images[is_finite]
    low, high = value_range or ((float(values.min()), float(values.max())) if len(values) else (0.0, 1.0))
    scaled = (images - low) / (high - low if high > low else 1.0)
    pixels = torch.where(is_finite, scaled.clamp(0, 1) * 255, float(BACKGROUND)).round().to(torch.uint8)
    pixels = pixels[:, :3] if images.shape[1] >= 3 else pixels[:, :1]
    return pixels.permute(0, 2, 3, 1)  # (N, H, W, C)


def _resize_to_tile(pixels: np.ndarray) -> np.ndarray:
    """An image (H, W, C) uint8 about 64 pixels high or wide."""
    longest = max(pixels.shape[:2])
    if longest <= TILE_SIZE:
        factor = max(1, TILE_SIZE // longest)
        return pixels.repeat(factor, 0).repeat(factor, 1)
    height, width = (max(1, round(length * TILE_SIZE / longest)) for length in pixels.shape[:2])
    return _resize(pixels, width, height)


def _resize(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    resized = _to_pil(pixels).resize((width, height), Image.Resampling.BOX)
    return np.asarray(resized).reshape(height, width, pixels.shape[2])


def _to_pil(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def _encode_png(page: np.ndarray) -> str:
    buffer = io.BytesIO()
    _to_pil(page).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _can_be_halved(exhibit: Exhibit) -> bool:
    return exhibit.kind == "image" and bool(exhibit.data["tile"] >= 2 * MIN_TILE_SIZE)


def _halve(exhibit: Exhibit) -> Exhibit:
    content = base64.b64decode(exhibit.data["png"])
    with open_image(io.BytesIO(content), len(content)) as image:
        pixels = np.asarray(image)
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    halved = _resize(pixels, max(1, pixels.shape[1] // 2), max(1, pixels.shape[0] // 2))
    data = {**exhibit.data, "png": _encode_png(halved), "tile": exhibit.data["tile"] // 2}
    return Exhibit(exhibit.id, exhibit.kind, exhibit.caption, data)


def _json_size(exhibit: Exhibit) -> int:
    return len(json.dumps(to_json_value(exhibit)))
