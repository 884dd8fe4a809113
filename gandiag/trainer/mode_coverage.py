"""How many modes, how evenly, how well: the counts that papers print, from a reader that knows the modes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gandiag.trainer.toy_data import Dataset


@dataclass(frozen=True, slots=True)
class ModeCoverage:
    """Counts of N generated samples against K equal modes.

    modes      with at least one sample of high quality: 0 … K, higher is better; N lucky samples fill it easily
    good       share of high quality: 0 … `ceiling`, which is what real data reach; above it a mode has shrunk
    variation  total variation between the shares of nearest modes and uniform: 0 even … 1 − 1/K all in one
    kl         KL(shares of good samples, uniform), nats: 0 … log K, null without a good sample; biased up by (modes − 1)/2N
    dominant   the mode that most samples are nearest to, and `share`, its share
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
    """The counts for samples (N, *shape); None where nobody can read modes."""
    if dataset.read is None:
        return None
    reading = dataset.read(samples)
    shares = torch.bincount(reading.mode, minlength=dataset.modes).double() / len(samples)  # (K,)
    good = torch.bincount(reading.mode[reading.good], minlength=dataset.modes).double()  # (K,)
    variation = 1 - float(shares.clamp(max=1 / dataset.modes).sum())
    top = int(shares.argmax())
    return ModeCoverage(
        int((good > 0).sum()),
        dataset.modes,
        float(good.sum()) / len(samples),
        dataset.ceiling,
        variation,
        _kl(good),
        top,
        float(shares[top]),
        len(samples),
    )


def _kl(counts: Tensor) -> float | None:
    if not counts.sum():
        return None
    shares = counts[counts > 0] / counts.sum()
    return max(0.0, float((shares * shares.log()).sum()) + math.log(len(counts)))
