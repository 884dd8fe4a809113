"""Unrolled GAN: G descends the loss that D will have after K more of its own steps. Source: Metz et al. 2016, arXiv:1611.02163.

    theta_D^0 = theta_D,   theta_D^{k+1} = Adam(theta_D^k, d f(theta_G, theta_D^k) / d theta_D^k)            equations 6 to 8
    f_K(theta_G, theta_D) = f(theta_G, theta_D^K(theta_G, theta_D))                                          equation 9
    d f_K / d theta_G = df/dtheta_G  +  df/dtheta_D^K · dtheta_D^K/dtheta_G                                  equation 12

The minibatch is the same in all K steps, the optimiser that is unrolled is D's Adam with its moments, and D itself takes only the
first of the K steps. The second term of equation 12 is what makes it more than K steps of D per step of G. It is
accumulated backwards, one step at a time: the adjoint of Adam (`adam.pull_back`), then the derivative of D's
gradient by theta_D^k and by the generated minibatch (`slopes.py`). Cost: K (forward + double backward) of D.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gandiag.trainer.remedies.base import Remedy
from gandiag.trainer.unrolling.adam import AdamSettings, AdamState, AdamStateGradient, adam_step, adam_step_vjp
from gandiag.trainer.unrolling.hvp import DiscriminatorGradients

UNROLLED = Remedy(
    "unrolled", "G looks ahead through K steps of D's optimiser", "Metz et al. 2016, arXiv:1611.02163", unroll_steps=10
)


class UnrolledGradients(NamedTuple):
    """What a look ahead found: both losses, dL_G/dfake (B, *shape), and D after its first step."""

    loss_d: float
    loss_g: float
    fake_gradient: Tensor
    first_state: AdamState


def unroll_discriminator(
    gradients: DiscriminatorGradients, initial_state: AdamState, steps: int, settings: AdamSettings
) -> UnrolledGradients:
    """G's loss after `steps` >= 1 steps of D from `start`, and its whole derivative by the generated minibatch."""
    state, taken = initial_state, []
    for _ in range(steps):
        slope = gradients.discriminator_gradient(state)
        state = adam_step(state, slope.gradient, settings)
        taken.append((slope, state))
    loss_g, theta, by_fake = gradients.generator_gradient(state)
    behind = AdamStateGradient(theta, torch.zeros_like(theta), torch.zeros_like(theta))
    for slope, after in reversed(taken):  # the second term, from the last step to the first
        behind, by_gradient = adam_step_vjp(after, slope.gradient, settings, behind)
        more_theta, more_fake = slope.vjp(by_gradient)
        behind, by_fake = behind._replace(theta=behind.theta + more_theta), by_fake + more_fake
    return UnrolledGradients(taken[0][0].loss(), loss_g, by_fake, taken[0][1])
