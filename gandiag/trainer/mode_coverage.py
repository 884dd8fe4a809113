"""Measures how many modes are covered, how evenly and how well: the counts that papers print."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gandiag.trainer.toy_data import Dataset


@dataclass(frozen=True, slots=True)
class ModeCoverage:
    """Counts of N generated samples over K equally likely modes. The names are the columns of coverage.csv.

    modes      modes with at least one high-quality sample: 0 … K, higher is better; many samples can fill it by luck
    of         K
    good       share of high-quality samples: 0 … `ceiling`; above the ceiling, modes have shrunk
    ceiling    the share that real data reach
    variation  total variation distance of the shares of nearest modes from uniform: 0 even … 1 − 1/K all in one mode
    kl         KL(shares of high-quality samples, uniform) in nats: 0 … log K, None without a high-quality sample;
               biased upward by (modes − 1)/2N
    dominant   the mode that is nearest to most samples
    share      the share of the dominant mode
    n          N
    """

    modes: int
    of: int
    good: float
    ceiling: float
    variation: float
    kl: float | None
    dominant: int
    share: float
    n: int


def measure_coverage(dataset: Dataset, samples: Tensor) -> ModeCoverage | None:
    """Count samples (N, *shape) by mode; None if the dataset's modes are unknown."""
    if dataset.assign_modes is None:
        return None
    assignment = dataset.assign_modes(samples)
    shares = torch.bincount(assignment.mode, minlength=dataset.n_modes).double() / len(samples)  # (K,)
    good = torch.bincount(assignment.mode[assignment.good], minlength=dataset.n_modes).double()  # (K,)
    dominant = int(shares.argmax())
    return ModeCoverage(
        modes=int((good > 0).sum()),
        of=dataset.n_modes,
        good=float(good.sum()) / len(samples),
        ceiling=dataset.real_good,
        variation=1 - float(shares.clamp(max=1 / dataset.n_modes).sum()),
        kl=_kl_from_uniform(good),
        dominant=dominant,
        share=float(shares[dominant]),
        n=len(samples),
    )


def _kl_from_uniform(counts: Tensor) -> float | None:
    if not counts.sum():
        return None
    shares = counts[counts > 0] / counts.sum()
    return max(0.0, float((shares * shares.log()).sum()) + math.log(len(counts)))
