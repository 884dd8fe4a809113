"""Vendi scores and pairwise distances: closed forms, bounds, and which losses they detect."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from metric_inputs import draw, results
from torch import Tensor

from gandiag.errors import SourceError
from gandiag.metrics.pairwise import (
    KEYS,
    RATIO_KEY,
    PairwiseDistances,
    pairwise_distance,
    pairwise_distances,
    pairwise_ratio,
)
from gandiag.metrics.vendi import ORDERS, Vendi, hill_number, similarity_eigenvalues, vendi_score
from gandiag.testing.toy_mixtures import Corruption, make_mixture


@pytest.mark.parametrize("order", ORDERS.values())
@pytest.mark.parametrize("copies", [1, 5, 40])
@pytest.mark.parametrize("groups", [1, 3, 8])
def test_orthogonal_groups_count_as_many(order: float, copies: int, groups: int) -> None:
    """g orthogonal directions, equally often, score g at every order, on both sides of n = D."""
    assert vendi_score(None, 3.0 * torch.eye(16)[:groups].repeat(copies, 1), order) == pytest.approx(groups, rel=1e-9)


@pytest.mark.parametrize(
    ("order", "expected"), [(1.0, 0.75**-0.75 * 0.25**-0.25), (2.0, 1 / (0.75**2 + 0.25**2)), (math.inf, 4 / 3)]
)
def test_unequal_groups_give_hill_numbers(order: float, expected: float) -> None:
    assert vendi_score(None, torch.eye(8)[[0, 0, 0, 1]], order) == pytest.approx(expected, rel=1e-9)


def test_the_dual_spectrum_is_the_spectrum() -> None:
    x = draw(30, 12).double()
    unit = x / x.norm(dim=1, keepdim=True)
    direct = torch.linalg.eigvalsh(unit @ unit.T / 30)[-13:]
    assert torch.allclose(similarity_eigenvalues(x, None), direct, atol=1e-12)


def test_orders_are_ordered_and_bounded() -> None:
    x = draw(50, 7)
    one, two, most = (vendi_score(None, x, order) for order in (1.0, 2.0, math.inf))
    assert 1 <= most <= two <= one <= 8


@pytest.mark.parametrize(
    "fake", [torch.zeros(20, 6), torch.ones(20, 6), torch.full((20, 6), 1e6), draw(1, 6).repeat(20, 1)]
)
def test_one_output_scores_one(fake: Tensor) -> None:
    """Also where it equals the center."""
    for real in (None, draw(50, 6), fake):
        assert vendi_score(real, fake) == pytest.approx(1, abs=1e-9)


def test_vendi_falls_with_modes_and_is_measured_with_floor() -> None:
    mixture = make_mixture(32, 16)
    real = mixture.sample(600, seed=1)
    levels = [
        Vendi("v", 300)
        .measure(results(real, Corruption(mode_fraction=keep).sample(mixture, 300, seed=2), 300))
        .measurements
        for keep in (1.0, 0.5, 0.125)
    ]
    for key in ORDERS:
        values = [step[key].value for step in levels]
        assert values == sorted(values, reverse=True)
        assert all(step[key].low <= step[key].value <= step[key].high for step in levels)
        assert levels[-1][key].high < levels[-1][key].floor
    # The common directions of 300 samples of 16 modes are stable; the most common one (order infinity) is not.
    assert levels[0]["vendi_1"].value == pytest.approx(levels[0]["vendi_1"].floor, rel=0.1)


def test_hill_number_of_equal_shares_is_their_count() -> None:
    for order in (0.5, 1.0, 2.0, 3.0, math.inf):
        assert hill_number(torch.full((9,), 1 / 9, dtype=torch.float64), order) == pytest.approx(9, rel=1e-12)


@pytest.mark.parametrize("dim", [1, 8, 64])
def test_mean_distance_of_normals_has_its_closed_form(dim: int) -> None:
    """E|x - y| for N(0, I) is 2 Γ((d+1)/2)/Γ(d/2).

    The standard error of the U-statistic is at most twice the std of E|x - Y| over √n, below √(2/n).
    """
    n = 2000
    expected = 2 * math.exp(math.lgamma((dim + 1) / 2) - math.lgamma(dim / 2))
    for result in pairwise_distance(draw(n, dim), draw(n, dim, seed=1)):
        assert result == pytest.approx(expected, abs=4 * math.sqrt(2 / n))


def test_two_points() -> None:
    """Half of the samples at each of two points at distance 5: a fraction n/(2(n - 1)) of the pairs is apart."""
    fake = torch.tensor([[0.0, 0.0], [3.0, 4.0]]).repeat(10, 1)
    assert pairwise_distance(fake, fake)[1] == pytest.approx(5 * 20 / 38)
    assert sorted(set(pairwise_distances(fake).tolist())) == [0, 5]
    assert pairwise_ratio(draw(20, 2), fake) == 0
    assert math.isnan(pairwise_ratio(fake, draw(20, 2)))


def test_distances_scale_and_the_ratio_does_not() -> None:
    real, fake = draw(100, 9), 0.5 * draw(100, 9)
    assert pairwise_ratio(real, fake) == pytest.approx(0.5, rel=1e-5)
    assert pairwise_ratio(100 * real, 100 * fake) == pytest.approx(0.5, rel=1e-5)


def test_pairwise_is_measured_with_a_histogram() -> None:
    mixture = make_mixture(16, 8)
    out = PairwiseDistances("v", 200).measure(
        results(mixture.sample(400, seed=1), Corruption(std_factor=0.5).sample(mixture, 200, seed=2), 200)
    )
    assert tuple(out.measurements) == (*KEYS, RATIO_KEY)
    assert all(
        entry.low <= entry.value <= entry.high and entry.floor is not None for entry in out.measurements.values()
    )
    assert out.measurements[RATIO_KEY].value == pytest.approx(
        0.5, abs=0.1
    )  # near pairs lie within a mode of half the width
    assert (
        out.measurements["pairwise_distance"].value > 0.9 * out.measurements["pairwise_distance"].floor
    )  # the mean hardly changes
    data = out.exhibits[0].data
    assert len(data["edges"]) == len(data["counts"]["real"]) + 1
    assert sum(data["counts"]["real"]) == sum(data["counts"]["generated"]) == 200 * 199 // 2


def test_quantiles_are_numpys_lower_ones() -> None:
    fake = draw(60, 5)
    result = PairwiseDistances("v", 60, referenced=False).measure(results(None, fake, 60)).measurements
    pairs = pairwise_distances(fake).numpy()
    for key, level in zip(KEYS[1:], (0.05, 0.25, 0.5, 0.75, 0.95), strict=True):
        assert result[key].value == pytest.approx(float(np.quantile(pairs, level, method="inverted_cdf")), rel=1e-6)
        assert result[key].reason == "no real data"


@pytest.mark.parametrize("fake", [torch.zeros(2, 4), torch.zeros(40, 4), torch.ones(3, 4)])
def test_collapsed_sets_give_numbers(fake: Tensor) -> None:
    n = len(fake)
    for metric in (PairwiseDistances("v", n), Vendi("v", n)):
        for key, entry in metric.measure(results(draw(2 * n, 4), fake, n)).measurements.items():
            assert entry.value is not None and math.isfinite(entry.value), key


def test_missing_measurements_state_a_reason() -> None:
    one = results(None, draw(1, 4), 1)
    assert "too few samples for a pair: got 1" in str(
        PairwiseDistances("v", 1, referenced=False).measure(one).measurements["pairwise_distance"].reason
    )
    assert "too few samples" in str(Vendi("v", 1, referenced=False).measure(one).measurements["vendi_1"].reason)
    with pytest.raises(SourceError, match="pair"):
        pairwise_distance(draw(5, 2), draw(1, 2))


def test_order_one_is_flagged_where_more_samples_would_raise_it() -> None:
    n = 200
    few = Vendi("v", 60).measure(results(draw(120, 40), draw(60, 40, seed=1), 60)).measurements
    assert "not converged" in (few["vendi_1"].reason or "") and "half of them" in few["vendi_1"].reason
    points = Vendi("v", n).measure(results(draw(2 * n, 2), draw(n, 2, seed=1), n)).measurements
    assert all(entry.reason is None for entry in points.values())
