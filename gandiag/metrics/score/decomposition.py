"""Decomposes the kept diversity into four factors: mode balance · coverage · width ratio · unique fraction.

The factors are measured in an order that counts no loss twice. Copies are weighted down first, and everything after
counts distinct outputs. *Mode balance* compares the shares of the modes; *width ratio* compares the spread inside each
mode. *Coverage* is measured on samples rescaled to the reference's width, against as many reference rows per mode as
there are samples. Narrowed or imbalanced modes, outliers and copies therefore do not affect it: it shows only parts of
a mode that are never generated. If samples are much wider than their mode, coverage within the mode is unknown and
assumed complete.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gandiag.metrics.score.bias_correction import bias_corrected_positive_part, unique_fraction
from gandiag.metrics.score.mode_width import MIN_RATIO_ROWS, weight_per_mode
from gandiag.metrics.score.neighborhoods import expected_coverage
from gandiag.metrics.score.radius_cap import find_manifold_edge
from gandiag.metrics.score.split_distances import (
    MANIFOLD_QUANTILE,
    MAX_WIDTH_RATIO,
    SplitDistances,
    SplitIndices,
    distance_ratio,
)

MIN_WIDTH = 1e-6  # of the data's rms: narrower modes of the data are points, which nothing can be narrower than
MIN_KEPT_BALANCE = 0.05
# Coverage inside a mode counts fully up to 10 % of samples off the manifold and not at all from 50 %.
MAX_COVERAGE_INFIDELITY, COVERAGE_INFIDELITY_RANGE = 0.5, 0.4
MISSING_SHARE_RATIO = 0.1  # a mode with less than this fraction of its share is missing, otherwise imbalanced


@dataclass(frozen=True, slots=True)
class ScoreFactors:
    """Fractions of the diversity that are kept, each in [0, 1].

    `off_manifold`, `on_manifold` and `distance_ratio` describe fidelity.
    """

    mode_balance: float
    mode_presence: float  # the part of `mode_balance` that is not lost to modes that are absent altogether
    coverage: float
    width_ratio: float
    unique_fraction: float
    off_manifold: (
        float  # fraction of samples off the manifold at the reference's own resolution, in excess of real data
    )
    on_manifold: float  # fraction of the samples that count
    distance_ratio: float  # how much coarser the resolution must be before the samples pass for real
    unknown_fraction: (
        float  # share of the modes shown whose inside cannot be measured; `coverage` assumes them complete
    )

    @property
    def loss(self) -> float:
        """1 − the product of the factors, in [0, 1]."""
        return 1 - self.mode_balance * self.coverage * self.width_ratio * self.unique_fraction


def compute_factors(split: SplitDistances, number: int = 0) -> ScoreFactors:
    """The factors of the split, or of a half-sample of it, by its number.

    The partition and the rescaled widths stay those of the whole split.
    """
    neighbors, indices = split.neighbors, split.subsets[number]
    reference_modes, heldout_modes, fake_modes = (
        modes[rows] for modes, rows in zip(split.mode_labels, indices, strict=True)
    )
    heldout_reach = neighbors.heldout_reach[number, indices[1]]
    fake_reach = neighbors.fake_reach[number, indices[2]]
    weight = neighbors.weight[number, indices[2]]
    edge = find_manifold_edge(heldout_reach, MANIFOLD_QUANTILE)
    real_modes = torch.cat([reference_modes, heldout_modes])
    real_weight = weight_per_mode(real_modes, torch.ones_like(real_modes, dtype=torch.float32), split.n_modes)
    fake_weight = weight_per_mode(fake_modes, weight, split.n_modes)
    real_share, fake_share = real_weight / real_weight.sum(), fake_weight / fake_weight.sum().clamp(min=1e-9)
    mode_balance, mode_presence = _balance_and_presence(
        real_share, fake_share, float(real_weight.sum()), float(fake_weight.sum())
    )
    kept_share = torch.minimum(real_share, fake_share)
    off_manifold = 1 - float((fake_reach <= edge).float().mean()) / MANIFOLD_QUANTILE
    coverage = _coverage(split, number, kept_share)
    coverage = 1 - (1 - coverage) * _clamp((MAX_COVERAGE_INFIDELITY - off_manifold) / COVERAGE_INFIDELITY_RANGE)
    near = fake_reach <= fake_reach.quantile(MANIFOLD_QUANTILE)
    inlier_weight = weight * (near | split.beside_mode[indices[2]])
    width_ratio = _mean_width_ratio(split, indices, inlier_weight, (heldout_reach <= edge).float())
    n_others = neighbors.reference_copies[number, indices[0]] - 1
    # What is left of the data is drawn more often: as often as the missing share makes it.
    reference_copies = 1 + n_others / max(_clamp(mode_balance), MIN_KEPT_BALANCE)
    copy_counts = neighbors.fake_copies[number, neighbors.passes[number]]
    unique_ratio = unique_fraction(copy_counts) / max(unique_fraction(reference_copies), 1e-9)
    unknown = (kept_share * (1 - split.mode_confidence)).sum() / kept_share.sum().clamp(min=1e-9)
    return ScoreFactors(
        mode_balance=_clamp(mode_balance),
        mode_presence=_clamp(max(mode_presence, mode_balance)),
        coverage=_clamp(coverage),
        width_ratio=_clamp(width_ratio),
        unique_fraction=_clamp(unique_ratio),
        off_manifold=off_manifold,
        on_manifold=float(neighbors.passes[number, indices[2]].float().mean()),
        distance_ratio=distance_ratio(fake_reach, heldout_reach),
        unknown_fraction=float(unknown),
    )


def _clamp(fraction: float) -> float:
    return min(1.0, max(0.0, fraction))


def _balance_and_presence(real_share: Tensor, fake_share: Tensor, n_real: float, n_fake: float) -> tuple[float, float]:
    """1 − bias-corrected total variation of the mode shares (K,), and 1 − the share of the modes that are absent."""
    if len(real_share) == 1:
        return 1.0, 1.0
    error = (real_share * (1 - real_share) / n_real + fake_share * (1 - fake_share) / max(n_fake, 1.0)).sqrt()
    is_absent = fake_share < MISSING_SHARE_RATIO * real_share
    balance = 1 - float(bias_corrected_positive_part(real_share - fake_share, error).sum())
    return balance, 1 - float(real_share[is_absent].sum())


def _coverage(split: SplitDistances, number: int, kept_share: Tensor) -> float:
    """Reference rows with a sample in their ball over those with a held-out row in it, at equal numbers per mode."""
    neighbors, indices = split.neighbors, split.subsets[number]
    reference_modes, heldout_modes, fake_modes = (
        modes[rows] for modes, rows in zip(split.mode_labels, indices, strict=True)
    )
    n_fake = weight_per_mode(fake_modes, neighbors.weight[number, indices[2]], split.n_modes)  # (K,) each
    n_heldout = heldout_modes.bincount(minlength=split.n_modes).float()
    n_reference = reference_modes.bincount(minlength=split.n_modes).float().clamp(min=1)
    n_target = torch.minimum(n_fake, n_heldout)[reference_modes]

    def covered_per_mode(ball_hits: Tensor, n_rows: Tensor) -> Tensor:
        hits = ball_hits[number, indices[0]]
        covered = expected_coverage(hits, n_rows[reference_modes].clamp(min=1e-9), n_target)
        return kept_share / n_reference * weight_per_mode(reference_modes, covered, split.n_modes)

    covered = covered_per_mode(neighbors.fake_hits, n_fake)  # (K,)
    possible = covered_per_mode(neighbors.heldout_hits, n_heldout)
    total = float(possible.sum())
    if not total:
        return 0.0
    return float((split.mode_confidence * covered + (1 - split.mode_confidence) * possible).sum()) / total


def _mean_width_ratio(split: SplitDistances, indices: SplitIndices, weight: Tensor, heldout_weight: Tensor) -> float:
    """Mean over the samples of min(1, rms width of their mode over the reference's), bias-corrected."""
    n = len(split.mode_labels[0])
    real_weight, fake_weight = weight.new_zeros(2 * n), weight.new_zeros(n)
    real_weight[indices[0]] = split.inliers[indices[0]]
    real_weight[n + indices[1]] = heldout_weight * ~split.far[1][indices[1]]
    fake_weight[indices[2]] = weight * ~split.far[2][indices[2]]
    real, fake = split.real_rows.mode_widths(real_weight), split.fake_rows.mode_widths(fake_weight)
    has_width = (fake.n_effective >= 1.5) & (real.n_effective >= MIN_RATIO_ROWS) & (real.width > MIN_WIDTH)
    if not has_width.any():
        return 0.0 if not (fake.n_effective >= 1.5).any() else 1.0
    ratio = (fake.width / real.width.clamp(min=1e-12))[has_width].clamp(max=MAX_WIDTH_RATIO)
    error = ratio * (real.squared_relative_error + fake.squared_relative_error).sqrt()[has_width]
    # Few or discrete rows can be one point by chance, with no spread to estimate an error from.
    null_error = (real.squared_relative_error * (1 + real.n_effective / fake.n_effective)).sqrt()[has_width]
    error = torch.maximum(error, null_error)
    share = weight_per_mode(split.mode_labels[2], fake_weight, split.n_modes)[has_width]
    return 1 - float((bias_corrected_positive_part(1 - ratio, error) * share).sum() / share.sum())
