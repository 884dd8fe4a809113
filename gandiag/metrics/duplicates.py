"""Samples that say the same thing twice, and how many different ones there can be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gandiag.contracts import Needs, Outcome
from gandiag.errors import SourceError
from gandiag.metrics.entry import NO_REAL, missing, share
from gandiag.record import Measurement
from gandiag.stats.distances import degrees, distance_matrix
from gandiag.stats.nearest import neighbours
from gandiag.stats.rows import row_pair, rows
from gandiag.stats.spread import count_interval, half_widths, pool
from gandiag.stats.subset import Kept
from gandiag.stats.trio import trio_needs, trio_of

KEYS = ("near_duplicates", "support_size")
NEAR = 0.1  # of the median distance to the nearest neighbour
SAME = 2.0**-20  # of the rows' size: what two evaluations of one network differ by in float32


@dataclass(frozen=True, slots=True)
class Support:
    """About `value` different outputs, 95 % sure between `low` and `high`, from `pairs` near-duplicate pairs among `n`. inf without a pair."""

    value: float
    low: float
    high: float
    pairs: int
    n: int


def duplicate_threshold(real: Any, fake: Any, *, step: float = 0.0) -> float:
    """The distance below which two generated rows are the same thing, in feature units, > 0.

    0.1 × the median distance of a real row to its nearest other real row, so take as many real rows as generated ones.
    Where `real` is None, 0.1 × that median among the generated rows themselves: free of scale, but blind once more
    than half of them are near-duplicates that are not exact. Never below what float32 resolves (2⁻²⁰ of the rows' rms
    length), nor below half a quantisation `step` per axis, in the units of the rows.
    """
    left, right = (None, rows(fake, "generated samples")) if real is None else row_pair(real, fake)
    basis = right if left is None else left
    if len(basis) < 2:
        raise SourceError(f"there are {len(basis)} samples", "pass at least 2: a distance takes a pair")
    return threshold_from(neighbours(basis).distance[:, 0], right, step)


def threshold_from(spacing: Tensor, fake: Tensor, step: float = 0.0) -> float:
    """The same from nearest-neighbour distances (N,) already known, for generated rows (M, D)."""
    size = math.sqrt(float(fake.double().square().sum(1).mean()))
    return max(NEAR * float(spacing.median()), SAME * size, step / 2 * math.sqrt(fake.shape[1]), 1e-30)


def near_duplicates(real: Any, fake: Any, threshold: float | None = None) -> float:
    """Share of generated rows that have another one within the threshold (`duplicate_threshold`), in [0, 1]; lower is better.

    Reads high at larger n where the support is finite (a pair becomes likely at n = 1.18 √N), low where copies carry noise
    above the threshold. Dropped modes alone do not show. Cost M²·D / 2.
    """
    limit = duplicate_threshold(real, fake) if threshold is None else threshold
    return float((degrees(rows(fake, "generated samples"), limit) > 0).double().mean())


def support_size(real: Any, fake: Any, threshold: float | None = None) -> Support:
    """The birthday estimate of how many different outputs there are: s(s - 1)/(2c) from c near-duplicate pairs among s rows.

    It is the inverse Simpson index, so a lower bound on the true support when outputs are unequally likely. The interval
    is the exact Poisson one for c, wider where pairs come in clumps. Higher is more diverse; inf, with a finite `low`,
    where no pair is found. Source: Arora, Risteski and Zhang 2018.
    """
    limit = duplicate_threshold(real, fake) if threshold is None else threshold
    return birthday(degrees(rows(fake, "generated samples"), limit))


def birthday(degree: Tensor) -> Support:
    """The estimate from how many near-duplicates each row has, (s,) int64.

    c = Σ degree/2 is a U-statistic: its jackknife variance, s var(degree), counts the Poisson part twice (Hoeffding's second
    term), so s var - c, at least c, is its variance; over c, that is the dispersion of the clumps.
    """
    s, pairs = len(degree), int(degree.sum()) // 2
    dispersion = max(1.0, s * float(degree.double().var()) / pairs - 1) if pairs else 1.0
    low, high = count_interval(pairs, dispersion)
    every = s * (s - 1) / 2
    return Support(every / pairs if pairs else float("inf"), max(1.0, every / high), every / low if low else float("inf"), pairs, s)


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Near-duplicates and support size in one view. The floor is that of as many real samples, at the same threshold.

    `step`: the quantisation step of the view's values (2/255 for 8-bit images in [-1, 1]), 0 if there is none.
    """

    view: str
    n: int
    seed: int = 0
    referenced: bool = True
    step: float = 0.0

    @property
    def key(self) -> str:
        return "duplicates"

    def needs(self) -> Needs:
        return trio_needs(self.view, self.n) if self.referenced else {"fake": frozenset({Kept(self.view, self.n)})}

    def measure(self, results: Any) -> Outcome:
        sets = trio_of(results, self.view, self.n) if self.referenced else None
        fake = (results["fake"][Kept(self.view, self.n)].values if sets is None else sets.f).flatten(1)  # (n, D)
        real = None if sets is None else sets.a.flatten(1)
        if len(fake) < 2:
            return Outcome(missing(KEYS, f"{len(fake)} generated samples have no pairs"))
        limit = duplicate_threshold(real, fake, step=self.step)
        degree = degrees(fake, limit)  # (n,)
        floor = None if real is None else degrees(real, limit)
        half = self._half_width(fake, limit)
        value, least = _repeated(degree), None if floor is None else _repeated(floor)
        return Outcome({
            "near_duplicates": share(value, half, n=len(fake), floor=least, better="lower", unit="share of generated samples"),
            "support_size": _support(birthday(degree), None if floor is None else birthday(floor)),
        })

    def _half_width(self, fake: Tensor, limit: float) -> float:
        part = fake[pool(len(fake), seed=self.seed)]
        near = (distance_matrix(part) < limit).fill_diagonal_(False)  # (p, p)
        return float(half_widths(lambda i: near[i[:, None], i].any(1).double().mean()[None], (len(part),), len(fake), seed=self.seed))


def _repeated(degree: Tensor) -> float:
    return float((degree > 0).double().mean())


def _support(found: Support, floor: Support | None) -> Measurement:
    if not found.pairs:
        return Measurement.missing(f"no pair among {found.n:,} samples is a near-duplicate: there are more than {found.low:,.0f} different outputs (95 %)")
    least = floor.value if floor is not None and floor.pairs else None
    reason = None if least is not None else NO_REAL if floor is None else f"no pair among {floor.n:,} real samples is a near-duplicate"
    high = found.high if torch.isfinite(torch.tensor(found.high)) else None
    return Measurement(found.value, found.low, high, least, "different outputs", "higher", found.n, reason=reason)
