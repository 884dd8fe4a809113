"""Mode-seeking regularisation: G is rewarded where its output moves with z. Source: Mao et al. 2019, arXiv:1903.05628, equation 4.

    L_ms = 1 / (d_x / d_z + 1e-5),   d_x = mean |G(z_1) - G(z_2)|, d_z = mean |z_1 - z_2|, weight 1

As in the authors' code, which minimises the inverse of the ratio; the two halves of a minibatch are z_1 and z_2.
"""

from __future__ import annotations

from torch import Tensor

from gandiag.trainer.remedies.base import Remedy, TrainingBatch

WEIGHT, EPSILON = 1.0, 1e-5


def mode_seeking_penalty(batch: TrainingBatch) -> Tensor:
    """What is added to G's loss, a scalar > 0; large where outputs do not move."""
    half = len(batch.fake) // 2
    moved = (batch.fake[:half] - batch.fake[half : 2 * half]).abs().mean()
    asked = (batch.z[:half] - batch.z[half : 2 * half]).abs().mean()
    return WEIGHT / (moved / asked + EPSILON)


MODE_SEEKING = Remedy(
    "mode-seeking",
    "G is rewarded for moving with z",
    "Mao et al. 2019, arXiv:1903.05628",
    generator_penalty=mode_seeking_penalty,
)
