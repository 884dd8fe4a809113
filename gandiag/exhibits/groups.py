"""Exhibits of a grouped audit: samples of the worst groups beside the reference, and within against between."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gandiag.exhibits.images import TILE_SIZE, image_grid
from gandiag.interfaces import OutputSpec
from gandiag.record import Exhibit
from gandiag.sampling.preprocessing import to_unit_range

MAX_TILES = 6  # samples of a group that are shown, on each side
MAX_SHOWN_GROUPS = 16
MAX_STORED_GROUPS = 4_000  # thumbnails kept in memory: 6 of 12 kB each
EXHIBIT_PREFIX = "group:"


@dataclass(slots=True)
class GroupThumbnails:
    """Small copies of the first images of each group; nothing for other kinds of samples."""

    output: OutputSpec
    images: dict[Hashable, list[Tensor]] = field(default_factory=dict)

    def add(self, samples: Tensor, groups: Sequence[Hashable]) -> None:
        """Keep those of a batch (B, C, H, W) that are among the first of their group, (C, h, w) uint8 each."""
        if self.output.kind != "image":
            return
        rows = []
        for row, name in enumerate(groups):
            if name not in self.images and len(self.images) >= MAX_STORED_GROUPS:
                continue
            if len(self.images.setdefault(name, [])) < MAX_TILES:
                self.images[name].append(torch.empty(0))
                rows.append((row, name, len(self.images[name]) - 1))
        if rows:
            small = _shrink(to_unit_range(samples[[row for row, _, _ in rows]], self.output))
            for image, (_, name, place) in zip(small, rows, strict=True):
                self.images[name][place] = image


def _shrink(images: Tensor) -> Tensor:
    """(B, C, H, W) in [0, 1] -> at most 64 pixels high and wide, uint8."""
    height, width = images.shape[2:]
    longest = max(height, width)
    if longest > TILE_SIZE:
        size = [max(1, round(side * TILE_SIZE / longest)) for side in (height, width)]
        images = F.interpolate(images, size=size, mode="area")
    return images.mul(255).round().to(torch.uint8)


def group_exhibits(
    rows: Sequence[Mapping[str, Any]], subject: GroupThumbnails, reference: GroupThumbnails | None
) -> tuple[Exhibit, ...]:
    """The worst groups, subject left and reference right, and the map of widths.

    `rows`: those of the record, worst first. Names of groups are those of the record.
    """
    ours = {str(name): images for name, images in subject.images.items()}
    theirs = {} if reference is None else {str(name): images for name, images in reference.images.items()}
    shown = [row["group"] for row in rows[:MAX_SHOWN_GROUPS] if row["group"] in ours]
    grids = tuple(_group_grid(name, ours[name], theirs.get(name, [])) for name in shown)
    return (*_width_map(rows), *grids)


def _group_grid(name: str, ours: list[Tensor], theirs: list[Tensor]) -> Exhibit:
    channels, height, width = (ours or theirs)[0].shape
    tiles = [_pad(part, (channels, height, width)) for part in (ours, theirs) if part]
    columns = MAX_TILES * len(tiles)
    sides = "subject left, reference right" if len(tiles) == 2 else "subject"
    return image_grid(
        EXHIBIT_PREFIX + name, f"{name}: {sides}", torch.cat(tiles), (0.0, 255.0), columns, group_size=MAX_TILES
    )


def _pad(images: list[Tensor], shape: tuple[int, int, int]) -> Tensor:
    """Six tiles; missing ones NaN, which is drawn as background, and of the subject's size."""
    tiles = torch.full((MAX_TILES, *shape), float("nan"))
    for place, image in enumerate(images[:MAX_TILES]):
        fitted = image.float()
        if fitted.shape[1:] != shape[1:]:
            fitted = F.interpolate(fitted[None], size=list(shape[1:]), mode="nearest")[0]
        tiles[place] = fitted if fitted.shape[0] == shape[0] else fitted.mean(0, keepdim=True).expand(*shape)
    return tiles


def _width_map(rows: Sequence[Mapping[str, Any]]) -> tuple[Exhibit, ...]:
    """One point per group: its distance to the other groups, and the distance within it, of both sides."""
    points = {
        side: [
            (row[f"{prefix}between"], row[f"{prefix}width"]) for row in rows if row.get(f"{prefix}between") is not None
        ]
        for side, prefix in (("fake", ""), ("real", "reference_"))
    }
    lines = {
        side: {"x": [round(float(x), 6) for x, _ in pairs[:1000]], "y": [round(float(y), 6) for _, y in pairs[:1000]]}
        for side, pairs in points.items()
        if pairs
    }
    if not lines:
        return ()
    caption = (
        "One point per group: distance to other groups (across) and distance within the group (up); real: reference"
    )
    return (Exhibit("group_map", "series", caption, {"lines": lines, "marks": "points"}),)
