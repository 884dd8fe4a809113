"""Copies among all real samples: equal ones by hash, near ones by distance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gandiag.metrics.memorization import copy_radius
from gandiag.record import Measurement
from gandiag.stats.neighbors import nearest_neighbors
from gandiag.stats.resampling import subsample_indices, wilson_interval

MAX_QUERIES = 1_000  # real rows whose nearest other real row is searched, for the radius and the floor


@dataclass(frozen=True, slots=True)
class HashedRows:
    """Rows for the search. `hashes`: of the samples themselves. `values` (N, D): features or thumbnails."""

    hashes: Sequence[bytes]
    values: Tensor


def search_copies(real: HashedRows, fake: HashedRows, n_available: int) -> dict[str, Measurement]:
    """`copies` and `exact_copies`: shares of the generated rows that copy any of the real ones.

    The floor is the share of real rows that copy another one. `n_available`: real samples that exist, of which
    `real` may be a part. Cost N·M·D.
    """
    known = set(real.hashes)
    is_exact = torch.tensor([key in known for key in fake.hashes])
    queries = subsample_indices(len(real.values), MAX_QUERIES)
    spacing = nearest_neighbors(real.values[queries], real.values, k=2).distances[:, 1]  # the first is the row itself
    radius = copy_radius(spacing, fake.values)
    is_near = nearest_neighbors(fake.values, real.values).distances[:, 0] < radius
    floor = float((spacing < radius).double().mean())
    exact_floor = 1 - len(known) / len(real.hashes)
    scope = f"{len(real.values):,} real samples searched"
    if len(real.values) < n_available:
        scope = f"{len(real.values):,} of {n_available:,} real samples searched"
    return {
        "copies": _make_share(is_exact | is_near, floor, scope),
        "exact_copies": _make_share(is_exact, exact_floor, scope),
    }


def _make_share(flags: Tensor, floor: float, scope: str) -> Measurement:
    value = float(flags.double().mean())
    low, high = wilson_interval(value, len(flags))
    return Measurement(value, low, high, floor, "share of generated samples", "lower", len(flags), reason=scope)
