"""The collapse score: how much of the reference's variety the generator does not show. 0 = none lost, 1 = all."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.stats import t
from torch import Tensor

from gandiag.contracts import Estimate
from gandiag.metrics.retention import WIDE, Field, Kept, by_finer_modes, retention, survey
from gandiag.stats.cells import find_modes
from gandiag.stats.matching import radii

FEWEST = 100  # samples a side below which nothing is judged
FEW_ON = 0.1  # share of the samples on the manifold below which the score is in doubt
CONVINCING = 0.3  # narrowed or duplicated at least so much: lost variety whatever the fidelity
BLURRED = 3.0  # times the resolution of the real data, where there are no modes to compare it with
LIMIT = 0.15  # a loss that stands whatever is unknown beside it
MODE_ROWS = 5000  # a side, to find the modes
Z = 1.96  # of a 95 % interval


@dataclass(frozen=True, slots=True)
class Variety:
    """A judgement of variety, every share in [0, 1]."""

    score: Estimate
    profile: dict[str, Estimate]  # missing, skewed, narrowed, duplicated, off_manifold
    power: float | None  # smallest share of lost variety that would be told from none 95 times of 100; None without replicates
    n: int  # rows of A, of B and of F that were used
    replicates: tuple[float, ...]
    doubts: tuple[str, ...]


def variety(real: Tensor, fake: Tensor, *, seed: int = 0, replicates: int = 20) -> Variety:
    """The share of the reference's variety that the generator has lost, with its 95 % interval.

    `real` (N, D) and `fake` (M, D) float32 features. The real rows are split in a reference A and a held-out B of
    n = min(M, N // 2) rows each; B is what a perfect generator would look like, and every count is read against it.

        score = 1 − mass · cover · width · distinct          (see `gandiag.metrics.retention`)

    Unchanged by rotation, shift and scaling of the features and (but for the last digits) by the order of the rows. The
    interval comes from random halves of A, B and F without replacement: their spread is that of the score at n, and with
    replacement would manufacture duplicates. It is widened by what the score would change if modes were told apart on weaker
    evidence. Reads low where modes overlap and are skewed or thinned; reads high where real rows are in a biased order of quality.
    Costs five n × n × D products, and holds three n × n float32 matrices (0.95 GB at n = 5,000).
    """
    n = min(len(fake), len(real) // 2)
    if n < FEWEST:
        raise ValueError(f"{n} samples a side; variety needs {FEWEST} generated and {2 * FEWEST} real ones")
    generator = torch.Generator().manual_seed(seed)
    pool = _shuffled(real.float(), generator)
    reference = pool[:n]
    middle = reference.mean(0)
    scale = (reference - middle).square().sum(1).mean().sqrt().clamp(min=1e-30)
    pool, rows = ((side - middle) / scale for side in (pool, _shuffled(fake.float(), generator)[:n]))
    half = min(len(pool) // 2, MODE_ROWS)
    modes = find_modes(pool[:half], pool[-half:], seed=seed)  # from all real rows: few samples do not blur the modes
    sides = pool[:n], pool[n : 2 * n], rows
    field = survey(*sides, modes)
    every = torch.arange(n), torch.arange(n), torch.arange(n)
    whole = retention(field, every)
    other = retention(by_finer_modes(field, sides, modes), every) if replicates and not modes.finer.equal(modes.mode_of) else whole
    halves = [retention(field, _halves(n, generator)) for _ in range(replicates)]
    return _judge(whole, halves, abs(other.lost - whole.lost), field)


def _shuffled(rows: Tensor, generator: torch.Generator) -> Tensor:
    """Rows in a random order that does not depend on the order they came in: by distance to their mean, then shuffled."""
    order = (rows - rows.mean(0)).square().sum(1).argsort()
    return rows[order[torch.randperm(len(rows), generator=generator)]]


def _halves(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    a, b, f = (torch.randperm(n, generator=generator)[: n // 2].sort().values for _ in range(3))  # in order: memory is read once through
    return a, b, f


def _judge(whole: Kept, halves: list[Kept], parted: float, field: Field) -> Variety:
    n = len(field.good)
    lost = torch.tensor([half.lost for half in halves])
    score = estimate(whole.lost, lost, extra=parted)
    names = _profile(whole)
    profile = {name: estimate(value, torch.tensor([_profile(half)[name] for half in halves])) for name, value in names.items()}
    power = min(1.0, (Z + 1.645) * math.hypot(float(lost.std()), parted / Z)) if len(halves) > 1 else None
    shares = tuple(min(max(half.lost, 0.0), 1.0) for half in halves)
    return Variety(score, profile, power, n, shares, _doubts(whole, field, profile, score))


def _profile(kept: Kept) -> dict[str, float]:
    """The factors by name: 1 − score = (1 − missing)(1 − skewed)(1 − narrowed)(1 − duplicated), off_manifold beside them."""
    return {
        "missing": 1 - kept.present * min(kept.cover, 1.0),
        "skewed": 1 - min(1.0, kept.mass / kept.present) if kept.present else 0.0,
        "narrowed": 1 - kept.width,
        "duplicated": 1 - kept.distinct,
        "off_manifold": kept.off_manifold,
    }


def estimate(value: float, replicates: Tensor, *, extra: float = 0.0) -> Estimate:
    """Value ± Student's t times the standard deviation of the replicates, in [0, 1], and `extra` in quadrature, a half-width which they cannot show.

    The replicates' mean is that of half the rows, and is not used.
    """
    reach = math.hypot(float(t.ppf(0.975, len(replicates) - 1)) * float(replicates.std()), extra) if len(replicates) > 1 else 0.0
    value, low, high = (min(max(x, 0.0), 1.0) for x in (value, value - reach, value + reach))
    return Estimate(value, low, high)


def _doubts(kept: Kept, field: Field, profile: dict[str, Estimate], score: Estimate) -> tuple[str, ...]:
    """Why the score may mean little. Low fidelity is no excuse for a single point: nothing is in doubt where outputs are thin or copies."""
    if certain(profile):
        return ()
    out: tuple[str, ...] = ()
    n = len(field.good)
    if kept.on < FEW_ON:
        out += (f"only {round(kept.on * n):,} of {n:,} samples are near the real data at any resolution",)
    if kept.off_manifold > 0.5 and kept.blur > _resolution(field):
        out += (f"samples pass for real only at {kept.blur:.1f} times the real data's resolution, too coarse to tell its parts from each other",)
    if kept.blind > 0.5 and score.low < LIMIT:
        out += (f"samples are spread more than {WIDE:.0f} times as wide as the modes of the data: what is missing inside these cannot be told",)
    return out


def certain(profile: dict[str, Estimate]) -> bool:
    """Is variety lost inside the modes or to copies? Garbage that is far from the data misses modes too, but is neither thin nor repeated."""
    return max(profile["narrowed"].low, profile["duplicated"].low) >= CONVINCING


def _resolution(field: Field) -> float:
    """How many times a typical neighbour ball can grow before it reaches the nearest other mode; BLURRED where there is one mode."""
    if field.count == 1:
        return BLURRED
    middles = field.real.base[field.modes[0].bincount(minlength=field.count) > 0]  # (K, D)
    apart = torch.cdist(middles, middles).fill_diagonal_(torch.inf).amin(1).median()
    return float(apart / radii(field.near, torch.arange(len(field.near[0]))).median().clamp(min=1e-12))
