"""NDB: in how many bins of the real data does the share of generated samples differ?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import norm
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits
from torch import Tensor

from gandiag.contracts import Needs, Outcome
from gandiag.errors import ConfigError
from gandiag.metrics.entry import NO_REAL, entry, missing
from gandiag.stats.rows import row_pair
from gandiag.stats.spread import half_widths
from gandiag.stats.trio import trio_needs, trio_of

KEY = "ndb"
BINS = 100  # as in the paper,
PER_BIN = 20  # but so many real rows a bin at least: the test is a normal approximation
LEVEL = 0.05
FEWEST = 8  # rows a side: below, two bins never differ at that level


def ndb(real: Any, fake: Any, bins: int | None = None, level: float = LEVEL, seed: int = 0) -> float:
    """Share of bins whose share of generated rows differs from the real one, NDB/K in [0, 1]; lower is better. (N, D) and (M, D) rows.

    Bins are the k-means cells of `real`, 100 of them or N // 20 where that is less; the test is that of two proportions, two-sided,
    uncorrected as in the paper, so equal laws score about `level`. It grows with n for the same defect (a measure of power,
    not of size), sees nothing inside a bin, and in many dimensions rejects held-out real rows as well, since k-means has
    been fitted to the others: compare with the floor. Cost 50·N·D·bins.

    ConfigError unless 1 <= bins <= N. Source: Richardson and Weiss 2018, On GANs and GMMs, section 3.
    """
    left, right = row_pair(real, fake)
    centres = bin_centres(left, bins, seed=seed)
    return differing(nearest(left, centres), nearest(right, centres), len(centres), level)


def bin_centres(real: Tensor, bins: int | None = None, *, seed: int = 0) -> Tensor:
    """The middles of the bins, (K, D): k-means of the real rows, deterministic by seed; fewer where fewer rows are distinct."""
    wanted = max(2, min(BINS, len(real) // PER_BIN)) if bins is None else bins
    if not 1 <= wanted <= len(real):
        raise ConfigError(f"{wanted} bins for {len(real)} real samples", f"choose from 1 to {len(real)}, best at most {max(2, len(real) // PER_BIN)}")
    scaled = _unit(real)
    distinct = min(wanted, len(torch.unique(scaled, dim=0)))
    with threadpool_limits(limits=1):
        found = KMeans(distinct, n_init=1, max_iter=50, random_state=seed, algorithm="lloyd").fit(scaled.numpy())
    label = torch.from_numpy(found.labels_.astype(np.int64))  # (N,)
    sums = torch.zeros(distinct, real.shape[1], dtype=real.dtype).index_add_(0, label, real)
    counts = label.bincount(minlength=distinct)
    return sums[counts > 0] / counts[counts > 0][:, None]  # (K, D)


def _unit(rows: Tensor) -> Tensor:
    """Rows about their mean in units of their size: k-means stops by an absolute tolerance."""
    moved = rows - rows.mean(0)
    scaled: Tensor = moved / moved.abs().max().clamp(min=1e-30)
    return scaled


def nearest(rows: Tensor, centres: Tensor) -> Tensor:
    """The bin of each row, (N,) int64."""
    return torch.cdist(rows - centres.mean(0), centres - centres.mean(0)).argmin(1)


def differing(real: Tensor, fake: Tensor, bins: int, level: float = LEVEL) -> float:
    """Share of `bins` in which two samples of bin numbers, (N,) and (M,), differ by the test of two proportions at `level`."""
    n, m = len(real), len(fake)
    here, there = real.bincount(minlength=bins).double(), fake.bincount(minlength=bins).double()  # (K,)
    pooled = (here + there) / (n + m)
    error = (pooled * (1 - pooled) * (1 / n + 1 / m)).sqrt()
    apart = (here / n - there / m).abs()
    return float((apart > float(norm.isf(level / 2)) * error).double().mean())


@dataclass(frozen=True, slots=True)
class DifferingBins:
    """NDB/K in one view; the floor is that of the held-out real half, on the same bins."""

    view: str
    n: int
    seed: int = 0
    referenced: bool = True

    @property
    def key(self) -> str:
        return KEY

    def needs(self) -> Needs:
        return trio_needs(self.view, self.n) if self.referenced else {}

    def measure(self, results: Any) -> Outcome:
        sets = trio_of(results, self.view, self.n) if self.referenced else None
        if sets is None:
            return Outcome(missing((KEY,), NO_REAL))
        if sets.n < FEWEST:
            return Outcome(missing((KEY,), f"{sets.n} samples a side are too few to differ in two bins"))
        a, b, f = (part.flatten(1) for part in (sets.a, sets.b, sets.f))  # (n, D) each
        centres = bin_centres(a, seed=self.seed)
        in_a, in_b, in_f = (nearest(part, centres) for part in (a, b, f))  # (n,) each
        bins = len(centres)
        width = half_widths(lambda i, j: torch.tensor([differing(in_a[i], in_f[j], bins)]), (sets.n, sets.n), sets.n, seed=self.seed)
        floor = differing(in_a, in_b, bins)
        found = entry(differing(in_a, in_f, bins), float(width), n=sets.n, floor=floor, better="lower", unit="share of bins", bounds=(0, 1))
        return Outcome({KEY: found})
