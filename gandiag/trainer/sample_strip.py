"""How the samples moved: one panel per snapshot, as in the figures of Metz et al. 2016."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TEXT_COLOR, BACKGROUND_COLOR, REAL_COLOR, FAKE_COLOR = "#333333", "#bbbbbb", "#8a8f98", "#c2410c"
MAX_POINTS = 500  # points a panel
IMAGES_PER_SIDE = 6  # images a side of a panel


def render_sample_strip(panels: Sequence[tuple[str, Tensor]], real: Tensor) -> bytes:
    """A PNG: the real samples, then one panel for each (title, samples); points in the plane, or sheets of images."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [("real", real), *panels]
    columns = min(6, len(shown))
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(2.0 * columns, 2.2 * lines), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for place, (title, samples) in enumerate(shown):
        axes = figure.add_subplot(lines, columns, place + 1)
        axes.set_title(title, fontsize=9, color=TEXT_COLOR)
        axes.set_axis_off()
        _panel(axes, samples.detach(), real, FAKE_COLOR if place else REAL_COLOR)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _panel(axes: Axes, samples: Tensor, real: Tensor, paint: str) -> None:
    if samples.ndim == 4:
        axes.imshow(
            make_image_grid(samples[: IMAGES_PER_SIDE * IMAGES_PER_SIDE]),
            interpolation="nearest",
            cmap="gray",
            vmin=0,
            vmax=1,
        )
        return
    points, ground = samples.flatten(1)[:MAX_POINTS, :2], real.flatten(1)[:, :2]
    centre, half = ground.mean(0), 1.25 * float((ground - ground.mean(0)).abs().max())
    axes.plot(
        ground[:200, 0].tolist(),
        ground[:200, 1].tolist(),
        linestyle="none",
        marker="o",
        markersize=2.5,
        markeredgewidth=0,
        color=BACKGROUND_COLOR,
    )
    axes.plot(
        points[:, 0].tolist(),
        points[:, 1].tolist(),
        linestyle="none",
        marker="o",
        markersize=2.5,
        markeredgewidth=0,
        alpha=0.6,
        color=paint,
    )
    axes.set_xlim(float(centre[0]) - half, float(centre[0]) + half)
    axes.set_ylim(float(centre[1]) - half, float(centre[1]) + half)
    axes.set_aspect("equal")


def make_image_grid(images: Tensor) -> Tensor:
    """Images (N, C, H, W) in [-1, 1] side by side, (h, w, 3) or (h, w) in [0, 1]."""
    side = int(len(images) ** 0.5)
    images = images[: side * side].add(1).div(2).clamp(0, 1)
    count, channels, height, width = images.shape
    rows = images.reshape(side, count // side, channels, height, width).permute(0, 3, 1, 4, 2)
    made = rows.reshape(side * height, side * width, channels)
    return made[..., 0] if channels == 1 else made if channels == 3 else torch.as_tensor(made.mean(2))
