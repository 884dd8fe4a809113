"""Duplicates, support size and memorization: known supports are recovered, chance is not mistaken for repetition."""

from __future__ import annotations

import math

import pytest
import torch
from metric_inputs import draw, results
from torch import Tensor

from gandiag.errors import SourceError
from gandiag.metrics.copy_search import HashedRows, search_copies
from gandiag.metrics.duplicates import Duplicates, birthday_estimate, duplicate_threshold, near_duplicates, support_size
from gandiag.metrics.memorization import KEYS, Memorization, authenticity, copies, memorised
from gandiag.stats.distances import count_within_radius
from gandiag.stats.exact_rows import hash_rows
from gandiag.stats.resampling import poisson_interval
from gandiag.testing.toy_mixtures import Corruption, make_mixture


def draw_repeated(support: int, n: int, dim: int = 16, seed: int = 0, noise: float = 0.0) -> Tensor:
    """n draws from `support` equally likely prototypes."""
    chosen = torch.randint(support, (n,), generator=torch.Generator().manual_seed(seed))
    return draw(support, dim, seed=seed)[chosen] + noise * draw(n, dim, seed=seed + 1)


@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("dim", [2, 64])
def test_fresh_samples_are_no_duplicates(dim: int, offset: float) -> None:
    """In two dimensions, chance puts 1 - 2^(-0.01) = 0.7 % within a tenth of the median; in 64 none."""
    real, fake = draw(500, dim) + offset, draw(500, dim, seed=1) + offset
    assert near_duplicates(real, fake) < (0.03 if dim == 2 else 1e-9)
    assert near_duplicates(None, fake) < (0.03 if dim == 2 else 1e-9)


@pytest.mark.parametrize("noise", [0.0, 1e-4])
@pytest.mark.parametrize("support", [1, 5, 300])
def test_repeated_outputs_are_found_and_counted(support: int, noise: float) -> None:
    real, fake = draw(600, 16, seed=9), draw_repeated(support, 600, noise=noise)
    expected = float((count_within_radius(draw_repeated(support, 600), 1e-9) > 0).double().mean())
    assert near_duplicates(real, fake) == pytest.approx(expected)
    result = support_size(real, fake)
    assert result.low <= support <= result.high
    assert result.value == pytest.approx(support, rel=0.3)


def test_exact_copies_are_found_without_real_data() -> None:
    assert near_duplicates(None, draw_repeated(50, 600)) > 0.99
    assert near_duplicates(None, draw_repeated(50, 600) + 1e3) > 0.99
    assert near_duplicates(None, torch.zeros(10, 4)) == 1
    few_copies = torch.cat([draw(400, 16), draw(50, 16, seed=1).repeat(2, 1) + 1e-3 * draw(100, 16, seed=2)])
    assert near_duplicates(None, few_copies) == pytest.approx(0.2)  # a minority of inexact copies is detected


def test_the_threshold_is_a_tenth_of_the_real_spacing() -> None:
    real = torch.arange(0.0, 100.0, 2.0)[:, None]
    assert duplicate_threshold(real, draw(50, 1)) == pytest.approx(0.2)
    assert duplicate_threshold(real, draw(50, 1), step=1.0) == pytest.approx(0.5)
    assert duplicate_threshold(torch.zeros(9, 1), torch.zeros(9, 1)) > 0


def test_near_points_are_not_duplicates() -> None:
    """1e-4 apart at norm 1e3, with a spacing of 5e-4: decided by the differences, not by float32 products."""
    base = torch.zeros(40, 40)
    base[:, 0] = 1000.0
    base[:, 1] = torch.arange(40) * 5e-4
    base[1, 1] = 1e-4
    assert count_within_radius(base, 1.01e-4).tolist() == [1, 1] + [0] * 38
    assert count_within_radius(base, 0.99e-4).sum() == 0


