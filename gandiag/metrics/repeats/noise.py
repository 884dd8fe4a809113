"""Images and series that are one picture under noise: what differs between them has no structure.

White noise shrinks by the block's area when a difference is averaged over blocks; what an eye sees does not. Two
distance matrices, of the outputs and of their block means, therefore give the structured part of every difference.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gandiag.metrics.repeats.groups import RepeatGroups, count_groups, group_isolated, renumber

SAME_PATTERN = 0.02  # structured difference, relative to the contrast of the shared pattern, that no eye sees
FAINT_PATTERN = 0.15  # below this one, a network makes one picture, and a folder of samples is undecided
MAX_FAINT_RANGE = 0.025  # of the range, the same: six gray levels of 256
GRAY_LEVEL = 1 / 255  # of the range: what 8 bits resolve
MAX_RANGE_NOISE = 0.1  # of the range: noise under which a picture is still one picture
MAX_PATTERN_NOISE = 0.5  # of the contrast of the shared pattern
MAX_NOISE_STRUCTURE = 0.1  # structured part of a group's residuals, relative to its noise
MAX_KURTOSIS = 15.0  # sparse differences (small objects in masks) are not noise
NOISE_ERRORS = 4.0  # standard errors allowed for the structured part of white noise
MIN_SIDE = 4


@dataclass(frozen=True, slots=True)
class Grid:
    """Outputs on a grid. `shape`: (C, H, W), a series (C, 1, T). `range`: of images, 0 where none is declared.

    `is_network`: the outputs are those of a network, so that their values have a natural scale.
    """

    shape: tuple[int, int, int]
    range: float = 0.0
    is_network: bool = False

    @property
    def blocks(self) -> tuple[int, ...]:
        """Sides of the blocks that differences are averaged over: 2, and about an eighth of the side."""
        return tuple(sorted({2, max(2, max(self.shape[1:]) // 8)}))


@dataclass(frozen=True, slots=True)
class _PairStructure:
    """Per pair: standard deviations `noise` and `structure` of the difference over √2, its `error`, the `contrast`."""

    noise: Tensor
    structure: Tensor
    error: Tensor
    contrast: Tensor

    def is_same(self, factor: float, grid: Grid, *, faint: bool) -> Tensor:
        """Pairs whose structured difference is below `factor` times what counts as one picture: (n, n) bool."""
        limit = factor * self.contrast * (FAINT_PATTERN if faint else SAME_PATTERN)
        if faint and grid.range:
            limit = limit.clamp(factor * GRAY_LEVEL * grid.range, factor * MAX_FAINT_RANGE * grid.range)
        is_noise = self.noise <= torch.clamp_min(MAX_PATTERN_NOISE * self.contrast, MAX_RANGE_NOISE * grid.range)
        is_close = self.structure <= limit.square() + factor * self.error
        return (is_close & is_noise).fill_diagonal_(True)


def group_noisy_copies(samples: Tensor, grid: Grid) -> RepeatGroups:
    """Group outputs (n, *shape) that are one picture apart from noise. Cost: two or three distance matrices."""
    rows = samples.flatten(1)
    nothing = RepeatGroups(torch.arange(len(rows)))
    if len(rows) < 2 or max(grid.shape[1:]) < MIN_SIDE:
        return nothing
    pairs = _measure_pairs(rows, grid)
    labels, noise, is_sparse = _group(rows, pairs, grid, faint=grid.is_network)
    if grid.is_network or count_groups(labels) < len(rows):
        reason = "the outputs of a group differ in a few isolated values" if is_sparse and not grid.is_network else ""
        return RepeatGroups(labels, _describe_noise(noise, grid), reason)
    labels, noise, _ = _group(rows, pairs, grid, faint=True)
    reason = "the outputs of a group hardly differ against their common pattern"
    return RepeatGroups(labels, _describe_noise(noise, grid), reason)


def _group(rows: Tensor, pairs: _PairStructure, grid: Grid, *, faint: bool) -> tuple[Tensor, float, bool]:
    """Labels, the noise of the groups, and whether it is sparse."""
    labels = group_isolated(pairs.is_same(1.0, grid, faint=faint), pairs.is_same(3.0, grid, faint=faint))
    return _verify_groups(rows, labels, grid, faint=faint)


def _measure_pairs(rows: Tensor, grid: Grid) -> _PairStructure:
    full = _mean_square_differences(rows)
    means = rows.reshape(len(rows), grid.shape[0], -1).mean(2)
    energy = rows.square().mean(1) - means.square().mean(1)  # (n,) variance within an output, per channel
    contrast = ((energy[:, None] + energy[None]) / 2 - full).clamp_min(0).sqrt()
    structure, error = torch.zeros_like(full), torch.zeros_like(full)
    for block in grid.blocks:
        averaged, area = _average_blocks(rows, grid, block)
        part, part_error = _structured_part(_mean_square_differences(averaged), full, area, averaged.shape[1])
        is_larger = part - part_error > structure - error
        structure, error = torch.where(is_larger, part, structure), torch.where(is_larger, part_error, error)
    return _PairStructure(full.sqrt(), structure, error, contrast)


def _mean_square_differences(rows: Tensor) -> Tensor:
    """Mean square difference of each two rows over 2, (n, n); correct to 1e-6 of the rows' variance."""
    centered = rows - rows.mean(0)
    squares = centered.square().sum(1)
    products = torch.addmm(squares, centered, centered.T, alpha=-2).add_(squares[:, None]).clamp_(min=0)
    return products.fill_diagonal_(0) / (2 * rows.shape[1])


