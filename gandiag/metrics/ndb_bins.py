"""NDB: the number of statistically different bins between real and generated samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.stats import norm
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits
from torch import Tensor

from gandiag.errors import ConfigError
from gandiag.interfaces import MetricResult
from gandiag.metrics.base import NamedPairedMetric, make_measurement
from gandiag.stats.resampling import interval_half_widths
from gandiag.stats.splits import RealFakeSplit
from gandiag.stats.validation import as_feature_pair

KEY = "ndb"
MAX_BINS = 100  # as in the paper,
ROWS_PER_BIN = 20  # but with at least this many real rows per bin: the test is a normal approximation
DEFAULT_ALPHA = 0.05
MIN_SAMPLES = 8  # with fewer rows per set, two bins never differ at that level


def ndb(real: Any, fake: Any, bins: int | None = None, level: float = DEFAULT_ALPHA, seed: int = 0) -> float:
    """NDB/K: the fraction of bins whose share of generated rows differs from the real one, in [0, 1]; lower is better.

    `real` (N, D), `fake` (M, D). Bins are the k-means cells of `real`, 100 of them or N // 20 where that is less. The
    test is that of two proportions, two-sided and uncorrected as in the paper, so equal distributions score about
    `level`. It grows with n for the same defect (it measures power, not effect size) and is blind inside a bin. In high
    dimensions it rejects held-out real rows as well, since k-means was fitted to the others: compare with the floor.
    Cost 50·N·D·bins.

    ConfigError unless 1 <= bins <= N. Source: Richardson and Weiss 2018, On GANs and GMMs, section 3.
    """
    real_rows, fake_rows = as_feature_pair(real, fake)
    centers = fit_bins(real_rows, bins, seed=seed)
    return fraction_different(assign_bins(real_rows, centers), assign_bins(fake_rows, centers), len(centers), level)


def fit_bins(real: Tensor, n_bins: int | None = None, *, seed: int = 0) -> Tensor:
    """Bin centers (K, D) by k-means on the real rows; deterministic by seed. K <= the number of distinct rows."""
    n_bins = max(2, min(MAX_BINS, len(real) // ROWS_PER_BIN)) if n_bins is None else n_bins
    if not 1 <= n_bins <= len(real):
        raise ConfigError(
            f"{n_bins} bins are not possible with {len(real)} real samples",
            f"choose from 1 to {len(real)}, best at most {max(2, len(real) // ROWS_PER_BIN)}",
        )
    scaled = _normalize(real)
    n_distinct = min(n_bins, len(torch.unique(scaled, dim=0)))
    with threadpool_limits(limits=1):
        kmeans = KMeans(n_distinct, n_init=1, max_iter=50, random_state=seed, algorithm="lloyd").fit(scaled.numpy())
    label = torch.from_numpy(kmeans.labels_.astype(np.int64))  # (N,)
    sums = torch.zeros(n_distinct, real.shape[1], dtype=real.dtype).index_add_(0, label, real)
    counts = label.bincount(minlength=n_distinct)
    return sums[counts > 0] / counts[counts > 0][:, None]  # (K, D)


def _normalize(rows: Tensor) -> Tensor:
    """Rows about their mean, scaled to at most 1, because k-means stops at an absolute tolerance."""
    centered = rows - rows.mean(0)
    scaled: Tensor = centered / centered.abs().max().clamp(min=1e-30)
    return scaled


def assign_bins(rows: Tensor, centers: Tensor) -> Tensor:
    """The bin of each row, (N,) int64."""
    return torch.cdist(rows - centers.mean(0), centers - centers.mean(0)).argmin(1)


def fraction_different(real_bins: Tensor, fake_bins: Tensor, n_bins: int, level: float = DEFAULT_ALPHA) -> float:
    """Fraction of bins with different shares (test of two proportions at `level`), from bin numbers (N,) and (M,)."""
    n, m = len(real_bins), len(fake_bins)
    real_counts = real_bins.bincount(minlength=n_bins).double()  # (K,)
    fake_counts = fake_bins.bincount(minlength=n_bins).double()
    pooled = (real_counts + fake_counts) / (n + m)
    standard_error = (pooled * (1 - pooled) * (1 / n + 1 / m)).sqrt()
    difference = (real_counts / n - fake_counts / m).abs()
    return float((difference > float(norm.isf(level / 2)) * standard_error).double().mean())


@dataclass(frozen=True, slots=True)
class Ndb(NamedPairedMetric):
    """NDB/K in one view; the floor is that of the held-out real half, on the same bins."""

    name: ClassVar[str] = KEY
    fewest_samples: ClassVar[int] = MIN_SAMPLES
    purpose: ClassVar[str] = "a difference between two bins"

    def compute(self, split: RealFakeSplit) -> MetricResult:
        reference, heldout, fake = split.flat_rows()  # (n, D) each
        centers = fit_bins(reference, seed=self.seed)
        reference_bins, heldout_bins, fake_bins = (assign_bins(rows, centers) for rows in (reference, heldout, fake))
        n_bins = len(centers)
        half_width = interval_half_widths(
            lambda i, j: torch.tensor([fraction_different(reference_bins[i], fake_bins[j], n_bins)]),
            (split.n, split.n),
            split.n,
            seed=self.seed,
        )
        measurement = make_measurement(
            fraction_different(reference_bins, fake_bins, n_bins),
            float(half_width),
            n=split.n,
            floor=fraction_different(reference_bins, heldout_bins, n_bins),
            better="lower",
            unit="share of bins",
            bounds=(0, 1),
        )
        return MetricResult({KEY: measurement})
