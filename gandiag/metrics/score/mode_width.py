"""Mode widths: rms distance to the mode's mean, for any row weights, at the cost of one small matrix product."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MIN_WIDTH_RATIO = 0.05  # modes with a smaller width ratio are not rescaled: they are points
MIN_RATIO_ROWS = 5  # effective rows needed for a width ratio of a mode's own


@dataclass(frozen=True, slots=True)
class ModeWidths:
    """Widths of K modes.

    `width` (K,); `squared_relative_error` (K,) of the width; `n_effective` (K,) effective rows; `center` (K, D).
    """

    width: Tensor
    squared_relative_error: Tensor
    n_effective: Tensor
    center: Tensor


@dataclass(frozen=True, slots=True)
class CenteredRows:
    """Rows about the centers of their modes, so that subsets can be weighted without a pass over all dimensions.

    `offset` (N, D): row minus the center of its mode. `squared_norm` (N,): its squared length. `mode` (N,).
    `mode_means` (K, D).
    """

    offset: Tensor
    squared_norm: Tensor
    mode: Tensor
    mode_means: Tensor

    def mode_widths(self, weight: Tensor) -> ModeWidths:
        """Bias-corrected (n − 1) widths under weights (N,) ≥ 0; their errors come from the fourth moment."""
        n_modes = len(self.mode_means)
        total = weight_per_mode(self.mode, weight, n_modes).clamp(min=1e-12)
        n_effective = total.square() / weight_per_mode(self.mode, weight.square(), n_modes).clamp(min=1e-12)
        membership = torch.zeros(n_modes, len(weight))
        membership[self.mode, torch.arange(len(weight))] = weight
        shift = membership @ self.offset / total[:, None]  # (K, D) from `mode_means` to the means under these weights
        fourth_moment = weight_per_mode(self.mode, weight * self.squared_norm.square(), n_modes) / total
        raw_second_moment = weight_per_mode(self.mode, weight * self.squared_norm, n_modes) / total
        second_moment = (raw_second_moment - shift.square().sum(1)).clamp(min=0)
        corrected = second_moment * n_effective / (n_effective - 1).clamp(min=1e-9)
        variance = torch.where(n_effective > 1.5, corrected, torch.zeros(()))
        kurtosis = fourth_moment / second_moment.square().clamp(min=1e-30)
        error = (kurtosis - 1).clamp(min=0) / (4 * n_effective.clamp(min=1))
        return ModeWidths(variance.sqrt(), error, n_effective, self.mode_means + shift)


def center_rows(rows: Tensor, mode: Tensor, weight: Tensor, n_modes: int) -> CenteredRows:
    """Center rows (N, D) of modes `mode` (N,), in preparation for weights that differ little from `weight` (N,)."""
    membership = torch.zeros(n_modes, len(rows))
    membership[mode, torch.arange(len(rows))] = weight
    means = membership @ rows / weight_per_mode(mode, weight, n_modes).clamp(min=1e-12)[:, None]  # (K, D)
    offset = rows - means[mode]  # (N, D)
    return CenteredRows(offset, offset.square().sum(1), mode, means)


def rescale_to_reference(
    rows: Tensor, mode: Tensor, fake_widths: ModeWidths, reference_widths: ModeWidths
) -> tuple[Tensor, Tensor]:
    """Move and rescale every mode to the reference's center and width.

    Returns the rows (n, D) and the width ratio of each row's mode, at least MIN_WIDTH_RATIO, (n,). Where samples lie
    beside their mode is fidelity, not diversity.
    """
    has_ratio = has_width_ratio(fake_widths, reference_widths)
    ratio = fake_widths.width / reference_widths.width.clamp(min=1e-12)
    typical_ratio = 1.0
    if has_ratio.any():
        weights = fake_widths.n_effective
        typical_ratio = float((weights * ratio)[has_ratio].sum() / weights[has_ratio].sum())
    row_ratio = torch.where(has_ratio, ratio, torch.tensor(typical_ratio)).clamp(min=MIN_WIDTH_RATIO)[mode]  # (n,)
    has_center = (fake_widths.n_effective >= 1) & (reference_widths.n_effective >= MIN_RATIO_ROWS)
    center = torch.where(has_center[:, None], reference_widths.center, fake_widths.center)  # (K, D)
    return center[mode] + (rows - fake_widths.center[mode]) / row_ratio[:, None], row_ratio


def has_width_ratio(fake_widths: ModeWidths, reference_widths: ModeWidths) -> Tensor:
    """Which modes have enough rows on both sides for a width ratio of their own, (K,) bool."""
    return (fake_widths.n_effective >= MIN_RATIO_ROWS) & (reference_widths.n_effective >= MIN_RATIO_ROWS)


def weight_per_mode(mode: Tensor, weight: Tensor, n_modes: int) -> Tensor:
    """Sum of the weights (N,) by mode, (K,)."""
    return torch.zeros(n_modes).index_add_(0, mode, weight)
