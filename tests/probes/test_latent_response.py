"""A generator may vary by noise of its own while z has no effect."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import gandiag
from gandiag.probes.latent_response import measure_latent_response

LATENTS = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))


def respond(share: float, *, fixed: bool = True) -> float | None:
    """The response of an output of which z has `share` of the amplitude, under fixed or fresh noise."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(64, 4, generator=generator)

    def forward(z: Tensor) -> Tensor:
        own = noise if fixed else torch.randn(64, 4, generator=generator)
        return share * z + (1 - share**2) ** 0.5 * own

    return measure_latent_response(forward, LATENTS).measurements["latent_response"].value


def test_the_share_of_z_is_recovered_under_fixed_and_fresh_noise() -> None:
    assert respond(1.0) == 1.0 and respond(0.0) == 0.0
    assert abs(respond(0.6) - 0.6) < 0.1 and abs(respond(0.6, fixed=False) - 0.6) < 0.15
    assert respond(0.0, fixed=False) < 0.5  # two draws of noise among 64 latents hide a response of this size
    constant = measure_latent_response(torch.zeros_like, LATENTS).measurements["latent_response"]
    assert constant.value is None and "every output is the same" in constant.reason


class OwnNoise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(16))

    def forward(self, z: Tensor) -> Tensor:
        return self.weight * torch.randn(len(z), 16)


def test_a_network_that_ignores_z_is_not_said_to_follow_it() -> None:
    record = gandiag.audit(OwnNoise(), latent_dim=4, n=100, exhibits=False)
    found = {finding.rule: finding for finding in record.findings}
    assert found["GD109"].level == "error" and "noise of the network's own" in found["GD109"].text
    assert "depend on the latent" not in str(record)
    assert gandiag.gate(record, {"allow": ["degeneracy"]}).code == 1
