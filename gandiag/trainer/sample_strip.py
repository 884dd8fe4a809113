"""Plots samples over training, one panel per snapshot, as in the figures of Metz et al. 2016."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gandiag.report.plot_style import load_matplotlib, plot_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TEXT_COLOR, BACKGROUND_COLOR, REAL_COLOR, FAKE_COLOR = "#333333", "#bbbbbb", "#8a8f98", "#c2410c"
MAX_POINTS = 500  # points per panel
MAX_BACKGROUND_POINTS = 200  # real points behind them
IMAGES_PER_SIDE = 6  # a panel holds at most 6 x 6 images
PANELS_PER_ROW = 6


def render_sample_strip(panels: Sequence[tuple[str, Tensor]], real: Tensor) -> bytes:
    """Return a PNG of the real samples, then one panel per (title, samples): points in the plane, or image grids."""
    load_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    all_panels = [("real", real), *panels]
    columns = min(PANELS_PER_ROW, len(all_panels))
    rows = -(-len(all_panels) // columns)
    with plot_style():
        figure = Figure(figsize=(2.0 * columns, 2.2 * rows), dpi=110, layout="constrained")
        FigureCanvasAgg(figure)
        for index, (title, samples) in enumerate(all_panels):
            axes = figure.add_subplot(rows, columns, index + 1)
            axes.set_title(title, fontsize=9, color=TEXT_COLOR)
            axes.set_axis_off()
            if samples.ndim == 4:
                grid = make_image_grid(samples.detach()[: IMAGES_PER_SIDE * IMAGES_PER_SIDE])
                axes.imshow(grid, interpolation="nearest", cmap="gray", vmin=0, vmax=1)
            else:
                _plot_points(axes, samples.detach(), real, FAKE_COLOR if index else REAL_COLOR)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _plot_points(axes: Axes, samples: Tensor, real: Tensor, color: str) -> None:
    """Plot the first two coordinates, over real points in gray that also set the limits."""
    points, background = samples.flatten(1)[:MAX_POINTS, :2], real.flatten(1)[:, :2]
    center = background.mean(0)
    half_width = 1.25 * float((background - center).abs().max())
    for xy, paint, alpha in ((background[:MAX_BACKGROUND_POINTS], BACKGROUND_COLOR, None), (points, color, 0.6)):
        axes.plot(
            xy[:, 0].tolist(),
            xy[:, 1].tolist(),
            linestyle="none",
            marker="o",
            markersize=2.5,
            markeredgewidth=0,
            alpha=alpha,
            color=paint,
        )
    axes.set_xlim(float(center[0]) - half_width, float(center[0]) + half_width)
    axes.set_ylim(float(center[1]) - half_width, float(center[1]) + half_width)
    axes.set_aspect("equal")


def make_image_grid(images: Tensor) -> Tensor:
    """Arrange images (N, C, H, W) in [-1, 1] in a square grid, (h, w, 3) or gray (h, w), in [0, 1]."""
    per_side = int(len(images) ** 0.5)
    images = images[: per_side * per_side].add(1).div(2).clamp(0, 1)
    count, channels, height, width = images.shape
    rows = images.reshape(per_side, count // per_side, channels, height, width).permute(0, 3, 1, 4, 2)
    grid = rows.reshape(per_side * height, per_side * width, channels)
    if channels == 1:
        return grid[..., 0]
    return grid if channels == 3 else torch.as_tensor(grid.mean(2))
