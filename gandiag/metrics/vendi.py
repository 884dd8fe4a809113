"""The Vendi score: how many mutually unlike samples there would have to be to be as diverse as these."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gandiag.contracts import Needs, Outcome
from gandiag.metrics.entry import entry, missing
from gandiag.stats.rows import row_pair, rows
from gandiag.stats.spread import half_widths, pool
from gandiag.stats.subset import Kept
from gandiag.stats.trio import trio_needs, trio_of

ORDERS = {"vendi_1": 1.0, "vendi_2": 2.0, "vendi_inf": math.inf}
POOL = 1_000  # rows that replicates draw from: each costs an eigenvalue problem


def vendi_score(real: Any, fake: Any, order: float = 1.0) -> float:
    """The effective number of generated samples, from 1 (all alike) to min(M, D + 1); higher is more diverse.

    exp of the order-q Rényi entropy of the eigenvalues of K/M, where K is the cosine similarity of the rows about the mean
    of `real`, or about the origin where `real` is None. Order 1 counts rare directions, 2 common ones, infinity only the
    most common. It grows with n and with junk, and is limited by D; compare at equal n, in the same features.
    Cost M·D·min(M, D). Sources: Friedman and Dieng 2023, eq. 3; Pasarkar and Dieng 2024, eq. 4 (orders).
    """
    left, right = (None, rows(fake, "generated samples")) if real is None else row_pair(real, fake)
    return hill(spectrum(right, None if left is None else left.mean(0, dtype=torch.float64)), order)


def spectrum(samples: Tensor, centre: Tensor | None) -> Tensor:
    """Eigenvalues of K/n, (min(n, D + 1),) float64, at least 0 and summing to 1. (n, D) rows, centre (D,).

    Rows that lie on the centre have no direction: they are alike among themselves, and unlike all others.
    """
    moved = samples.double() if centre is None else samples.double() - centre  # (n, D)
    length = moved.norm(dim=1, keepdim=True)
    nowhere = length <= 1e-12 * (1 if centre is None else 1 + float(centre.norm()))  # (n, 1)
    unit = torch.cat([torch.where(nowhere, 0.0, moved / length.clamp(min=1e-300)), nowhere.double()], 1)  # (n, D + 1)
    product = unit @ unit.T if len(unit) <= unit.shape[1] else unit.T @ unit
    values = torch.linalg.eigvalsh(product).clamp_(min=0)
    shares: Tensor = values / values.sum()
    return shares


def hill(shares: Tensor, order: float) -> float:
    """The Hill number of shares that sum to 1: exp(entropy) at order 1, 1/Σp² at 2, 1/max p at infinity."""
    if math.isinf(order):
        return 1 / float(shares.max())
    if order == 1:
        return math.exp(-float(torch.special.xlogy(shares, shares).sum()))
    return math.exp(math.log(float(shares.pow(order).sum())) / (1 - order))


def _orders(samples: Tensor, centre: Tensor | None) -> Tensor:
    shares = spectrum(samples, centre)
    return torch.tensor([hill(shares, order) for order in ORDERS.values()], dtype=torch.float64)  # (3,)


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
        return trio_needs(self.view, self.n) if self.referenced else {"fake": frozenset({Kept(self.view, self.n)})}

    def measure(self, results: Any) -> Outcome:
        sets = trio_of(results, self.view, self.n) if self.referenced else None
        fake = (results["fake"][Kept(self.view, self.n)].values if sets is None else sets.f).flatten(1)  # (n, D)
        if len(fake) < 2:
            return Outcome(missing(tuple(ORDERS), f"{len(fake)} generated samples cannot differ"))
        centre = None if sets is None else sets.a.flatten(1).mean(0, dtype=torch.float64)
        keep = fake[pool(len(fake), POOL, self.seed)]
        width = half_widths(lambda i: _orders(keep[i], centre), (len(keep),), len(fake), seed=self.seed)
        floor = [None] * 3 if sets is None else _orders(sets.a.flatten(1), centre).tolist()
        return Outcome({
            key: entry(value, half, n=len(fake), floor=least, better="higher", unit="effective samples", bounds=(1, len(fake)))
            for key, value, half, least in zip(ORDERS, _orders(fake, centre).tolist(), width.tolist(), floor, strict=True)
        })
