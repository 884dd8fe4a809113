"""Truncation and noise mode: what they do, that they are restored, and that sample i is a function of (seed, i)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gandiag.checkpoints.architectures.layers.noise_input import NoiseInput
from gandiag.checkpoints.architectures.layers.truncation import Truncation
from gandiag.checkpoints.architectures.sampling_controls import configure_sampling, override_sampling
from gandiag.checkpoints.generator import LoadedGenerator
from gandiag.config import AuditConfig
from gandiag.errors import ConfigError, LoadError
from gandiag.interfaces import Assumption, LatentSpec, OutputSpec
from gandiag.sampling.latents import make_noise_sampler
from gandiag.sampling.sampler import Sampler

MEAN = torch.tensor([1.0, -2.0, 0.5])


class StyleNet(nn.Module):
    """z as a style, truncated towards MEAN, and two noise maps of which one is stored: (B, 3) -> (B, 2, 4, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.psi, self.first, self.second = Truncation(), NoiseInput("first"), NoiseInput("second", uniform=True)
        self.register_buffer("stored", torch.arange(16.0).reshape(4, 4))

    def forward(self, z: Tensor) -> Tensor:
        w = self.psi(z, lambda: MEAN)
        x = w.sum(1)[:, None, None, None].expand(-1, 1, 4, 4)
        return torch.cat([x + self.first(x, self.get_buffer("stored")), x + self.second(x)], 1)


def sampler(batch_size: int = 64, **flags: object) -> Sampler:
    module = StyleNet().eval()
    configure_sampling(module, AuditConfig(**flags), "styled.pt")  # type: ignore[arg-type]
    return Sampler(
        LoadedGenerator(module, LatentSpec(3), OutputSpec("image", (2, 4, 4))), device="cpu", batch_size=batch_size
    )


def test_psi_truncates_towards_the_mean() -> None:
    plain = sampler(noise="none").sample(5)
    for psi in (0.0, 0.5, 1.25):
        drawn = sampler(noise="none", psi=psi).sample(5)
        assert torch.allclose(drawn, MEAN.sum() + psi * (plain - MEAN.sum()), atol=1e-5)


def test_constant_noise_is_shared_by_all_samples_and_the_stored_one_if_there_is_one() -> None:
    noise = sampler().sample(6) - sampler(noise="none").sample(6)
    assert torch.allclose(noise[:, 0], torch.arange(16.0).reshape(4, 4).expand(6, 4, 4), atol=1e-5)
    assert torch.allclose(noise[:, 1], noise[:1, 1].expand(6, 4, 4), atol=1e-6)
    assert -1e-6 <= float(noise[:, 1].min()) < float(noise[:, 1].max()) <= 1 + 1e-6


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_random_noise_is_a_function_of_seed_and_index(batch_size: int) -> None:
    whole = sampler(64, noise="random").sample_indices(torch.arange(10), seed=5)
    some = torch.tensor([7, 2, 9, 2])
    assert torch.equal(sampler(batch_size, noise="random").sample_indices(some, seed=5), whole[some])
    noise = whole - sampler(noise="none").sample_indices(torch.arange(10), seed=5)
    assert len(noise[:, 0].flatten(1).unique(dim=0)) == 10
    assert not torch.equal(whole, sampler(noise="random").sample_indices(torch.arange(10), seed=6))


def test_only_layers_of_the_same_name_share_their_noise() -> None:
    x, draw = torch.zeros(4, 8, 5, 5), make_noise_sampler(3, torch.arange(4))
    layers = nn.ModuleList([NoiseInput("a"), NoiseInput("a"), NoiseInput("b")])
    with override_sampling(layers, noise_mode="random", noise_sampler=draw):
        a, again, b = (layer(x) for layer in layers)
    assert a.shape == (4, 1, 5, 5) and torch.equal(a, again) and not torch.equal(a, b)


def test_random_noise_has_its_declared_distribution() -> None:
    """Over 4 x 10^4 draws.

    A normal's mean is within 5 / 200, its variance within 5 x sqrt(2) / 200; a uniform's errors are smaller.
    """
    x, draw = torch.zeros(4, 1, 100, 100), make_noise_sampler(0, torch.arange(4))
    for layer, mean, var in ((NoiseInput("n"), 0.0, 1.0), (NoiseInput("u", uniform=True), 0.5, 1 / 12)):
        with override_sampling(layer, noise_mode="random", noise_sampler=draw):
            drawn = layer(x)
        assert abs(float(drawn.mean()) - mean) < 0.025 and abs(float(drawn.var()) - var) < 0.036


def test_controls_are_restored_after_an_error() -> None:
    module = StyleNet()
    with (
        pytest.raises(ZeroDivisionError),
        override_sampling(module, psi=0.3, noise_mode="random", noise_sampler=make_noise_sampler(0, torch.arange(1))),
    ):
        assert (module.psi.value, module.first.mode) == (0.3, "random")
        raise ZeroDivisionError
    assert (module.psi.value, module.first.mode, module.first.sampler) == (1.0, "const", None)


def test_noise_is_constant_in_the_bare_call_of_probes() -> None:
    """There are no sample indices to draw noise for."""
    samples = sampler(noise="random").generate(torch.zeros(4, 3))
    assert torch.equal(samples, samples[:1].expand_as(samples))


def test_a_control_that_the_network_does_not_have_is_refused() -> None:
    plain = nn.Linear(3, 2)
    with pytest.raises(LoadError, match=r"--psi 0.5 was given, but m.pt has no truncation"):
        configure_sampling(plain, AuditConfig(psi=0.5), "m.pt")
    with pytest.raises(LoadError, match=r"--noise random was given, but m.pt has no noise inputs"):
        configure_sampling(plain, AuditConfig(noise="random"), "m.pt")
    with pytest.raises(ConfigError, match="--noise is 'rand'"):
        AuditConfig(noise="rand")
    assert configure_sampling(plain, AuditConfig(), "m.pt") == ()


def test_the_controls_are_stated_as_assumptions() -> None:
    assert configure_sampling(StyleNet(), AuditConfig(psi=0.7), "m.pt") == (
        Assumption("psi", 0.7, "flag"),
        Assumption(
            "noise",
            "const",
            "gandiag",
            note="shared by all samples, so that only latents vary; 2 noise maps per sample",
        ),
    )
