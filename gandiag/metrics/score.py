"""The collapse score as the engine runs it: features kept in the shared passes, judged by `variety` and `views`.

Without real data the score is that of *degeneracy*: repeats among the samples, a lower bound on collapse, since no function
of the generator alone can see that modes of the data are missing.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from gandiag.contracts import Estimate, Needs, Outcome
from gandiag.features.names import LEVELS
from gandiag.metrics.duplicates import birthday
from gandiag.metrics.variety import FEWEST, Variety, variety
from gandiag.metrics.views import displaced, variety_of_views
from gandiag.record import Measurement, Score
from gandiag.stats.distances import degrees, distance_matrix
from gandiag.stats.spread import pool
from gandiag.stats.subset import Kept, KeptSamples


@dataclass(frozen=True, slots=True)
class VarietyScore:
    """Score and profile against real data; for images also the aspects, one view each, and the headline by the worst of them.

    `aspects`: cheap views beside the main one; none for vectors and series. Views of the main one behind frosted glass
    ("imagenet+1") are used where the results hold them. `role` "fake" writes the record's score; any other, a measurement.
    """

    view: str
    n: int
    seed: int = 0
    role: str = "fake"
    aspects: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return "score" if self.role == "fake" else "score@" + self.role.partition("@")[2]

    def needs(self) -> Needs:
        views = (self.view, *self.aspects)
        return {"real": frozenset(Kept(view, 2 * self.n) for view in views), self.role: frozenset(Kept(view, self.n) for view in views)}

    def measure(self, results: Any) -> Outcome:
        real, fake = results["real"][Kept(self.view, 2 * self.n)], results[self.role][Kept(self.view, self.n)]
        if min(len(fake.indices), len(real.indices) // 2) < FEWEST:
            return _too_few(self.key, real, fake)
        aspects: dict[str, Estimate] = {}
        if self.aspects:
            names = self._seen(results)
            reals = {name: results["real"][Kept(name, 2 * self.n)].values for name in names}
            fakes = {name: results[self.role][Kept(name, self.n)].values for name in names}
            found, aspects = variety_of_views(reals, fakes, seed=self.seed)
        else:
            found = variety(real.values, fake.values, seed=self.seed)
        number = Measurement(found.score.value, found.score.low, found.score.high, floor=0.0, unit="share", better="lower", n=found.n)
        if self.role != "fake":
            return Outcome({self.key: number})
        return Outcome({self.key: number}, _sections(found, real, fake) | {"aspects": {name: asdict(share) for name, share in aspects.items()}})

    def deeper(self, results: Any) -> str | None:
        """The next level of frosted glass that this score wants to look through, or None: the view is clear enough, or there is none."""
        if not self.aspects:
            return None
        level = max((level for level in LEVELS if Kept(glass(self.view, level), self.n) in results[self.role]), default=0)
        name = glass(self.view, level)
        real, fake = results["real"][Kept(name, 2 * self.n)], results[self.role][Kept(name, self.n)]
        if level == LEVELS[-1] or min(len(fake.indices), len(real.indices) // 2) < FEWEST or not displaced(real.values, fake.values, seed=self.seed):
            return None
        return glass(self.view, level + 1)

    def _seen(self, results: Any) -> list[str]:
        levels = [glass(self.view, level) for level in LEVELS]
        there = [name for name in levels if Kept(name, self.n) in results[self.role] and Kept(name, 2 * self.n) in results["real"]]
        return [*there, *self.aspects]


def glass(view: str, level: int) -> str:
    """The name of a view behind `level` panes."""
    return f"{view}+{level}" if level else view


def _sections(found: Variety, real: KeptSamples, fake: KeptSamples) -> dict[str, Any]:
    score = Score(**asdict(found.score), power=found.power, n_fake=len(fake.indices), n_real=len(real.indices), replicates=found.replicates)
    profile = {name: asdict(share) for name, share in found.profile.items()}
    doubts = list(found.doubts)
    cut = []
    if len(real.indices) < 2 * len(fake.indices):
        cut = [f"{len(real.indices):,} real samples are fewer than twice {len(fake.indices):,} generated ones: {found.n:,} a side were compared"]
    return {"score": score, "profile": profile, "doubts": doubts, "remarks": cut}


def _too_few(key: str, real: KeptSamples, fake: KeptSamples) -> Outcome:
    counts = f"{len(fake.indices):,} generated and {len(real.indices):,} real samples"
    reason = f"{counts} are too few for a score: it needs {FEWEST} and {2 * FEWEST}"
    score = Score(None, None, None, n_fake=len(fake.indices), n_real=len(real.indices))
    return Outcome({key: Measurement.missing(reason)}, {"score": score, "doubts": [reason]} if key == "score" else {})


# Two images whose RMS difference is below this share of the declared range look the same: 5 of 256 grey levels.
SAME_IMAGE = 0.02
# Two vectors closer than this share of the largest value are the same number in float32, give or take some hundred roundings.
SAME_VECTOR = 1e-5


@dataclass(frozen=True, slots=True)
class Degeneracy:
    """Repeats among generated samples, in output space: the score where there is no real data.

    With c near-duplicate pairs among n samples, N = n (n - 1) / 2c is the order-2 Hill number of the outputs (the birthday
    estimate of the support); the score is 1 - min(1, N / n), the share of the sample that repeats. The interval is that of
    N (`gandiag.metrics.duplicates.birthday`). Reads low whenever collapse leaves more than n outputs: a lower bound.
    """

    n: int
    seed: int = 0
    image_range: tuple[float, float] | None = None
    key: str = "score"  # with real data, where the score is another, "degeneracy": then a measurement alone

    def needs(self) -> Needs:
        return {"fake": frozenset({Kept("samples", self.n)})}

    def measure(self, results: Any) -> Outcome:
        kept = results["fake"][Kept("samples", self.n)]
        rows = kept.values.flatten(1)
        n = len(rows)
        if n < FEWEST:
            reason = f"{n:,} samples are too few to judge repeats: {FEWEST} are needed"
            if self.key != "score":
                return Outcome({self.key: Measurement.missing(reason)})
            return Outcome({self.key: Measurement.missing(reason)}, {"score": Score(None, None, None, basis="degeneracy", n_fake=n), "doubts": [reason]})
        share, replicates = degeneracy(rows, radius=self._radius(rows), seed=self.seed)
        number = Measurement(share.value, share.low, share.high, floor=None, unit="share", better="lower", n=n, reason="from the samples alone: a lower bound")
        if self.key != "score":
            return Outcome({self.key: number})
        score = Score(**asdict(share), basis="degeneracy", n_fake=n, replicates=replicates)
        return Outcome({self.key: number}, {"score": score})

    def _radius(self, rows: Tensor) -> float:
        if self.image_range is not None:
            return SAME_IMAGE * (self.image_range[1] - self.image_range[0]) * math.sqrt(rows.shape[1])
        return SAME_VECTOR * float(rows.abs().max())


def degeneracy(rows: Tensor, *, radius: float, seed: int = 0, replicates: int = 20) -> tuple[Estimate, tuple[float, ...]]:
    """1 - min(1, N / n) of `rows` (n, D), N the birthday estimate with its interval; and the same on half-samples.

    `radius`: what counts as the same output. Each replicate is 1 - min(1, N_half / n). Cost O(n² D).
    """
    n = len(rows)
    found = birthday(degrees(rows, radius))
    near = (distance_matrix(rows[pool(n, seed=seed)]) < radius).fill_diagonal_(False)  # (p, p)
    draw = torch.Generator().manual_seed(seed)
    shares = []
    for _ in range(replicates):
        half = torch.randperm(len(near), generator=draw)[: len(near) // 2]
        shares.append(_lost(birthday(near[half[:, None], half].sum(1)).value, n))
    return Estimate(_lost(found.value, n), _lost(found.high, n), _lost(found.low, n)), tuple(shares)


def _lost(support: float, n: int) -> float:
    return 1.0 - min(1.0, support / n)
