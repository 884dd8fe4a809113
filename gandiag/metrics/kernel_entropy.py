"""Conditional Vendi: how much of the variety the model adds within groups, and how much the condition induces.

With H the order-q entropy of the eigenvalues of a kernel matrix over n, K_X o K_T the entrywise product of the
samples' and the conditions' kernels: H(X, T) = H(K_X o K_T), conditional H(X | T) = H(X, T) - H(T), information
I(X; T) = H(X) + H(T) - H(X, T). Groups have the kernel 1 within and 0 across, so K_X o K_T is block-diagonal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gandiag.errors import SourceError
from gandiag.metrics.vendi import hill_number
from gandiag.stats.validation import as_features


@dataclass(frozen=True, slots=True)
class VendiSplit:
    """`total` = `conditional` times `information`. `conditional`: effective samples within a group, model-induced;
    `information`: effective number of different groups, prompt-induced.
    """

    total: float
    conditional: float
    information: float


def conditional_vendi(
    fake: Any, groups: Sequence[Any], order: float = 1.0, bandwidth: float | None = None
) -> VendiSplit:
    """The Vendi score of generated samples (M, D), split by the group of each row; RKE's split for `order` 2.

    `bandwidth`: of a Gaussian kernel; None is the cosine kernel. `information` grows with the number of groups.
    Cost M·D·min(M, D) for cosine, M³ for a Gaussian kernel. Sources: Jalali et al. 2024, Conditional Vendi Score
    (order 1); Jalali et al. 2023, RKE (order 2).
    """
    rows = as_features(fake, "generated samples").double()
    if len(groups) != len(rows):
        raise SourceError(f"there are {len(groups)} groups for {len(rows)} samples", "give one group per sample")
    members: dict[Any, list[int]] = {}
    for index, name in enumerate(groups):
        members.setdefault(name, []).append(index)
    shares = torch.tensor([len(index) / len(rows) for index in members.values()], dtype=torch.float64)
    if order == 2 and bandwidth is not None:
        return _split_order_two(rows, list(members.values()), shares, bandwidth)
    blocks = [
        share * kernel_eigenvalues(rows[index], bandwidth)
        for share, index in zip(shares, members.values(), strict=True)
    ]
    total, together, condition = (
        hill_number(values, order) for values in (kernel_eigenvalues(rows, bandwidth), torch.cat(blocks), shares)
    )
    return VendiSplit(total, together / condition, total * condition / together)


def _split_order_two(rows: Tensor, members: list[list[int]], shares: Tensor, bandwidth: float) -> VendiSplit:
    """Order 2 from sums of squared kernels, without eigenvalues: 1 / mean over pairs. Cost M²·D."""
    total = 1 / float(gaussian_kernel(rows, rows, bandwidth).square().mean())
    within = sum(float(gaussian_kernel(rows[index], rows[index], bandwidth).square().sum()) for index in members)
    together, condition = len(rows) ** 2 / within, hill_number(shares, 2)
    return VendiSplit(total, together / condition, total * condition / together)


def rke_score(fake: Any, bandwidth: float) -> float:
    """Rényi kernel entropy mode count: the Vendi score of order 2 with a Gaussian kernel, 1 / mean of squared kernels.

    `fake` (M, D). About the number of modes that are farther apart than `bandwidth`. Converges at a few thousand rows,
    where order 1 does not. Cost M²·D. Source: Jalali et al. 2023, An Information-Theoretic Evaluation of Generative
    Models in Learning Multi-modal Distributions.
    """
    rows = as_features(fake, "generated samples").double()
    return 1 / float(gaussian_kernel(rows, rows, bandwidth).square().mean())


def kernel_eigenvalues(rows: Tensor, bandwidth: float | None) -> Tensor:
    """Nonnegative eigenvalues of the kernel matrix over n, summing to 1."""
    if bandwidth is not None:
        values = torch.linalg.eigvalsh(gaussian_kernel(rows, rows, bandwidth)).clamp(min=0)
    else:
        unit = rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-300)
        gram = unit @ unit.T if len(unit) <= unit.shape[1] else unit.T @ unit
        values = torch.linalg.eigvalsh(gram).clamp(min=0)
    total = values.sum()
    return values / total if float(total) > 0 else torch.ones(1, dtype=torch.float64)


def gaussian_kernel(x: Tensor, y: Tensor, bandwidth: float) -> Tensor:
    """exp(-|x - y|² / (2 bandwidth²)), (N, M)."""
    if not bandwidth > 0 or math.isinf(bandwidth):
        raise SourceError(
            f"the bandwidth is {bandwidth}", "pass a positive number, such as a distance between neighbors"
        )
    return torch.exp(-torch.cdist(x, y).square() / (2 * bandwidth**2))
