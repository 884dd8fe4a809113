"""RKE split of a grouped audit: effective outputs within a group (the model's), effective groups (the condition's)."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import torch
from scipy.stats import t
from torch import Tensor

from gandiag.metrics.base import make_measurement
from gandiag.metrics.kernel_entropy import gaussian_kernel
from gandiag.record import Measurement

MAX_ROWS = 2_000  # the kernel of order 2 costs the square
BANDWIDTH_SHARE = 0.5  # of the reference's mean distance within groups
MIN_GROUPS = 5  # for an interval
KEYS = ("group_rke_within", "group_rke_between")


def measure_entropies(
    subject: tuple[Tensor, Sequence[Hashable]],
    reference: tuple[Tensor, Sequence[Hashable]],
    names: Sequence[Hashable],
    mean_distance: float,
) -> dict[str, Measurement]:
    """Conditional Vendi of order 2 of the subject; the floor is the reference's.

    Both from the first groups called `names` that together have at most 2,000 rows, and the same number of samples in
    each group. Not measured where the reference does not vary.
    """
    if not mean_distance > 0:
        return {key: Measurement.missing("the reference does not vary within groups") for key in KEYS}
    rows = _equal_rows(subject[1], reference[1], names)
    ours, theirs = (
        _split_with_error(features[[row for row, _ in side]].double(), [name for _, name in side], mean_distance)
        for (features, _), side in zip((subject, reference), rows, strict=True)
    )
    return {
        key: make_measurement(
            value, half, n=len(rows[0]), floor=floor, better="higher", unit="effective samples", bounds=(1, math.inf)
        )
        for key, (value, half), (floor, _) in zip(KEYS, ours, theirs, strict=True)
    }


def _split_with_error(rows: Tensor, groups: Sequence[Hashable], mean_distance: float) -> list[tuple[float, float]]:
    """(value, 95 % half-width) of the conditional and of the information, by leaving out one group at a time.

    The jackknife over groups creates no duplicates, which resampling with replacement would.
    """
    index = {name: number for number, name in enumerate(dict.fromkeys(groups))}
    label = torch.tensor([index[name] for name in groups])
    squares = gaussian_kernel(rows, rows, BANDWIDTH_SHARE * mean_distance).square()
    member = torch.nn.functional.one_hot(label, len(index)).double()  # (N, G)
    blocks, sizes = member.T @ squares @ member, member.sum(0)  # (G, G) sums of squared kernels, (G,)
    value = _split(float(blocks.sum()), float(blocks.diagonal().sum()), sizes)
    if len(index) < MIN_GROUPS:
        return [(part, math.nan) for part in value]
    without = torch.tensor(
        [
            _split(
                float(blocks.sum() - 2 * blocks[g].sum() + blocks[g, g]),
                float(blocks.diagonal().sum() - blocks[g, g]),
                torch.cat([sizes[:g], sizes[g + 1 :]]),
            )
            for g in range(len(index))
        ],
        dtype=torch.float64,
    )  # (G, 2)
    count = len(without)
    spread = (without - without.mean(0)).square().sum(0).mul((count - 1) / count).sqrt()
    half = float(t.ppf(0.975, count - 1)) * spread
    return list(zip(value, half.tolist(), strict=True))


def _split(total: float, within: float, sizes: Tensor) -> tuple[float, float]:
    """(conditional, information) of order 2, from sums of squared kernels over all pairs and over pairs of a group."""
    n = float(sizes.sum())
    condition = n**2 / float(sizes.square().sum())  # effective number of groups by their sizes alone
    conditional = n**2 / within / condition
    return conditional, n**2 / total / conditional


def _equal_rows(
    ours: Sequence[Hashable], theirs: Sequence[Hashable], names: Sequence[Hashable]
) -> tuple[list[tuple[int, Hashable]], list[tuple[int, Hashable]]]:
    """(row, group) of both sides, as many of each group on one side as on the other."""
    places: tuple[dict[Hashable, list[int]], ...] = ({}, {})
    for groups, place in zip((ours, theirs), places, strict=True):
        for row, name in enumerate(groups):
            place.setdefault(name, []).append(row)
    chosen: tuple[list[tuple[int, Hashable]], list[tuple[int, Hashable]]] = ([], [])
    for name in names:
        n = min(len(place[name]) for place in places)
        if len(chosen[0]) + n > MAX_ROWS and chosen[0]:
            break
        for side, place in zip(chosen, places, strict=True):
            side += [(row, name) for row in place[name][:n]]
    return chosen
