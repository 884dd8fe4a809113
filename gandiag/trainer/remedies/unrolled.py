"""Unrolled GAN: G descends the loss that D will have after K more optimizer steps.

Source: Metz et al. 2016, arXiv:1611.02163.

    theta_D^0 = theta_D,   theta_D^{k+1} = Adam(theta_D^k, d f(theta_G, theta_D^k) / d theta_D^k)     equations 6 to 8
    f_K(theta_G, theta_D) = f(theta_G, theta_D^K(theta_G, theta_D))                                   equation 9
    d f_K / d theta_G = df/dtheta_G  +  df/dtheta_D^K · dtheta_D^K/dtheta_G                           equation 12

All K steps use the same minibatch, the unrolled optimizer is D's Adam with its moments, and D itself takes only the
first of the K steps. The second term of equation 12 is what distinguishes unrolling from K steps of D per step of G.
It is accumulated backward, one step at a time: the vector-Jacobian product of Adam (`unrolling/adam.py`), then the
derivative of D's gradient by theta_D^k and by the generated minibatch (`unrolling/hvp.py`). Cost: K (forward + double
backward) of D.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gandiag.trainer.remedies.base import Remedy
from gandiag.trainer.unrolling.adam import AdamSettings, AdamState, AdamStateGradient, adam_step, adam_step_vjp
from gandiag.trainer.unrolling.hvp import DiscriminatorGradients

UNROLLED = Remedy(
    "unrolled",
    "G differentiates through K steps of D's optimizer",
    "Metz et al. 2016, arXiv:1611.02163",
    unroll_steps=10,
)


class UnrolledGradients(NamedTuple):
    """Both losses, dL_G/dfake (B, *shape), and D's state after its first unrolled step."""

    loss_d: float
    loss_g: float
    fake_gradient: Tensor
    first_state: AdamState


def unroll_discriminator(
    gradients: DiscriminatorGradients, initial_state: AdamState, steps: int, settings: AdamSettings
) -> UnrolledGradients:
    """Return G's loss after `steps` >= 1 steps of D, and its total derivative by the generated minibatch."""
    state, history = initial_state, []
    for _ in range(steps):
        point = gradients.discriminator_gradient(state)
        state = adam_step(state, point.gradient, settings)
        history.append((point, state))
    loss_g, by_theta, by_fake = gradients.generator_gradient(state)
    by_state = AdamStateGradient(by_theta, torch.zeros_like(by_theta), torch.zeros_like(by_theta))
    for point, next_state in reversed(history):  # the second term of equation 12, from the last step to the first
        by_state, by_gradient = adam_step_vjp(next_state, point.gradient, settings, by_state)
        theta_term, fake_term = point.vjp(by_gradient)
        by_state, by_fake = by_state._replace(theta=by_state.theta + theta_term), by_fake + fake_term
    first_point, first_state = history[0]
    return UnrolledGradients(first_point.loss(), loss_g, by_fake, first_state)
