"""Adam on one flat vector: the forward step, and its vector-Jacobian product for unrolling.

The networks of this trainer are small, so Python and dispatch cost more than arithmetic: one flat vector replaces an
update per tensor. Source: Kingma & Ba 2015, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class AdamSettings:
    """Step size and decay rates, as in the paper. `eps` is added outside the square root."""

    lr: float = 1e-4
    beta1: float = 0.5
    beta2: float = 0.999
    eps: float = 1e-8


class AdamState(NamedTuple):
    """Parameters and both moments, each (P,), and the number of steps taken."""

    theta: Tensor
    first_moment: Tensor
    second_moment: Tensor
    steps: int

    @classmethod
    def from_parameters(cls, theta: Tensor) -> AdamState:
        """Return the state before the first step."""
        return cls(theta, torch.zeros_like(theta), torch.zeros_like(theta), 0)


def adam_step(state: AdamState, gradient: Tensor, settings: AdamSettings) -> AdamState:
    """Take one step of descent. Returns new tensors; the old state stays valid."""
    steps = state.steps + 1
    first = torch.lerp(gradient, state.first_moment, settings.beta1)
    second = (state.second_moment * settings.beta2).addcmul_(gradient, gradient, value=1 - settings.beta2)
    scale = second.mul(1 / (1 - settings.beta2**steps)).sqrt_().add_(settings.eps)
    rate = settings.lr / (1 - settings.beta1**steps)
    return AdamState(torch.addcdiv(state.theta, first, scale, value=-rate), first, second, steps)


class AdamStateGradient(NamedTuple):
    """Derivatives of a loss by the parts of a state, each (P,)."""

    theta: Tensor
    first_moment: Tensor
    second_moment: Tensor


def adam_step_vjp(
    new_state: AdamState, gradient: Tensor, settings: AdamSettings, state_gradient: AdamStateGradient
) -> tuple[AdamStateGradient, Tensor]:
    """Map derivatives by the state after a step to those by the state before it, and by the step's gradient (P,).

    With m, v the new moments, r = sqrt(v / (1 - beta2^t)) and theta' = theta - a m / (r + eps), a = lr / (1 - beta1^t):
    dtheta'/dm = -a / (r + eps) and dtheta'/dv = a m / (r + eps)^2 / (2 r (1 - beta2^t)). Where r is 0, the gradient has
    always been 0, so m is 0 and the second term tends to 0; autograd returns NaN there.
    """
    correction = 1 - settings.beta2**new_state.steps
    rate = settings.lr / (1 - settings.beta1**new_state.steps)
    root = new_state.second_moment.mul(1 / correction).sqrt_()
    scaled = state_gradient.theta / (root + settings.eps)
    first = torch.add(state_gradient.first_moment, scaled, alpha=-rate)
    by_second = scaled.mul_(new_state.first_moment).div_(
        (root + settings.eps).mul_(root.clamp_min_(torch.finfo(root.dtype).tiny))
    )
    second = torch.add(state_gradient.second_moment, by_second.nan_to_num_(0.0), alpha=rate / (2 * correction))
    by_gradient = first.mul(1 - settings.beta1).addcmul_(second, gradient, value=2 * (1 - settings.beta2))
    return AdamStateGradient(state_gradient.theta, first.mul_(settings.beta1), second.mul_(settings.beta2)), by_gradient
