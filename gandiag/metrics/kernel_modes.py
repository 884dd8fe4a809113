"""Missing modes by the difference of kernel covariances: what real data have and samples lack, without clustering.

The positive eigenvalues of C_real - eta C_fake are the shares of modes that are at least eta times more frequent in the
real data; its eigenfunctions score each real sample. Computed from kernel matrices: the operator's nonzero eigenvalues
are those of [[K_RR / n, -K_RF eta^½ / (nm)^½], [K_FR eta^½ / (nm)^½, -eta K_FF / m]].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from gandiag.interfaces import MetricResult
from gandiag.metrics.base import NamedPairedMetric
from gandiag.metrics.kernel_entropy import gaussian_kernel
from gandiag.record import Measurement
from gandiag.stats.neighbors import kth_neighbor_distance
from gandiag.stats.resampling import subsample_indices, wilson_interval
from gandiag.stats.splits import RealFakeSplit
from gandiag.stats.validation import as_feature_pair

KEY = "kernel_missing"
MAX_ROWS = 600  # of each set: the eigenvalue problem grows with the cube
BANDWIDTH_FACTOR = 4.0  # times the median distance to the fifth neighbor in the real data
MIN_SAMPLES = 10
MIN_MODE_SHARE = 0.02  # of the real data: smaller eigenvalues are noise at this number of rows


@dataclass(frozen=True, slots=True)
class KernelModes:
    """Modes that the real data have and the samples lack. `shares` (k,): of the real data, largest first;
    `members`: for each mode, the rows of real samples in it, the most typical first. `missing`: sum of the shares.
    """

    shares: Tensor
    members: tuple[Tensor, ...]

    @property
    def missing(self) -> float:
        return float(self.shares.sum())


def missing_kernel_modes(
    real: Any, fake: Any, bandwidth: float | None = None, eta: float = 1.0, min_share: float = MIN_MODE_SHARE
) -> KernelModes:
    """Modes of `real` (N, D) that are more than `eta` times as frequent as in `fake` (M, D), larger than `min_share`.

    `bandwidth` of the Gaussian kernel: four times the median distance to the fifth real neighbor by default. Modes
    nearer to each other than that count as one. Cost (N + M)³. Source: Zhang et al. 2024, An Interpretable Evaluation
    of Entropy-based Novelty of Generative Models (KEN), with real data and samples exchanged.
    """
    real_rows, fake_rows = (rows.double() for rows in as_feature_pair(real, fake))
    width = default_bandwidth(real_rows) if bandwidth is None else bandwidth
    values, functions = difference_eigenvalues(
        gaussian_kernel(real_rows, real_rows, width),
        gaussian_kernel(fake_rows, fake_rows, width),
        gaussian_kernel(real_rows, fake_rows, width),
        eta,
    )
    kept = values > min_share
    scores = functions[:, kept]  # (N, k)
    owner = scores.abs().argmax(1) if bool(kept.any()) else torch.zeros(len(real_rows), dtype=torch.int64)
    members = []
    for mode in range(int(kept.sum())):
        rows = torch.nonzero(owner == mode).flatten()
        strength = scores[rows, mode].abs()
        rows = rows[strength > 0.5 * float(strength.max()) if len(rows) else strength > 0]
        members.append(rows[scores[rows, mode].abs().argsort(descending=True)])
    return KernelModes(values[kept], tuple(members))


def difference_eigenvalues(
    real_kernel: Tensor, fake_kernel: Tensor, cross_kernel: Tensor, eta: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Positive eigenvalues of C_real - eta C_fake, largest first, (k,), and the eigenfunctions at real rows (N, k).

    From kernels (N, N), (M, M) and (N, M). With the joint Gram matrix L Lᵀ, the operator is similar to Lᵀ S L, where
    S weighs real rows 1/n and generated ones -eta/m.
    """
    n, m = cross_kernel.shape
    joint = torch.cat([torch.cat([real_kernel, cross_kernel], 1), torch.cat([cross_kernel.T, fake_kernel], 1)])
    spectrum, basis = torch.linalg.eigh(joint)
    root = basis * spectrum.clamp(min=0).sqrt()  # (N + M, N + M): joint = root rootᵀ
    weights = torch.cat([torch.full((n,), 1 / n), torch.full((m,), -eta / m)]).double()
    values, vectors = torch.linalg.eigh(root.T @ (weights[:, None] * root))
    order = values.argsort(descending=True)
    order = order[values[order] > 1e-12]
    return values[order], root[:n] @ vectors[:, order]


def default_bandwidth(real: Tensor) -> float:
    """Four times the median distance to the fifth neighbor; 1 where all rows are equal."""
    distance = float(kth_neighbor_distance(real, min(5, len(real) - 1)).median())
    return BANDWIDTH_FACTOR * distance if distance > 0 else 1.0


@dataclass(frozen=True, slots=True)
class KernelMissingModes(NamedPairedMetric):
    """Share of the real data in modes that the samples lack; the floor is that of held-out data."""

    name: ClassVar[str] = KEY
    fewest_samples: ClassVar[int] = MIN_SAMPLES
    purpose: ClassVar[str] = "missing modes by kernels"

    def compute(self, split: RealFakeSplit) -> MetricResult:
        reference, heldout, fake = (
            rows[subsample_indices(len(rows), MAX_ROWS, self.seed)] for rows in split.flat_rows()
        )
        width = default_bandwidth(reference.double())
        found, floor = (missing_kernel_modes(reference, other, width) for other in (fake, heldout))
        value = min(1.0, found.missing)
        low, high = wilson_interval(value, len(reference))
        reason = (
            f"{len(found.shares)} modes: {', '.join(f'{100 * share:.0f} %' for share in np.asarray(found.shares)[:5])}"
        )
        return MetricResult(
            {
                KEY: Measurement(
                    value,
                    min(low, value),
                    max(high, value),
                    min(1.0, floor.missing),
                    unit="share of real data",
                    better="lower",
                    n=len(reference),
                    reason=reason,
                )
            }
        )
