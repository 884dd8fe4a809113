"""WGAN-GP: a critic with slope 1 between real and generated samples. Source: Gulrajani et al. 2017, arXiv:1704.00028, algorithm 1.

    L_D = E D(G(z)) - E D(x) + lambda · E (||grad D(x')||_2 - 1)²,   x' = e x + (1 - e) G(z), e ~ U[0, 1]
    L_G = -E D(G(z)),   lambda = 10, five steps of D per step of G

The optimiser stays the recipe's; the paper's is Adam with 1e-4, beta1 = 0 (0.5 in its toy code, with lambda = 0.1), beta2 = 0.9.
"""

from __future__ import annotations

from torch import Tensor

from gandiag.trainer.remedies.base import Loss, Remedy, TrainingBatch
from gandiag.trainer.remedies.gradient_penalty import squared_gradient_norm

PENALTY_WEIGHT, DISCRIMINATOR_STEPS = 10.0, 5


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    return fake.mean() - real.mean()


def generator_loss(real: Tensor, fake: Tensor) -> Tensor:
    return -fake.mean()


def gradient_penalty(batch: TrainingBatch) -> Tensor:
    """The gradient penalty of a minibatch, a scalar >= 0."""
    share = batch.draws(len(batch.real), *(1 for _ in batch.real.shape[1:]))
    between = share * batch.real + (1 - share) * batch.fake
    return PENALTY_WEIGHT * ((squared_gradient_norm(batch.critic, between) + 1e-12).sqrt() - 1).square().mean()


WGAN_GP = Remedy(
    "wgan-gp",
    "a critic of slope 1 in place of a classifier",
    "Gulrajani et al. 2017, arXiv:1704.00028",
    loss=Loss("wasserstein", discriminator_loss, generator_loss),
    discriminator_penalty=gradient_penalty,
    discriminator_steps=DISCRIMINATOR_STEPS,
)
