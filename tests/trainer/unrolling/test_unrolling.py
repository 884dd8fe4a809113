"""Unrolled gradients match a derivation by hand and autograd; Adam's adjoint matches autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from gandiag.trainer.networks import InputScale
from gandiag.trainer.remedies.losses import LOSSES, MINIMAX, discriminator_loss, minimax_loss
from gandiag.trainer.remedies.relativistic import RELATIVISTIC
from gandiag.trainer.remedies.unrolled import unroll_discriminator
from gandiag.trainer.unrolling.adam import AdamSettings, AdamState, AdamStateGradient, adam_step, adam_step_vjp
from gandiag.trainer.unrolling.fast_hvp_relu import ReluGradients, is_supported
from gandiag.trainer.unrolling.flat_parameters import FlatModule
from gandiag.trainer.unrolling.hvp import AutogradGradients

ADAM = AdamSettings(lr=0.03, beta1=0.5, beta2=0.9, eps=1e-3)


def double(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def derive_by_hand(real: Tensor, fake: Tensor, adam: AdamSettings, first_order: bool) -> Tensor:
    """Two steps of Adam on D(x) = w x + c written out, and dL_G/dfake, without any code of the package."""
    w, c = torch.tensor([0.7, -0.2], dtype=torch.float64).requires_grad_()
    leaf = fake.clone().requires_grad_()

    def loss(a: Tensor, b: Tensor) -> Tensor:
        return softplus(-(a * real + b)).mean() + softplus(a * leaf + b).mean()

    g1 = torch.autograd.grad(loss(w, c), (w, c), create_graph=True)
    # The bias-corrected moments of one step are g and g².
    w1, c1 = (p - adam.lr * g / (g.square().sqrt() + adam.eps) for p, g in zip((w, c), g1, strict=True))
    g2 = torch.autograd.grad(loss(w1, c1), (w1, c1), create_graph=True)
    stepped = []
    for p, a, b in zip((w1, c1), g1, g2, strict=True):
        m = (adam.beta1 * (1 - adam.beta1) * a + (1 - adam.beta1) * b) / (1 - adam.beta1**2)
        v = (adam.beta2 * (1 - adam.beta2) * a**2 + (1 - adam.beta2) * b**2) / (1 - adam.beta2**2)
        stepped.append(p - adam.lr * m / (v.sqrt() + adam.eps))
    end = [part.detach() for part in stepped] if first_order else stepped
    (gradient,) = torch.autograd.grad(-loss(*end), leaf)
    return gradient


def autograd_gradients(discriminator: FlatModule, real: Tensor, leaf: Tensor, loss_name: str) -> AutogradGradients:
    net, loss = discriminator.net, LOSSES[loss_name]

    def losses(samples: Tensor) -> tuple[Tensor, Tensor]:
        return loss.discriminator(net(real), net(samples)), loss.generator(net(real), net(samples))

    return AutogradGradients(discriminator, losses, leaf)


def test_two_unrolled_steps_match_the_derivation_by_hand_and_not_its_first_order() -> None:
    real, fake = double(16, 1, seed=1), double(16, 1, seed=2) - 1
    adam = AdamSettings(lr=0.3, beta1=0.5, beta2=0.9, eps=0.1)  # with a large eps, the step depends on gradient size
    net = nn.Linear(1, 1).double()
    with torch.no_grad():
        net.weight.fill_(0.7)
        net.bias.fill_(-0.2)
    discriminator, leaf = FlatModule(net, adam), fake.clone().requires_grad_()
    gradients = autograd_gradients(discriminator, real, leaf, "minimax")
    actual = unroll_discriminator(gradients, discriminator.state, 2, adam).fake_gradient
    torch.testing.assert_close(actual, derive_by_hand(real, fake, adam, first_order=False), rtol=1e-9, atol=1e-12)
    first_order = derive_by_hand(real, fake, adam, first_order=True)
    assert float((actual - first_order).norm() / first_order.norm()) > 0.01


@pytest.mark.parametrize("steps", [1, 3, 7])
def test_unrolling_matches_autograd_through_the_whole_graph(steps: int) -> None:
    """A two-layer D whose optimizer has already run: every moment and step count matters."""
    net = nn.Sequential(InputScale(0.25), nn.Linear(2, 9), nn.Tanh(), nn.Linear(9, 1)).double()
    discriminator = FlatModule(net, ADAM)
    real, fake = double(20, 2, seed=3), double(20, 2, seed=4)
    for seed in range(5):
        discriminator.step(double(len(discriminator.state.theta), seed=seed))
    gradients = autograd_gradients(discriminator, real, fake.clone().requires_grad_(), "minimax")
    unrolled = unroll_discriminator(gradients, discriminator.state, steps, ADAM)

    theta, m, v, t = discriminator.state
    start = theta.clone()
    theta = theta.clone().requires_grad_()
    leaf = fake.clone().requires_grad_()
    for _ in range(steps):
        with discriminator.swap_parameters(discriminator.unflatten(theta)):
            (g,) = torch.autograd.grad(discriminator_loss(net(real), net(leaf)), theta, create_graph=True)
        m, v, t = ADAM.beta1 * m + (1 - ADAM.beta1) * g, ADAM.beta2 * v + (1 - ADAM.beta2) * g**2, t + 1
        theta = theta - ADAM.lr * (m / (1 - ADAM.beta1**t)) / ((v / (1 - ADAM.beta2**t)).sqrt() + ADAM.eps)
    with discriminator.swap_parameters(discriminator.unflatten(theta)):
        (expected,) = torch.autograd.grad(minimax_loss(net(real), net(leaf)), leaf)
    torch.testing.assert_close(unrolled.fake_gradient, expected, rtol=1e-9, atol=1e-13)
    assert torch.equal(discriminator.state.theta, start), "unrolling must not move D"


@pytest.mark.parametrize("loss_name", sorted(LOSSES))
def test_the_closed_form_of_one_relu_layer_matches_autograd(loss_name: str) -> None:
    net = nn.Sequential(InputScale(0.25), nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 1)).double()
    discriminator, loss = FlatModule(net, ADAM), LOSSES[loss_name]
    real, leaf = double(40, 2, seed=5), double(40, 2, seed=6).requires_grad_()
    assert is_supported(net, loss)
    by_autograd = autograd_gradients(discriminator, real, leaf, loss_name)
    closed_form = ReluGradients(discriminator, loss).set_minibatch(real, leaf)
    for steps in (1, 4):
        expected = unroll_discriminator(by_autograd, discriminator.state, steps, ADAM)
        actual = unroll_discriminator(closed_form, discriminator.state, steps, ADAM)
        torch.testing.assert_close(actual.fake_gradient, expected.fake_gradient, rtol=1e-8, atol=1e-14)
        torch.testing.assert_close(actual.first_state.theta, expected.first_state.theta, rtol=1e-12, atol=0)
        assert actual.loss_d == pytest.approx(expected.loss_d) and actual.loss_g == pytest.approx(expected.loss_g)
        closed_form.set_minibatch(real, leaf)


def test_the_closed_form_covers_no_other_networks_or_losses() -> None:
    for net in (
        nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)),
        nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2)),
        nn.Linear(2, 1),
    ):
        assert not is_supported(net, MINIMAX)
    assert RELATIVISTIC.loss is not None
    assert not is_supported(nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1)), RELATIVISTIC.loss)


def test_the_adjoint_of_adam_matches_autograd_and_is_finite_for_zero_gradients() -> None:
    before = AdamState(double(6, seed=1), double(6, seed=2), double(6, seed=3).square(), 4)
    gradient = double(6, seed=4)
    output_gradient = AdamStateGradient(double(6, seed=5), double(6, seed=6), double(6, seed=7))

    def step(theta: Tensor, first: Tensor, second: Tensor, g: Tensor) -> tuple[Tensor, ...]:
        m, v = ADAM.beta1 * first + (1 - ADAM.beta1) * g, ADAM.beta2 * second + (1 - ADAM.beta2) * g**2
        return theta - ADAM.lr * (m / (1 - ADAM.beta1**5)) / ((v / (1 - ADAM.beta2**5)).sqrt() + ADAM.eps), m, v

    expected = torch.autograd.functional.vjp(step, (*before[:3], gradient), tuple(output_gradient))[1]
    by_state, by_gradient = adam_step_vjp(adam_step(before, gradient, ADAM), gradient, ADAM, output_gradient)
    for actual, value in zip((*by_state, by_gradient), expected, strict=True):
        torch.testing.assert_close(actual, value, rtol=1e-10, atol=1e-13)
    zeros = torch.zeros(3)  # a dead unit: the square root is 0
    still = adam_step(AdamState.from_parameters(zeros), zeros, ADAM)
    by_state, by_gradient = adam_step_vjp(still, zeros, ADAM, AdamStateGradient(torch.ones(3), zeros, zeros))
    assert all(bool(torch.isfinite(part).all()) for part in (*by_state, by_gradient))
