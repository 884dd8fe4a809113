"""WGAN-GP: a critic whose gradient has norm 1 between real and generated samples.

Source: Gulrajani et al. 2017, arXiv:1704.00028, algorithm 1.

    L_D = E D(G(z)) - E D(x) + lambda · E (||grad D(x')||_2 - 1)²,   x' = e x + (1 - e) G(z), e ~ U[0, 1]
    L_G = -E D(G(z)),   lambda = 10, five steps of D per step of G

The optimizer stays the recipe's; the paper uses Adam with 1e-4, beta1 = 0 (0.5 in its toy code, with lambda = 0.1) and
beta2 = 0.9.
"""

from __future__ import annotations

from torch import Tensor

from gandiag.trainer.remedies.base import Loss, Remedy, TrainingBatch
from gandiag.trainer.remedies.gradient_penalty import squared_gradient_norm

PENALTY_WEIGHT, DISCRIMINATOR_STEPS = 10.0, 5
EPSILON = 1e-12  # under the square root, whose derivative at 0 is infinite


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """E D(G(z)) - E D(x) of outputs (B, 1)."""
    return fake.mean() - real.mean()


def generator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """-E D(G(z)) of outputs (B, 1)."""
    return -fake.mean()


def gradient_penalty(batch: TrainingBatch) -> Tensor:
    """Return the gradient penalty of a minibatch, a scalar >= 0."""
    mix = batch.uniform(len(batch.real), *(1 for _ in batch.real.shape[1:]))
    between = mix * batch.real + (1 - mix) * batch.fake
    norm = (squared_gradient_norm(batch.discriminator, between) + EPSILON).sqrt()
    return PENALTY_WEIGHT * (norm - 1).square().mean()


WGAN_GP = Remedy(
    "wgan-gp",
    "a critic with gradient norm 1 in place of a classifier",
    "Gulrajani et al. 2017, arXiv:1704.00028",
    loss=Loss("wasserstein", discriminator_loss, generator_loss, "wasserstein"),
    discriminator_penalty=gradient_penalty,
    discriminator_steps=DISCRIMINATOR_STEPS,
    compare_by_default=False,  # five times the cost, and other optimizer settings than the comparison's
)