def _structured_part(averaged: Tensor, full: Tensor, area: int, n_cells: int) -> tuple[Tensor, Tensor]:
    """Mean square of the structured part of a difference, and what white noise alone would show of it."""
    part = (averaged - full / area).abs() / (1 - 1 / area)
    error = NOISE_ERRORS * full / area * (2 / n_cells) ** 0.5 / (1 - 1 / area)
    return part, error


def _average_blocks(rows: Tensor, grid: Grid, block: int) -> tuple[Tensor, int]:
    """Block means, flat, of whole blocks alone; and the number of values in a block."""
    channels, height, width = grid.shape
    block_height, block_width = min(block, height), min(block, width)
    images = rows.reshape(len(rows), channels, height, width)
    averaged = F.avg_pool2d(images, (block_height, block_width))  # drops what does not fill a block
    return averaged.flatten(1), block_height * block_width


def _verify_groups(rows: Tensor, labels: Tensor, grid: Grid, *, faint: bool) -> tuple[Tensor, float, bool]:
    """Labels without the groups whose residuals have structure after all; the noise; whether it is sparse."""
    sizes = torch.bincount(labels)
    residuals, noises = [], []
    out = labels.clone()
    for label in torch.nonzero(sizes > 1).flatten().tolist():
        members = torch.nonzero(labels == label).flatten()
        residual = rows[members] - rows[members].mean(0)
        noise, structure = _measure_residual(residual, grid)
        energy = rows[members].mean(0).reshape(grid.shape[0], -1).var(1).mean()
        pattern, level = (FAINT_PATTERN, GRAY_LEVEL * grid.range) if faint else (SAME_PATTERN, 0.0)
        limit = max(1.5 * pattern * float(energy) ** 0.5, level, MAX_NOISE_STRUCTURE * noise)
        if len(members) >= 20 and structure > limit:
            out[members] = len(sizes) + members  # singles again
        else:
            residuals.append(residual.flatten()[:100_000])
            noises.append(noise)
    if not residuals:
        return renumber(out), 0.0, False
    pooled = torch.cat(residuals).double()
    variance = float(pooled.square().mean())
    is_sparse = variance > 0 and float(pooled.pow(4).mean()) > MAX_KURTOSIS * variance**2
    return renumber(out), max(noises), is_sparse


def _measure_residual(residual: Tensor, grid: Grid) -> tuple[float, float]:
    """Standard deviation of residuals (m, D) about their mean, and that of their structured part."""
    correction = len(residual) / (len(residual) - 1)
    full = residual.square().mean() * correction
    structure = 0.0
    for block in grid.blocks:
        averaged, area = _average_blocks(residual, grid, block)
        part, error = _structured_part(
            averaged.square().mean() * correction, full, area, averaged.shape[1] * (len(residual) - 1)
        )
        structure = max(structure, float(part - error))
    return float(full.clamp_min(0)) ** 0.5, max(structure, 0.0) ** 0.5


def _describe_noise(noise: float, grid: Grid) -> str:
    if noise == 0:
        return ""
    if grid.range:
        return f"differences of {100 * noise / grid.range:.1f} % of the range (standard deviation)"
    return f"differences of standard deviation {noise:.2g}"
