"""Precision, recall, density, coverage: the prdc package's numbers, and what collapse does to them."""

from __future__ import annotations

import contextlib
import io
import itertools
from dataclasses import asdict

import pytest
import torch
from metric_inputs import draw, results
from prdc import compute_prdc
from torch import Tensor

from gandiag.errors import SourceError
from gandiag.metrics.precision_recall import KEYS, Prdc, prdc
from gandiag.testing.toy_mixtures import Corruption, make_mixture

PAIRS = {
    "gaussian": (draw(500, 64), draw(450, 64, seed=1)),
    "two dimensions": (draw(500, 2), 0.7 * draw(500, 2, seed=1)),
    "far from the origin": (draw(400, 128) + 1e3, draw(400, 128, seed=1) + 1e3),
    "recycled": (draw(400, 64), draw(20, 64, seed=1).repeat(20, 1)),
    "jittered": (draw(400, 64), draw(20, 64, seed=1).repeat(20, 1) + 1e-6 * draw(400, 64, seed=2)),
    "constant": (draw(300, 64), torch.ones(300, 64)),
    "both constant": (torch.zeros(50, 64), torch.ones(50, 64)),
    "the same": (draw(300, 96), draw(300, 96)),
    "copies of some real rows": (draw(300, 96), draw(300, 96)[:30].repeat(10, 1)),
    "more rows than a tile": (draw(2100, 34), draw(2200, 34, seed=1)),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("k", [3, 5])
def test_equal_to_the_prdc_package(name: str, k: int) -> None:
    real, fake = PAIRS[name]
    with contextlib.redirect_stdout(io.StringIO()):
        expected = compute_prdc(real.numpy(), fake.numpy(), k)
    # prdc takes means in float32 for density, hence 1e-6; a pair at a radius to within 1e-7 may fall either way, and none does here.
    assert asdict(prdc(real, fake, k)) == pytest.approx({key: float(expected[key]) for key in KEYS}, abs=1e-6)


def test_real_against_itself_is_perfect() -> None:
    found = prdc(draw(200, 16), draw(200, 16))
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)
    assert found.density == pytest.approx(1)


def test_coverage_of_equal_laws_has_its_closed_form() -> None:
    """1 - prod (n-i)/(2n-i), i = 1..5, about 1 - 2**-5; the standard error at n = 2000 is below .004."""
    n, missed = 2000, 1.0
    for i in range(1, 6):
        missed *= (n - i) / (2 * n - i)
    assert prdc(draw(n, 8), draw(n, 8, seed=1)).coverage == pytest.approx(1 - missed, abs=0.016)


def test_roles_exchanged_exchange_precision_and_recall() -> None:
    real, fake = draw(300, 20), 0.8 * draw(300, 20, seed=1)
    assert prdc(real, fake).precision == prdc(fake, real).recall


@pytest.mark.parametrize("dim", [2, 32])
def test_dropped_modes_lower_recall_and_coverage(dim: int) -> None:
    world = make_mixture(dim, 8)
    real = world.sample(800, seed=1)
    ladder = [
        prdc(real, Corruption(mode_fraction=keep).sample(world, 800, seed=2)) for keep in (1.0, 0.75, 0.5, 0.25, 0.125)
    ]
    for better, worse in itertools.pairwise(ladder):
        assert worse.recall < better.recall and worse.coverage < better.coverage
    assert ladder[-1].coverage < 0.2


def test_thinner_modes_lower_recall() -> None:
    world = make_mixture(32, 8)
    real = world.sample(800, seed=1)
    ladder = [
        prdc(real, Corruption(std_factor=width).sample(world, 800, seed=2)).recall for width in (1.0, 0.9, 0.8, 0.6)
    ]
    assert ladder == sorted(ladder, reverse=True) and ladder[-1] < 0.05 < 0.5 < ladder[0]


def test_turned_scaled_and_shuffled_rows_change_nothing() -> None:
    real, fake = draw(300, 40), draw(300, 40, seed=1)
    turn = torch.linalg.qr(draw(40, 40, seed=3)).Q
    order = torch.randperm(300, generator=torch.Generator().manual_seed(4))
    assert prdc(7 * real @ turn, 7 * fake[order] @ turn) == prdc(real, fake)


def test_measured_with_floor_and_interval() -> None:
    world = make_mixture(32, 8)
    out = (
        Prdc("v", 400)
        .measure(results(world.sample(800, seed=1), Corruption(mode_fraction=0.5).sample(world, 400, seed=2), 400))
        .measurements
    )
    assert tuple(out) == KEYS
    for key in KEYS:
        entry = out[key]
        assert entry.low <= entry.value <= entry.high and entry.floor is not None and entry.n == 400
    assert out["coverage"].high < out["coverage"].floor
    assert out["precision"].high > out["precision"].floor - 0.1


def test_interval_is_as_wide_as_fresh_samples_scatter() -> None:
    """The half-width over 1.96 against the standard deviation over 24 fresh draws: within a factor of 2 (12 replicates, t = 2.2)."""
    world = make_mixture(8, 4)
    fakes = [Corruption(mode_fraction=0.5).sample(world, 300, seed=100 + i) for i in range(24)]
    reals = [world.sample(600, seed=200 + i) for i in range(24)]
    found = [
        Prdc("v", 300, seed=i).measure(results(real, fake, 300)).measurements
        for i, (real, fake) in enumerate(zip(reals, fakes, strict=True))
    ]
    for key in ("precision", "recall", "density", "coverage"):
        scatter = float(torch.tensor([entry[key].value for entry in found]).std())
        width = sum(entry[key].high - entry[key].low for entry in found) / len(found) / 2 / 1.96
        assert 0.5 < width / scatter < 2, key


@pytest.mark.parametrize("fake", [torch.zeros(60, 40), draw(1, 40).repeat(60, 1)])
def test_a_collapsed_generator_gives_numbers(fake: Tensor) -> None:
    out = Prdc("v", 60).measure(results(draw(120, 40, seed=5), fake, 60)).measurements
    assert out["recall"].value == 0 and 0 < out["recall"].high < 0.1
    assert all(entry.status == "ok" for entry in out.values())


def test_what_cannot_be_measured_says_why() -> None:
    assert Prdc("v", 9, referenced=False).needs() == {}
    assert Prdc("v", 9, referenced=False).measure({}).measurements["recall"].reason == "no real data"
    assert "too few" in str(Prdc("v", 4).measure(results(draw(8, 3), draw(4, 3), 4)).measurements["recall"].reason)
    with pytest.raises(SourceError):
        prdc(draw(3, 2), draw(3, 2))
