"""Truncation and noise as knobs: what they do, that they are put back, and that sample i is a function of (seed, i)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gandiag.checkpoints.architectures.layers.noise_input import NoiseInput
from gandiag.checkpoints.architectures.layers.truncation import Truncation
from gandiag.checkpoints.architectures.sampling_controls import configure_sampling, override_sampling
from gandiag.checkpoints.loader import LoadedGenerator
from gandiag.config import AuditConfig
from gandiag.errors import ConfigError, LoadError
from gandiag.interfaces import LatentSpec, OutputSpec
from gandiag.sampling.latents import make_noise_sampler
from gandiag.sampling.sampler import Sampler

MEAN = torch.tensor([1.0, -2.0, 0.5])


class Styled(nn.Module):
    """z as a style, drawn towards MEAN, beside two noise pictures of which one is stored: (B, 3) -> (B, 2, 4, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.psi, self.first, self.second = Truncation(), NoiseInput("first"), NoiseInput("second", uniform=True)
        self.register_buffer("stored", torch.arange(16.0).reshape(4, 4))

    def forward(self, z: Tensor) -> Tensor:
        w = self.psi(z, lambda: MEAN)
        x = w.sum(1)[:, None, None, None].expand(-1, 1, 4, 4)
        return torch.cat([x + self.first(x, self.get_buffer("stored")), x + self.second(x)], 1)


def sampler(batch_size: int = 64, **flags: object) -> Sampler:
    module = Styled().eval()
    configure_sampling(module, AuditConfig(**flags), "styled.pt")  # type: ignore[arg-type]
    return Sampler(
        LoadedGenerator(module, LatentSpec(3), OutputSpec("image", (2, 4, 4))), device="cpu", batch_size=batch_size
    )


def test_psi_draws_towards_the_mean() -> None:
    plain = sampler(noise="none").sample(5)
    for psi in (0.0, 0.5, 1.25):
        drawn = sampler(noise="none", psi=psi).sample(5)
        assert torch.allclose(drawn, MEAN.sum() + psi * (plain - MEAN.sum()), atol=1e-5)


def test_fixed_noise_is_one_for_all_samples_and_the_stored_one_where_there_is_one() -> None:
    made, none = sampler().sample(6), sampler(noise="none").sample(6)
    added = made - none
    assert torch.allclose(added[:, 0], torch.arange(16.0).reshape(4, 4).expand(6, 4, 4), atol=1e-5)
    assert (
        torch.allclose(added[:, 1], added[:1, 1].expand(6, 4, 4), atol=1e-6)
        and -1e-6 <= float(added[:, 1].min()) < float(added[:, 1].max()) <= 1 + 1e-6
    )


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_random_noise_is_a_function_of_seed_and_index(batch_size: int) -> None:
    whole = sampler(64, noise="random").sample_indices(torch.arange(10), seed=5)
    some = torch.tensor([7, 2, 9, 2])
    assert torch.equal(sampler(batch_size, noise="random").sample_indices(some, seed=5), whole[some])
    noise = whole - sampler(noise="none").sample_indices(torch.arange(10), seed=5)
    assert len(noise[:, 0].flatten(1).unique(dim=0)) == 10
    assert not torch.equal(whole, sampler(noise="random").sample_indices(torch.arange(10), seed=6))


def test_layers_of_one_name_share_their_noise_and_others_do_not() -> None:
    x, draw = torch.zeros(4, 8, 5, 5), make_noise_sampler(3, torch.arange(4))
    layers = nn.ModuleList([NoiseInput("a"), NoiseInput("a"), NoiseInput("b")])
    with override_sampling(layers, noise_mode="random", noise_sampler=draw):
        a, again, b = (layer(x) for layer in layers)
    assert a.shape == (4, 1, 5, 5) and torch.equal(a, again) and not torch.equal(a, b)


def test_random_noise_has_the_law_it_says() -> None:
    """4 x 10^4 draws: the mean of a normal is within 5 / 200, its variance within 5 x sqrt(2) / 200; a uniform's likewise, smaller."""
    x, draw = torch.zeros(4, 1, 100, 100), make_noise_sampler(0, torch.arange(4))
    for layer, mean, var in ((NoiseInput("n"), 0.0, 1.0), (NoiseInput("u", uniform=True), 0.5, 1 / 12)):
        with override_sampling(layer, noise_mode="random", noise_sampler=draw):
            drawn = layer(x)
        assert abs(float(drawn.mean()) - mean) < 0.025 and abs(float(drawn.var()) - var) < 0.036


def test_knobs_are_put_back_even_after_an_error() -> None:
    module = Styled()
    with (
        pytest.raises(ZeroDivisionError),
        override_sampling(module, psi=0.3, noise_mode="random", noise_sampler=make_noise_sampler(0, torch.arange(1))),
    ):
        assert (module.psi.value, module.first.mode) == (0.3, "random")
        raise ZeroDivisionError
    assert (module.psi.value, module.first.mode, module.first.sampler) == (1.0, "const", None)


def test_asked_how_z_moves_the_output_noise_stands_still() -> None:
    """The bare call of the probes has no samples to number."""
    net = sampler(noise="random")
    z = torch.zeros(4, 3)
    made = net.generate(z)
    assert torch.equal(made, made[:1].expand_as(made))


def test_a_knob_that_the_network_has_not_is_refused() -> None:
    plain = nn.Linear(3, 2)
    with pytest.raises(LoadError, match=r"--psi 0.5 was given, and m.pt has no truncation"):
        configure_sampling(plain, AuditConfig(psi=0.5), "m.pt")
    with pytest.raises(LoadError, match=r"--noise random was given, and m.pt has no noise inputs"):
        configure_sampling(plain, AuditConfig(noise="random"), "m.pt")
    with pytest.raises(ConfigError, match="--noise is 'rand'"):
        AuditConfig(noise="rand")
    assert configure_sampling(plain, AuditConfig(), "m.pt") == ()


def test_what_is_set_is_said() -> None:
    said = {
        entry.what: (entry.value, entry.source) for entry in configure_sampling(Styled(), AuditConfig(psi=0.7), "m.pt")
    }
    assert said["truncation psi (--psi)"] == ("0.7", "flag")
    assert said["noise inputs (--noise)"] == (
        "const: all samples share them, so that latents alone vary; 2 pictures a sample",
        "gandiag",
    )
