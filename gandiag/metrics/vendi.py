"""The Vendi score: how many mutually unlike samples there would have to be to be as diverse as these."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gandiag.interfaces import MetricResult, Needs
from gandiag.metrics.base import make_measurement, missing_measurements
from gandiag.stats.resampling import interval_half_widths, subsample_indices
from gandiag.stats.splits import split_from_results, split_needs
from gandiag.stats.subset import SubsetSpec
from gandiag.stats.validation import as_feature_pair, as_features

ORDERS = {"vendi_1": 1.0, "vendi_2": 2.0, "vendi_inf": math.inf}
MAX_SUBSAMPLE_ROWS = 1_000  # rows that replicates draw from: each costs an eigenvalue problem


def vendi_score(real: Any, fake: Any, order: float = 1.0) -> float:
    """The effective number of generated samples, from 1 (all alike) to min(M, D + 1); higher is more diverse.

    exp of the order-q Rényi entropy of the eigenvalues of K/M, where K is the cosine similarity of the rows about the mean
    of `real`, or about the origin where `real` is None. Order 1 counts rare directions, 2 common ones, infinity only the
    most common. It grows with n and with junk, and is limited by D; compare at equal n, in the same features.
    Cost M·D·min(M, D). Sources: Friedman and Dieng 2023, eq. 3; Pasarkar and Dieng 2024, eq. 4 (orders).
    """
    left, right = (None, as_features(fake, "generated samples")) if real is None else as_feature_pair(real, fake)
    return hill_number(
        similarity_eigenvalues(right, None if left is None else left.mean(0, dtype=torch.float64)), order
    )


def similarity_eigenvalues(samples: Tensor, center: Tensor | None) -> Tensor:
    """Eigenvalues of K/n, (min(n, D + 1),) float64, at least 0 and summing to 1. (n, D) rows, centre (D,).

    Rows that lie on the centre have no direction: they are alike among themselves, and unlike all others.
    """
    moved = samples.double() if center is None else samples.double() - center  # (n, D)
    length = moved.norm(dim=1, keepdim=True)
    nowhere = length <= 1e-12 * (1 if center is None else 1 + float(center.norm()))  # (n, 1)
    unit = torch.cat([torch.where(nowhere, 0.0, moved / length.clamp(min=1e-300)), nowhere.double()], 1)  # (n, D + 1)
    product = unit @ unit.T if len(unit) <= unit.shape[1] else unit.T @ unit
    values = torch.linalg.eigvalsh(product).clamp_(min=0)
    shares: Tensor = values / values.sum()
    return shares


def hill_number(shares: Tensor, order: float) -> float:
    """The Hill number of shares that sum to 1: exp(entropy) at order 1, 1/Σp² at 2, 1/max p at infinity."""
    if math.isinf(order):
        return 1 / float(shares.max())
    if order == 1:
        return math.exp(-float(torch.special.xlogy(shares, shares).sum()))
    return math.exp(math.log(float(shares.pow(order).sum())) / (1 - order))


def _orders(samples: Tensor, centre: Tensor | None) -> Tensor:
    shares = similarity_eigenvalues(samples, centre)
    return torch.tensor([hill_number(shares, order) for order in ORDERS.values()], dtype=torch.float64)  # (3,)


@dataclass(frozen=True, slots=True)
class Vendi:
    """Vendi scores of orders 1, 2 and infinity in one view; the floor is the real data's own, about the same centre."""

    view: str
    n: int
    seed: int = 0
    referenced: bool = True

    @property
    def key(self) -> str:
        return "vendi"

    def needs(self) -> Needs:
        return (
            split_needs(self.view, self.n) if self.referenced else {"fake": frozenset({SubsetSpec(self.view, self.n)})}
        )

    def measure(self, results: Any) -> MetricResult:
        sets = split_from_results(results, self.view, self.n) if self.referenced else None
        fake = (results["fake"][SubsetSpec(self.view, self.n)].values if sets is None else sets.fake).flatten(
            1
        )  # (n, D)
        if len(fake) < 2:
            return MetricResult(missing_measurements(tuple(ORDERS), f"{len(fake)} generated samples cannot differ"))
        centre = None if sets is None else sets.reference.flatten(1).mean(0, dtype=torch.float64)
        keep = fake[subsample_indices(len(fake), MAX_SUBSAMPLE_ROWS, self.seed)]
        width = interval_half_widths(lambda i: _orders(keep[i], centre), (len(keep),), len(fake), seed=self.seed)
        floor = [None] * 3 if sets is None else _orders(sets.reference.flatten(1), centre).tolist()
        return MetricResult(
            {
                key: make_measurement(
                    value,
                    half,
                    n=len(fake),
                    floor=least,
                    better="higher",
                    unit="effective samples",
                    bounds=(1, len(fake)),
                )
                for key, value, half, least in zip(
                    ORDERS, _orders(fake, centre).tolist(), width.tolist(), floor, strict=True
                )
            }
        )
