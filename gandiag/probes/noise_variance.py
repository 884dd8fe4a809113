"""How much of the output is noise? The same latents under fresh noise inputs, so that noise is not taken for variety."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gandiag.interfaces import MetricResult
from gandiag.record import Measurement

MAX_OUTPUT_VALUES = 1 << 16  # output values that are looked at, evenly spread over the sample


@dataclass(frozen=True, slots=True)
class NoiseVariance:
    """The probe. `points` latents, each under `draws` draws of the noise. Cost: points x draws samples."""

    n_latents: int = 32
    n_noise_draws: int = 4
    key: str = "noise_share"

    def measure(self, forward: Callable[[int, Tensor], Tensor]) -> MetricResult:
        """`forward(i, indices)`: latent i under the noise of the samples `indices` (K,) -> samples (K, ...).

        noise_share: variance of an output value over noise at a fixed latent / its variance over latents and noise, both
        summed over the values; 0: no noise, 1: the latent does nothing. From the analysis of variance with one random
        factor: the variance of the latents' means contains a K-th of the noise's, which is taken out. The interval is a
        jackknife over latents. Reads high where fine texture is noise by design, and where the latents have collapsed.
        """
        within, means = [], []
        for point in range(self.n_latents):
            made = forward(point, torch.arange(self.n_noise_draws) + point * self.n_noise_draws).flatten(1)  # (K, D)
            made = made[:, :: max(1, made.shape[1] // MAX_OUTPUT_VALUES)].double().cpu()
            within.append(made.var(0).mean())
            means.append(made.mean(0))
        noise, centres = torch.stack(within), torch.stack(means)  # (P,), (P, D)
        left_out = [torch.arange(self.n_latents) != point for point in range(self.n_latents)]
        value = self._share(noise, centres)
        if value is None:
            return MetricResult({self.key: Measurement.missing("every output is the same, whatever latent and noise")})
        others = torch.tensor(
            [value if (part := self._share(noise[kept], centres[kept])) is None else part for kept in left_out],
            dtype=torch.float64,
        )
        error = 1.96 * float(((self.n_latents - 1) * others.var(unbiased=False)).sqrt())
        reason = f"{self.n_latents} latents, {self.n_noise_draws} draws of the noise inputs each"
        return MetricResult(
            {
                self.key: Measurement(
                    value,
                    max(0.0, value - error),
                    min(1.0, value + error),
                    None,
                    "share of the variance",
                    "lower",
                    self.n_latents * self.n_noise_draws,
                    reason=reason,
                )
            }
        )

    def _share(self, noise: Tensor, centres: Tensor) -> float | None:
        inside = float(noise.mean())
        between = max(0.0, float(centres.var(0).mean()) - inside / self.n_noise_draws)
        return inside / (inside + between) if inside + between > 0 else None
