"""The collapse score: the fraction of the reference's diversity that the generator does not produce, from 0 to 1."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gandiag.config import DEFAULT_LIMIT
from gandiag.interfaces import Estimate
from gandiag.metrics.score.decomposition import (
    RELIABLE_WIDTH_RATIO,
    ScoreFactors,
    SplitDistances,
    compute_factors,
    prepare_split,
    with_fine_modes,
)
from gandiag.metrics.score.mode_partition import find_modes
from gandiag.metrics.score.neighborhoods import neighbor_radius
from gandiag.stats.resampling import draw_halves, replicate_half_width

MIN_SAMPLES = 100  # with fewer generated samples there is no score
MIN_ON_MANIFOLD = 0.1  # fraction of samples on the manifold below which the score is inconclusive
CONCLUSIVE_FACTOR_LOSS = 0.3  # so much narrowing or duplication is lost diversity at any fidelity
MAX_DISTANCE_RATIO = 3.0  # times the resolution of the real data, where there are no modes to compare it with
CONCLUSIVE_LOSS = DEFAULT_LIMIT  # loss treated as certain, whatever else is unknown
MAX_MODE_ROWS = 5000  # rows per half used to find the modes
Z_SCORE = 1.96  # of a 95 % interval
POWER_Z_SCORE = 1.645  # of a one-sided 5 % error


@dataclass(frozen=True, slots=True)
class DiversityEstimate:
    """The estimated loss of diversity; every fraction in [0, 1].

    `profile`: missing, skewed, narrowed, duplicated, off_manifold. `power`: the smallest loss that would be
    distinguished from none in 95 of 100 cases, None without replicates. `n`: reference, held-out and generated rows
    used, each.
    """

    score: Estimate
    profile: dict[str, Estimate]
    power: float | None
    n: int
    replicates: tuple[float, ...]
    inconclusive_reasons: tuple[str, ...]


def estimate_diversity_loss(real: Tensor, fake: Tensor, *, seed: int = 0, replicates: int = 20) -> DiversityEstimate:
    """The fraction of the reference's diversity that the generator has lost, with its 95 % interval.

    `real` (N, D) and `fake` (M, D) float32 features. The real rows are split into a reference and a held-out half of n
    = min(M, N // 2) rows each. The held-out half is what a perfect generator would produce; every count is compared
    with it.

        score = 1 − mode balance · coverage · width ratio · unique fraction     (see
        `gandiag.metrics.score.decomposition`)

    Unchanged by rotation, shift and scaling of the features and, up to the last digits, by the order of the rows. The
    interval comes from random halves of all three sets without replacement: their spread is that of the score at n, and
    replacement would create duplicates. It is widened by the change of the score when modes are separated on weaker
    evidence. Reads low where modes overlap and are imbalanced or narrowed; reads high where real rows are sorted by
    quality. Costs five n × n × D products and holds three n × n float32 matrices (0.95 GB at n = 5,000).
    """
    n = min(len(fake), len(real) // 2)
    if n < MIN_SAMPLES:
        raise ValueError(
            f"{len(real)} real and {len(fake)} generated samples are too few; "
            f"the score needs at least {2 * MIN_SAMPLES} and {MIN_SAMPLES}"
        )
    generator = torch.Generator().manual_seed(seed)
    real_rows = _shuffle(real.float(), generator)
    center = real_rows[:n].mean(0)
    scale = (real_rows[:n] - center).square().sum(1).mean().sqrt().clamp(min=1e-30)
    real_rows = (real_rows - center) / scale
    fake_rows = (_shuffle(fake.float(), generator)[:n] - center) / scale
    # From all real rows, so that a small number of generated samples does not blur the modes.
    half = min(len(real_rows) // 2, MAX_MODE_ROWS)
    modes = find_modes(real_rows[:half], real_rows[-half:], seed=seed)
    rows = real_rows[:n], real_rows[n : 2 * n], fake_rows
    split = prepare_split(*rows, modes)
    all_indices = torch.arange(n), torch.arange(n), torch.arange(n)
    factors = compute_factors(split, all_indices)
    mode_uncertainty = 0.0
    if replicates and not modes.fine_mode_of_cell.equal(modes.mode_of_cell):
        fine_factors = compute_factors(with_fine_modes(split, rows, modes), all_indices)
        mode_uncertainty = abs(fine_factors.loss - factors.loss)
    half_factors = [compute_factors(split, _draw_sorted_halves(n, generator)) for _ in range(replicates)]
    return _make_estimate(factors, half_factors, mode_uncertainty, split)


def _shuffle(rows: Tensor, generator: torch.Generator) -> Tensor:
    """Rows in a random order, independent of their given order: sorted by distance to their mean, then shuffled."""
    order = (rows - rows.mean(0)).square().sum(1).argsort()
    return rows[order[torch.randperm(len(rows), generator=generator)]]


def _draw_sorted_halves(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Random halves of the three sets, in ascending order so that memory is read sequentially."""
    reference, heldout, fake = (half.sort().values for half in draw_halves((n, n, n), generator))
    return reference, heldout, fake


def _make_estimate(
    factors: ScoreFactors, half_factors: list[ScoreFactors], mode_uncertainty: float, split: SplitDistances
) -> DiversityEstimate:
    losses = torch.tensor([half.loss for half in half_factors])
    score = estimate_from_replicates(factors.loss, losses, extra_half_width=mode_uncertainty)
    half_profiles = [_loss_profile(half) for half in half_factors]
    profile = {
        name: estimate_from_replicates(value, torch.tensor([half[name] for half in half_profiles]))
        for name, value in _loss_profile(factors).items()
    }
    power = None
    if len(half_factors) > 1:
        standard_error = math.hypot(float(losses.std()), mode_uncertainty / Z_SCORE)
        power = min(1.0, (Z_SCORE + POWER_Z_SCORE) * standard_error)
    return DiversityEstimate(
        score=score,
        profile=profile,
        power=power,
        n=len(split.on_manifold),
        replicates=tuple(min(max(half.loss, 0.0), 1.0) for half in half_factors),
        inconclusive_reasons=_inconclusive_reasons(factors, split, profile, score),
    )


def _loss_profile(factors: ScoreFactors) -> dict[str, float]:
    """Losses by name: 1 − score = (1 − missing)(1 − skewed)(1 − narrowed)(1 − duplicated), and `off_manifold`."""
    presence = factors.mode_presence
    return {
        "missing": 1 - presence * min(factors.coverage, 1.0),
        "skewed": 1 - min(1.0, factors.mode_balance / presence) if presence else 0.0,
        "narrowed": 1 - factors.width_ratio,
        "duplicated": 1 - factors.unique_fraction,
        "off_manifold": factors.off_manifold,
    }


def estimate_from_replicates(value: float, replicates: Tensor, *, extra_half_width: float = 0.0) -> Estimate:
    """An estimate in [0, 1] with a 95 % interval from half-sample replicates (R,); no width with fewer than two.

    `extra_half_width`: uncertainty that the replicates do not show, added in quadrature. The replicates' mean is that
    of half the rows and is not used.
    """
    half_width = 0.0
    if len(replicates) > 1:
        half_width = math.hypot(float(replicate_half_width(replicates)), extra_half_width)
    value, low, high = (min(max(x, 0.0), 1.0) for x in (value, value - half_width, value + half_width))
    return Estimate(value, low, high)


def _inconclusive_reasons(
    factors: ScoreFactors, split: SplitDistances, profile: dict[str, Estimate], score: Estimate
) -> tuple[str, ...]:
    """Why the score may be unreliable. Narrow or duplicated outputs are conclusive regardless of fidelity."""
    if is_conclusive(profile):
        return ()
    reasons = []
    n = len(split.on_manifold)
    if factors.on_manifold < MIN_ON_MANIFOLD:
        n_near = round(factors.on_manifold * n)
        reasons.append(f"only {n_near:,} of {n:,} samples are near the real data at any resolution")
    if factors.off_manifold > 0.5 and factors.distance_ratio > _max_distance_ratio(split):
        reasons.append(
            f"samples pass for real only at {factors.distance_ratio:.1f} times the real data's resolution, "
            "which is too coarse to distinguish its modes"
        )
    if factors.unknown_fraction > 0.5 and score.low < CONCLUSIVE_LOSS:
        reasons.append(
            f"samples are spread more than {RELIABLE_WIDTH_RATIO:.0f} times as wide as the modes of the data, "
            "so losses inside the modes cannot be measured"
        )
    return tuple(reasons)


def is_conclusive(profile: dict[str, Estimate]) -> bool:
    """Whether diversity is certainly lost inside the modes or to copies.

    Outputs far from the data miss modes too, but are neither narrow nor repeated.
    """
    return max(profile["narrowed"].low, profile["duplicated"].low) >= CONCLUSIVE_FACTOR_LOSS


def _max_distance_ratio(split: SplitDistances) -> float:
    """How many times a typical neighbor ball can grow before it reaches the nearest other mode.

    MAX_DISTANCE_RATIO where there is one mode.
    """
    if split.n_modes == 1:
        return MAX_DISTANCE_RATIO
    has_reference = split.mode_labels[0].bincount(minlength=split.n_modes) > 0
    means = split.real_rows.mode_means[has_reference]  # (K, D)
    mode_distance = torch.cdist(means, means).fill_diagonal_(torch.inf).amin(1).median()
    radius = neighbor_radius(split.neighbors, torch.arange(len(split.neighbors[0])))
    return float(mode_distance / radius.median().clamp(min=1e-12))
