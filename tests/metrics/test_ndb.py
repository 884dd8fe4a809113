"""NDB: its test against the closed form and SciPy, its invariances, and what it does not detect."""

from __future__ import annotations

import pytest
import torch
from metric_inputs import draw, results
from scipy.stats import chi2_contingency

from gandiag.errors import ConfigError, SourceError
from gandiag.metrics.ndb_bins import DEFAULT_ALPHA, Ndb, assign_bins, fit_bins, fraction_different, ndb
from gandiag.testing.toy_mixtures import Corruption, make_mixture

RING = make_mixture(2, 8)


def test_the_test_of_two_proportions_is_pearsons_chi_square() -> None:
    """Uncorrected, with one degree of freedom: z² is χ²."""
    real_bins, fake_bins = torch.arange(600) % 5 % 4, torch.arange(400) % 4
    counts = torch.stack([real_bins.bincount(), fake_bins.bincount()])
    is_different = [
        chi2_contingency([[a, 600 - a], [b, 400 - b]], correction=False)[1] < DEFAULT_ALPHA
        for a, b in counts.T.tolist()
    ]
    assert 0 < sum(is_different) < 4
    assert fraction_different(real_bins, fake_bins, 4) == sum(is_different) / 4


def test_two_bins_at_the_critical_value() -> None:
    """500 of 1,000 against 500 + c of 1,000: z = c/1000 / √(p(1 - p)/500) passes 1.96 between c = 43 and c = 44."""
    half = torch.arange(1000) % 2
    for extra, expected in ((43, 0.0), (44, 1.0)):
        assert fraction_different(half, (torch.arange(1000) < 500 + extra).long(), 2) == expected


def test_equal_distributions_differ_at_the_level_of_the_test() -> None:
    """In two dimensions bins hardly overfit their rows: 20 tests of 75 bins at .05, standard error about .006."""
    result = [ndb(RING.sample(1500, seed=s), RING.sample(1500, seed=100 + s)) for s in range(20)]
    assert sum(result) / 20 == pytest.approx(DEFAULT_ALPHA, abs=0.02)


def test_dropped_modes_leave_every_bin_different() -> None:
    """Bins of dropped modes are empty, and those of kept ones hold twice their share."""
    assert ndb(RING.sample(3000, seed=1), Corruption(mode_fraction=0.5).sample(RING, 3000, seed=2)) > 0.9


def test_losses_inside_a_bin_are_not_detected() -> None:
    assert ndb(RING.sample(1000, seed=1), Corruption(std_factor=0.05).sample(RING, 1000, seed=2), bins=8) <= 1 / 8


def test_it_grows_with_n_for_the_same_defect() -> None:
    few, many = (
        ndb(RING.sample(n, seed=1), Corruption(mode_fraction=0.875).sample(RING, n, seed=2), bins=8)
        for n in (200, 4000)
    )
    assert few < many


def test_invariant_to_scale_shift_and_order_of_generated_rows() -> None:
    real, fake = draw(400, 5), draw(300, 5, seed=1)
    plain = ndb(real, fake)
    assert ndb(1e4 * real, 1e4 * fake) == ndb(real, fake.flip(0)) == plain
    assert ndb(real + 100, fake + 100) == pytest.approx(plain, abs=0.051)  # one bin of 20, by rounding
    assert ndb(real, fake, seed=0) == ndb(real.numpy(), fake.numpy(), seed=0)


def test_identity_scores_zero_and_bins_are_the_means_of_their_rows() -> None:
    real = draw(300, 4)
    assert ndb(real, real) == 0
    centers = fit_bins(real, 6)
    label = assign_bins(real, centers)
    assert torch.allclose(torch.stack([real[label == k].mean(0) for k in range(6)]), centers, atol=0.05)


def test_few_distinct_rows_make_few_bins() -> None:
    real = torch.tensor([[0.0, 1.0], [2.0, 3.0]]).repeat(100, 1)
    assert len(fit_bins(real)) == 2 and ndb(real, real[:50]) == 0 and ndb(real, real[:1].repeat(50, 1)) == 1
    assert ndb(torch.zeros(100, 2), draw(50, 2)) == 0  # one bin contains everything


@pytest.mark.parametrize("bins", [0, 41])
def test_impossible_bins_are_refused(bins: int) -> None:
    with pytest.raises(ConfigError, match=f"{bins} bins are not possible with 40"):
        ndb(draw(40, 2), draw(40, 2), bins)


def test_unequal_widths_are_refused() -> None:
    with pytest.raises(SourceError, match="2 features"):
        ndb(draw(40, 2), draw(40, 3))


def test_the_metric_has_floor_and_interval_on_the_same_bins() -> None:
    out = (
        Ndb("v", 800)
        .measure(results(RING.sample(1600, seed=1), Corruption(mode_fraction=0.5).sample(RING, 800, seed=2), 800))
        .measurements["ndb"]
    )
    assert 0.6 < out.low <= out.value <= out.high <= 1 and out.floor < 0.2
    few = Ndb("v", 7).measure(results(draw(14, 2), draw(7, 2), 7)).measurements["ndb"]
    assert few.value is None and "got 7, need at least 8" in str(few.reason)
