"""Hand-written gradients of sequential discriminators equal autograd's, to the second derivative."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from gandiag.trainer.gan_trainer import GANTrainer, make_trainer
from gandiag.trainer.networks import HigherOrderBatchNorm2d
from gandiag.trainer.recipes import get_recipe
from gandiag.trainer.remedies.losses import LOSSES
from gandiag.trainer.remedies.registry import get_remedy
from gandiag.trainer.remedies.unrolled import unroll_discriminator
from gandiag.trainer.toy_data import DATASETS
from gandiag.trainer.unrolling.conv_matrix import MAX_MATRIX_ENTRIES, find_conv_pattern
from gandiag.trainer.unrolling.fast_hvp import SequentialGradients, make_fast_gradients, parse_layers
from gandiag.trainer.unrolling.fast_hvp_relu import ReluGradients
from gandiag.trainer.unrolling.hvp import AutogradGradients


@pytest.fixture
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def derivatives(net: nn.Module, x: Tensor) -> list[Tensor]:
    """The output, all first derivatives of a weighted sum, all second derivatives likewise, and the buffers."""
    weights = rng(1)
    inputs = [x.clone().requires_grad_(), *net.parameters()]
    y = net(inputs[0])
    first = torch.autograd.grad((y * torch.randn(y.shape, generator=weights)).sum(), inputs, create_graph=True)
    total = torch.stack([(part * torch.randn(part.shape, generator=weights)).sum() for part in first]).sum()
    second = torch.autograd.grad(total, inputs, materialize_grads=True, allow_unused=True)
    return [y, *first, *second, *net.buffers()]


@pytest.mark.usefixtures("float64")
def test_higher_order_batchnorm_matches_torch_to_the_second_derivative() -> None:
    ours, theirs = HigherOrderBatchNorm2d(4).double(), nn.BatchNorm2d(4).double()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(5, 4, 3, 2, generator=rng(0))
    for actual, expected in zip(derivatives(ours, x), derivatives(theirs, x), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("remedy", ["r1+unrolled", "relativistic+unrolled"])
def test_penalties_unroll_through_batchnorm(remedy: str) -> None:
    """A gradient penalty inside an unrolled step takes three derivatives, which torch's BatchNorm does not support."""
    recipe = get_recipe("metz-stacked-quarter")
    trainer = make_trainer(recipe, DATASETS.get(recipe.dataset)(), get_remedy(remedy), seed=0, unroll_steps=1)
    assert all(torch.isfinite(torch.tensor(trainer.step())))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("conv", [nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(2, 3, 3, 1, 0)])
def test_a_conv_pattern_gives_the_matrix_of_a_convolution(conv: nn.Conv2d) -> None:
    conv = conv.double()
    x = torch.randn(5, conv.in_channels, 5, 6, generator=rng(0))
    pattern = find_conv_pattern(conv, 5, 6)
    assert pattern is not None and conv.bias is not None
    rows = (x.flatten(1) @ pattern.to_matrix(conv.weight).T).view(5, -1, *pattern.output_size)
    torch.testing.assert_close(rows + conv.bias[:, None, None], conv(x))
    matrix = torch.randn(pattern.to_matrix(conv.weight).shape, generator=rng(1))
    adjoint = (pattern.to_kernel(matrix, conv.weight.shape) * conv.weight).sum()
    torch.testing.assert_close(adjoint, (matrix * pattern.to_matrix(conv.weight)).sum())


def test_large_or_unusual_convolutions_have_no_pattern() -> None:
    assert find_conv_pattern(nn.Conv2d(3, 4, 3, 2, 1), 8, 8) is not None
    assert find_conv_pattern(nn.Conv2d(3, 4, 3, 2, 1), 64, 64) is None, f"more than {MAX_MATRIX_ENTRIES} entries"
    for conv in (
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(3, 4, 3, dilation=2),
        nn.Conv2d(3, 4, (3, 1)),
        nn.Conv2d(3, 4, 3, padding="same"),
    ):
        assert find_conv_pattern(conv, 8, 8) is None


def start_trainer(recipe_name: str, remedy: str, unroll_steps: int) -> GANTrainer:
    """A trainer in the default dtype whose D has taken a few steps, so its moments are not zero."""
    recipe = get_recipe(recipe_name)
    data = DATASETS.get(recipe.dataset)()
    data = dataclasses.replace(data, draw=lambda n, rng, draw=data.draw: draw(n, rng).to(torch.get_default_dtype()))
    trainer = make_trainer(recipe, data, get_remedy(remedy), seed=0, unroll_steps=unroll_steps)
    for seed in range(3):
        trainer.discriminator.step(torch.randn(len(trainer.discriminator.state.theta), generator=rng(seed)))
    return trainer


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("loss_name", sorted(LOSSES))
@pytest.mark.parametrize("recipe", ["metz-stacked-quarter", "metz-stacked-half", "veegan"])
def test_unrolling_matches_autograd(recipe: str, loss_name: str) -> None:
    trainer, loss = start_trainer(recipe, "unrolled", 2), LOSSES[loss_name]
    _, real, fake = trainer._draw_minibatch()
    discriminator, leaf = trainer.discriminator, fake.detach().requires_grad_()
    net = discriminator.net
    layers = parse_layers(net, trainer.setup.data.output, loss)
    assert layers is not None

    def losses(samples: Tensor) -> tuple[Tensor, Tensor]:
        logits = net(real), net(samples)
        return loss.discriminator(*logits), loss.generator(*logits)

    gradients = SequentialGradients(discriminator, layers, loss).set_minibatch(real, leaf)
    actual = unroll_discriminator(gradients, discriminator.state, 2, discriminator.adam)
    by_autograd = AutogradGradients(discriminator, losses, leaf)
    expected = unroll_discriminator(by_autograd, discriminator.state, 2, discriminator.adam)
    torch.testing.assert_close(actual.fake_gradient, expected.fake_gradient, rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(actual.first_state.theta, expected.first_state.theta, rtol=1e-12, atol=1e-15)
    assert actual.loss_d == pytest.approx(expected.loss_d) and actual.loss_g == pytest.approx(expected.loss_g)


def test_unsupported_discriminators_use_autograd() -> None:
    output, loss = DATASETS.get("ring8")().output, LOSSES["minimax"]
    for net in (
        nn.Linear(2, 1),
        nn.Sequential(nn.Linear(2, 4), nn.GELU(), nn.Linear(4, 1)),
        nn.Sequential(nn.Linear(2, 4), nn.ReLU()),
    ):
        assert parse_layers(net, output, loss) is None
    assert parse_layers(nn.Sequential(nn.Linear(2, 1)), output, loss) is not None
    for remedy in ("relativistic", "spectral+unrolled", "packing+unrolled", "r1"):
        assert start_trainer("metz-stacked-quarter", remedy, 0)._fast_gradients is None


def test_every_unrolled_arm_of_the_benchmark_has_fast_gradients() -> None:
    ring, stacked = start_trainer("metz-appendix", "unrolled", 1), start_trainer("metz-stacked-half", "unrolled", 1)
    assert isinstance(ring._fast_gradients, ReluGradients)
    assert isinstance(stacked._fast_gradients, SequentialGradients)
    assert make_fast_gradients(ring.discriminator, ring.setup.data.output, get_remedy("relativistic").loss) is None  # type: ignore[arg-type]
