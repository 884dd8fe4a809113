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

from gandiag.features.view_names import DEGRADATION_LEVELS
from gandiag.interfaces import Estimate, MetricResult, Needs
from gandiag.metrics.duplicates import birthday_estimate
from gandiag.metrics.score.estimator import MIN_SAMPLES, DiversityEstimate, estimate_diversity_loss
from gandiag.metrics.score.multi_view import estimate_multi_view_loss, has_low_fidelity
from gandiag.record import Measurement, Score
from gandiag.stats.distances import count_within_radius, distance_matrix
from gandiag.stats.resampling import subsample_indices
from gandiag.stats.subset import SampleSubset, SubsetSpec


@dataclass(frozen=True, slots=True)
class CollapseScore:
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
        return {
            "real": frozenset(SubsetSpec(view, 2 * self.n) for view in views),
            self.role: frozenset(SubsetSpec(view, self.n) for view in views),
        }

    def measure(self, results: Any) -> MetricResult:
        real, fake = (
            results["real"][SubsetSpec(self.view, 2 * self.n)],
            results[self.role][SubsetSpec(self.view, self.n)],
        )
        if min(len(fake.indices), len(real.indices) // 2) < MIN_SAMPLES:
            return _too_few(self.key, real, fake)
        aspects: dict[str, Estimate] = {}
        if self.aspects:
            names = self._seen(results)
            reals = {name: results["real"][SubsetSpec(name, 2 * self.n)].values for name in names}
            fakes = {name: results[self.role][SubsetSpec(name, self.n)].values for name in names}
            found, aspects = estimate_multi_view_loss(reals, fakes, seed=self.seed)
        else:
            found = estimate_diversity_loss(real.values, fake.values, seed=self.seed)
        number = Measurement(
            found.score.value, found.score.low, found.score.high, floor=0.0, unit="share", better="lower", n=found.n
        )
        if self.role != "fake":
            return MetricResult({self.key: number})
        return MetricResult(
            {self.key: number},
            _sections(found, real, fake) | {"aspects": {name: asdict(share) for name, share in aspects.items()}},
        )

    def next_view(self, results: Any) -> str | None:
        """The next level of frosted glass that this score wants to look through, or None: the view is clear enough, or there is none."""
        if not self.aspects:
            return None
        level = max(
            (
                level
                for level in DEGRADATION_LEVELS
                if SubsetSpec(degraded_view_name(self.view, level), self.n) in results[self.role]
            ),
            default=0,
        )
        name = degraded_view_name(self.view, level)
        real, fake = results["real"][SubsetSpec(name, 2 * self.n)], results[self.role][SubsetSpec(name, self.n)]
        if (
            level == DEGRADATION_LEVELS[-1]
            or min(len(fake.indices), len(real.indices) // 2) < MIN_SAMPLES
            or not has_low_fidelity(real.values, fake.values, seed=self.seed)
        ):
            return None
        return degraded_view_name(self.view, level + 1)

    def _seen(self, results: Any) -> list[str]:
        levels = [degraded_view_name(self.view, level) for level in DEGRADATION_LEVELS]
        there = [
            name
            for name in levels
            if SubsetSpec(name, self.n) in results[self.role] and SubsetSpec(name, 2 * self.n) in results["real"]
        ]
        return [*there, *self.aspects]


def degraded_view_name(view: str, level: int) -> str:
    """The name of a view behind `level` panes."""
    return f"{view}+{level}" if level else view


def _sections(found: DiversityEstimate, real: SampleSubset, fake: SampleSubset) -> dict[str, Any]:
    score = Score(
        **asdict(found.score),
        power=found.power,
        n_fake=len(fake.indices),
        n_real=len(real.indices),
        replicates=found.replicates,
    )
    profile = {name: asdict(share) for name, share in found.profile.items()}
    doubts = list(found.inconclusive_reasons)
    cut = []
    if len(real.indices) < 2 * len(fake.indices):
        cut = [
            f"{len(real.indices):,} real samples are fewer than twice {len(fake.indices):,} generated ones: {found.n:,} a side were compared"
        ]
    return {"score": score, "profile": profile, "doubts": doubts, "remarks": cut}


def _too_few(key: str, real: SampleSubset, fake: SampleSubset) -> MetricResult:
    counts = f"{len(fake.indices):,} generated and {len(real.indices):,} real samples"
    reason = f"{counts} are too few for a score: it needs {MIN_SAMPLES} and {2 * MIN_SAMPLES}"
    score = Score(None, None, None, n_fake=len(fake.indices), n_real=len(real.indices))
    return MetricResult(
        {key: Measurement.missing(reason)}, {"score": score, "doubts": [reason]} if key == "score" else {}
    )


# Two images whose RMS difference is below this share of the declared range look the same: 5 of 256 grey levels.
DUPLICATE_IMAGE_RMS = 0.02
# Two vectors closer than this share of the largest value are the same number in float32, give or take some hundred roundings.
DUPLICATE_VECTOR_RATIO = 1e-5


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
        return {"fake": frozenset({SubsetSpec("samples", self.n)})}

    def measure(self, results: Any) -> MetricResult:
        kept = results["fake"][SubsetSpec("samples", self.n)]
        rows = kept.values.flatten(1)
        n = len(rows)
        if n < MIN_SAMPLES:
            reason = f"{n:,} samples are too few to judge repeats: {MIN_SAMPLES} are needed"
            if self.key != "score":
                return MetricResult({self.key: Measurement.missing(reason)})
            return MetricResult(
                {self.key: Measurement.missing(reason)},
                {"score": Score(None, None, None, basis="degeneracy", n_fake=n), "doubts": [reason]},
            )
        share, replicates = estimate_degeneracy(rows, radius=self._radius(rows), seed=self.seed)
        number = Measurement(
            share.value,
            share.low,
            share.high,
            floor=None,
            unit="share",
            better="lower",
            n=n,
            reason="from the samples alone: a lower bound",
        )
        if self.key != "score":
            return MetricResult({self.key: number})
        score = Score(**asdict(share), basis="degeneracy", n_fake=n, replicates=replicates)
        return MetricResult({self.key: number}, {"score": score})

    def _radius(self, rows: Tensor) -> float:
        if self.image_range is not None:
            return DUPLICATE_IMAGE_RMS * (self.image_range[1] - self.image_range[0]) * math.sqrt(rows.shape[1])
        return DUPLICATE_VECTOR_RATIO * float(rows.abs().max())


def estimate_degeneracy(
    rows: Tensor, *, radius: float, seed: int = 0, replicates: int = 20
) -> tuple[Estimate, tuple[float, ...]]:
    """1 - min(1, N / n) of `rows` (n, D), N the birthday estimate with its interval; and the same on half-samples.

    `radius`: what counts as the same output. Each replicate is 1 - min(1, N_half / n). Cost O(n² D).
    """
    n = len(rows)
    found = birthday_estimate(count_within_radius(rows, radius))
    near = (distance_matrix(rows[subsample_indices(n, seed=seed)]) < radius).fill_diagonal_(False)  # (p, p)
    draw = torch.Generator().manual_seed(seed)
    shares = []
    for _ in range(replicates):
        half = torch.randperm(len(near), generator=draw)[: len(near) // 2]
        shares.append(_lost(birthday_estimate(near[half[:, None], half].sum(1)).value, n))
    return Estimate(_lost(found.value, n), _lost(found.high, n), _lost(found.low, n)), tuple(shares)


def _lost(support: float, n: int) -> float:
    return 1.0 - min(1.0, support / n)
