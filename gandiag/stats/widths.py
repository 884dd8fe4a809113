"""How wide the modes are: rms distance to the mode's mean, for any weights of the rows, at the price of one small matrix product."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

THINNEST = 0.05  # width ratios below this are not put right: what is left of such a mode is a point


@dataclass(frozen=True, slots=True)
class Spread:
    """Of each of K modes: `width` (K,), `error` (K,) the squared relative error of that, `have` (K,) effective rows, `middle` (K, D)."""

    width: Tensor
    error: Tensor
    have: Tensor
    middle: Tensor


@dataclass(frozen=True, slots=True)
class Widths:
    """Rows about the middles of their modes, so that a part of them can be weighed without a pass over all dimensions.

    `offset` (N, D) row less `base` (K, D), about the mean of its mode; `square` (N,) its squared length; `mode` (N,).
    """

    offset: Tensor
    square: Tensor
    mode: Tensor
    base: Tensor

    def of(self, weight: Tensor) -> Spread:
        """Widths under weights (N,) ≥ 0, free of their bias (n − 1). The error comes from the fourth moment about `base`."""
        count = len(self.base)
        total = totals(self.mode, weight, count).clamp(min=1e-12)
        have = total.square() / totals(self.mode, weight.square(), count).clamp(min=1e-12)
        member = torch.zeros(count, len(weight))
        member[self.mode, torch.arange(len(weight))] = weight
        drift = member @ self.offset / total[:, None]  # (K, D) from the base to the mean under these weights
        fourth = totals(self.mode, weight * self.square.square(), count) / total
        second = (totals(self.mode, weight * self.square, count) / total - drift.square().sum(1)).clamp(min=0)
        variance = torch.where(have > 1.5, second * have / (have - 1).clamp(min=1e-9), torch.zeros(()))
        error = (fourth / second.square().clamp(min=1e-30) - 1).clamp(min=0) / (4 * have.clamp(min=1))
        return Spread(variance.sqrt(), error, have, self.base + drift)


def widths(rows: Tensor, mode: Tensor, weight: Tensor, count: int) -> Widths:
    """Rows (N, D) of `count` modes, `mode` (N,), made ready for weights that differ little from `weight` (N,)."""
    member = torch.zeros(count, len(rows))
    member[mode, torch.arange(len(rows))] = weight
    base = member @ rows / totals(mode, weight, count).clamp(min=1e-12)[:, None]  # (K, D)
    offset = rows - base[mode]  # (N, D)
    return Widths(offset, offset.square().sum(1), mode, base)


def mended(rows: Tensor, mode: Tensor, own: Spread, home: Spread) -> tuple[Tensor, Tensor]:
    """Rows with every mode given the width of the reference's, (n, D); and the ratio of the two widths for each row, at least THINNEST, (n,).

    A mode is scaled about its own mean, which stays as far from the reference's as noise does not explain: a mode of few and noisy
    samples has a mean that is off by more than the reference is wide, and that is no loss of variety.
    """
    enough = own.have >= 5
    ratio = own.width / home.width.clamp(min=1e-12)
    usual = float((own.have * ratio)[enough].sum() / own.have[enough].sum()) if enough.any() else 1.0
    ratio = torch.where(enough, ratio, torch.tensor(usual)).clamp(min=THINNEST)[mode]  # (n,)
    by_chance = own.width.square() / own.have.clamp(min=1) + home.width.square() / home.have.clamp(min=1)  # (K,)
    astray = (own.middle - home.middle).square().sum(1).clamp(min=1e-30)
    centre = home.middle + (1 - by_chance / astray).clamp(min=0).sqrt()[:, None] * (own.middle - home.middle)  # (K, D)
    return centre[mode] + (rows - own.middle[mode]) / ratio[:, None], ratio


def totals(mode: Tensor, weight: Tensor, count: int) -> Tensor:
    """Weight (N,) by mode, (K,)."""
    return torch.zeros(count).index_add_(0, mode, weight)
