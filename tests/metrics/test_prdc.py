"""Precision, recall, density, coverage: equal to the prdc package, and their response to collapse."""

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
    "repeated": (draw(400, 64), draw(20, 64, seed=1).repeat(20, 1)),
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
    # prdc averages density in float32, hence 1e-6. A pair within 1e-7 of a radius may fall either way; none does here.
    assert asdict(prdc(real, fake, k)) == pytest.approx({key: float(expected[key]) for key in KEYS}, abs=1e-6)


def test_real_against_itself_is_perfect() -> None:
    result = prdc(draw(200, 16), draw(200, 16))
    assert (result.precision, result.recall, result.coverage) == (1, 1, 1)
    assert result.density == pytest.approx(1)


def test_coverage_of_equal_laws_has_its_closed_form() -> None:
    """1 - prod (n-i)/(2n-i), i = 1..5, about 1 - 2**-5; the standard error at n = 2000 is below .004."""
    n, missed = 2000, 1.0
    for i in range(1, 6):
        missed *= (n - i) / (2 * n - i)
    assert prdc(draw(n, 8), draw(n, 8, seed=1)).coverage == pytest.approx(1 - missed, abs=0.016)


def test_exchanging_the_sets_exchanges_precision_and_recall() -> None:
    real, fake = draw(300, 20), 0.8 * draw(300, 20, seed=1)
    assert prdc(real, fake).precision == prdc(fake, real).recall


@pytest.mark.parametrize("dim", [2, 32])
def test_dropped_modes_lower_recall_and_coverage(dim: int) -> None:
    mixture = make_mixture(dim, 8)
    real = mixture.sample(800, seed=1)
    levels = [
        prdc(real, Corruption(mode_fraction=keep).sample(mixture, 800, seed=2))
        for keep in (1.0, 0.75, 0.5, 0.25, 0.125)
    ]
    for better, worse in itertools.pairwise(levels):
        assert worse.recall < better.recall and worse.coverage < better.coverage
    assert levels[-1].coverage < 0.2


def test_narrower_modes_lower_recall() -> None:
    mixture = make_mixture(32, 8)
    real = mixture.sample(800, seed=1)
    levels = [
        prdc(real, Corruption(std_factor=width).sample(mixture, 800, seed=2)).recall for width in (1.0, 0.9, 0.8, 0.6)
    ]
    assert levels == sorted(levels, reverse=True) and levels[-1] < 0.05 < 0.5 < levels[0]


def test_invariant_to_rotation_scale_and_order() -> None:
    real, fake = draw(300, 40), draw(300, 40, seed=1)
    rotation = torch.linalg.qr(draw(40, 40, seed=3)).Q
    order = torch.randperm(300, generator=torch.Generator().manual_seed(4))
    assert prdc(7 * real @ rotation, 7 * fake[order] @ rotation) == prdc(real, fake)


def test_measured_with_floor_and_interval() -> None:
    mixture = make_mixture(32, 8)
    out = (
        Prdc("v", 400)
        .measure(results(mixture.sample(800, seed=1), Corruption(mode_fraction=0.5).sample(mixture, 400, seed=2), 400))
        .measurements
    )
    assert tuple(out) == KEYS
    for key in KEYS:
        entry = out[key]
        assert entry.low <= entry.value <= entry.high and entry.floor is not None and entry.n == 400
    assert out["coverage"].high < out["coverage"].floor
    assert out["precision"].high > out["precision"].floor - 0.1


def test_interval_matches_the_spread_of_fresh_samples() -> None:
    """Half-width over 1.96 against the std over 24 fresh draws: within a factor of 2 (12 replicates, t = 2.2)."""
    mixture = make_mixture(8, 4)
    fakes = [Corruption(mode_fraction=0.5).sample(mixture, 300, seed=100 + i) for i in range(24)]
    reals = [mixture.sample(600, seed=200 + i) for i in range(24)]
    result = [
        Prdc("v", 300, seed=i).measure(results(real, fake, 300)).measurements
        for i, (real, fake) in enumerate(zip(reals, fakes, strict=True))
    ]
    for key in ("precision", "recall", "density", "coverage"):
        scatter = float(torch.tensor([entry[key].value for entry in result]).std())
        width = sum(entry[key].high - entry[key].low for entry in result) / len(result) / 2 / 1.96
        assert 0.5 < width / scatter < 2, key


@pytest.mark.parametrize("fake", [torch.zeros(60, 40), draw(1, 40).repeat(60, 1)])
def test_a_collapsed_generator_gives_numbers(fake: Tensor) -> None:
    out = Prdc("v", 60).measure(results(draw(120, 40, seed=5), fake, 60)).measurements
    assert out["recall"].value == 0 and 0 < out["recall"].high < 0.1
    assert all(entry.status == "ok" for entry in out.values())


def test_missing_measurements_state_a_reason() -> None:
    assert Prdc("v", 9, referenced=False).needs() == {}
    assert Prdc("v", 9, referenced=False).measure({}).measurements["recall"].reason == "no real data"
    assert "too few" in str(Prdc("v", 4).measure(results(draw(8, 3), draw(4, 3), 4)).measurements["recall"].reason)
    with pytest.raises(SourceError):
        prdc(draw(3, 2), draw(3, 2))
