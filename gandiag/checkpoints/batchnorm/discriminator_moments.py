"""Do a discriminator's batch norms receive what their running statistics say? They saw real and generated minibatches in turn."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gandiag.checkpoints.batchnorm.moments import enable_dropout

_SHARES = 21  # of the real minibatches among all, tried from 0 to 1


def discriminator_mismatch(module: nn.Module, real: Tensor, fake: Tensor) -> float:
    """Mean over batch norms of |Δmean| / sigma + |log variance ratio|, at the share of real minibatches that fits best.

    real, fake: (B, *shape), normalised apart as they are in training. 0 is exact; reads high where real and generated samples are no
    longer those of the last training steps. Cost: two forwards of B.
    """
    sides = [_moments(module, real), _moments(module, fake)]
    stored = [norm for norm in module.modules() if isinstance(norm, nn.modules.batchnorm._BatchNorm)]
    table = torch.zeros(_SHARES, len(stored), dtype=torch.float64)
    share = torch.linspace(0, 1, _SHARES, dtype=torch.float64)[:, None]  # (S, 1)
    for place, norm in enumerate(stored):
        (mean_real, var_real), (mean_fake, var_fake) = sides[0][place], sides[1][place]
        assert norm.running_mean is not None and norm.running_var is not None
        sigma = norm.running_var.double() + 1e-12
        shift = (
            (share * mean_real + (1 - share) * mean_fake - norm.running_mean.double()).abs() / sigma.sqrt()
        ).clamp_max(10)
        stretch = ((share * var_real + (1 - share) * var_fake + 1e-12) / sigma).log().abs().clamp_max(10)
        table[:, place] = (shift + stretch).mean(1)
    found = table.mean(1)
    return float(found.min()) if bool(torch.isfinite(found).all()) else 1e9


def _moments(module: nn.Module, x: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Mean and variance (C,) that each batch norm receives, every one handing on what it makes of the batch's own statistics."""
    found: list[tuple[Tensor, Tensor]] = []

    def note(norm: nn.Module, given: tuple[Tensor, ...], _: Tensor) -> Tensor:
        assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
        values = given[0].detach().transpose(0, 1).flatten(1).double()  # (C, B * positions)
        found.append((values.mean(1), values.var(1)))
        return torch.nn.functional.batch_norm(given[0], None, None, norm.weight, norm.bias, True, 0.0, norm.eps)

    hooks = [
        part.register_forward_hook(note)
        for part in module.modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm)
    ]
    try:
        with torch.no_grad(), enable_dropout(module):
            module(x)
    finally:
        for hook in hooks:
            hook.remove()
    return found
