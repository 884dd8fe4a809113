"""Finds real data without a generated counterpart by counting matches at several distances.

A held-out real row is *matched* at a distance if a row of the other set lies within it. Generated rows should match as
many held-out rows as equally many reference rows do. Where a fraction μ of the data is never generated, the rest is
1/(1 − μ) times as dense; (1 − μ) n generated rows then match (1 − μ) times as many rows as n reference rows, which
determines μ. Small distances see modes of few rows each, large ones see regions. Samples beside the data match no real
row either: the mirrored count, generated rows that match reference rows, tells fidelity from diversity.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gandiag.interfaces import Estimate
from gandiag.metrics.score.neighborhoods import euclidean_distances
from gandiag.stats.resampling import draw_halves, replicate_half_width

MATCHED_FRACTIONS = (0.2, 0.35, 0.5, 0.6, 0.7, 0.8, 0.9, 0.96)  # of the held-out rows: they define the distances
MAX_HITS = 64  # hits of a row beyond this number are not distinguished
HITS = torch.arange(MAX_HITS + 1).double()
BISECTION_STEPS = 24
FIDELITY_WEIGHT = 2.0  # unmatched generated rows count this many times against unmatched real ones
SELECTION_FACTOR = 1.35  # on the half-width, for the choice among the distances (Bonferroni)
MAX_HALF_WIDTH = 0.35  # distances at which the fraction is less certain than this are left out
MIN_REPLICATES = 8
MAX_ROWS = 2000  # per set


@dataclass(frozen=True, slots=True)
class ScaleMatches:
    """For each pair the smallest of the S distances that reaches, as an index up to S (none): uint8 matrices.

    `heldout_reference` and `heldout_fake`: (n, n) and (n, m); `fake_reference`: (m, n).
    """

    heldout_reference: Tensor
    heldout_fake: Tensor
    fake_reference: Tensor

    def missing_fractions(self, indices: tuple[Tensor, Tensor, Tensor], *, is_even: bool = True) -> Tensor:
        """The missing fraction at each distance, (S,), about 0 for equal distributions.

        `indices`: of the reference, held-out and generated rows that take part. `is_even`: whether what is generated
        keeps its proportions; if not, the thinning above does not hold and the deficit itself is returned, a lower
        bound.
        """
        reference, heldout, fake = indices
        own_hits = _hit_shares(self.heldout_reference[heldout][:, reference])  # (S, MAX_HITS + 1)
        fake_hits = _hit_shares(self.heldout_fake[heldout][:, fake])
        mirrored_hits = _hit_shares(self.fake_reference[fake][:, reference])
        kept = min(1.0, len(fake) / len(reference))  # of the reference rows: as many as there are generated rows
        possible = 1 - own_hits @ (1 - kept) ** HITS  # (S,) what equally many reference rows match
        covered = 1 - fake_hits[:, 0]
        deficit = 1 - covered / possible.clamp(min=1e-9)
        if is_even:
            missing = torch.where(deficit >= 0, _solve_missing(fake_hits, possible), -_solve_missing(own_hits, covered))
        else:
            missing = deficit
        unreal = (1 - (1 - mirrored_hits[:, 0]) / (1 - own_hits[:, 0]).clamp(min=1e-9)).clamp(min=0)
        fidelity_share = FIDELITY_WEIGHT * unreal / deficit.clamp(min=1e-9)
        return missing * (1 - fidelity_share).clamp(min=0) - FIDELITY_WEIGHT * unreal * (deficit <= 0)


def match_scales(reference: Tensor, heldout: Tensor, fake: Tensor) -> ScaleMatches:
    """Distances between the rows of three sets, (n, D), (n, D) and (m, D), sorted into MATCHED_FRACTIONS.

    Costs three n × n × D products and holds three n × n matrices of bytes.
    """
    own = euclidean_distances(heldout, reference)
    thresholds = own.amin(1).quantile(torch.tensor(MATCHED_FRACTIONS))  # (S,)
    thresholds = thresholds * (1 + 1e-5) + 1e-9  # equal rows match at any distance

    def bucket(distances: Tensor) -> Tensor:
        return torch.bucketize(distances, thresholds).to(torch.uint8)

    return ScaleMatches(
        bucket(own), bucket(euclidean_distances(heldout, fake)), bucket(euclidean_distances(fake, reference))
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

    Also the replicates (R,) at that distance. They are half-samples of all three sets. At least MIN_REPLICATES choose
    the distance; without `replicates` the interval has no width.
    """
    matches = match_scales(*(rows[:MAX_ROWS] for rows in (reference, heldout, fake)))
    sizes = len(matches.fake_reference[0]), len(matches.heldout_reference), len(matches.fake_reference)
    every = torch.arange(sizes[0]), torch.arange(sizes[1]), torch.arange(sizes[2])
    fractions = matches.missing_fractions(every, is_even=is_even)
    generator = torch.Generator().manual_seed(seed)
    halves = [draw_halves(sizes, generator) for _ in range(max(replicates, MIN_REPLICATES))]
    by_scale = torch.stack([matches.missing_fractions((a, b, c), is_even=is_even) for a, b, c in halves])  # (R, S)
    half_widths = replicate_half_width(by_scale)  # (S,)
    lower_bounds = fractions - SELECTION_FACTOR * half_widths
    lower_bounds[half_widths > max(MAX_HALF_WIDTH, float(half_widths.min()))] = -torch.inf
    best = int(lower_bounds.argmax())
    value, half_width = float(fractions[best]), float(half_widths[best])
    if replicates < 2:
        half_width = 0.0
    low, value, high = (
        min(1.0, max(0.0, bound)) for bound in (value - SELECTION_FACTOR * half_width, value, value + half_width)
    )
    return Estimate(value, low, high), by_scale[:replicates, best].clamp(0, 1)


def _hit_shares(buckets: Tensor) -> Tensor:
    """For each distance the shares of rows that reach 0, 1, …, MAX_HITS columns, (S, MAX_HITS + 1) float64."""
    n_levels = len(MATCHED_FRACTIONS)
    hits = torch.stack([(buckets <= level).sum(1) for level in range(n_levels)]).clamp(max=MAX_HITS)  # (S, rows)
    slots = hits + (MAX_HITS + 1) * torch.arange(n_levels)[:, None]
    counts = slots.flatten().bincount(minlength=n_levels * (MAX_HITS + 1)).view(n_levels, -1)
    return counts.double() / len(buckets)


def _solve_missing(hit_shares: Tensor, possible: Tensor) -> Tensor:
    """The μ at which thinned rows match as many as they should: mean(1 − μ^hits) = (1 − μ) · possible, (S,) in [0, 1].

    `hit_shares` (S, MAX_HITS + 1) of the rows that are thinned, `possible` (S,): what equally many rows of the full
    data match.
    """
    low, high = torch.zeros_like(possible), torch.ones_like(possible)
    for _ in range(BISECTION_STEPS):
        middle = (low + high) / 2
        matched = (hit_shares * (1 - middle[:, None] ** HITS)).sum(1) / (1 - middle)
        is_low = matched < possible
        low, high = torch.where(is_low, middle, low), torch.where(is_low, high, middle)
    return (low + high) / 2
