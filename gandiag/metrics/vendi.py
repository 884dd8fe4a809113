"""Vendi score: the effective number of dissimilar samples."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from gandiag.interfaces import MetricResult
from gandiag.metrics.base import UnpairedMetric, make_measurement
from gandiag.record import Measurement
from gandiag.stats.resampling import interval_half_widths, subsample_indices
from gandiag.stats.splits import RealFakeSplit
from gandiag.stats.validation import as_feature_pair, as_features

ORDERS = {"vendi_1": 1.0, "vendi_2": 2.0, "vendi_inf": math.inf}
CONVERGED = 0.05  # growth from half of the samples to all of them, below which a score has converged
MAX_SUBSAMPLE_ROWS = 1_000  # rows that replicates draw from: each replicate solves an eigenvalue problem


def vendi_score(real: Any, fake: Any, order: float = 1.0) -> float:
    """The effective number of generated samples, from 1 (all alike) to min(M, D + 1); higher is more diverse.

    exp of the order-q Rényi entropy of the eigenvalues of K/M, where K is the cosine similarity of the rows about the
    mean of `real`, or about the origin where `real` is None. Order 1 counts rare directions, 2 common ones, infinity
    only the most common one. It grows with n and with outliers and is limited by D; compare at equal n, in the same
    features. Cost M·D·min(M, D). Sources: Friedman and Dieng 2023, eq. 3; Pasarkar and Dieng 2024, eq. 4 (orders).
    """
    if real is None:
        return hill_number(similarity_eigenvalues(as_features(fake, "generated samples"), None), order)
    real_rows, fake_rows = as_feature_pair(real, fake)
    return hill_number(similarity_eigenvalues(fake_rows, real_rows.mean(0, dtype=torch.float64)), order)


def similarity_eigenvalues(samples: Tensor, center: Tensor | None) -> Tensor:
    """Eigenvalues of K/n for rows (n, D) about a center (D,): (min(n, D + 1),) float64, nonnegative, summing to 1.

    Rows at the center have no direction; they count as similar to each other and dissimilar to all others.
    """
    centered = samples.double() if center is None else samples.double() - center  # (n, D)
    length = centered.norm(dim=1, keepdim=True)
    at_center = length <= 1e-12 * (1 if center is None else 1 + float(center.norm()))  # (n, 1)
    direction = torch.where(at_center, 0.0, centered / length.clamp(min=1e-300))
    unit = torch.cat([direction, at_center.double()], 1)  # (n, D + 1)
    gram = unit @ unit.T if len(unit) <= unit.shape[1] else unit.T @ unit
    values = torch.linalg.eigvalsh(gram).clamp_(min=0)
    shares: Tensor = values / values.sum()
    return shares


def hill_number(shares: Tensor, order: float) -> float:
    """The Hill number of shares that sum to 1: exp(entropy) at order 1, 1/Σp² at 2, 1/max p at infinity."""
    if math.isinf(order):
        return 1 / float(shares.max())
    if order == 1:
        return math.exp(-float(torch.special.xlogy(shares, shares).sum()))
    return math.exp(math.log(float(shares.pow(order).sum())) / (1 - order))


def _all_orders(samples: Tensor, center: Tensor | None) -> Tensor:
    """The scores in the order of ORDERS, (3,) float64."""
    shares = similarity_eigenvalues(samples, center)
    return torch.tensor([hill_number(shares, order) for order in ORDERS.values()], dtype=torch.float64)  # (3,)


@dataclass(frozen=True, slots=True)
class Vendi(UnpairedMetric):
    """Vendi scores of orders 1, 2 and infinity in one view; the floor is that of real rows, about the same center."""

    purpose: ClassVar[str] = "a Vendi score"

    @property
    def key(self) -> str:
        return "vendi"

    @property
    def measurement_keys(self) -> tuple[str, ...]:
        return tuple(ORDERS)

    def compute(self, fake: Tensor, split: RealFakeSplit | None) -> MetricResult:
        n = len(fake)
        center: Tensor | None = None
        floors: list[float | None] = [None] * len(ORDERS)
        if split is not None:
            reference = split.reference.flatten(1)
            center = reference.mean(0, dtype=torch.float64)
            floors = _all_orders(reference, center).tolist()
        rows = fake[subsample_indices(n, MAX_SUBSAMPLE_ROWS, self.seed)]
        half_widths = interval_half_widths(lambda i: _all_orders(rows[i], center), (len(rows),), n, seed=self.seed)
        values = _all_orders(fake, center).tolist()
        measurements = {
            key: make_measurement(
                value, half_width, n=n, floor=floor, better="higher", unit="effective samples", bounds=(1, n)
            )
            for key, value, half_width, floor in zip(ORDERS, values, half_widths.tolist(), floors, strict=True)
        }
        return MetricResult(_flag_unconverged(measurements, _all_orders(fake[::2], center).tolist()))


def _flag_unconverged(measurements: dict[str, Measurement], at_half: list[float]) -> dict[str, Measurement]:
    """Say so where twice the samples still raise a score by more than 5 %: order 2 converges long before order 1."""
    flagged = {}
    for (key, entry), half in zip(measurements.items(), at_half, strict=True):
        grows = entry.value is not None and entry.value > (1 + CONVERGED) * half
        note = f"not converged at n = {entry.n:,}: half of them give {half:.3g}"
        flagged[key] = replace(entry, reason=note) if grows and entry.reason is None else entry
    return flagged
