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

from gandiag.errors import ConfigError
from gandiag.interfaces import MetricResult, Needs
from gandiag.metrics.base import NO_REAL_DATA, make_measurement, missing_measurements
from gandiag.stats.resampling import interval_half_widths
from gandiag.stats.splits import split_from_results, split_needs
from gandiag.stats.validation import as_feature_pair

KEY = "ndb"
MAX_BINS = 100  # as in the paper,
ROWS_PER_BIN = 20  # but so many real rows a bin at least: the test is a normal approximation
DEFAULT_ALPHA = 0.05
MIN_SAMPLES = 8  # rows a side: below, two bins never differ at that level


def ndb(real: Any, fake: Any, bins: int | None = None, level: float = DEFAULT_ALPHA, seed: int = 0) -> float:
    """Share of bins whose share of generated rows differs from the real one, NDB/K in [0, 1]; lower is better. (N, D) and (M, D) rows.

    Bins are the k-means cells of `real`, 100 of them or N // 20 where that is less; the test is that of two proportions, two-sided,
    uncorrected as in the paper, so equal laws score about `level`. It grows with n for the same defect (a measure of power,
    not of size), sees nothing inside a bin, and in many dimensions rejects held-out real rows as well, since k-means has
    been fitted to the others: compare with the floor. Cost 50·N·D·bins.

    ConfigError unless 1 <= bins <= N. Source: Richardson and Weiss 2018, On GANs and GMMs, section 3.
    """
    left, right = as_feature_pair(real, fake)
    centres = fit_bins(left, bins, seed=seed)
    return fraction_different(assign_bins(left, centres), assign_bins(right, centres), len(centres), level)


def fit_bins(real: Tensor, n_bins: int | None = None, *, seed: int = 0) -> Tensor:
    """The middles of the bins, (K, D): k-means of the real rows, deterministic by seed; fewer where fewer rows are distinct."""
    wanted = max(2, min(MAX_BINS, len(real) // ROWS_PER_BIN)) if n_bins is None else n_bins
    if not 1 <= wanted <= len(real):
        raise ConfigError(
            f"{wanted} bins for {len(real)} real samples",
            f"choose from 1 to {len(real)}, best at most {max(2, len(real) // ROWS_PER_BIN)}",
        )
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


def assign_bins(rows: Tensor, centers: Tensor) -> Tensor:
    """The bin of each row, (N,) int64."""
    return torch.cdist(rows - centers.mean(0), centers - centers.mean(0)).argmin(1)


def fraction_different(real_bins: Tensor, fake_bins: Tensor, n_bins: int, level: float = DEFAULT_ALPHA) -> float:
    """Share of `bins` in which two samples of bin numbers, (N,) and (M,), differ by the test of two proportions at `level`."""
    n, m = len(real_bins), len(fake_bins)
    here, there = real_bins.bincount(minlength=n_bins).double(), fake_bins.bincount(minlength=n_bins).double()  # (K,)
    pooled = (here + there) / (n + m)
    error = (pooled * (1 - pooled) * (1 / n + 1 / m)).sqrt()
    apart = (here / n - there / m).abs()
    return float((apart > float(norm.isf(level / 2)) * error).double().mean())


@dataclass(frozen=True, slots=True)
class Ndb:
    """NDB/K in one view; the floor is that of the held-out real half, on the same bins."""

    view: str
    n: int
    seed: int = 0
    referenced: bool = True

    @property
    def key(self) -> str:
        return KEY

    def needs(self) -> Needs:
        return split_needs(self.view, self.n) if self.referenced else {}

    def measure(self, results: Any) -> MetricResult:
        sets = split_from_results(results, self.view, self.n) if self.referenced else None
        if sets is None:
            return MetricResult(missing_measurements((KEY,), NO_REAL_DATA))
        if sets.n < MIN_SAMPLES:
            return MetricResult(
                missing_measurements((KEY,), f"{sets.n} samples a side are too few to differ in two bins")
            )
        a, b, f = (part.flatten(1) for part in (sets.reference, sets.heldout, sets.fake))  # (n, D) each
        centres = fit_bins(a, seed=self.seed)
        in_a, in_b, in_f = (assign_bins(part, centres) for part in (a, b, f))  # (n,) each
        bins = len(centres)
        width = interval_half_widths(
            lambda i, j: torch.tensor([fraction_different(in_a[i], in_f[j], bins)]),
            (sets.n, sets.n),
            sets.n,
            seed=self.seed,
        )
        floor = fraction_different(in_a, in_b, bins)
        found = make_measurement(
            fraction_different(in_a, in_f, bins),
            float(width),
            n=sets.n,
            floor=floor,
            better="lower",
            unit="share of bins",
            bounds=(0, 1),
        )
        return MetricResult({KEY: found})
