"""How far a statistic would move with other samples: 95 % half-widths from half-samples, and exact ones for counts."""

from __future__ import annotations

from collections.abc import Callable

import torch
from scipy.stats import chi2, t
from torch import Tensor

from gandiag.stats.splits import DEFAULT_REPLICATES

MAX_SUBSAMPLE_ROWS = 2_000  # rows that replicates draw from


def subsample_indices(n: int, max_rows: int = MAX_SUBSAMPLE_ROWS, seed: int = 0) -> Tensor:
    """At most `cap` of n rows, drawn without replacement, in order: (p,) int64."""
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
    """95 % half-widths (S,) at n samples a side of statistics that take one index set (p/2,) per pool and return (S,).

    Among half-samples of a pool of p, without replacement, a statistic varies by sigma² (1/b - 1/p) = sigma² (1/p) at
    b = p/2 (the half-sample of Politis and Romano's subsampling); sigma²/n follows by scale. Student's t covers that
    there are few replicates. Resampling with replacement would manufacture duplicates. NaN below 4 rows.
    """
    if min(pool_sizes) < 4:
        return torch.full_like(compute_statistics(*(torch.arange(p) for p in pool_sizes)), float("nan"))
    draw = torch.Generator().manual_seed(seed)
    values = torch.stack(
        [
            compute_statistics(*(torch.randperm(p, generator=draw)[: p // 2] for p in pool_sizes))
            for _ in range(replicates)
        ]
    )  # (R, S)
    odd = max((p // 2) / (p - p // 2) for p in pool_sizes) ** 0.5
    widths: Tensor = (
        values.double().std(0) * float(t.ppf(0.975, replicates - 1)) * odd * (min(pool_sizes) / n) ** 0.5
    )  # (S,)
    return widths


def wilson_interval(proportion: float, n: int) -> tuple[float, float]:
    """The 95 % score interval of a share of n (Wilson 1927); wider than nothing at 0 and at 1."""
    z = 1.959964
    middle, reach = proportion + z * z / (2 * n), z * (proportion * (1 - proportion) / n + z * z / (4 * n * n)) ** 0.5
    return max(0.0, min(proportion, (middle - reach) / (1 + z * z / n))), min(
        1.0, max(proportion, (middle + reach) / (1 + z * z / n))
    )


def poisson_interval(count: float, dispersion: float = 1.0) -> tuple[float, float]:
    """The exact 95 % interval of a Poisson mean after `count` events; `dispersion` > 1 where events come in clumps."""
    scaled = count / dispersion
    low = float(chi2.ppf(0.025, 2 * scaled)) / 2 if count > 0 else 0.0
    return dispersion * low, dispersion * float(chi2.ppf(0.975, 2 * scaled + 2)) / 2
