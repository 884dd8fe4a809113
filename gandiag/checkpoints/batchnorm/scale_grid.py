"""At which scale of the latents does a layer receive the variances that a batch norm remembers?"""

from __future__ import annotations

import torch
from torch import Tensor

SCALE_GRID = tuple(2 ** (step / 2) for step in range(-16, 9))  # 1/256 to 16


def interpolate_scales(variances: Tensor, target_variances: Tensor) -> Tensor:
    """Logarithm of the scale at which each channel has the variance `told` (C,), by interpolation in `variances` (S, C) at SCALES; infinite where
    none has."""
    logs = torch.tensor(SCALE_GRID, dtype=torch.float64).log()
    grown = variances.double().clamp_min(1e-300).log()
    target = target_variances.cpu().double().clamp_min(1e-300).log()
    above = (grown >= target).double().argmax(0)  # the first scale that reaches it, 0 where none does or all do
    low = (above - 1).clamp_min(0)
    rows = torch.arange(grown.shape[1])
    before, behind = grown[low, rows], grown[above, rows]
    share = (target - before) / (behind - before).clamp_min(1e-12)
    found = logs[low] + share * (logs[above] - logs[low])
    return torch.where(above > 0, found, torch.inf)
