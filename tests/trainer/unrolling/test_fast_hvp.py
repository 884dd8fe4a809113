"""What the trainer computes by other means than torch's own modules and autograd: the same values, first and second derivatives."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from gandiag.trainer.gan_trainer import GANTrainer, make_trainer
from gandiag.trainer.recipes import get_recipe
from gandiag.trainer.remedies.losses import LOSSES
from gandiag.trainer.remedies.registry import get_remedy
from gandiag.trainer.remedies.unrolled import unroll_discriminator
from gandiag.trainer.toy_data import DATASETS
from gandiag.trainer.unrolling.fast_hvp import StackGradients, build_layer_stack
from gandiag.trainer.unrolling.hvp import AutogradGradients
from gandiag.trainer.unrolling.small_convs import (
    MAX_MATRIX_ENTRIES,
    PixelConvTranspose2d,
    SmallBatchNorm2d,
    SmallConv2d,
    find_conv_pattern,
)


@pytest.fixture
def doubles() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def derivatives(net: nn.Module, x: Tensor) -> list[Tensor]:
    """The value, all first derivatives of a weighing of it, all second ones of a weighing of those, and the buffers."""
    weigh = torch.Generator().manual_seed(1)
    asked = [x.clone().requires_grad_(), *net.parameters()]
    y = net(asked[0])
    first = torch.autograd.grad((y * torch.randn(y.shape, generator=weigh)).sum(), asked, create_graph=True)
    summed = torch.stack([(part * torch.randn(part.shape, generator=weigh)).sum() for part in first]).sum()
    second = torch.autograd.grad(summed, asked, materialize_grads=True, allow_unused=True)
    return [y, *first, *second, *net.buffers()]


PAIRS = [
    (SmallConv2d(3, 4, 3, 2, 1), nn.Conv2d(3, 4, 3, 2, 1), (5, 3, 8, 8)),
    (SmallConv2d(2, 3, 3, 1, 0, bias=False), nn.Conv2d(2, 3, 3, 1, 0, bias=False), (5, 2, 5, 6)),
    (PixelConvTranspose2d(7, 3, 4, bias=False), nn.ConvTranspose2d(7, 3, 4, bias=False), (5, 7, 1, 1)),
    (PixelConvTranspose2d(7, 3, 4, 2, 1), nn.ConvTranspose2d(7, 3, 4, 2, 1), (5, 7, 1, 1)),
    (PixelConvTranspose2d(7, 3, 4), nn.ConvTranspose2d(7, 3, 4), (5, 7, 2, 2)),
    (SmallBatchNorm2d(4), nn.BatchNorm2d(4), (5, 4, 3, 2)),
]


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize(
    ("mine", "theirs", "shape"), PAIRS, ids=lambda entry: type(entry).__name__ if isinstance(entry, nn.Module) else None
)
def test_small_modules_are_torchs_to_the_second_derivative(
    mine: nn.Module, theirs: nn.Module, shape: tuple[int, ...]
) -> None:
    mine, theirs = mine.double(), theirs.double()
    theirs.load_state_dict(mine.state_dict())  # the same names
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for one, other in zip(derivatives(mine, x), derivatives(theirs, x), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(mine.eval()(x), theirs.eval()(x))


def test_large_or_odd_convolutions_go_torchs_way() -> None:
    assert find_conv_pattern(nn.Conv2d(3, 4, 3, 2, 1), 8, 8) is not None
    assert find_conv_pattern(nn.Conv2d(3, 4, 3, 2, 1), 64, 64) is None, f"more than {MAX_MATRIX_ENTRIES} entries"
    for odd in (
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(3, 4, 3, dilation=2),
        nn.Conv2d(3, 4, (3, 1)),
        nn.Conv2d(3, 4, 3, padding="same"),
    ):
        assert find_conv_pattern(odd, 8, 8) is None


def game(name: str, remedy: str, ahead: int) -> GANTrainer:
    entry = get_recipe(name)
    data = DATASETS.get(entry.dataset)()
    data = dataclasses.replace(data, draw=lambda n, rng, draw=data.draw: draw(n, rng).to(torch.get_default_dtype()))
    made = make_trainer(entry, data, get_remedy(remedy), seed=0, unroll_steps=ahead)
    for seed in range(3):  # an optimiser that has already run
        made.discriminator.step(
            torch.randn(len(made.discriminator.state.theta), generator=torch.Generator().manual_seed(seed))
        )
    return made


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize("loss", sorted(LOSSES))
@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("metz-stacked-quarter", "unrolled"),
        ("metz-stacked-quarter", "packing+unrolled"),
        ("metz-notebook", "unrolled"),
        ("veegan", "unrolled"),
        ("pacgan", "packing+unrolled"),
        ("metz-appendix", "unrolled"),
    ],
)
def test_a_stack_looks_ahead_as_autograd_does(name: str, remedy: str, loss: str) -> None:
    made, rule = game(name, remedy, 2), LOSSES[loss]
    _, real, fake = made._draw_minibatch()
    player, leaf, net = made.discriminator, fake.detach().requires_grad_(), made.discriminator.net
    stack = build_layer_stack(net, made.setup.data.output, len(real), rule)
    assert stack is not None
    slow = AutogradGradients(
        player, lambda asked: (rule.discriminator(net(real), net(asked)), rule.generator(net(real), net(asked))), leaf
    )
    one = unroll_discriminator(slow, player.state, 2, player.adam)
    other = unroll_discriminator(
        StackGradients(player, stack, rule).set_minibatch(real, leaf), player.state, 2, player.adam
    )
    torch.testing.assert_close(other.fake_gradient, one.fake_gradient, rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(other.first_state.theta, one.first_state.theta, rtol=1e-12, atol=1e-15)
    assert other.loss_d == pytest.approx(one.loss_d) and other.loss_g == pytest.approx(one.loss_g)


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize("remedy", ["none", "packing"])
def test_a_stack_steps_as_autograd_does_and_batch_norm_takes_note(remedy: str) -> None:
    one, other = game("metz-stacked-quarter", remedy, 0), game("metz-stacked-quarter", remedy, 0)
    assert other._stack_gradients is not None
    one._stack_gradients = None
    for made in (one, other):
        losses = [made.step() for _ in range(2)]
        assert losses[0] != losses[1]
    torch.testing.assert_close(other.generator.state.theta, one.generator.state.theta, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(other.discriminator.state.theta, one.discriminator.state.theta, rtol=1e-9, atol=1e-12)
    for mine, theirs in zip(other.discriminator.net.buffers(), one.discriminator.net.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_what_a_stack_does_not_know() -> None:
    output, loss = DATASETS.get("ring8")().output, LOSSES["minimax"]
    for net in (
        nn.Linear(2, 1),
        nn.Sequential(nn.Linear(2, 4), nn.GELU(), nn.Linear(4, 1)),
        nn.Sequential(nn.Linear(2, 4), nn.ReLU()),
    ):
        assert build_layer_stack(net, output, 8, loss) is None
    assert build_layer_stack(nn.Sequential(nn.Linear(2, 1)), output, 8, loss) is not None
    assert game("metz-stacked-quarter", "relativistic", 0)._stack_gradients is None
    assert game("metz-stacked-quarter", "spectral+unrolled", 2)._stack_gradients is None
