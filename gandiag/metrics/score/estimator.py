"""The collapse score: the fraction of the reference's diversity that the generator does not produce, from 0 to 1."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import NormalDist

import torch
from torch import Tensor

from gandiag.config import DEFAULT_LIMIT
from gandiag.interfaces import Estimate
from gandiag.metrics.score.classifier_test import N_FOLDS, LogOdds, cross_fit_log_odds
from gandiag.metrics.score.decomposition import ScoreFactors, compute_factors
from gandiag.metrics.score.injected_losses import InjectedLoss, bound_power, measure_injected_losses
from gandiag.metrics.score.mode_partition import ModePartition, find_modes
from gandiag.metrics.score.row_preparation import content_keys, standardize_rows
from gandiag.metrics.score.scale_matching import estimate_missing_by_scale
from gandiag.metrics.score.split_distances import (
    RELIABLE_WIDTH_RATIO,
    Rows,
    SplitDistances,
    prepare_split,
    with_fine_modes,
)
from gandiag.stats.resampling import draw_halves, replicate_half_width

MIN_SAMPLES = 100  # with fewer generated samples there is no score
MIN_ON_MANIFOLD = 0.1  # fraction of samples on the manifold below which the score is inconclusive
CONCLUSIVE_FACTOR_LOSS = 0.3  # so much narrowing or duplication is lost diversity at any fidelity
MAX_DISTANCE_RATIO = 3.0  # times the resolution of the real data, where there are no modes to compare it with
CONCLUSIVE_LOSS = DEFAULT_LIMIT  # loss treated as certain, whatever else is unknown
MAX_QUESTIONED_LOSS = 0.5  # upper bound below which the score asks what it could have seen
MIN_UNEVEN_LOSS = 0.1  # loss to uneven mode shares from which the remaining modes do not keep their proportions
MAX_CLASSIFIER_ROWS = 1500  # generated rows used by the classifier, and twice as many real ones
MAX_MODE_ROWS = 5000  # rows per half used to find the modes
Z_SCORE = 1.96  # of a 95 % interval
POWER_Z_SCORE = 1.645  # of a one-sided 5 % error


@dataclass(frozen=True, slots=True)
class DiversityEstimate:
    """The estimated loss of diversity; every fraction in [0, 1].

    `profile`: missing, skewed, narrowed, duplicated, off_manifold; 1 − score = (1 − missing)(1 − skewed)(1 − narrowed)
    (1 − duplicated) in value. `power`: the smallest loss that would be distinguished from none in 95 of 100 cases, of
    the kind that is seen worst where losses were injected; None without replicates. `n`: reference, held-out and
    generated rows used, each. `fake_only_fraction`: samples that the classifier finds to be clearly generated.
    `injected`: the scores of known losses in these data.
    """

    score: Estimate
    profile: dict[str, Estimate]
    power: float | None
    n: int
    replicates: tuple[float, ...]
    inconclusive_reasons: tuple[str, ...]
    fake_only_fraction: float = 0.0
    injected: tuple[InjectedLoss, ...] = ()


@dataclass(frozen=True, slots=True)
class PreparedRows:
    """`values` (N, D) standardized rows, `fold` (N,) int64: the fold of each in the classifier's cross-fitting."""

    values: Tensor
    fold: Tensor


