"""The collapse score: how much of the reference's variety the generator does not show. 0 = none lost, 1 = all."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.stats import t
from torch import Tensor

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

MIN_SAMPLES = 100  # samples a side below which nothing is judged
MIN_ON_MANIFOLD = 0.1  # share of the samples on the manifold below which the score is in doubt
CONCLUSIVE_FACTOR_LOSS = 0.3  # narrowed or duplicated at least so much: lost variety whatever the fidelity
MAX_DISTANCE_RATIO = 3.0  # times the resolution of the real data, where there are no modes to compare it with
CONCLUSIVE_LOSS = 0.15  # a loss that stands whatever is unknown beside it
MAX_MODE_ROWS = 5000  # a side, to find the modes
Z_SCORE = 1.96  # of a 95 % interval


@dataclass(frozen=True, slots=True)
class DiversityEstimate:
    """A judgement of variety, every share in [0, 1]."""

    score: Estimate
    profile: dict[str, Estimate]  # missing, skewed, narrowed, duplicated, off_manifold
    power: (
        float | None
    )  # smallest share of lost variety that would be told from none 95 times of 100; None without replicates
    n: int  # rows of A, of B and of F that were used
    replicates: tuple[float, ...]
    inconclusive_reasons: tuple[str, ...]


def estimate_diversity_loss(real: Tensor, fake: Tensor, *, seed: int = 0, replicates: int = 20) -> DiversityEstimate:
    """The share of the reference's variety that the generator has lost, with its 95 % interval.

    `real` (N, D) and `fake` (M, D) float32 features. The real rows are split in a reference A and a held-out B of
    n = min(M, N // 2) rows each; B is what a perfect generator would look like, and every count is read against it.

        score = 1 − mass · cover · width · distinct          (see `gandiag.metrics.score.decomposition`)

    Unchanged by rotation, shift and scaling of the features and (but for the last digits) by the order of the rows. The
    interval comes from random halves of A, B and F without replacement: their spread is that of the score at n, and with
    replacement would manufacture duplicates. It is widened by what the score would change if modes were told apart on weaker
    evidence. Reads low where modes overlap and are skewed or thinned; reads high where real rows are in a biased order of quality.
    Costs five n × n × D products, and holds three n × n float32 matrices (0.95 GB at n = 5,000).
    """
    n = min(len(fake), len(real) // 2)
    if n < MIN_SAMPLES:
        raise ValueError(f"{n} samples a side; variety needs {MIN_SAMPLES} generated and {2 * MIN_SAMPLES} real ones")
    generator = torch.Generator().manual_seed(seed)
    pool = _shuffled(real.float(), generator)
    reference = pool[:n]
    middle = reference.mean(0)
    scale = (reference - middle).square().sum(1).mean().sqrt().clamp(min=1e-30)
    pool, rows = ((side - middle) / scale for side in (pool, _shuffled(fake.float(), generator)[:n]))
    half = min(len(pool) // 2, MAX_MODE_ROWS)
    modes = find_modes(pool[:half], pool[-half:], seed=seed)  # from all real rows: few samples do not blur the modes
    sides = pool[:n], pool[n : 2 * n], rows
    field = prepare_split(*sides, modes)
    every = torch.arange(n), torch.arange(n), torch.arange(n)
    whole = compute_factors(field, every)
    other = (
        compute_factors(with_fine_modes(field, sides, modes), every)
        if replicates and not modes.fine_mode_of_cell.equal(modes.mode_of_cell)
        else whole
    )
    halves = [compute_factors(field, _halves(n, generator)) for _ in range(replicates)]
    return _judge(whole, halves, abs(other.loss - whole.loss), field)


def _shuffled(rows: Tensor, generator: torch.Generator) -> Tensor:
    """Rows in a random order that does not depend on the order they came in: by distance to their mean, then shuffled."""
    order = (rows - rows.mean(0)).square().sum(1).argsort()
    return rows[order[torch.randperm(len(rows), generator=generator)]]


def _halves(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    a, b, f = (
        torch.randperm(n, generator=generator)[: n // 2].sort().values for _ in range(3)
    )  # in order: memory is read once through
    return a, b, f


def _judge(whole: ScoreFactors, halves: list[ScoreFactors], parted: float, field: SplitDistances) -> DiversityEstimate:
    n = len(field.on_manifold)
    lost = torch.tensor([half.loss for half in halves])
    score = estimate_from_replicates(whole.loss, lost, extra_half_width=parted)
    names = _profile(whole)
    profile = {
        name: estimate_from_replicates(value, torch.tensor([_profile(half)[name] for half in halves]))
        for name, value in names.items()
    }
    power = min(1.0, (Z_SCORE + 1.645) * math.hypot(float(lost.std()), parted / Z_SCORE)) if len(halves) > 1 else None
    shares = tuple(min(max(half.loss, 0.0), 1.0) for half in halves)
    return DiversityEstimate(score, profile, power, n, shares, _doubts(whole, field, profile, score))


def _profile(kept: ScoreFactors) -> dict[str, float]:
    """The factors by name: 1 − score = (1 − missing)(1 − skewed)(1 − narrowed)(1 − duplicated), off_manifold beside them."""
    return {
        "missing": 1 - kept.mode_presence * min(kept.coverage, 1.0),
        "skewed": 1 - min(1.0, kept.mode_balance / kept.mode_presence) if kept.mode_presence else 0.0,
        "narrowed": 1 - kept.width_ratio,
        "duplicated": 1 - kept.unique_fraction,
        "off_manifold": kept.off_manifold,
    }


def estimate_from_replicates(value: float, replicates: Tensor, *, extra_half_width: float = 0.0) -> Estimate:
    """Value ± Student's t times the standard deviation of the replicates, in [0, 1], and `extra` in quadrature, a half-width which they cannot show.

    The replicates' mean is that of half the rows, and is not used.
    """
    reach = (
        math.hypot(float(t.ppf(0.975, len(replicates) - 1)) * float(replicates.std()), extra_half_width)
        if len(replicates) > 1
        else 0.0
    )
    value, low, high = (min(max(x, 0.0), 1.0) for x in (value, value - reach, value + reach))
    return Estimate(value, low, high)


def _doubts(
    kept: ScoreFactors, field: SplitDistances, profile: dict[str, Estimate], score: Estimate
) -> tuple[str, ...]:
    """Why the score may mean little. Low fidelity is no excuse for a single point: nothing is in doubt where outputs are thin or copies."""
    if is_conclusive(profile):
        return ()
    out: tuple[str, ...] = ()
    n = len(field.on_manifold)
    if kept.on_manifold < MIN_ON_MANIFOLD:
        out += (f"only {round(kept.on_manifold * n):,} of {n:,} samples are near the real data at any resolution",)
    if kept.off_manifold > 0.5 and kept.distance_ratio > _resolution(field):
        out += (
            f"samples pass for real only at {kept.distance_ratio:.1f} times the real data's resolution, too coarse to tell its parts from each other",
        )
    if kept.unknown_fraction > 0.5 and score.low < CONCLUSIVE_LOSS:
        out += (
            f"samples are spread more than {RELIABLE_WIDTH_RATIO:.0f} times as wide as the modes of the data: what is missing inside these cannot be told",
        )
    return out


def is_conclusive(profile: dict[str, Estimate]) -> bool:
    """Is variety lost inside the modes or to copies? Garbage that is far from the data misses modes too, but is neither thin nor repeated."""
    return max(profile["narrowed"].low, profile["duplicated"].low) >= CONCLUSIVE_FACTOR_LOSS


def _resolution(field: SplitDistances) -> float:
    """How many times a typical neighbour ball can grow before it reaches the nearest other mode; BLURRED where there is one mode."""
    if field.n_modes == 1:
        return MAX_DISTANCE_RATIO
    middles = field.real_rows.mode_means[field.mode_labels[0].bincount(minlength=field.n_modes) > 0]  # (K, D)
    apart = torch.cdist(middles, middles).fill_diagonal_(torch.inf).amin(1).median()
    return float(
        apart / neighbor_radius(field.neighbors, torch.arange(len(field.neighbors[0]))).median().clamp(min=1e-12)
    )
