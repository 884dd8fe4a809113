"""How much is missing, without counting noise as missing: shortfalls free of their bias, and the share of distinct outputs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

NULL_BAND = 1.5  # differences within this many standard errors are treated as none when the bias is worked out


def bias_corrected_positive_part(difference: Tensor, standard_error: Tensor) -> Tensor:
    """max(0, difference) less the bias that noise of standard deviation `error` gives it, (K,); may be negative, so that sums are unbiased.

    For X ~ N(δ, σ²), E max(0, X) − max(0, δ) = σ (φ(z) − |z| Φ(−|z|)) with z = δ/σ: 0.4 σ where nothing is missing, hardly
    anything beyond 2 σ. δ is not known: X/σ is moved by SURE towards the median of all K, so that what scatters around a common
    value counts as that value. (Where a few modes are missing, all others stand a little above their share.)
    """
    standard_error = standard_error.clamp(min=1e-12)
    z = difference / standard_error
    usual = z.median()
    if abs(float(usual)) < NULL_BAND * 1.25 / len(z) ** 0.5:  # 1.25 / √K: standard error of a median
        usual = torch.zeros(())
    z = (usual + (z - usual).sign() * ((z - usual).abs() - NULL_BAND).clamp(min=0)).abs()
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    beyond = 0.5 * torch.erfc(z / math.sqrt(2))
    return difference.clamp(min=0) - standard_error * (density - z * beyond)


def unique_fraction(copy_counts: Tensor) -> float:
    """Distinct outputs of the generator over the n seen, in [0, 1], from how often each row's output was seen, `copies` (n,) ≥ 1.

    A generator with u·n equally likely outputs shows only some of them in n draws. How many it never showed follows from the
    mean number of copies (the zero-truncated Poisson), and is believed as far as the outputs seen only once bear it out: if
    every output is seen exactly twice, none is, nothing is unseen, and the share is ½.
    """
    n = len(copy_counts)
    if n == 0:
        return 1.0
    seen = float((1 / copy_counts).sum())
    mean = n / seen
    if mean <= 1 + 1e-6:
        return 1.0
    rate = mean
    for _ in range(100):  # rate / (1 − e^−rate) = mean
        rate = mean * -math.expm1(-rate)
    unseen = seen * math.exp(-rate) / -math.expm1(-rate)
    once = float((copy_counts == 1).sum())
    return min(1.0, (seen + unseen * min(1.0, once / max(rate * unseen, 1e-9))) / n)
