"""Adam on one flat vector: a step forward, and the step's adjoint, which is what unrolling needs.

Networks of the reference trainer are small, so that Python and dispatch cost more than arithmetic: one vector in place of one
update per tensor. Source: Kingma & Ba 2015, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class AdamSettings:
    """Step size and decays, as in the paper. `eps` is added to the root, outside of it."""

    lr: float = 1e-4
    beta1: float = 0.5
    beta2: float = 0.999
    eps: float = 1e-8


class AdamState(NamedTuple):
    """Parameters and both moments, each (P,), and how many steps were taken."""

    theta: Tensor
    first: Tensor
    second: Tensor
    steps: int

    @classmethod
    def start(cls, theta: Tensor) -> AdamState:
        return cls(theta, torch.zeros_like(theta), torch.zeros_like(theta), 0)


def advance(state: AdamState, gradient: Tensor, ask: AdamSettings) -> AdamState:
    """One step of descent; new tensors, the old state stays valid."""
    steps = state.steps + 1
    first = torch.lerp(gradient, state.first, ask.beta1)
    second = (state.second * ask.beta2).addcmul_(gradient, gradient, value=1 - ask.beta2)
    scale = second.mul(1 / (1 - ask.beta2**steps)).sqrt_().add_(ask.eps)
    return AdamState(torch.addcdiv(state.theta, first, scale, value=-ask.lr / (1 - ask.beta1**steps)), first, second, steps)


class Adjoint(NamedTuple):
    """Derivatives of a loss by the parts of a state, each (P,)."""

    theta: Tensor
    first: Tensor
    second: Tensor


def pull_back(after: AdamState, gradient: Tensor, ask: AdamSettings, behind: Adjoint) -> tuple[Adjoint, Tensor]:
    """From derivatives by the state after a step to those by the state before it, and by the step's gradient (P,).

    With m, v the new moments, r = sqrt(v / (1 - beta2^t)) and theta' = theta - a m / (r + eps), a = lr / (1 - beta1^t):
    dtheta'/dm = -a / (r + eps) and dtheta'/dv = a m / (r + eps)^2 / (2 r (1 - beta2^t)). Where r is 0 the gradient has always
    been 0, m is 0 too, and so is the limit of the second term; autograd says NaN there.
    """
    correction = 1 - ask.beta2**after.steps
    rate = ask.lr / (1 - ask.beta1**after.steps)
    root = after.second.mul(1 / correction).sqrt_()
    pulled = behind.theta / (root + ask.eps)
    first = torch.add(behind.first, pulled, alpha=-rate)
    bend = pulled.mul_(after.first).div_((root + ask.eps).mul_(root.clamp_min_(torch.finfo(root.dtype).tiny)))
    second = torch.add(behind.second, bend.nan_to_num_(0.0), alpha=rate / (2 * correction))
    by_gradient = first.mul(1 - ask.beta1).addcmul_(second, gradient, value=2 * (1 - ask.beta2))
    return Adjoint(behind.theta, first.mul_(ask.beta1), second.mul_(ask.beta2)), by_gradient
