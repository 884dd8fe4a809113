"""Bias corrections for mode shortfalls and the fraction of distinct outputs: sampling noise is not a loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor

NULL_BAND = 1.5  # differences within this many standard errors are treated as zero when the bias is computed
MIN_EXPECTED_REPEATS = 8.0  # outputs drawn three times or more: with fewer expected, their absence shows nothing


def bias_corrected_positive_part(difference: Tensor, standard_error: Tensor) -> Tensor:
    """max(0, difference) less the bias that noise of this standard error gives it, (K,).

    May be negative, so that sums are unbiased. For X ~ N(δ, σ²), E max(0, X) − max(0, δ) = σ (φ(z) − |z| Φ(−|z|)) with
    z = δ/σ: 0.4 σ where nothing is missing, negligible beyond 2 σ. δ is unknown: X/σ is shrunk by SURE towards the
    median of all K, so that values scattered around a common one count as that value. (Where a few modes are missing,
    all others exceed their share slightly.)
    """
    standard_error = standard_error.clamp(min=1e-12)
    z = difference / standard_error
    center = z.median()
    if abs(float(center)) < NULL_BAND * 1.25 / len(z) ** 0.5:  # 1.25 / √K: standard error of a median
        center = torch.zeros(())
    z = (center + (z - center).sign() * ((z - center).abs() - NULL_BAND).clamp(min=0)).abs()
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    tail = 0.5 * torch.erfc(z / math.sqrt(2))
    return difference.clamp(min=0) - standard_error * (density - z * tail)


def unique_fraction(copy_counts: Tensor) -> float:
    """Distinct outputs of the generator over the n drawn, in [0, 1].

    `copy_counts` (n,) ≥ 1: how often each row's output was drawn. A generator with u·n equally likely outputs shows
    only some of them in n independent draws. The number of unseen ones follows from the mean number of copies (the
    zero-truncated Poisson), and counts as far as the outputs drawn once, and those drawn three times or more, support
    it. Where a pool is repeated evenly neither is as frequent as chance would have it, nothing is unseen, and the
    fraction is that of the distinct rows.
    """
    n = len(copy_counts)
    if n == 0:
        return 1.0
    n_seen = float((1 / copy_counts).sum())
    mean = n / n_seen
    if mean <= 1 + 1e-6:
        return 1.0
    rate = mean
    for _ in range(100):  # solves rate / (1 − e^−rate) = mean
        rate = mean * -math.expm1(-rate)
    n_unseen = n_seen * math.exp(-rate) / -math.expm1(-rate)
    n_once = float((copy_counts == 1).sum())
    n_often = float((1 / copy_counts)[copy_counts > 2].sum())
    expected_often = (n_seen + n_unseen) * -math.expm1(-rate + math.log1p(rate + rate**2 / 2))
    support = min(1.0, n_once / max(rate * n_unseen, 1e-9))
    if expected_often >= MIN_EXPECTED_REPEATS:
        support = min(support, n_often / expected_often)
    return min(1.0, (n_seen + n_unseen * support) / n)
