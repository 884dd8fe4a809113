"""Finds real data without a generated counterpart by counting matches at several distances.

A held-out real row is *matched* at a distance if a row of the other set lies within it. Generated rows should match as
many held-out rows as equally many reference rows do. Where a fraction μ of the data is never generated, the rest is
1/(1 − μ) times as dense; (1 − μ) n generated rows then match (1 − μ) times as many rows as n reference rows, which
determines μ. Small distances see modes of few rows each, large ones see regions. Samples beside the data match no real
row either: the mirrored count, generated rows that match reference rows, tells fidelity from diversity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gandiag.interfaces import Estimate
from gandiag.metrics.score.neighborhoods import measure_distances
from gandiag.metrics.score.subset_reach import mark_members
from gandiag.stats.resampling import draw_halves, replicate_half_width

MATCHED_FRACTIONS = (0.2, 0.35, 0.5, 0.6, 0.7, 0.8, 0.9, 0.96)  # of the held-out rows: they define the distances
MAX_HITS = 64  # hits of a row beyond this number are not distinguished
BISECTION_STEPS = 24
FIDELITY_WEIGHT = 2.0  # unmatched generated rows count this many times against unmatched real ones
SELECTION_FACTOR = 1.35  # on the half-width, for the choice among the distances (Bonferroni)
MAX_HALF_WIDTH = 0.35  # distances at which the fraction is less certain than this are left out
MIN_REPLICATES = 8  # of an interval
CHOICE_REPLICATES = 20  # half-samples that choose the distance, however many the interval has
MAX_ROWS = 2000  # per set

Split = tuple[Tensor, Tensor, Tensor]  # of reference, held-out and generated rows


@dataclass(frozen=True, slots=True)
class ScaleHits:
    """For R subsets and S distances the shares of rows that reach 0, 1, …, MAX_HITS rows, (R, S, MAX_HITS + 1) float64.

    `own`: held-out rows that reach reference rows; `fake`: held-out rows, generated ones; `mirrored`: generated rows,
    reference ones. `kept` (R,): generated rows over reference rows, at most 1.
    """

    own: Tensor
    fake: Tensor
    mirrored: Tensor
    kept: Tensor

    def missing_fractions(self, *, is_even: bool = True) -> Tensor:
        """The missing fraction at each distance, (R, S), about 0 for equal distributions.

        `is_even`: whether what is generated keeps its proportions; if not, the thinning above does not hold and the
        deficit itself is returned, a lower bound.
        """
        hits = _hit_numbers(self.own)
        # What as many reference rows match as there are generated rows.
        possible = 1 - (self.own * (1 - self.kept[:, None, None]) ** hits).sum(2)  # (R, S)
        covered = 1 - self.fake[..., 0]
        deficit = 1 - covered / possible.clamp(min=1e-9)
        if is_even:
            thinned = torch.where((deficit >= 0)[..., None], self.fake, self.own)
            missing = _solve_missing(thinned, torch.where(deficit >= 0, possible, covered))
            missing = torch.where(deficit >= 0, missing, -missing)
        else:
            missing = deficit
        matched_share = (1 - self.mirrored[..., 0]) / (1 - self.own[..., 0]).clamp(min=1e-9)
        unreal = (1 - matched_share).clamp(min=0)
        fidelity_share = FIDELITY_WEIGHT * unreal / deficit.clamp(min=1e-9)
        return missing * (1 - fidelity_share).clamp(min=0) - FIDELITY_WEIGHT * unreal * (deficit <= 0)


def match_scales(rows: Split, subsets: Sequence[Split]) -> ScaleHits:
    """Hits between reference, held-out and generated rows, (n, D), (n, D) and (m, D), at MATCHED_FRACTIONS.

    `subsets`: row indices of the three sets. Costs three n × n × D products and holds one n × n matrix at a time.
    """
    reference, heldout, fake = rows
    references, heldouts, fakes = ([subset[part] for subset in subsets] for part in range(3))
    own = measure_distances(heldout, reference)
    thresholds = own.amin(1).quantile(torch.tensor(MATCHED_FRACTIONS, device=own.device))  # (S,)
    thresholds = thresholds * (1 + 1e-5) + 1e-9  # equal rows match at any distance
    kept = [min(1.0, len(fake) / len(reference)) for reference, _, fake in subsets]
    return ScaleHits(
        _hit_shares(own, thresholds, heldouts, references),
        _hit_shares(measure_distances(heldout, fake), thresholds, heldouts, fakes),
        _hit_shares(measure_distances(fake, reference), thresholds, fakes, references),
        torch.tensor(kept, dtype=torch.float64, device=own.device),
    )


def estimate_missing_by_scale(
    reference: Tensor,
    heldout: Tensor,
    fake: Tensor,
    *,
    is_even: bool = True,
    seed: int = 0,
    replicates: int = 20,
) -> tuple[Estimate, Tensor]:
    """The missing fraction at the distance whose lower bound is largest, with a 95 % interval over all distances.

    Also the replicates (R,) at that distance. They are half-samples of all three sets. The first CHOICE_REPLICATES of
    them choose the distance, so that the value does not depend on `replicates`; with fewer than two, the interval has
    no width.
    """
    rows = reference[:MAX_ROWS], heldout[:MAX_ROWS], fake[:MAX_ROWS]
    sizes = len(rows[0]), len(rows[1]), len(rows[2])
    every = tuple(torch.arange(size) for size in sizes)
    generator = torch.Generator().manual_seed(seed)
    halves = [draw_halves(sizes, generator) for _ in range(max(replicates, CHOICE_REPLICATES))]
    subsets = [(a.to(reference.device), b.to(reference.device), c.to(reference.device)) for a, b, c in [every, *halves]]
    all_fractions = match_scales(rows, subsets).missing_fractions(is_even=is_even).cpu()
    fractions, by_scale = all_fractions[0], all_fractions[1:]  # (S,), (R, S)
    best = _choose_distance(fractions, replicate_half_width(by_scale[:CHOICE_REPLICATES]))
    value, half_width = float(fractions[best]), 0.0
    if replicates > 1:
        half_width = float(replicate_half_width(by_scale[: max(replicates, MIN_REPLICATES), best]))
    low, value, high = (
        min(1.0, max(0.0, bound)) for bound in (value - SELECTION_FACTOR * half_width, value, value + half_width)
    )
    return Estimate(value, low, high), by_scale[:replicates, best].clamp(0, 1)


def _choose_distance(fractions: Tensor, half_widths: Tensor) -> int:
    """The distance whose lower bound is largest, of those that are certain enough. Both (S,)."""
    lower_bounds = fractions - SELECTION_FACTOR * half_widths
    lower_bounds[half_widths > max(MAX_HALF_WIDTH, float(half_widths.min()))] = -torch.inf
    return int(lower_bounds.argmax())


def _find_matches(distances: Tensor, threshold: Tensor) -> Tensor:
    """Which rows match which columns, (N, M) float32, where no single column decides for many rows.

    In many dimensions one row amid a set is near all of it. So the column that matches most rows keeps no more of them,
    the nearest, than the column after it.
    """
    near = (distances <= threshold).float()
    most = near.sum(0).topk(min(2, near.shape[1]))
    limit, widest = int(most.values[-1]), int(most.indices[0])
    if most.values[0] > limit:
        near[distances[:, widest].argsort(stable=True)[limit:], widest] = 0
    return near


def _hit_shares(distances: Tensor, thresholds: Tensor, rows: Sequence[Tensor], columns: Sequence[Tensor]) -> Tensor:
    """Shares of the rows that reach 0, 1, …, MAX_HITS columns of their subset, (R, S, MAX_HITS + 1) float64."""
    members = mark_members(columns, distances.shape[1]).float().T  # (M, R)
    shares = []
    for threshold in thresholds:
        hits = (_find_matches(distances, threshold) @ members).clamp_(max=MAX_HITS).long().T  # (R, N)
        counts = [own[subset].bincount(minlength=MAX_HITS + 1) for own, subset in zip(hits, rows, strict=True)]
        shares.append(torch.stack(counts).double())
    sizes = torch.tensor([len(subset) for subset in rows], device=distances.device)
    return torch.stack(shares, 1) / sizes[:, None, None]


def _hit_numbers(like: Tensor) -> Tensor:
    return torch.arange(MAX_HITS + 1, dtype=like.dtype, device=like.device)


def _solve_missing(hit_shares: Tensor, possible: Tensor) -> Tensor:
    """The μ at which thinned rows match as many as they should: mean(1 − μ^hits) = (1 − μ) · possible, in [0, 1].

    `hit_shares` (…, MAX_HITS + 1) of the rows that are thinned, `possible` (…): what equally many rows of the full data
    match.
    """
    low, high, hits = torch.zeros_like(possible), torch.ones_like(possible), _hit_numbers(hit_shares)
    for _ in range(BISECTION_STEPS):
        middle = (low + high) / 2
        matched = (hit_shares * (1 - middle[..., None] ** hits)).sum(-1) / (1 - middle)
        is_low = matched < possible
        low, high = torch.where(is_low, middle, low), torch.where(is_low, high, middle)
    return (low + high) / 2
