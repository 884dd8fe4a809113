"""RpGAN with R1 and R2, the loss of R3GAN: D ranks pairs of real and generated samples.

Source: Huang et al. 2024, arXiv:2501.05441, equations 2 and 3. Pairs are formed in minibatch order.

L_D = E softplus(-(D(x) - D(G(z)))) + gamma / 2 · E ||grad D(x)||² + gamma / 2 · E ||grad D(G(z))||²
L_G = E softplus(-(D(G(z)) - D(x)))
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus

from gandiag.trainer.remedies.base import Loss, Remedy, TrainingBatch
from gandiag.trainer.remedies.gradient_penalty import squared_gradient_norm

GAMMA = 1.0


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """E softplus(-(D(x) - D(G(z)))) of paired logits (B, 1)."""
    return softplus(fake - real).mean()


def generator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """E softplus(-(D(G(z)) - D(x))) of paired logits (B, 1)."""
    return softplus(real - fake).mean()


def r1_r2_penalty(batch: TrainingBatch) -> Tensor:
    """Return R1 + R2 of a minibatch, a scalar >= 0."""
    r1 = squared_gradient_norm(batch.discriminator, batch.real).mean()
    r2 = squared_gradient_norm(batch.discriminator, batch.fake).mean()
    return GAMMA / 2 * (r1 + r2)


RELATIVISTIC = Remedy(
    "relativistic",
    "D ranks real against generated samples, with gradient penalties at both",
    "Huang et al. 2024, arXiv:2501.05441",
    loss=Loss("relativistic", discriminator_loss, generator_loss, "relativistic"),
    discriminator_penalty=r1_r2_penalty,
)
