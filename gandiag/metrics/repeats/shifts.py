"""Images that are one picture moved by a few pixels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from gandiag.metrics.repeats.groups import RepeatGroups, renumber

MAX_SIDE = 32  # larger images are averaged to this side
MAX_SHIFT = 4  # pixels of the averaged image, in each direction
MIN_SIDE = 16
MAX_ALIGNED = 0.15  # difference after alignment, relative to the contrast, of one picture
MAX_UNEXPLAINED = 0.25  # of the mean square difference of a group, that alignment leaves
MAX_AT_BORDER = 0.1  # share of a group at the largest shift: more means that positions vary freely
MIN_SHARE = 0.05  # of the outputs, that a group has at least
MAX_PIVOTS = 12
MAX_IMAGES = 400


def group_shifted_copies(samples: Tensor, seed: int = 0) -> RepeatGroups:
    """Group images (n, [C,] H, W) that one picture gives when it is moved by up to an eighth of the side.

    At most 400 images are compared; the others are counted as different.
    """
    images = samples.reshape(len(samples), -1, *samples.shape[-2:])
    labels = torch.arange(len(images))
    if min(images.shape[2:]) < MIN_SIDE or len(images) < 2:
        return RepeatGroups(labels)
    thumbnails = _shrink(images[:MAX_IMAGES])
    free = torch.ones(len(thumbnails), dtype=torch.bool)
    order = torch.randperm(len(thumbnails), generator=torch.Generator().manual_seed(seed)).tolist()
    pivots = 0
    for first in order:
        if pivots == MAX_PIVOTS:
            break
        if not bool(free[first]):
            continue
        pivots += 1
        members = _find_copies(thumbnails, first, free)
        if len(members) >= MIN_SHARE * len(thumbnails):
            labels[members] = int(first)
            free[members] = False
    return RepeatGroups(renumber(labels), "shifts of a few pixels")


def _shrink(images: Tensor) -> Tensor:
    """Gray images (n, H, W) of at most 32 pixels."""
    height, width = (min(MAX_SIDE, side) for side in images.shape[2:])
    return F.adaptive_avg_pool2d(images.mean(1, keepdim=True), (height, width))[:, 0]


def _find_copies(thumbnails: Tensor, pivot: int, free: Tensor) -> Tensor:
    """The free rows that are the pivot, moved; none where many need the largest shift."""
    best, shift, unaligned = _align(thumbnails, thumbnails[pivot])
    is_copy = (best <= MAX_ALIGNED) & free
    members = torch.nonzero(is_copy).flatten()
    explained = best[members].square().mean() <= MAX_UNEXPLAINED * unaligned[members].square().mean()
    is_free_to_move = float((shift[members] == MAX_SHIFT).float().mean()) > MAX_AT_BORDER
    if len(members) < 2 or is_free_to_move or not bool(explained):
        return members[:0]
    return members


def _align(images: Tensor, pivot: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Smallest difference of each image from the moved pivot, relative to its contrast; the shift; the unmoved one."""
    height, width = pivot.shape
    inner = images[:, MAX_SHIFT : height - MAX_SHIFT, MAX_SHIFT : width - MAX_SHIFT]
    best = torch.full((len(images),), torch.inf)
    shift, unaligned = torch.zeros(len(images), dtype=torch.int64), best
    for down in range(2 * MAX_SHIFT + 1):
        for right in range(2 * MAX_SHIFT + 1):
            window = pivot[down : height - 2 * MAX_SHIFT + down, right : width - 2 * MAX_SHIFT + right]
            contrast = window.std().clamp_min(1e-12)
            difference = (inner - window).square().mean((1, 2)).sqrt() / contrast
            unaligned = difference if down == right == MAX_SHIFT else unaligned
            is_better = difference < best
            best = torch.where(is_better, difference, best)
            shift[is_better] = max(abs(down - MAX_SHIFT), abs(right - MAX_SHIFT))
    return best, shift, unaligned
