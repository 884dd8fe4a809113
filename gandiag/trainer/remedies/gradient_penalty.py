"""The squared norm of D's gradient by its input: what R1, R2 and WGAN-GP are made of."""

from __future__ import annotations

import torch
from torch import Tensor

from gandiag.trainer.remedies.base import DiscriminatorFn


def squared_gradient_norm(discriminator: DiscriminatorFn, samples: Tensor) -> Tensor:
    """||d D(x_i) / d x_i||², (B,), differentiable by D's parameters and by the samples."""
    x = samples if samples.requires_grad else samples.detach().requires_grad_()
    (slope,) = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)
    return slope.flatten(1).square().sum(1)
