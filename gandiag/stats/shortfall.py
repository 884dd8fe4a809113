"""How much is missing, without counting noise as missing: shortfalls free of their bias, and the share of distinct outputs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SURE = 1.5  # differences within this many standard errors are treated as none when the bias is worked out


def shortfall(difference: Tensor, error: Tensor) -> Tensor:
    """max(0, difference) less the bias that noise of standard deviation `error` gives it; may be negative, so that sums are unbiased.

    For X ~ N(δ, σ²), E max(0, X) − max(0, δ) = σ (φ(z) − |z| Φ(−|z|)) with z = δ/σ: 0.4 σ where nothing is missing, hardly
    anything beyond 2 σ. δ is not known: it is taken as X moved SURE·σ towards zero, so that noise around zero counts as zero.
    """
    error = error.clamp(min=1e-12)
    z = ((difference.abs() / error) - SURE).clamp(min=0)
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    beyond = 0.5 * torch.erfc(z / math.sqrt(2))
    return difference.clamp(min=0) - error * (density - z * beyond)


def distinct_share(copies: Tensor) -> float:
    """Distinct outputs of the generator over the n seen, in [0, 1], from how often each row's output was seen, `copies` (n,) ≥ 1.

    A generator with u·n outputs drawn at random shows only some of them in n draws, so those never seen are added: Chao's
    f₁²/2f₂ (f₁ seen once, f₂ twice), and not more than if all outputs were equally likely (the zero-truncated Poisson of the
    same mean), for where a few outputs are repeated endlessly and the others never, nothing says that any is unseen. If every
    output is seen exactly twice, f₁ = 0 and the share is ½.
    """
    n = len(copies)
    if n == 0:
        return 1.0
    seen = float((1 / copies).sum())
    mean = n / seen
    if mean <= 1:
        return 1.0
    once, twice = float((copies == 1).sum()), float((copies == 2).sum()) / 2
    chao = once * once / (2 * twice) if twice else (math.inf if once else 0.0)
    rate = mean
    for _ in range(50):  # rate / (1 − e^−rate) = mean
        rate = mean * -math.expm1(-rate)
    poisson = seen * math.exp(-rate) / -math.expm1(-rate) if rate > 1e-6 else math.inf
    return min(1.0, (seen + min(chao, poisson)) / n)
