"""How wide the modes are: rms distance to the mode's mean, for any weights of the rows, at the price of one small matrix product."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MIN_WIDTH_RATIO = 0.05  # width ratios below this are not put right: what is left of such a mode is a point


@dataclass(frozen=True, slots=True)
class ModeWidths:
    """Of each of K modes: `width` (K,), `error` (K,) the squared relative error of that, `have` (K,) effective rows, `middle` (K, D)."""

    width: Tensor
    squared_relative_error: Tensor
    n_effective: Tensor
    center: Tensor


@dataclass(frozen=True, slots=True)
class CenteredRows:
    """Rows about the middles of their modes, so that a part of them can be weighed without a pass over all dimensions.

    `offset` (N, D) row less `base` (K, D), about the mean of its mode; `square` (N,) its squared length; `mode` (N,).
    """

    offset: Tensor
    squared_norm: Tensor
    mode: Tensor
    mode_means: Tensor

    def mode_widths(self, weight: Tensor) -> ModeWidths:
        """Widths under weights (N,) ≥ 0, free of their bias (n − 1). The error comes from the fourth moment about `base`."""
        count = len(self.mode_means)
        total = weight_per_mode(self.mode, weight, count).clamp(min=1e-12)
        have = total.square() / weight_per_mode(self.mode, weight.square(), count).clamp(min=1e-12)
        member = torch.zeros(count, len(weight))
        member[self.mode, torch.arange(len(weight))] = weight
        drift = member @ self.offset / total[:, None]  # (K, D) from the base to the mean under these weights
        fourth = weight_per_mode(self.mode, weight * self.squared_norm.square(), count) / total
        second = (weight_per_mode(self.mode, weight * self.squared_norm, count) / total - drift.square().sum(1)).clamp(
            min=0
        )
        variance = torch.where(have > 1.5, second * have / (have - 1).clamp(min=1e-9), torch.zeros(()))
        error = (fourth / second.square().clamp(min=1e-30) - 1).clamp(min=0) / (4 * have.clamp(min=1))
        return ModeWidths(variance.sqrt(), error, have, self.mode_means + drift)


def center_rows(rows: Tensor, mode: Tensor, weight: Tensor, n_modes: int) -> CenteredRows:
    """Rows (N, D) of `count` modes, `mode` (N,), made ready for weights that differ little from `weight` (N,)."""
    member = torch.zeros(n_modes, len(rows))
    member[mode, torch.arange(len(rows))] = weight
    base = member @ rows / weight_per_mode(mode, weight, n_modes).clamp(min=1e-12)[:, None]  # (K, D)
    offset = rows - base[mode]  # (N, D)
    return CenteredRows(offset, offset.square().sum(1), mode, base)


def rescale_to_reference(
    rows: Tensor, mode: Tensor, fake_widths: ModeWidths, reference_widths: ModeWidths
) -> tuple[Tensor, Tensor]:
    """Rows with every mode given the width of the reference's, (n, D); and the ratio of the two widths for each row, at least THINNEST, (n,).

    A mode is scaled about its own mean, which stays as far from the reference's as noise does not explain: a mode of few and noisy
    samples has a mean that is off by more than the reference is wide, and that is no loss of variety.
    """
    enough = fake_widths.n_effective >= 5
    ratio = fake_widths.width / reference_widths.width.clamp(min=1e-12)
    usual = (
        float((fake_widths.n_effective * ratio)[enough].sum() / fake_widths.n_effective[enough].sum())
        if enough.any()
        else 1.0
    )
    ratio = torch.where(enough, ratio, torch.tensor(usual)).clamp(min=MIN_WIDTH_RATIO)[mode]  # (n,)
    by_chance = fake_widths.width.square() / fake_widths.n_effective.clamp(
        min=1
    ) + reference_widths.width.square() / reference_widths.n_effective.clamp(min=1)  # (K,)
    astray = (fake_widths.center - reference_widths.center).square().sum(1).clamp(min=1e-30)
    centre = reference_widths.center + (1 - by_chance / astray).clamp(min=0).sqrt()[:, None] * (
        fake_widths.center - reference_widths.center
    )  # (K, D)
    return centre[mode] + (rows - fake_widths.center[mode]) / ratio[:, None], ratio


def weight_per_mode(mode: Tensor, weight: Tensor, n_modes: int) -> Tensor:
    """Weight (N,) by mode, (K,)."""
    return torch.zeros(n_modes).index_add_(0, mode, weight)
