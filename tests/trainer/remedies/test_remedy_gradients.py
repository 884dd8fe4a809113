"""Every remedy's gradient: against derivations by hand, against its formula, by differences."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.functional import softplus

from gandiag.errors import ConfigError
from gandiag.trainer.gan_trainer import GANTrainer, make_trainer
from gandiag.trainer.networks import InputScale
from gandiag.trainer.recipes import get_recipe
from gandiag.trainer.remedies import minibatch_discrimination, mode_seeking, r1, relativistic, wgan_gp
from gandiag.trainer.remedies.base import TrainingBatch
from gandiag.trainer.remedies.feature_layers import insert_before_head
from gandiag.trainer.remedies.losses import LOSSES, MINIMAX, discriminator_loss, minimax_loss
from gandiag.trainer.remedies.minibatch_stddev import MinibatchStdDev
from gandiag.trainer.remedies.packing import PackSamples
from gandiag.trainer.remedies.registry import REMEDIES, get_remedy
from gandiag.trainer.remedies.unrolled import unroll_discriminator
from gandiag.trainer.toy_data import DATASETS
from gandiag.trainer.unrolling.adam import AdamSettings, AdamState, AdamStateGradient, adam_step, adam_step_vjp
from gandiag.trainer.unrolling.fast_hvp_relu import ShallowGradients, is_supported
from gandiag.trainer.unrolling.flat_parameters import FlatModule
from gandiag.trainer.unrolling.hvp import AutogradGradients

ADAM = AdamSettings(lr=0.03, beta1=0.5, beta2=0.9, eps=1e-3)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def double(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=rng(seed), dtype=torch.float64)


def by_hand(real: Tensor, fake: Tensor, ask: AdamSettings, first_order: bool) -> Tensor:
    """Two steps of Adam on D(x) = w x + c written out, and dL_G/dfake: no state, no class, no look_ahead."""
    w, c = torch.tensor([0.7, -0.2], dtype=torch.float64).requires_grad_()
    leaf = fake.clone().requires_grad_()

    def loss(a: Tensor, b: Tensor) -> Tensor:
        return softplus(-(a * real + b)).mean() + softplus(a * leaf + b).mean()

    g1 = torch.autograd.grad(loss(w, c), (w, c), create_graph=True)
    w1, c1 = (
        p - ask.lr * g / (g.square().sqrt() + ask.eps) for p, g in zip((w, c), g1, strict=True)
    )  # bias-corrected moments of one step: g, g²
    g2 = torch.autograd.grad(loss(w1, c1), (w1, c1), create_graph=True)
    moved = []
    for p, a, b in zip((w1, c1), g1, g2, strict=True):
        m = (ask.beta1 * (1 - ask.beta1) * a + (1 - ask.beta1) * b) / (1 - ask.beta1**2)
        v = (ask.beta2 * (1 - ask.beta2) * a**2 + (1 - ask.beta2) * b**2) / (1 - ask.beta2**2)
        moved.append(p - ask.lr * m / (v.sqrt() + ask.eps))
    end = [entry.detach() for entry in moved] if first_order else moved
    (found,) = torch.autograd.grad(-loss(*end), leaf)
    return found


def linear_player(ask: AdamSettings) -> FlatModule:
    net = nn.Linear(1, 1).double()
    with torch.no_grad():
        net.weight.fill_(0.7)
        net.bias.fill_(-0.2)
    return FlatModule(net, ask)


def test_two_unrolled_steps_agree_with_the_derivation_by_hand_and_not_with_the_first_order() -> None:
    real, fake = double(16, 1, seed=1), double(16, 1, seed=2) - 1
    strong = AdamSettings(
        lr=0.3, beta1=0.5, beta2=0.9, eps=0.1
    )  # a large eps: Adam's step follows the size of the gradient
    player = linear_player(strong)
    leaf = fake.clone().requires_grad_()
    slopes = AutogradGradients(
        player,
        lambda made: (
            discriminator_loss(player.net(real), player.net(made)),
            minimax_loss(player.net(real), player.net(made)),
        ),
        leaf,
    )
    found = unroll_discriminator(slopes, player.state, 2, strong).fake_gradient
    torch.testing.assert_close(found, by_hand(real, fake, strong, False), rtol=1e-9, atol=1e-12)
    shortcut = by_hand(real, fake, strong, True)
    assert float((found - shortcut).norm() / shortcut.norm()) > 0.01


@pytest.mark.parametrize("steps", [1, 3, 7])
def test_the_look_ahead_is_what_autograd_finds_through_the_whole_graph(steps: int) -> None:
    """D of two layers, an optimiser that has already run: every moment and step count matters."""
    net = nn.Sequential(InputScale(0.25), nn.Linear(2, 9), nn.Tanh(), nn.Linear(9, 1)).double()
    player = FlatModule(net, ADAM)
    real, fake = double(20, 2, seed=3), double(20, 2, seed=4)
    for seed in range(5):
        player.step(double(len(player.state.theta), seed=seed))
    leaf = fake.clone().requires_grad_()
    slopes = AutogradGradients(
        player, lambda made: (discriminator_loss(net(real), net(made)), minimax_loss(net(real), net(made))), leaf
    )
    found = unroll_discriminator(slopes, player.state, steps, ADAM)

    theta, m, v, t = player.state
    start = theta.clone()
    theta = theta.clone().requires_grad_()
    other = fake.clone().requires_grad_()
    for _ in range(steps):
        with player.swap_parameters(player.unflatten(theta)):
            (g,) = torch.autograd.grad(discriminator_loss(net(real), net(other)), theta, create_graph=True)
        m, v, t = ADAM.beta1 * m + (1 - ADAM.beta1) * g, ADAM.beta2 * v + (1 - ADAM.beta2) * g**2, t + 1
        theta = theta - ADAM.lr * (m / (1 - ADAM.beta1**t)) / ((v / (1 - ADAM.beta2**t)).sqrt() + ADAM.eps)
    with player.swap_parameters(player.unflatten(theta)):
        (whole,) = torch.autograd.grad(minimax_loss(net(real), net(other)), other)
    torch.testing.assert_close(found.fake_gradient, whole, rtol=1e-9, atol=1e-13)
    assert torch.equal(player.state.theta, start), "D is where it was"


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_the_closed_form_of_a_shallow_discriminator_is_autograds(loss: str) -> None:
    net = nn.Sequential(InputScale(0.25), nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 1)).double()
    player, rule = FlatModule(net, ADAM), LOSSES[loss]
    real, leaf = double(40, 2, seed=5), double(40, 2, seed=6).requires_grad_()
    assert is_supported(net, rule)
    slow = AutogradGradients(
        player, lambda made: (rule.discriminator(net(real), net(made)), rule.generator(net(real), net(made))), leaf
    )
    quick = ShallowGradients(player, rule).set_minibatch(real, leaf)
    for steps in (1, 4):
        one, other = (
            unroll_discriminator(slow, player.state, steps, ADAM),
            unroll_discriminator(quick, player.state, steps, ADAM),
        )
        torch.testing.assert_close(one.fake_gradient, other.fake_gradient, rtol=1e-8, atol=1e-14)
        torch.testing.assert_close(one.first_state.theta, other.first_state.theta, rtol=1e-12, atol=0)
        assert one.loss_d == pytest.approx(other.loss_d) and one.loss_g == pytest.approx(other.loss_g)
        quick.set_minibatch(real, leaf)


def test_the_closed_form_leaves_other_networks_alone() -> None:
    for net in (
        nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)),
        nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2)),
        nn.Linear(2, 1),
    ):
        assert not is_supported(net, MINIMAX)
    assert not is_supported(nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1)), relativistic.RELATIVISTIC.loss)  # type: ignore[arg-type]


def test_flat_adam_is_torchs_adam() -> None:
    ask = AdamSettings(lr=0.01, beta1=0.5, beta2=0.99, eps=1e-8)
    theirs = nn.Parameter(double(50, seed=7))
    optimiser = torch.optim.Adam([theirs], lr=ask.lr, betas=(ask.beta1, ask.beta2), eps=ask.eps)
    state = AdamState.from_parameters(theirs.detach().clone())
    for seed in range(20):
        gradient = double(50, seed=100 + seed)
        theirs.grad = gradient.clone()
        optimiser.step()
        state = adam_step(state, gradient, ask)
    torch.testing.assert_close(state.theta, theirs.detach(), rtol=1e-12, atol=1e-14)


def test_the_adjoint_of_adam_by_autograd_and_where_nothing_moved() -> None:
    before = AdamState(double(6, seed=1), double(6, seed=2), double(6, seed=3).square(), 4)
    gradient = double(6, seed=4)

    def stepped(theta: Tensor, first: Tensor, second: Tensor, g: Tensor) -> tuple[Tensor, ...]:
        m, v = ADAM.beta1 * first + (1 - ADAM.beta1) * g, ADAM.beta2 * second + (1 - ADAM.beta2) * g**2
        return theta - ADAM.lr * (m / (1 - ADAM.beta1**5)) / ((v / (1 - ADAM.beta2**5)).sqrt() + ADAM.eps), m, v

    wanted = torch.autograd.functional.vjp(
        stepped, (*before[:3], gradient), (double(6, seed=5), double(6, seed=6), double(6, seed=7))
    )[1]
    after = adam_step(before, gradient, ADAM)
    found, by_gradient = adam_step_vjp(
        after, gradient, ADAM, AdamStateGradient(double(6, seed=5), double(6, seed=6), double(6, seed=7))
    )
    for one, other in zip((*found, by_gradient), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)
    still = adam_step(AdamState.from_parameters(torch.zeros(3)), torch.zeros(3), ADAM)  # a dead unit: the root is 0
    dead, by_zero = adam_step_vjp(
        still, torch.zeros(3), ADAM, AdamStateGradient(torch.ones(3), torch.zeros(3), torch.zeros(3))
    )
    assert all(bool(torch.isfinite(entry).all()) for entry in (*dead, by_zero))


def test_minibatch_features_are_their_formula() -> None:
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


def test_minibatch_features_start_from_the_data_and_stay_in_their_groups() -> None:
    layer = minibatch_discrimination.MinibatchDiscrimination(4, 5, 3, rng(), group_size=8).double()
    f = 100 * double(16, 4, seed=9)
    first = layer(f)
    assert torch.allclose(first.mean(0), torch.zeros(5, dtype=torch.float64), atol=1e-9)  # bias: minus the mean of o
    assert float(layer.similarity(f).detach().mean()) > 1e-3  # though distances are in the hundreds
    moved = torch.cat([f[:8], f[8:] + 1000])
    assert torch.equal(layer(moved)[:8], layer(f)[:8])
    same = f[:1].repeat(16, 1)
    assert torch.allclose(
        layer.similarity(same), torch.full((16, 5), 7.0, dtype=torch.float64)
    )  # group - 1: itself excluded


def test_deviation_is_its_formula() -> None:
    f = double(10, 6, seed=10)
    assert float(MinibatchStdDev()(f)[0]) == pytest.approx(float(f.std(0, unbiased=False).mean()), rel=1e-6)
    assert gradgradcheck(MinibatchStdDev(), (f.clone().requires_grad_(),))


@pytest.mark.parametrize("penalty", [r1.r1_penalty, relativistic.r1_r2_penalty, wgan_gp.gradient_penalty])
def test_penalties_can_be_differentiated_twice_and_are_exact_for_a_linear_critic(penalty: object) -> None:
    real, fake = double(5, 2, seed=11), double(5, 2, seed=12)
    w, v = double(2, 3, seed=13), double(3, seed=14)

    def value(weight: Tensor, made: Tensor) -> Tensor:
        return penalty(
            TrainingBatch(
                made,
                real,
                made,
                lambda x: torch.tanh(x @ weight) @ v,
                lambda *shape: torch.full(shape, 0.3, dtype=torch.float64),
            )
        )  # type: ignore[operator, no-any-return]

    assert gradcheck(value, (w.clone().requires_grad_(), fake.clone().requires_grad_()))
    assert gradgradcheck(value, (w.clone().requires_grad_(), fake.clone().requires_grad_()))
    slope = torch.tensor([3.0, 4.0], dtype=torch.float64)  # of norm 5 everywhere
    exact = {r1.r1_penalty: 5 * 25, relativistic.r1_r2_penalty: 0.5 * 50, wgan_gp.gradient_penalty: 10 * 16}[penalty]  # type: ignore[index]
    turn = TrainingBatch(
        fake,
        real,
        fake,
        lambda x: (x @ slope)[:, None],
        lambda *shape: torch.rand(shape, generator=rng(), dtype=torch.float64),
    )
    assert float(penalty(turn)) == pytest.approx(exact)  # type: ignore[operator]


def test_mode_seeking_is_its_formula() -> None:
    z = torch.tensor([[0.0], [0.0], [2.0], [2.0]])
    turn = TrainingBatch(z, z, z * 3, lambda x: x, lambda *shape: torch.rand(shape))
    assert float(mode_seeking.mode_seeking_penalty(turn)) == pytest.approx(1 / (3 + 1e-5))
    still = TrainingBatch(z, z, torch.ones(4, 1), lambda x: x, lambda *shape: torch.rand(shape))
    assert float(mode_seeking.mode_seeking_penalty(still)) == pytest.approx(1e5, rel=1e-3)
    fake = double(6, 2, seed=15).requires_grad_()
    assert gradgradcheck(
        lambda made: mode_seeking.mode_seeking_penalty(
            TrainingBatch(double(6, 2, seed=16), fake, made, lambda x: x, lambda *shape: torch.rand(shape))
        ),
        (fake,),
    )


def test_packs_are_neighbours_on_the_first_axis() -> None:
    x = torch.arange(10.0).reshape(5, 2)
    assert torch.equal(PackSamples(2)(x), torch.tensor([[0.0, 1, 2, 3], [4, 5, 6, 7]]))


def game(remedy: str, ahead: int = 0, name: str = "metz-appendix", seed: int = 0) -> GANTrainer:
    return make_trainer(get_recipe(name), DATASETS.get("ring8")(), get_remedy(remedy), seed=seed, unroll_steps=ahead)


@pytest.mark.parametrize(
    "remedy", [*sorted(REMEDIES), "minibatch+unrolled", "spectral+unrolled", "r1+unrolled", "packing+relativistic"]
)
def test_every_remedy_plays_from_its_seed_alone(remedy: str) -> None:
    ahead = 2 if "unrolled" in remedy else 0
    one, other = game(remedy, ahead), game(remedy, ahead)
    torch.manual_seed(99)
    start = one.generator.state.theta.clone()
    losses = [one.step() for _ in range(2)]
    torch.manual_seed(1)
    other.step()
    kept = other.state_dict()
    other.step()
    again = game(remedy, ahead)
    again.load_state_dict(kept)
    again.step()
    assert all(math.isfinite(value) for pair in losses for value in pair)
    assert torch.equal(one.generator.state.theta, other.generator.state.theta), "the same seed, the same weights"
    assert torch.equal(again.generator.state.theta, other.generator.state.theta), "the same state, the same step"
    assert not torch.equal(start, one.generator.state.theta)
    assert torch.equal(game("none").generator.state.theta, start), "paired with no remedy by its start"


def test_spectral_maps_have_slope_one() -> None:
    made = game("spectral")
    for _ in range(30):
        made.discriminator.net(torch.randn(8, 2, generator=rng()))
    for part in made.discriminator.net.modules():
        if isinstance(part, nn.Linear):
            assert float(torch.linalg.matrix_norm(part.weight.detach(), 2)) == pytest.approx(1.0, rel=1e-2)


def test_what_does_not_go_together_or_is_missing() -> None:
    with pytest.raises(ConfigError, match="both set the loss"):
        get_remedy("relativistic+wgan-gp")
    with pytest.raises(ConfigError, match="names a remedy twice"):
        get_remedy("r1+r1")
    with pytest.raises(ConfigError, match="needs D's features, and Bilinear does not say"):
        insert_before_head(nn.Bilinear(1, 1, 1), lambda width: MinibatchStdDev(), 1, rng(), "minibatch-stddev")
