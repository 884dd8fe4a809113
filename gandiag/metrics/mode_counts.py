"""Counts of samples by mode, class or region, and the exact test that compares real and generated counts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.stats import beta, fisher_exact
from torch import Tensor

MISSING_RATIO = 0.25  # a mode is missed below this ratio of shares, generated to real, if the test agrees
ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class ModeCounts:
    """Samples per mode: `per_mode` (K,) int64, of `total` samples that belong to any mode, of `n` samples."""

    per_mode: Tensor
    total: int
    n: int

    @property
    def shares(self) -> Tensor:
        """Shares of the samples that belong to some mode, (K,) float64."""
        return self.per_mode.double() / max(1, self.total)


def count_labels(labels: Tensor, n_modes: int, n: int | None = None) -> ModeCounts:
    """The counts of mode labels (N,) int64, all of `n` samples unless given."""
    return ModeCounts(torch.bincount(labels, minlength=n_modes), len(labels), len(labels) if n is None else n)


def fisher_p_values(real: ModeCounts, fake: ModeCounts) -> Tensor:
    """Holm-corrected p-values of Fisher's exact test that a mode has equal shares, (K,) float64."""
    pairs = zip(real.per_mode.tolist(), fake.per_mode.tolist(), strict=True)
    p = [float(fisher_exact([[a, real.total - a], [f, fake.total - f]])[1]) for a, f in pairs]
    return holm_correction(torch.tensor(p, dtype=torch.float64))


def holm_correction(p_values: Tensor) -> Tensor:
    """Holm's step-down correction of p-values (K,): family-wise error under any dependence. Source: Holm 1979."""
    order = p_values.argsort(stable=True)
    factor = torch.arange(len(p_values), 0, -1, dtype=torch.float64)
    corrected = (p_values[order] * factor).cummax(0).values.clamp(max=1.0)
    return torch.empty_like(p_values).scatter_(0, order, corrected)


def find_missed(p_values: Tensor, real: ModeCounts, fake: ModeCounts) -> Tensor:
    """Which modes are missed, (K,) bool."""
    return (p_values < ALPHA) & (fake.shares < MISSING_RATIO * real.shares)


def lowest_covered(real: ModeCounts, fake: ModeCounts) -> int:
    """Modes whose share exceeds a quarter of the real one with family-wise confidence .95 (Clopper-Pearson)."""
    counts = fake.per_mode.double().numpy()
    low = beta.ppf(ALPHA / max(1, len(counts)), counts, fake.total - counts + 1)
    return int((torch.from_numpy(low).nan_to_num(0.0) > MISSING_RATIO * real.shares).sum())
