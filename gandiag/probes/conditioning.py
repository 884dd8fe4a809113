"""Measures whether a conditional generator follows its class: equal latents under every class, against other ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gandiag.interfaces import MetricResult
from gandiag.record import Measurement


@dataclass(frozen=True, slots=True)
class Conditioning:
    """The probe's parameters: latents, and classes at most. Cost: n_latents x classes samples."""

    n_latents: int = 32
    max_classes: int = 16
    key: str = "conditioning"

    def measure(self, forward: Callable[[Tensor, Tensor], Tensor], prior_samples: Tensor, classes: int) -> MetricResult:
        """Compare outputs under different classes, for equal and for different latents.

        `forward`: latents (N, …), labels (N,) -> samples (N, …). `prior_samples`: (>= n_latents, …) draws of the prior.

        class_response: mean distance between the outputs of one z under two classes, relative to the mean distance
        between outputs of different z under different classes. Near 0 the class is ignored; whether z is ignored is
        measured by `z_ignored`. Below 1 is normal: z determines what the classes share.
        """
        latents = prior_samples[: self.n_latents]  # (P, …)
        spaced = torch.linspace(0, classes - 1, min(classes, self.max_classes)).tolist()
        labels = sorted({round(label) for label in spaced})  # K of them
        if len(labels) < 2:
            return MetricResult({"class_response": Measurement.missing("there is only one class")})
        outputs = torch.stack(
            [forward(latents, torch.full((len(latents),), label)).flatten(1).float().cpu() for label in labels]
        )  # (K, P, D)
        same_z = _mean_distances(outputs)  # (P,)
        rolled = torch.stack([rows.roll(k + 1, dims=0) for k, rows in enumerate(outputs)])  # another z for every class
        other_z = _mean_distances(rolled).mean()
        if float(other_z) <= 0:
            return MetricResult({"class_response": Measurement.missing("all outputs are the same")})
        ratio = same_z / other_z
        mean, error = float(ratio.mean()), 1.96 * float(ratio.std()) / len(ratio) ** 0.5
        measurement = Measurement(
            mean, max(0.0, mean - error), mean + error, unit="ratio", better="higher", n=len(ratio)
        )
        return MetricResult({"class_response": measurement})


def _mean_distances(outputs: Tensor) -> Tensor:
    """Mean distance between the K rows of each position: (K, P, D) -> (P,)."""
    return torch.stack([mean_pairwise_distance(outputs[:, i]) for i in range(outputs.shape[1])])


def mean_pairwise_distance(rows: Tensor) -> Tensor:
    """Mean distance between the rows of (K, D)."""
    return torch.pdist(rows).mean()
