"""R1: penalizes D's gradient at real samples.

Source: Mescheder et al. 2018, arXiv:1801.04406, equation 9: R_1 = gamma / 2 · E_data ||grad_x D(x)||², gamma = 10.
"""

from __future__ import annotations

from torch import Tensor

from gandiag.trainer.remedies.base import Remedy, TrainingBatch
from gandiag.trainer.remedies.gradient_penalty import squared_gradient_norm

GAMMA = 10.0


def r1_penalty(batch: TrainingBatch) -> Tensor:
    """Return R1 of a minibatch, a scalar >= 0."""
    return GAMMA / 2 * squared_gradient_norm(batch.discriminator, batch.real).mean()


R1 = Remedy(
    "r1",
    "gradient penalty on D at real samples",
    "Mescheder et al. 2018, arXiv:1801.04406",
    discriminator_penalty=r1_penalty,
)
