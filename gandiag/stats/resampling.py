"""Half-sample intervals for statistics of random samples, and exact intervals for counts.

A half-sample is drawn without replacement: with b = n/2 the variance among half-samples, sigma² (1/b - 1/n), is that of
the statistic at n itself (Politis and Romano's subsampling). Resampling with replacement would create duplicates, which
gandiag reports as a fault.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from scipy.stats import chi2, t
from torch import Tensor

from gandiag.interfaces import Estimate

DEFAULT_REPLICATES = 12
MAX_SUBSAMPLE_ROWS = 2_000  # rows that replicates draw from


def draw_halves(sizes: tuple[int, ...], generator: torch.Generator) -> tuple[Tensor, ...]:
    """Random halves of sets of these sizes, drawn independently and without replacement: (size // 2,) int64 each."""
    return tuple(torch.randperm(size, generator=generator)[: size // 2] for size in sizes)


def replicate_half_width(replicates: Tensor) -> Tensor:
    """95 % half-width from half-sample replicates (R,) or (R, S): Student's t times their standard deviation, float64.

    Student's t allows for the small number of replicates.
    """
    return float(t.ppf(0.975, len(replicates) - 1)) * replicates.std(0).double()


def subsample_indices(n: int, max_rows: int = MAX_SUBSAMPLE_ROWS, seed: int = 0) -> Tensor:
    """At most `max_rows` of n rows, drawn without replacement, in ascending order: (p,) int64."""
    if n <= max_rows:
        return torch.arange(n)
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:max_rows].sort().values


def interval_half_widths(
    compute_statistics: Callable[..., Tensor],
    pool_sizes: tuple[int, ...],
    n: int,
    *,
    seed: int = 0,
    replicates: int = DEFAULT_REPLICATES,
) -> Tensor:
    """95 % half-widths (S,) of statistics at n samples per set.

    `compute_statistics` takes one index set (p // 2,) per pool and returns (S,). The half-samples are drawn from pools
    of p rows, and their spread, sigma²/p, is scaled to sigma²/n. NaN where a pool has fewer than 4 rows.
    """
    if min(pool_sizes) < 4:
        return torch.full_like(compute_statistics(*(torch.arange(size) for size in pool_sizes)), float("nan"))
    generator = torch.Generator().manual_seed(seed)
    values = torch.stack([compute_statistics(*draw_halves(pool_sizes, generator)) for _ in range(replicates)])  # (R, S)
    odd_size_factor: float = max((size // 2) / (size - size // 2) for size in pool_sizes) ** 0.5  # 1 for even sizes
    scale: float = (min(pool_sizes) / n) ** 0.5
    return replicate_half_width(values.double()) * odd_size_factor * scale  # (S,)


def estimate_by_halves(
    statistic: Callable[..., float],
    *sets: Tensor,
    seed: int = 0,
    replicates: int = DEFAULT_REPLICATES,
    bounds: tuple[float, float] = (float("-inf"), float("inf")),
    max_rows: int = 2_000,
) -> Estimate:
    """`statistic(*sets)` with a 95 % interval from half-samples of each set, clipped to `bounds`.

    Replicates draw from at most `max_rows` rows b = max_rows/2 at a time; their spread is then scaled by sqrt(b / (n -
    b)). Replicates that are not finite are dropped; with fewer than three left the interval is NaN. Cost: `replicates`
    evaluations at half the size.
    """
    value = float(statistic(*sets))
    generator = torch.Generator().manual_seed(seed)
    replicate_values = []
    for _ in range(replicates):
        halves = [rows[_capped_half(len(rows), max_rows, generator)] for rows in sets]
        replicate_values.append(float(statistic(*halves)))
    values = torch.tensor(replicate_values, dtype=torch.float64)
    values = values[torch.isfinite(values)]
    n = min(len(rows) for rows in sets)
    half = max(2, min(n, max_rows) // 2)
    half_width = float("nan")
    if len(values) > 2 and n > half:
        half_width = float(replicate_half_width(values)) * (half / (n - half)) ** 0.5
    return Estimate(value, max(bounds[0], value - half_width), min(bounds[1], value + half_width))


def _capped_half(n: int, max_rows: int, generator: torch.Generator) -> Tensor:
    """A random half of at most `max_rows` of n rows, at least 2 of them."""
    return torch.randperm(n, generator=generator)[: max(2, min(n, max_rows) // 2)]


def wilson_interval(proportion: float, n: int) -> tuple[float, float]:
    """The 95 % score interval of a proportion of n (Wilson 1927); of positive width even at 0 and 1."""
    z = 1.959964
    center = proportion + z * z / (2 * n)
    half_width = z * (proportion * (1 - proportion) / n + z * z / (4 * n * n)) ** 0.5
    low, high = (center - half_width) / (1 + z * z / n), (center + half_width) / (1 + z * z / n)
    return max(0.0, min(proportion, low)), min(1.0, max(proportion, high))


def poisson_interval(count: float, dispersion: float = 1.0) -> tuple[float, float]:
    """The exact 95 % interval of a Poisson mean after `count` events; `dispersion` > 1 where events come in clumps."""
    scaled = count / dispersion
    low = float(chi2.ppf(0.025, 2 * scaled)) / 2 if count > 0 else 0.0
    return dispersion * low, dispersion * float(chi2.ppf(0.975, 2 * scaled + 2)) / 2