def estimate_diversity_loss(
    real: Tensor, fake: Tensor, *, seed: int = 0, replicates: int = 20, inject: bool = False
) -> DiversityEstimate:
    """The fraction of the reference's diversity that the generator has lost, with its 95 % interval.

    `real` (N, D) and `fake` (M, D) float32 features. The real rows are split into a reference and a held-out half of n
    = min(M, N // 2) rows each. The held-out half is what a perfect generator would produce; every count is compared
    with it. Three estimates of the loss, and the largest counts:

        modes        1 − mode balance · coverage · width ratio · unique fraction   (`score.decomposition`)
        scales       real rows without a generated row at one of several distances   (`score.scale_matching`)
        classifier   real rows that a cross-fitted classifier finds no generated rows like   (`score.classifier_test`)

    Unchanged by shift and scaling of the features, by the order of the rows and, up to the noise of another split, by
    rotation; one row moves the split by one place. The intervals come from random halves of all three sets without
    replacement: their spread is that of the score at n, and replacement would create duplicates. They are widened by
    the change of the score when modes are separated on weaker evidence. With `inject`, a low score is questioned by
    injecting known losses into the real rows (`score.injected_losses`). Reads low where modes overlap and are
    imbalanced or narrowed; reads high where real rows are sorted by quality. Costs about eight n × n × D products and
    holds tiles of distances, so that memory grows as n.
    """
    n = min(len(fake), len(real) // 2)
    if n < MIN_SAMPLES:
        raise ValueError(
            f"{len(real)} real and {len(fake)} generated samples are too few; "
            f"the score needs at least {2 * MIN_SAMPLES} and {MIN_SAMPLES}"
        )
    real_rows, fake_rows = prepare_rows(real, fake, n)
    modes = _find_partition(real_rows.values, seed)
    estimate = _estimate_from_rows(real_rows, fake_rows, n, modes, seed=seed, replicates=replicates)
    if not inject or estimate.score.high >= MAX_QUESTIONED_LOSS:
        return estimate

    def prepare_measure(reference: Tensor) -> Callable[[Tensor], float]:
        real_rows = PreparedRows(reference, torch.arange(len(reference), device=reference.device) % N_FOLDS)
        modes = _find_partition(reference, seed)

        def measure(fake: Tensor) -> float:
            n = min(len(fake), len(reference) // 2)
            fake_rows = PreparedRows(fake, torch.arange(len(fake), device=fake.device) % N_FOLDS)
            return _estimate_from_rows(real_rows, fake_rows, n, modes, seed=seed, replicates=0).score.value

        return measure

    injected = measure_injected_losses(real_rows.values, n, prepare_measure, seed=seed)
    return replace(estimate, injected=injected, power=bound_power(estimate.power, injected))


def _find_partition(real_rows: Tensor, seed: int) -> ModePartition:
    """The modes of all real rows (N, D), so that a small number of generated samples does not blur them."""
    half = min(len(real_rows) // 2, MAX_MODE_ROWS)
    return find_modes(real_rows[:half], real_rows[-half:], seed=seed)


def _estimate_from_rows(
    real_rows: PreparedRows, fake_rows: PreparedRows, n: int, modes: ModePartition, *, seed: int, replicates: int
) -> DiversityEstimate:
    """The largest of the three estimates, from prepared real rows (N, D) and generated rows (M, D)."""
    real, fake = real_rows.values, fake_rows.values[:n]
    sets = real[:n], real[n : 2 * n], fake
    by_modes, split = _estimate_by_modes(sets, modes, seed=seed, replicates=replicates)
    by_scale, scale_replicates = estimate_missing_by_scale(
        *sets[:2],
        fake[split.find_distinct_rows()],
        is_even=by_modes.profile["skewed"].value < MIN_UNEVEN_LOSS,
        seed=seed,
        replicates=replicates,
    )
    size = min(n, MAX_CLASSIFIER_ROWS)
    fold = torch.cat([real_rows.fold[: 2 * size], fake_rows.fold[:size]])
    log_odds = cross_fit_log_odds(real[: 2 * size], fake[:size], seed=seed, fold=fold)
    odds_replicates = replicate_odds(LogOdds.missing_fraction, log_odds, seed=seed, replicates=replicates)
    by_classifier = estimate_from_replicates(log_odds.missing_fraction(), odds_replicates)
    estimate = replace(by_modes, fake_only_fraction=log_odds.fake_only_fraction())
    return combine_losses(estimate, (by_scale, scale_replicates), (by_classifier, odds_replicates))


def prepare_rows(real: Tensor, fake: Tensor, n: int) -> tuple[PreparedRows, PreparedRows]:
    """All real rows and n generated ones, standardized, in an order and folds that depend on their contents alone."""
    real, fake = real.float(), fake.float()
    real_keys, fake_keys = content_keys(real), content_keys(fake)
    real_order, fake_order = real_keys.argsort(stable=True), fake_keys.argsort(stable=True)[:n]
    real_rows, fake_rows = standardize_rows(real[real_order], fake[fake_order])
    return (
        PreparedRows(real_rows, real_keys[real_order] % N_FOLDS),
        PreparedRows(fake_rows, fake_keys[fake_order] % N_FOLDS),
    )


def _estimate_by_modes(
    sets: Rows, modes: ModePartition, *, seed: int, replicates: int
) -> tuple[DiversityEstimate, SplitDistances]:
    """The estimate from the modes of the data, of reference, held-out and generated rows (n, D)."""
    generator = torch.Generator().manual_seed(seed)
    n = len(sets[0])
    every = torch.arange(n, device=sets[0].device)
    halves = [_draw_sorted_halves(n, generator, every.device) for _ in range(replicates)]
    split = prepare_split(sets, modes, [(every, every, every), *halves])
    factors = compute_factors(split)
    mode_uncertainty = 0.0
    if replicates and not modes.fine_mode_of_cell.equal(modes.mode_of_cell):
        fine_factors = compute_factors(with_fine_modes(split, sets, modes))
        mode_uncertainty = abs(fine_factors.loss - factors.loss)
    half_factors = [compute_factors(split, number) for number in range(1, replicates + 1)]
    return _make_estimate(factors, half_factors, mode_uncertainty, split), split


def combine_losses(estimate: DiversityEstimate, *missing: tuple[Estimate, Tensor]) -> DiversityEstimate:
    """The estimate with the largest loss of itself and other estimates of the missing fraction.

    `missing` in the profile makes up the difference. The lower bound allows for the choice among them.
    """
    losses = (estimate.score, *(loss for loss, _ in missing))
    largest = max(losses, key=lambda loss: (loss.value, loss.low))
    factor = NormalDist().inv_cdf(1 - 0.025 / len(losses)) / Z_SCORE
    low = max(loss.value - factor * (loss.value - loss.low) for loss in losses)
    score = Estimate(largest.value, min(largest.value, max(0.0, low)), max(loss.high for loss in losses))
    profile = dict(estimate.profile)
    if score.value > estimate.score.value:
        own = estimate.profile["missing"]
        others = math.prod(1 - profile[name].value for name in ("skewed", "narrowed", "duplicated"))
        low, value, high = (
            min(1.0, max(floor, 1 - (1 - bound) / max(others, 1e-9)))
            for bound, floor in ((score.low, 0.0), (score.value, own.value), (score.high, own.high))
        )
        profile["missing"] = Estimate(value, min(low, value), max(high, value))
        replicates = next(values for loss, values in missing if loss is largest)
        estimate = replace(estimate, replicates=tuple(replicates.tolist()), power=_compute_power(replicates))
    return replace(estimate, score=score, profile=profile)


def _compute_power(replicates: Tensor, mode_uncertainty: float = 0.0) -> float | None:
    """The smallest loss that would be distinguished from none in 95 of 100 cases; None with fewer than 2 replicates."""
    if len(replicates) < 2:
        return None
    standard_error = math.hypot(float(replicates.std()), mode_uncertainty / Z_SCORE)
    return min(1.0, (Z_SCORE + POWER_Z_SCORE) * standard_error)


def _draw_sorted_halves(n: int, generator: torch.Generator, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Random halves of the three sets, in ascending order so that memory is read sequentially."""
    reference, heldout, fake = (half.sort().values.to(device) for half in draw_halves((n, n, n), generator))
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
    return DiversityEstimate(
        score=score,
        profile=profile,
        power=_compute_power(losses, mode_uncertainty),
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


def half_sample_estimate(
    statistic: Callable[[LogOdds], float], log_odds: LogOdds, *, seed: int, replicates: int
) -> Estimate:
    """A statistic of the log odds with its 95 % interval from half-samples of the rows; the classifier is kept."""
    values = replicate_odds(statistic, log_odds, seed=seed, replicates=replicates)
    return estimate_from_replicates(statistic(log_odds), values)


def replicate_odds(statistic: Callable[[LogOdds], float], log_odds: LogOdds, *, seed: int, replicates: int) -> Tensor:
    """A statistic of the log odds on half-samples of the rows, (R,); the classifier is kept."""
    generator = torch.Generator().manual_seed(seed)
    sizes = len(log_odds.real), len(log_odds.fake)
    return torch.tensor([statistic(log_odds.subset(*draw_halves(sizes, generator))) for _ in range(replicates)])


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
    return float(mode_distance / split.radius.median().clamp(min=1e-12))
