"""The two classical losses, and the baseline without a remedy.

Source: Goodfellow et al. 2014, Generative Adversarial Nets, equation 1 and section 3. With the logit l(x) and
D(x) = sigmoid(l(x)): -log sigmoid(l) = softplus(-l), and -log(1 - sigmoid(l)) = softplus(l).
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus

from gandiag.trainer.remedies.base import Loss, Remedy


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """-E log D(x) - E log(1 - D(G(z))) of logits (B, 1): a scalar, 2 log 2 for an uninformed D."""
    return softplus(-real).mean() + softplus(fake).mean()


def minimax_loss(real: Tensor, fake: Tensor) -> Tensor:
    """G's loss in the original minimax game, -discriminator_loss.

    The real term matters when D's parameters depend on G, as they do with unrolling.
    """
    return -discriminator_loss(real, fake)


def non_saturating_loss(real: Tensor, fake: Tensor) -> Tensor:
    """-E log D(G(z)): the same fixed point, but the gradient does not vanish where D is confident."""
    return softplus(-fake).mean()


MINIMAX = Loss("minimax", discriminator_loss, minimax_loss, "bce")
NON_SATURATING = Loss("non-saturating", discriminator_loss, non_saturating_loss, "bce")
LOSSES = {loss.name: loss for loss in (MINIMAX, NON_SATURATING)}

NONE = Remedy("none", "no remedy: the recipe as it is", "Goodfellow et al. 2014, arXiv:1406.2661")
