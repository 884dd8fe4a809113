"""A, B and F: the reference half of the real data, the null half, and the generated samples, equal in number.

Every comparison is made on A against F, and its floor is the same comparison on A against B.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from scipy.stats import t
from torch import Tensor

from gandiag.interfaces import Estimate
from gandiag.sampling.index_order import hash_indices
from gandiag.stats.subset import SampleSubset, SubsetSpec

DEFAULT_REPLICATES = 12


@dataclass(frozen=True, slots=True)
class RealFakeSplit:
    """`a`, `b`, `f`: (n, D) float32 each, in one view. `n_real`, `n_fake`: rows there were before the cut."""

    reference: Tensor
    heldout: Tensor
    fake: Tensor
    n_real: int
    n_fake: int

    @property
    def n(self) -> int:
        return len(self.fake)


def split_indices(n_real: int, n: int, indices: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Two disjoint sets of `n` real rows each, (n,) and (n,), fixed by the samples' indices alone."""
    order = torch.argsort(hash_indices(torch.arange(n_real) if indices is None else indices), stable=True)
    return order[0 : 2 * n : 2].sort().values, order[1 : 2 * n : 2].sort().values


def make_split(real: SampleSubset, fake: SampleSubset) -> RealFakeSplit:
    """Cut both sides to n = min(n_fake, n_real // 2): the smaller half sets n."""
    n = min(len(fake.indices), len(real.indices) // 2)
    a, b = split_indices(len(real.indices), n, real.indices)
    first = torch.argsort(hash_indices(fake.indices), stable=True)[:n].sort().values
    return RealFakeSplit(real.values[a], real.values[b], fake.values[first], len(real.indices), len(fake.indices))


def split_needs(view: str, n: int) -> Mapping[str, frozenset[SubsetSpec]]:
    """What a trio asks of the engine: n generated and 2n real samples of one view."""
    return {"real": frozenset({SubsetSpec(view, 2 * n)}), "fake": frozenset({SubsetSpec(view, n)})}


def split_from_results(results: Any, view: str, n: int) -> RealFakeSplit | None:
    """The trio of one view, or None without real data."""
    if "real" not in results:
        return None
    return make_split(results["real"][SubsetSpec(view, 2 * n)], results["fake"][SubsetSpec(view, n)])


def half_sample_estimate(
    statistic: Callable[..., float],
    *sets: Tensor,
    seed: int = 0,
    replicates: int = DEFAULT_REPLICATES,
    bounds: tuple[float, float] = (float("-inf"), float("inf")),
    max_rows: int = 2_000,
) -> Estimate:
    """`statistic(*sets)` with a 95 % interval from half-samples, drawn without replacement.

    With b = n/2 the variance among half-samples, sigma² (1/b - 1/n), is that of the statistic at n itself; resampling with
    replacement would manufacture duplicates. Above `cap` rows b = cap/2, and the spread is scaled by sqrt(b/(n - b)).
    Student's t allows for the few replicates. Each set is halved independently. Cost: `replicates` evaluations at half the size.
    """
    value = float(statistic(*sets))
    draw = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(replicates):
        values.append(float(statistic(*(part[_half(len(part), max_rows, draw)] for part in sets))))
    found = torch.tensor(values, dtype=torch.float64)
    found = found[torch.isfinite(found)]
    n = min(len(part) for part in sets)
    half = max(2, min(n, max_rows) // 2)
    sure = len(found) > 2 and n > half
    spread = (
        float(t.ppf(0.975, len(found) - 1)) * float(found.std()) * (half / (n - half)) ** 0.5 if sure else float("nan")
    )
    return Estimate(value, max(bounds[0], value - spread), min(bounds[1], value + spread))


def _half(n: int, cap: int, draw: torch.Generator) -> Tensor:
    pool = torch.randperm(n, generator=draw)[: min(n, cap)]
    return pool[: max(2, len(pool) // 2)]
