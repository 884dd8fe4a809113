"""The share of noise inputs in the variance, where it is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gandiag.probes.noise_variance import NoiseVariance
from gandiag.record import Measurement

Z = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
W = torch.randn(8, 300, generator=torch.Generator().manual_seed(1)) / 8**0.5  # every output value has variance 1 over z


def share(noise: float, latent: float, probe: NoiseVariance | None = None) -> Measurement:
    def forward(point: int, indices: Tensor) -> Tensor:
        drawn = torch.stack(
            [torch.randn(300, generator=torch.Generator().manual_seed(int(index) + 1_000)) for index in indices]
        )
        return latent * (Z[point] @ W) + noise * drawn

    return (probe or NoiseVariance()).measure(forward).measurements["noise_share"]


@pytest.mark.parametrize("noise, latent", [(0.1, 1.0), (1.0, 1.0), (3.0, 1.0)])
def test_the_share_is_that_of_the_variances(noise: float, latent: float) -> None:
    """Within four standard errors; that of the variance over 32 latents of 8 normal terms is sqrt(2 / (31 * 8)) = 9 %.

    It acts on the share as 9 % of share (1 - share).
    """
    truth = noise**2 / (noise**2 + latent**2)
    found = share(noise, latent)
    assert found.value == pytest.approx(truth, abs=4 * 0.09 * truth * (1 - truth) + 0.005)
    assert (
        found.low is not None
        and found.high is not None
        and found.low <= found.value <= found.high
        and found.better == "lower"
    )


def test_the_ends_are_exact() -> None:
    assert share(0.0, 1.0).value == 0.0
    assert share(1.0, 0.0).value == pytest.approx(1.0, abs=0.02)  # what is left between the latents' means is cut at 0
    dead = share(0.0, 0.0)
    assert dead.value is None and "whatever latent and noise" in (dead.reason or "")


def test_interval_covers() -> None:
    """95 % intervals of share 1/2 for 20 other sets of latents: at most 5 misses (p < .003 at 5 %)."""

    def once(seed: int) -> Measurement:
        rng = torch.Generator().manual_seed(seed)
        z = torch.randn(32, 8, generator=rng)
        return (
            NoiseVariance()
            .measure(lambda point, rows: z[point] @ W + torch.randn(len(rows), 300, generator=rng))
            .measurements["noise_share"]
        )

    found = [once(seed) for seed in range(20)]
    true = float((W.square().sum(0)).mean())  # the variance over z of these very maps
    assert sum(not (entry.low or 0.0) <= 1 / (1 + true) <= (entry.high or 0.0) for entry in found) <= 5
