"""Every remedy against its formula, by finite differences, and in training from its seed alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from gandiag.errors import ConfigError, PluginError
from gandiag.trainer.gan_trainer import GANTrainer, make_trainer
from gandiag.trainer.recipes import get_recipe
from gandiag.trainer.remedies import minibatch_discrimination, mode_seeking, r1, relativistic, wgan_gp
from gandiag.trainer.remedies.base import TrainingBatch
from gandiag.trainer.remedies.feature_layers import insert_before_head
from gandiag.trainer.remedies.minibatch_stddev import MinibatchStdDev
from gandiag.trainer.remedies.packing import PackSamples
from gandiag.trainer.remedies.registry import REMEDIES, default_remedies, get_remedy
from gandiag.trainer.toy_data import DATASETS


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def double(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=rng(seed), dtype=torch.float64)


def test_minibatch_discrimination_matches_its_formula() -> None:
    layer = minibatch_discrimination.MinibatchDiscrimination(4, 3, 2, rng()).double()
    layer.ready.fill_(True)
    f = double(6, 4, seed=8)
    t = layer.theta.detach() / layer.theta.detach().norm(dim=0)
    m = (f @ t).reshape(6, 3, 2)
    for i, b in itertools.product(range(6), range(3)):
        o = sum(math.exp(-float((m[i, b] - m[j, b]).abs().sum())) for j in range(6) if j != i)
        assert float(layer(f)[i, b].detach()) == pytest.approx(o - 1.0, abs=1e-9)
    assert gradcheck(layer, (f.clone().requires_grad_(),))
    assert gradgradcheck(layer, (f.clone().requires_grad_(),))


def test_minibatch_discrimination_starts_from_the_data_and_stays_within_groups() -> None:
    layer = minibatch_discrimination.MinibatchDiscrimination(4, 5, 3, rng(), group_size=8).double()
    f = 100 * double(16, 4, seed=9)
    first = layer(f)
    assert torch.allclose(first.mean(0), torch.zeros(5, dtype=torch.float64), atol=1e-9)  # bias: minus the mean of o
    assert float(layer.similarity(f).detach().mean()) > 1e-3  # though distances are in the hundreds
    shifted = torch.cat([f[:8], f[8:] + 1000])
    assert torch.equal(layer(shifted)[:8], layer(f)[:8])
    identical = f[:1].repeat(16, 1)
    # group size - 1: a sample is not compared with itself
    assert torch.allclose(layer.similarity(identical), torch.full((16, 5), 7.0, dtype=torch.float64))


def test_minibatch_stddev_matches_its_formula() -> None:
    f = double(10, 6, seed=10)
    assert float(MinibatchStdDev()(f)[0]) == pytest.approx(float(f.std(0, unbiased=False).mean()), rel=1e-6)
    assert gradgradcheck(MinibatchStdDev(), (f.clone().requires_grad_(),))


@pytest.mark.parametrize(
    ("penalty", "exact"),
    [(r1.r1_penalty, 5 * 25), (relativistic.r1_r2_penalty, 0.5 * 50), (wgan_gp.gradient_penalty, 10 * 16)],
)
def test_penalties_are_twice_differentiable_and_exact_for_a_linear_critic(
    penalty: Callable[[TrainingBatch], Tensor], exact: float
) -> None:
    real, fake = double(5, 2, seed=11), double(5, 2, seed=12)
    w, v = double(2, 3, seed=13), double(3, seed=14)

    def value(weight: Tensor, samples: Tensor) -> Tensor:
        def discriminator(x: Tensor) -> Tensor:
            return torch.tanh(x @ weight) @ v

        def uniform(*shape: int) -> Tensor:
            return torch.full(shape, 0.3, dtype=torch.float64)

        return penalty(TrainingBatch(samples, real, samples, discriminator, uniform))

    assert gradcheck(value, (w.clone().requires_grad_(), fake.clone().requires_grad_()))
    assert gradgradcheck(value, (w.clone().requires_grad_(), fake.clone().requires_grad_()))
    slope = torch.tensor([3.0, 4.0], dtype=torch.float64)  # norm 5 everywhere
    batch = TrainingBatch(
        fake,
        real,
        fake,
        lambda x: (x @ slope)[:, None],
        lambda *shape: torch.rand(shape, generator=rng(), dtype=torch.float64),
    )
    assert float(penalty(batch)) == pytest.approx(exact)


def test_mode_seeking_matches_its_formula() -> None:
    def batch(z: Tensor, fake: Tensor) -> TrainingBatch:
        return TrainingBatch(z, z, fake, lambda x: x, lambda *shape: torch.rand(shape))

    z = torch.tensor([[0.0], [0.0], [2.0], [2.0]])
    assert float(mode_seeking.mode_seeking_penalty(batch(z, z * 3))) == pytest.approx(1 / (3 + 1e-5))
    assert float(mode_seeking.mode_seeking_penalty(batch(z, torch.ones(4, 1)))) == pytest.approx(1e5, rel=1e-3)
    latents, fake = double(6, 2, seed=16), double(6, 2, seed=15).requires_grad_()
    assert gradgradcheck(lambda samples: mode_seeking.mode_seeking_penalty(batch(latents, samples)), (fake,))


def test_packs_are_neighbors_on_the_first_axis() -> None:
    x = torch.arange(10.0).reshape(5, 2)
    assert torch.equal(PackSamples(2)(x), torch.tensor([[0.0, 1, 2, 3], [4, 5, 6, 7]]))


def start_trainer(remedy: str, unroll_steps: int = 0) -> GANTrainer:
    recipe, data = get_recipe("metz-appendix"), DATASETS.get("ring8")()
    return make_trainer(recipe, data, get_remedy(remedy), seed=0, unroll_steps=unroll_steps)


@pytest.mark.parametrize(
    "remedy", [*sorted(REMEDIES), "minibatch+unrolled", "spectral+unrolled", "r1+unrolled", "packing+relativistic"]
)
def test_every_remedy_trains_from_its_seed_alone(remedy: str) -> None:
    unroll_steps = 2 if "unrolled" in remedy else 0
    first, second = start_trainer(remedy, unroll_steps), start_trainer(remedy, unroll_steps)
    torch.manual_seed(99)
    start = first.generator.state.theta.clone()
    losses = [first.step() for _ in range(2)]
    torch.manual_seed(1)
    second.step()
    saved = second.state_dict()
    second.step()
    resumed = start_trainer(remedy, unroll_steps)
    resumed.load_state_dict(saved)
    resumed.step()
    assert all(math.isfinite(value) for pair in losses for value in pair)
    assert torch.equal(first.generator.state.theta, second.generator.state.theta), "same seed, same weights"
    assert torch.equal(resumed.generator.state.theta, second.generator.state.theta), "same state, same step"
    assert not torch.equal(start, first.generator.state.theta)
    assert torch.equal(start_trainer("none").generator.state.theta, start), "every remedy starts from the same G"


def test_spectral_layers_have_norm_one() -> None:
    trainer = start_trainer("spectral")
    for _ in range(30):
        trainer.discriminator.net(torch.randn(8, 2, generator=rng()))
    for part in trainer.discriminator.net.modules():
        if isinstance(part, nn.Linear):
            assert float(torch.linalg.matrix_norm(part.weight.detach(), 2)) == pytest.approx(1.0, rel=1e-2)


def test_remedies_that_cannot_be_combined_or_applied() -> None:
    with pytest.raises(ConfigError, match="both set the loss"):
        get_remedy("relativistic+wgan-gp")
    with pytest.raises(ConfigError, match="names a remedy twice"):
        get_remedy("r1+r1")
    with pytest.raises(ConfigError, match="needs D's features, which cannot be found in Bilinear"):
        insert_before_head(nn.Bilinear(1, 1, 1), lambda width: MinibatchStdDev(), 1, rng(), "minibatch-stddev")


def test_a_name_from_a_file_imports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(REMEDIES, "get", lambda name: pytest.fail(f"looked up {name}"))
    for name in ("antigravity:fly", "none+antigravity:fly", "smoothing", ""):
        with pytest.raises(PluginError, match="is not built in"):
            get_remedy(name, builtin_only=True)


def test_default_remedies_are_built_in_and_start_without_a_remedy() -> None:
    names = default_remedies()
    assert names[0] == "none" and set(names) < set(REMEDIES) and "wgan-gp" not in names


def test_combined_remedies_know_whether_they_add_layers() -> None:
    assert not get_remedy("packing+spectral").adds_layers
    assert get_remedy("spectral+minibatch").adds_layers