@pytest.mark.parametrize(
    ("count", "low", "high"), [(0, 0.0, 3.689), (1, 0.0253, 5.572), (10, 4.795, 18.390), (100, 81.36, 121.63)]
)
def test_poisson_intervals_equal_the_tables(count: int, low: float, high: float) -> None:
    """Garwood 1936."""
    assert poisson_interval(count) == pytest.approx((low, high), rel=1e-3)
    assert poisson_interval(3 * count, 3.0) == pytest.approx((3 * low, 3 * high), rel=1e-3)


@pytest.mark.parametrize("weights", ["equal", "unequal"])
def test_support_intervals_cover_the_inverse_simpson_index(weights: str) -> None:
    """At least 85 of 100: 95 expected, 85 is 4.6 standard deviations below."""
    shares = torch.ones(400) / 400 if weights == "equal" else torch.arange(1, 401).double().pow(-0.7)
    shares = shares / shares.sum()
    truth = 1 / float(shares.square().sum())
    n_covered = 0
    for seed in range(100):
        chosen = torch.multinomial(shares.float(), 300, replacement=True, generator=torch.Generator().manual_seed(seed))
        result = birthday_estimate((chosen[:, None] == chosen).sum(1) - 1)
        n_covered += result.low <= truth <= result.high
    assert n_covered >= 85


def test_no_pair_gives_a_lower_bound() -> None:
    result = support_size(draw(100, 32), draw(100, 32, seed=1))
    assert result.value == math.inf and result.high == math.inf
    assert result.low == pytest.approx(100 * 99 / 2 / 3.689, rel=1e-3)


def test_duplicates_grow_as_outputs_repeat() -> None:
    mixture = make_mixture(16, 8)
    real = mixture.sample(800, seed=1)
    measured = [
        Duplicates("v", 400)
        .measure(results(real, Corruption(unique_fraction=u).sample(mixture, 400, seed=2), 400))
        .measurements
        for u in (1.0, 0.9, 0.5, 0.1)
    ]
    values = [step["near_duplicates"].value for step in measured]
    assert values == sorted(values) and values[0] == 0 and values[-1] > 0.99
    assert measured[0]["near_duplicates"].floor == 0 and 0 < measured[0]["near_duplicates"].high < 0.02
    assert measured[0]["support_size"].status == "not_measured" and "more than" in str(
        measured[0]["support_size"].reason
    )
    assert measured[-1]["support_size"].low <= 40 <= measured[-1]["support_size"].high


@pytest.mark.parametrize("fake", [torch.zeros(40, 8), torch.full((40, 8), 1e6), draw(1, 8).repeat(2, 1)])
@pytest.mark.parametrize("referenced", [True, False])
def test_one_output(fake: Tensor, referenced: bool) -> None:
    n = len(fake)
    measured = (
        Duplicates("v", n, referenced=referenced)
        .measure(results(draw(2 * n, 8) if referenced else None, fake, n))
        .measurements
    )
    assert measured["near_duplicates"].value == 1 and measured["support_size"].value == 1
    assert (measured["near_duplicates"].floor is None) == (not referenced)


