"""Measures the share of noise inputs in the output's variance: equal latents under several draws of the noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gandiag.interfaces import MetricResult
from gandiag.record import Measurement

MAX_OUTPUT_VALUES = 1 << 16  # output values that are used, evenly spaced over the sample


@dataclass(frozen=True, slots=True)
class NoiseVariance:
    """The probe's parameters: latents, and draws of the noise for each. Cost: n_latents x n_noise_draws samples."""

    n_latents: int = 32
    n_noise_draws: int = 4
    key: str = "noise_share"

    def measure(self, forward: Callable[[int, Tensor], Tensor]) -> MetricResult:
        """`forward(i, indices)`: latent i under the noise of the samples `indices` (K,) -> samples (K, ...).

        noise_share: variance of an output value over noise at a fixed latent / its variance over latents and noise,
        both summed over the values. 0: no noise; 1: the latent has no effect. From the analysis of variance with one
        random factor: the variance of the latents' means contains 1/K of the noise variance, which is subtracted. The
        interval is a jackknife over latents. Reads high where fine texture is noise by design, and where the latents
        have collapsed.
        """
        noise, centers = self._moments(forward)
        value = self._share(noise, centers)
        if value is None:
            return MetricResult({self.key: Measurement.missing("all outputs are the same, whatever latent and noise")})
        shares = []
        for point in range(self.n_latents):
            others = torch.arange(self.n_latents) != point
            share = self._share(noise[others], centers[others])
            shares.append(value if share is None else share)
        left_out = torch.tensor(shares, dtype=torch.float64)
        error = 1.96 * float(((self.n_latents - 1) * left_out.var(unbiased=False)).sqrt())
        measurement = Measurement(
            value,
            max(0.0, value - error),
            min(1.0, value + error),
            None,
            "share of the variance",
            "lower",
            self.n_latents * self.n_noise_draws,
            reason=f"{self.n_latents} latents, {self.n_noise_draws} draws of the noise inputs each",
        )
        return MetricResult({self.key: measurement})

    def _moments(self, forward: Callable[[int, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Of each latent, over the noise: mean variance of an output value (P,), and mean output (P, D)."""
        variances, means = [], []
        for point in range(self.n_latents):
            indices = torch.arange(self.n_noise_draws) + point * self.n_noise_draws
            outputs = forward(point, indices).flatten(1)  # (K, D)
            outputs = outputs[:, :: max(1, outputs.shape[1] // MAX_OUTPUT_VALUES)].double().cpu()
            variances.append(outputs.var(0).mean())
            means.append(outputs.mean(0))
        return torch.stack(variances), torch.stack(means)

    def _share(self, noise: Tensor, centers: Tensor) -> float | None:
        """Share of the noise in the variance; None where nothing varies."""
        within = float(noise.mean())
        between = max(0.0, float(centers.var(0).mean()) - within / self.n_noise_draws)
        return within / (within + between) if within + between > 0 else None
