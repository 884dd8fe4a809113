"""Does a conditional generator listen to its class? The same latents under every class, against different latents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gandiag.interfaces import MetricResult
from gandiag.record import Measurement


@dataclass(frozen=True, slots=True)
class Conditioning:
    """The probe. `points` latents, at most `classes` classes. Cost: points x classes samples."""

    n_latents: int = 32
    max_classes: int = 16
    key: str = "conditioning"

    def measure(self, forward: Callable[[Tensor, Tensor], Tensor], prior_samples: Tensor, classes: int) -> MetricResult:
        """`forward`: latents (N, …), labels (N,) -> samples (N, …); `base`: (>= points, …) draws of the prior.

        class_response: mean distance between the outputs of one z under two classes, relative to the mean distance between
        outputs of different z under different classes. Near 0: the class is ignored. A generator whose z is ignored shows in
        `z_ignored`. Below 1 is normal: z carries what classes share.
        """
        points = prior_samples[: self.n_latents]
        used = sorted(
            {round(label) for label in torch.linspace(0, classes - 1, min(classes, self.max_classes)).tolist()}
        )  # K labels
        if len(used) < 2:
            return MetricResult({"class_response": Measurement.missing("there is one class")})
        made = torch.stack(
            [forward(points, torch.full((len(points),), label)).flatten(1).float().cpu() for label in used]
        )  # (K, P, D)
        same_z = torch.stack([mean_pairwise_distance(made[:, i]) for i in range(made.shape[1])])  # (P,)
        rolled = torch.stack([made[k].roll(k + 1, dims=0) for k in range(len(used))])  # different z in every row
        other_z = torch.stack([mean_pairwise_distance(rolled[:, i]) for i in range(made.shape[1])]).mean()
        if float(other_z) <= 0:
            return MetricResult({"class_response": Measurement.missing("every output is the same")})
        ratio = same_z / other_z
        middle, error = float(ratio.mean()), 1.96 * float(ratio.std()) / len(ratio) ** 0.5
        return MetricResult(
            {
                "class_response": Measurement(
                    middle, max(0.0, middle - error), middle + error, unit="ratio", better="higher", n=len(ratio)
                )
            }
        )


def mean_pairwise_distance(rows: Tensor) -> Tensor:
    """Mean distance between the rows of (K, D)."""
    return torch.pdist(rows).mean()
