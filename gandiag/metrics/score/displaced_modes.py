"""Finds generated modes beside a mode of the data: where samples lie is fidelity, that they exist is diversity."""

from __future__ import annotations

import torch
from torch import Tensor

from gandiag.metrics.score.mode_width import MIN_RATIO_ROWS

MIN_SHARE_ON_MODE = 0.75  # of the real share: with more samples on a mode, those beside it are invented or outliers
MAX_CORE_RATIO = 2.0  # core width over the real mode's: wider ones are scattered samples, not a mode
MAX_DISPLACEMENT = 0.5  # of the distance to the nearest other mode
MAX_SINGLE_DISPLACEMENT = 1.0  # times the rms width of the data, where they are one mode
REACH = 3.0  # rows within this many core widths of the center belong to the generated mode


def find_displaced_rows(
    real: tuple[Tensor, Tensor], fake: tuple[Tensor, Tensor], passes: Tensor, n_modes: int
) -> Tensor:
    """Which generated rows belong to a compact mode beside the real mode nearest to it, (n,) bool.

    `real` and `fake`: rows (N, D) and their modes (N,). `passes` (n,): samples that lie on the data anyway.
    """
    (real_rows, real_modes), (fake_rows, fake_modes) = real, fake
    is_displaced = torch.zeros(len(fake_rows), dtype=torch.bool)
    real_share = real_modes.bincount(minlength=n_modes) / len(real_rows)
    passing = fake_modes[passes].bincount(minlength=n_modes) / len(fake_rows)
    centers = _mode_centers(real_rows, real_modes, n_modes)
    for mode in (real_share > 0).nonzero().flatten().tolist():
        members = (fake_modes == mode).nonzero().flatten()
        own = real_rows[real_modes == mode]
        if min(len(members), len(own)) < MIN_RATIO_ROWS:
            continue
        fake_center, fake_width = _core(fake_rows[members])
        real_center, real_width = _core(own)
        displacement = float((fake_center - real_center).norm())
        is_empty = passing[mode] < MIN_SHARE_ON_MODE * real_share[mode]
        limit = _max_displacement(centers, mode, real_width)
        if displacement > (limit if is_empty else min(limit, REACH * real_width)):
            continue
        if fake_width > MAX_CORE_RATIO * real_width:
            continue
        distance = (fake_rows[members] - fake_center).norm(dim=1)
        is_displaced[members[distance <= REACH * max(fake_width, real_width)]] = True
    return is_displaced


def _mode_centers(rows: Tensor, modes: Tensor, n_modes: int) -> Tensor:
    """Means of the modes, (K, D); infinite for modes without rows."""
    count = modes.bincount(minlength=n_modes)
    total = torch.zeros(n_modes, rows.shape[1]).index_add_(0, modes, rows)
    return torch.where(count[:, None] > 0, total / count[:, None].clamp(min=1), torch.inf)


def _core(rows: Tensor) -> tuple[Tensor, float]:
    """Mean and rms width of the half of the rows that is nearest to their median."""
    distance = (rows - rows.median(0).values).norm(dim=1)
    core = rows[distance <= distance.median()]
    center = core.mean(0)
    return center, float((core - center).square().sum(1).mean().sqrt())


def _max_displacement(centers: Tensor, mode: int, width: float) -> float:
    others = centers[torch.arange(len(centers)) != mode]
    others = others[others.isfinite().all(1)]
    if not len(others):
        return MAX_SINGLE_DISPLACEMENT * width
    return MAX_DISPLACEMENT * float((others - centers[mode]).norm(dim=1).min())