@pytest.mark.parametrize(("dim", "mutual"), [(1, 2 / 3), (2, 0.6215), (3, 0.5926)])
def test_fresh_data_are_authentic_unless_neighbors_are_mutual(dim: int, mutual: float) -> None:
    """The probability that a row is not authentic is that of mutual neighbors (Cox 1981); within 4 standard errors."""
    real, fake = (torch.rand(1000, dim, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert authenticity(real, fake) == pytest.approx(1 - mutual, abs=4 * 0.5 / math.sqrt(1000))


def test_copies_are_never_authentic() -> None:
    real = draw(1000, 8)
    assert authenticity(real, real[:300]) == 0 and memorised(real, real[:300]) == 1
    assert memorised(real, draw(1000, 8, seed=1)) == 0


@pytest.mark.parametrize(("share", "seed"), [(0.0, 3), (0.3, 4), (1.0, 5)])
def test_fraction_of_copies_is_recovered(share: float, seed: int) -> None:
    real, fresh = draw(500, 24), draw(400, 24, seed=seed)
    count = int(400 * share)
    fake = torch.cat([real[:count] + 1e-3 * draw(count, 24, seed=6), fresh[count:]])
    assert memorised(real, fake) == pytest.approx(share)


def test_repeated_copies_are_distinguished_from_repeated_novelties() -> None:
    """Of 60 repeated real rows, those in the reference half are copies; the caller does not know the halves."""
    real = draw(400, 16)
    old, new = real[torch.arange(200) % 60], draw(60, 16, seed=7)[torch.arange(200) % 60]
    for fake, key, other in (
        (old, "repeated_copies", "repeated_novelties"),
        (new, "repeated_novelties", "repeated_copies"),
    ):
        measured = Memorization("v", 200).measure(results(real, fake, 200)).measurements
        assert tuple(measured) == KEYS
        assert measured[key].value > 0.3 and measured[other].value < 0.7 and measured[key].value > measured[key].floor
        assert measured[key].low <= measured[key].value <= measured[key].high
    assert float((copies(real, old).copied & copies(real, old).repeated).double().mean()) == 1


def test_missing_measurements_state_a_reason() -> None:
    assert "too few samples for a pair: got 1" in str(
        Duplicates("v", 1, referenced=False)
        .measure(results(None, draw(1, 3), 1))
        .measurements["near_duplicates"]
        .reason
    )
    assert Memorization("v", 5, referenced=False).measure({}).measurements["memorised"].reason == "no real data"
    assert "too few samples" in str(
        Memorization("v", 1).measure(results(draw(2, 3), draw(1, 3), 1)).measurements["memorised"].reason
    )
    for call in (memorised, authenticity, near_duplicates):
        with pytest.raises(SourceError):
            call(draw(1, 3), draw(1, 3))


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.15])
def test_copies_under_noise_are_flagged_and_fresh_data_are_not(noise: float) -> None:
    """In 32 dimensions; 0.15 is the noise relative to the width of the data."""
    real = draw(1000, 32)
    assert memorised(real, real[:500] + noise * draw(500, 32, seed=1)) > 0.99
    assert memorised(real, draw(500, 32, seed=2)) == 0


@pytest.mark.parametrize("dim", [2, 4, 8, 64])
@pytest.mark.parametrize("width", [1.0, 0.5, 0.0])
def test_chance_and_narrow_samples_are_not_copies(dim: int, width: float) -> None:
    """Samples at the center of the data lie nearer to them than the data do to each other, but are no copies."""
    real, fake = draw(1000, dim, seed=3), width * draw(500, dim, seed=4)
    found = search_copies(*(HashedRows(hash_rows(rows), rows) for rows in (real, fake)), n_available=1000)
    if width or dim > 2:  # in the plane, one point among 1,000 may lie at another
        assert found["copies"].low - found["copies"].floor < 0.05
    assert found["exact_copies"].value == 0


def test_every_real_row_is_searched_exactly_first() -> None:
    real = draw(1500, 8)
    fake = torch.cat([real[-300:], draw(100, 8, seed=1)])
    found = search_copies(HashedRows(hash_rows(real), real), HashedRows(hash_rows(fake), fake), n_available=1500)
    assert found["exact_copies"].value == 0.75 and found["copies"].value == pytest.approx(0.75, abs=0.01)
    assert found["copies"].reason == "1,500 real samples searched"
    discrete = torch.eye(5)[torch.arange(1000) % 5]
    alike = HashedRows(hash_rows(discrete), discrete)
    again = search_copies(alike, alike, n_available=2000)
    assert again["copies"].floor == 1 and again["exact_copies"].floor == pytest.approx(0.995)
    assert again["copies"].reason == "1,000 of 2,000 real samples searched"
