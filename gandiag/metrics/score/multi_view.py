"""The collapse score of images: one view per aspect, and the worst aspect as the headline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist

from torch import Tensor

from gandiag.interfaces import Estimate
from gandiag.metrics.score.classifier_test import LogOdds, cross_fit_log_odds
from gandiag.metrics.score.estimator import (
    CONCLUSIVE_LOSS,
    MAX_CLASSIFIER_ROWS,
    Z_SCORE,
    DiversityEstimate,
    estimate_diversity_loss,
    half_sample_estimate,
    is_conclusive,
)

ASPECT_BY_VIEW = {"imagenet": "semantics", "pixels": "layout"}  # other views are named after their aspect
LOW_FIDELITY_FRACTION = 0.3  # fraction of clearly generated rows above which a view is degraded, if it can be
# The loss that low fidelity alone can mimic in such a view (noise of σ = .1 on images: up to .25).
MAX_FIDELITY_EFFECT = 0.3


@dataclass(frozen=True, slots=True)
class ViewResult:
    """The losses in one view, by nearest neighbors and by a classifier, and its fidelity.

    `fake_only_fraction` is that of the view that was scored; `off_manifold` the fraction of samples without a real
    counterpart in the undegraded view. `is_transformed`: a transformation of all images is all that was found.
    """

    name: str
    neighbor_estimate: DiversityEstimate
    classifier_estimate: Estimate
    fake_only_fraction: float
    off_manifold: Estimate
    is_transformed: bool = False

    @property
    def has_low_fidelity(self) -> bool:
        return self.fake_only_fraction > LOW_FIDELITY_FRACTION

    @property
    def loss(self) -> Estimate:
        """The larger of the two losses.

        With low fidelity, the neighbor loss counts only beyond what fidelity alone can cost.
        """
        neighbor, classifier = self.neighbor_estimate.score, self.classifier_estimate
        value, low = neighbor.value, neighbor.low
        if self.has_low_fidelity or self.is_transformed:
            value, low = self._beyond_fidelity_effect(value), self._beyond_fidelity_effect(low)
        value = max(value, classifier.value)
        return Estimate(value, min(value, max(low, classifier.low)), max(value, neighbor.high, classifier.high))

    def _beyond_fidelity_effect(self, loss: float) -> float:
        """The loss less what low fidelity can cost. It moves and widens samples, but copies count in full."""
        unique_fraction = 1 - self.neighbor_estimate.profile["duplicated"].value
        return 1 - min(unique_fraction, (1 - loss) / (1 - MAX_FIDELITY_EFFECT))


def estimate_multi_view_loss(
    real: Mapping[str, Tensor],
    fake: Mapping[str, Tensor],
    *,
    seed: int = 0,
    replicates: int = 20,
    inject: bool = False,
    transformed: Mapping[str, tuple[Tensor, Tensor]] | None = None,
) -> tuple[DiversityEstimate, dict[str, Estimate]]:
    """The score over several views of the same images, and the loss of each aspect.

    `real[view]` (N, D), `fake[view]` (M, D) float32. Views: "color", "texture", "layout"
    (`gandiag.features.image_statistics`), "imagenet" for semantics. A view named "imagenet+1" is the same at
    degradation level 1 and is used where the undegraded one shows low fidelity. Every view is scored twice, by nearest
    neighbors and by a cross-fitted classifier, and the larger loss counts: the first detects narrowing and copies, the
    second a missing half of a continuum. The headline is the worst aspect; its lower bound is at 1 − 0.025 / (number of
    aspects), for the null of a maximum. `inject`: injects known losses into the first view. `transformed`: aspects of
    real images, transformed so that they pass for the generated ones, and of those (`score.transformed_images`); they
    are scored in place of the views, and the others count only beyond what fidelity can cost. Costs, per view, one
    `estimate_diversity_loss` and a fit of five small logistic regressions.
    """
    results: dict[str, ViewResult] = {}
    for base in dict.fromkeys(name.partition("+")[0] for name in real):
        levels = sorted(name for name in real if name.partition("+")[0] == base and name in fake)
        aspect = ASPECT_BY_VIEW.get(base.partition("@")[0], base)
        is_first = not results
        if transformed and aspect in transformed:
            results[aspect] = _score_transformed(aspect, real, fake, transformed[aspect], seed, replicates)
            continue
        result = _score_view(levels, real, fake, seed=seed, replicates=replicates, inject=inject and is_first)
        results[aspect] = replace(result, is_transformed=bool(transformed))
    if not results:
        raise ValueError("no view is given for both real and generated images")
    aspects = {name: result.loss for name, result in results.items()}
    worst = max(aspects, key=lambda name: (aspects[name].value, aspects[name].low))
    return _headline(results, worst), aspects


def _score_view(
    levels: list[str],
    real: Mapping[str, Tensor],
    fake: Mapping[str, Tensor],
    *,
    seed: int,
    replicates: int,
    inject: bool,
) -> ViewResult:
    """Score the least degraded view without low fidelity, else the most degraded one. `levels`: view names by level."""
    undegraded = _fit_log_odds(real[levels[0]], fake[levels[0]], seed)
    for name in levels:
        log_odds = undegraded if name == levels[0] else _fit_log_odds(real[name], fake[name], seed)
        if log_odds.fake_only_fraction() <= LOW_FIDELITY_FRACTION or name == levels[-1]:
            break
    neighbor_estimate = estimate_diversity_loss(real[name], fake[name], seed=seed, replicates=replicates, inject=inject)
    missing = half_sample_estimate(LogOdds.missing_fraction, log_odds, seed=seed, replicates=replicates)
    fake_only = half_sample_estimate(LogOdds.fake_only_fraction, undegraded, seed=seed, replicates=replicates)
    off_manifold = max(fake_only, neighbor_estimate.profile["off_manifold"], key=lambda estimate: estimate.low)
    return ViewResult(name, neighbor_estimate, missing, log_odds.fake_only_fraction(), off_manifold)


def _score_transformed(
    name: str,
    real: Mapping[str, Tensor],
    fake: Mapping[str, Tensor],
    transformed: tuple[Tensor, Tensor],
    seed: int,
    replicates: int,
) -> ViewResult:
    """Score transformed real images against the generated ones; fidelity is that of the real images as they are."""
    pair = {name: transformed[0]}, {name: transformed[1]}
    result = _score_view([name], *pair, seed=seed, replicates=replicates, inject=False)
    plain = _fit_log_odds(real[name], fake[name], seed)
    fake_only = half_sample_estimate(LogOdds.fake_only_fraction, plain, seed=seed, replicates=replicates)
    return replace(result, off_manifold=fake_only)


def _fit_log_odds(real: Tensor, fake: Tensor, seed: int) -> LogOdds:
    return cross_fit_log_odds(real[: 2 * MAX_CLASSIFIER_ROWS], fake[:MAX_CLASSIFIER_ROWS], seed=seed)


def has_low_fidelity(real: Tensor, fake: Tensor, *, seed: int = 0) -> bool:
    """Whether fidelity in a view of real (N, D) and generated (M, D) images is so low that a degraded view is needed.

    A few hundred rows are enough.
    """
    return _fit_log_odds(real, fake, seed).fake_only_fraction() > LOW_FIDELITY_FRACTION


def _headline(results: dict[str, ViewResult], worst: str) -> DiversityEstimate:
    """The estimate of the worst aspect, with the doubts of all of them."""
    result, loss = results[worst], results[worst].loss
    interval_factor = NormalDist().inv_cdf(1 - 0.025 / len(results)) / Z_SCORE
    low = max(0.0, loss.value - interval_factor * (loss.value - loss.low))
    high = max(other.loss.high for other in results.values())
    estimate = result.neighbor_estimate
    reasons = tuple(
        dict.fromkeys(reason for other in results.values() for reason in other.neighbor_estimate.inconclusive_reasons)
    )
    low_fidelity = {name: other.fake_only_fraction for name, other in results.items() if other.has_low_fidelity}
    is_certain = any(is_conclusive(other.neighbor_estimate.profile) for other in results.values()) or (
        worst not in low_fidelity and low >= CONCLUSIVE_LOSS
    )
    if 2 * len(low_fidelity) >= len(results) and not is_certain:  # with fewer, enough aspects remain
        fractions = ", ".join(f"{fraction:.0%} in {name}" for name, fraction in low_fidelity.items())
        reasons += (f"too many samples look like no real one to tell lost diversity from low fidelity: {fractions}",)
    profile = dict(estimate.profile)
    profile["off_manifold"] = max((other.off_manifold for other in results.values()), key=lambda share: share.low)
    if result.classifier_estimate.value > estimate.score.value:
        profile["missing"] = result.classifier_estimate
    return replace(
        estimate,
        score=Estimate(loss.value, low, high),
        profile=profile,
        inconclusive_reasons=reasons,
        injected=next(iter(results.values())).neighbor_estimate.injected,
    )
