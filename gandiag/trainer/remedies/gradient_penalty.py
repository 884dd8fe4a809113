"""Squared norm of the discriminator's input gradient, shared by R1, R2 and WGAN-GP."""

from __future__ import annotations

import torch
from torch import Tensor

from gandiag.trainer.remedies.base import DiscriminatorFn


def squared_gradient_norm(discriminator: DiscriminatorFn, samples: Tensor) -> Tensor:
    """Return ||d D(x_i) / d x_i||², (B,), differentiable by D's parameters and by the samples."""
    x = samples if samples.requires_grad else samples.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)
    return gradient.flatten(1).square().sum(1)
