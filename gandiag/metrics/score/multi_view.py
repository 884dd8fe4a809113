"""The collapse score of images: every aspect by the view that shows it, and the headline by the worst one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist

import torch
from torch import Tensor

from gandiag.interfaces import Estimate
from gandiag.metrics.score.classifier_test import LogOdds, cross_fit_log_odds
from gandiag.metrics.score.estimator import (
    CONCLUSIVE_LOSS,
    Z_SCORE,
    DiversityEstimate,
    estimate_diversity_loss,
    estimate_from_replicates,
    is_conclusive,
)

ASPECT_BY_VIEW = {"imagenet": "semantics", "pixels": "layout"}  # other views are called after their aspect
LOW_FIDELITY_FRACTION = 0.3  # share of clearly generated rows above which a view shows low fidelity, and looks through frosted glass if it can
MAX_FIDELITY_EFFECT = (
    0.3  # variety that low fidelity alone can seem to cost then (noise of σ = .1 on images: up to .25)
)


@dataclass(frozen=True, slots=True)
class ViewResult:
    """What one view says: matched (the estimator of `variety`), learned (`Odds.missing`), and how far the generator stands beside the data.

    `invented` is that of the view that was judged; `beside` the share of samples beside the data as the clear view shows it: fidelity.
    """

    name: str
    neighbor_estimate: DiversityEstimate
    classifier_estimate: Estimate
    fake_only_fraction: float
    off_manifold: Estimate

    @property
    def has_low_fidelity(self) -> bool:
        return self.fake_only_fraction > LOW_FIDELITY_FRACTION

    @property
    def loss(self) -> Estimate:
        """The greater of the two losses. A displaced view is believed only beyond what the displacement itself may cost."""
        a, b = self.neighbor_estimate.score, self.classifier_estimate
        value, low = (
            (self._beyond_displacement(loss) for loss in (a.value, a.low))
            if self.has_low_fidelity
            else (a.value, a.low)
        )
        value = max(value, b.value)
        return Estimate(value, min(value, max(low, b.low)), max(value, a.high, b.high))

    def _beyond_displacement(self, loss: float) -> float:
        """Low fidelity makes samples miss the data and each other's width, but no copies: those are counted in full."""
        distinct = 1 - self.neighbor_estimate.profile["duplicated"].value
        return 1 - min(distinct, (1 - loss) / (1 - MAX_FIDELITY_EFFECT))


def estimate_multi_view_loss(
    real: Mapping[str, Tensor], fake: Mapping[str, Tensor], *, seed: int = 0, replicates: int = 20
) -> tuple[DiversityEstimate, dict[str, Estimate]]:
    """The score over several views of the same images, and each aspect's own. `real[view]` (N, D), `fake[view]` (M, D) float32.

    Views: "color", "texture", "layout" (`gandiag.features.image_statistics`), "imagenet" for semantics. A view named "imagenet+1" is the same
    behind a pane of frosted glass, and is used where the clear one shows low fidelity. Every view is judged twice, by matching
    neighbours and by a cross-fitted classifier, and the greater loss counts: the first sees narrowing and copies, the second sees a half
    of a continuum that is gone. The headline is the worst aspect; its lower bound is at 1 − 0.025 / (number of aspects), the null
    of a maximum. Costs a `variety` and a fit of five small logistic regressions a view.
    """
    seen = {}
    for base in dict.fromkeys(name.partition("+")[0] for name in real):
        levels = sorted(name for name in real if name.partition("+")[0] == base and name in fake)
        seen[ASPECT_BY_VIEW.get(base.partition("@")[0], base)] = _clearest(levels, real, fake, seed, replicates)
    if not seen:
        raise ValueError("no view is given for both real and generated images")
    aspects = {name: view.loss for name, view in seen.items()}
    worst = max(aspects, key=lambda name: (aspects[name].value, aspects[name].low))
    return _headline(seen, worst), aspects


def _clearest(
    levels: list[str], real: Mapping[str, Tensor], fake: Mapping[str, Tensor], seed: int, replicates: int
) -> ViewResult:
    """The least degraded view in which the generator does not stand beside the data, else the most degraded one."""
    clear = cross_fit_log_odds(real[levels[0]], fake[levels[0]], seed=seed)
    for name in levels:
        found = clear if name == levels[0] else cross_fit_log_odds(real[name], fake[name], seed=seed)
        if found.fake_only_fraction() <= LOW_FIDELITY_FRACTION or name == levels[-1]:
            break
    matched = estimate_diversity_loss(real[name], fake[name], seed=seed, replicates=replicates)
    learned, beside = (
        _by_halves(what, of, seed, replicates)
        for what, of in ((LogOdds.missing_fraction, found), (LogOdds.fake_only_fraction, clear))
    )
    return ViewResult(
        name,
        matched,
        learned,
        found.fake_only_fraction(),
        max(beside, matched.profile["off_manifold"], key=lambda share: share.low),
    )


def has_low_fidelity(real: Tensor, fake: Tensor, *, seed: int = 0) -> bool:
    """Whether a view of real (N, D) and generated (M, D) images shows so low a fidelity that frosted glass is needed. A few hundred rows do."""
    return cross_fit_log_odds(real, fake, seed=seed).fake_only_fraction() > LOW_FIDELITY_FRACTION


def _by_halves(what: Callable[[LogOdds], float], found: LogOdds, seed: int, replicates: int) -> Estimate:
    generator = torch.Generator().manual_seed(seed)
    sizes = len(found.real), len(found.fake)
    halves = [
        found.subset(*(torch.randperm(n, generator=generator)[: n // 2] for n in sizes)) for _ in range(replicates)
    ]
    return estimate_from_replicates(what(found), torch.tensor([what(half) for half in halves]))


def _headline(seen: dict[str, ViewResult], worst: str) -> DiversityEstimate:
    view, value = seen[worst], seen[worst].loss
    strict = NormalDist().inv_cdf(1 - 0.025 / len(seen)) / Z_SCORE
    low = max(0.0, value.value - strict * (value.value - value.low))
    high = max(other.loss.high for other in seen.values())
    matched = view.neighbor_estimate
    doubts = tuple(
        dict.fromkeys(doubt for other in seen.values() for doubt in other.neighbor_estimate.inconclusive_reasons)
    )
    unlike = {name: other.fake_only_fraction for name, other in seen.items() if other.has_low_fidelity}
    proven = any(is_conclusive(other.neighbor_estimate.profile) for other in seen.values()) or (
        worst not in unlike and low >= CONCLUSIVE_LOSS
    )
    if 2 * len(unlike) >= len(seen) and not proven:  # fewer leave enough aspects to judge by
        shares = ", ".join(f"{share:.0%} in {name}" for name, share in unlike.items())
        doubts += (f"too many samples look like no real one to tell lost variety from low fidelity: {shares}",)
    profile = dict(matched.profile) | {
        "off_manifold": max((other.off_manifold for other in seen.values()), key=lambda share: share.low)
    }
    if view.classifier_estimate.value > matched.score.value:
        profile["missing"] = view.classifier_estimate
    return replace(matched, score=Estimate(value.value, low, high), profile=profile, inconclusive_reasons=doubts)
