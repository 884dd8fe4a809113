"""Mode-seeking regularization: G is rewarded for outputs that change with z.

Source: Mao et al. 2019, arXiv:1903.05628, equation 4.

    L_ms = 1 / (d_x / d_z + 1e-5),   d_x = mean |G(z_1) - G(z_2)|, d_z = mean |z_1 - z_2|, weight 1

As in the authors' code, the inverse of the ratio is minimized; z_1 and z_2 are the two halves of a minibatch.
"""

from __future__ import annotations

from torch import Tensor

from gandiag.trainer.remedies.base import Remedy, TrainingBatch

WEIGHT, EPSILON = 1.0, 1e-5


def mode_seeking_penalty(batch: TrainingBatch) -> Tensor:
    """Return the penalty on G, a scalar > 0 that is large if outputs do not change with z."""
    half = len(batch.fake) // 2
    output_distance = (batch.fake[:half] - batch.fake[half : 2 * half]).abs().mean()
    latent_distance = (batch.z[:half] - batch.z[half : 2 * half]).abs().mean()
    return WEIGHT / (output_distance / latent_distance + EPSILON)


MODE_SEEKING = Remedy(
    "mode-seeking",
    "G is rewarded for outputs that change with z",
    "Mao et al. 2019, arXiv:1903.05628",
    generator_penalty=mode_seeking_penalty,
)
