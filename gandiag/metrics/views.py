"""The collapse score of images: every aspect by the view that shows it, and the headline by the worst one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist

import torch
from torch import Tensor

from gandiag.contracts import Estimate
from gandiag.metrics.learned import Odds, odds
from gandiag.metrics.variety import LIMIT, Variety, Z, certain, estimate, variety

ASPECT_OF = {"imagenet": "semantics", "pixels": "layout"}  # other views are called after their aspect
DISPLACED = 0.3  # share of clearly generated rows above which a view shows low fidelity, and looks through frosted glass if it can
DISPLACEMENT = 0.3  # variety that low fidelity alone can seem to cost then (noise of σ = .1 on images: up to .25)


@dataclass(frozen=True, slots=True)
class Seen:
    """What one view says: matched (the estimator of `variety`), learned (`Odds.missing`), and how far the generator stands beside the data.

    `invented` is that of the view that was judged; `beside` the share of samples beside the data as the clear view shows it: fidelity.
    """

    name: str
    matched: Variety
    learned: Estimate
    invented: float
    beside: Estimate

    @property
    def displaced(self) -> bool:
        return self.invented > DISPLACED

    @property
    def value(self) -> Estimate:
        """The greater of the two losses. A displaced view is believed only beyond what the displacement itself may cost."""
        a, b = self.matched.score, self.learned
        value, low = (self._beyond_displacement(loss) for loss in (a.value, a.low)) if self.displaced else (a.value, a.low)
        value = max(value, b.value)
        return Estimate(value, min(value, max(low, b.low)), max(value, a.high, b.high))

    def _beyond_displacement(self, loss: float) -> float:
        """Low fidelity makes samples miss the data and each other's width, but no copies: those are counted in full."""
        distinct = 1 - self.matched.profile["duplicated"].value
        return 1 - min(distinct, (1 - loss) / (1 - DISPLACEMENT))


def variety_of_views(real: Mapping[str, Tensor], fake: Mapping[str, Tensor], *, seed: int = 0, replicates: int = 20) -> tuple[Variety, dict[str, Estimate]]:
    """The score over several views of the same images, and each aspect's own. `real[view]` (N, D), `fake[view]` (M, D) float32.

    Views: "color", "texture", "layout" (`gandiag.features.aspects`), "imagenet" for semantics. A view named "imagenet+1" is the same
    behind a pane of frosted glass, and is used where the clear one shows low fidelity. Every view is judged twice, by matching
    neighbours and by a cross-fitted classifier, and the greater loss counts: the first sees narrowing and copies, the second sees a half
    of a continuum that is gone. The headline is the worst aspect; its lower bound is at 1 − 0.025 / (number of aspects), the null
    of a maximum. Costs a `variety` and a fit of five small logistic regressions a view.
    """
    seen = {}
    for base in dict.fromkeys(name.partition("+")[0] for name in real):
        levels = sorted(name for name in real if name.partition("+")[0] == base and name in fake)
        seen[ASPECT_OF.get(base.partition("@")[0], base)] = _clearest(levels, real, fake, seed, replicates)
    if not seen:
        raise ValueError("no view is given for both real and generated images")
    aspects = {name: view.value for name, view in seen.items()}
    worst = max(aspects, key=lambda name: (aspects[name].value, aspects[name].low))
    return _headline(seen, worst), aspects


def _clearest(levels: list[str], real: Mapping[str, Tensor], fake: Mapping[str, Tensor], seed: int, replicates: int) -> Seen:
    """The least degraded view in which the generator does not stand beside the data, else the most degraded one."""
    clear = odds(real[levels[0]], fake[levels[0]], seed=seed)
    for name in levels:
        found = clear if name == levels[0] else odds(real[name], fake[name], seed=seed)
        if found.invented() <= DISPLACED or name == levels[-1]:
            break
    matched = variety(real[name], fake[name], seed=seed, replicates=replicates)
    learned, beside = (_by_halves(what, of, seed, replicates) for what, of in ((Odds.missing, found), (Odds.invented, clear)))
    return Seen(name, matched, learned, found.invented(), max(beside, matched.profile["off_manifold"], key=lambda share: share.low))


def displaced(real: Tensor, fake: Tensor, *, seed: int = 0) -> bool:
    """Whether a view of real (N, D) and generated (M, D) images shows so low a fidelity that frosted glass is needed. A few hundred rows do."""
    return odds(real, fake, seed=seed).invented() > DISPLACED


def _by_halves(what: Callable[[Odds], float], found: Odds, seed: int, replicates: int) -> Estimate:
    generator = torch.Generator().manual_seed(seed)
    sizes = len(found.real), len(found.fake)
    halves = [found.part(*(torch.randperm(n, generator=generator)[: n // 2] for n in sizes)) for _ in range(replicates)]
    return estimate(what(found), torch.tensor([what(half) for half in halves]))


def _headline(seen: dict[str, Seen], worst: str) -> Variety:
    view, value = seen[worst], seen[worst].value
    strict = NormalDist().inv_cdf(1 - 0.025 / len(seen)) / Z
    low = max(0.0, value.value - strict * (value.value - value.low))
    high = max(other.value.high for other in seen.values())
    matched = view.matched
    doubts = tuple(dict.fromkeys(doubt for other in seen.values() for doubt in other.matched.doubts))
    unlike = {name: other.invented for name, other in seen.items() if other.displaced}
    proven = any(certain(other.matched.profile) for other in seen.values()) or (worst not in unlike and low >= LIMIT)
    if 2 * len(unlike) >= len(seen) and not proven:  # fewer leave enough aspects to judge by
        shares = ", ".join(f"{share:.0%} in {name}" for name, share in unlike.items())
        doubts += (f"too many samples look like no real one to tell lost variety from low fidelity: {shares}",)
    profile = dict(matched.profile) | {"off_manifold": max((other.beside for other in seen.values()), key=lambda share: share.low)}
    if view.learned.value > matched.score.value:
        profile["missing"] = view.learned
    return replace(matched, score=Estimate(value.value, low, high), profile=profile, doubts=doubts)
