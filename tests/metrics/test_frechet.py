"""The Fréchet distance: closed forms, and SciPy's square root and torch-fidelity as references, on every code path."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from metric_inputs import draw, results
from scipy.linalg import sqrtm
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from gandiag.errors import SourceError
from gandiag.metrics.frechet import FrechetDistance, frechet_distance, frechet_to_reference, reference_statistics
from gandiag.metrics.inception import Fid, InceptionScore, fid
from gandiag.stats.moments import Gaussian, fit_gaussian
from gandiag.testing.toy_mixtures import Corruption, make_mixture


def correlated(n: int, dim: int, seed: int) -> Tensor:
    """Rows with a spectrum over two decades and a mean, float64, as features have."""
    mixing = draw(dim, dim, seed=90).double() / dim**0.5 * torch.logspace(0, -2, dim, dtype=torch.float64)[:, None]
    return draw(n, dim, seed=seed).double() @ mixing + 0.3 * draw(1, dim, seed=91).double() + 0.1 * seed


def by_sqrtm(real: Tensor, fake: Tensor) -> float:
    m, w = real.numpy().mean(0), fake.numpy().mean(0)
    s, q = np.cov(real.numpy(), rowvar=False), np.cov(fake.numpy(), rowvar=False)
    return float(((m - w) ** 2).sum() + np.trace(s) + np.trace(q) - 2 * np.trace(sqrtm(s @ q).real))


@pytest.mark.parametrize(("n", "m"), [(300, 300), (300, 150), (64, 200), (65, 64)])
def test_equal_to_scipy_and_torch_fidelity(n: int, m: int) -> None:
    real, fake = correlated(n, 48, 1), correlated(m, 48, 2)
    statistics = [fid_features_to_statistics(side) for side in (fake, real)]
    expected = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert fid(real, fake) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(real, fake) == pytest.approx(by_sqrtm(real, fake), rel=1e-6)


@pytest.mark.parametrize(("n", "m"), [(20, 20), (20, 100), (100, 20), (48, 48), (2, 2)])
def test_fewer_rows_than_features(n: int, m: int) -> None:
    """The code paths for n <= D agree with that through covariances.

    The latter has an error of √eps of the trace; sqrtm of singular products has a larger one.
    """
    real, fake = correlated(n, 48, 1), correlated(m, 48, 2)
    full = frechet_to_reference(reference_statistics(fit_gaussian(real)), fit_gaussian(fake))
    assert frechet_distance(real, fake) == pytest.approx(full, rel=1e-5)


def test_closed_form_for_commuting_covariances() -> None:
    """N(0, diag a) and N(m, diag b): |m|² + Σ (√a - √b)²."""
    a, b, m = (
        torch.tensor([4.0, 1.0, 0.0]).double(),
        torch.tensor([1.0, 0.0, 9.0]).double(),
        torch.tensor([3.0, 0.0, 4.0]).double(),
    )
    real, fake = Gaussian(10, torch.zeros(3).double(), a.diag()), Gaussian(10, m, b.diag())
    assert frechet_distance(real, fake) == pytest.approx(25 + 1 + 1 + 9, rel=1e-12)


@pytest.mark.parametrize(("n", "dim"), [(200, 16), (20, 64)])
def test_identity_symmetry_and_shift(n: int, dim: int) -> None:
    x, y = draw(n, dim).double(), draw(n, dim, seed=1).double() * 2
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6 * float(x.var(0).sum()))
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x), rel=1e-9)
    assert frechet_distance(x, x + 3) == pytest.approx(9 * dim, rel=1e-6)


@pytest.mark.parametrize("fake", [torch.zeros(50, 8), torch.full((50, 8), 1e4), torch.zeros(2, 8)])
def test_a_constant_generator(fake: Tensor) -> None:
    """All the variance is lost: |m - c|² + tr S."""
    real = draw(100, 8)
    moments = fit_gaussian(real)
    assert frechet_distance(real, fake) == pytest.approx(
        float((moments.mean - fake[0]).square().sum() + moments.cov.trace()), rel=1e-9
    )
    assert frechet_distance(fake, fake) == 0


def test_measured_with_floor_and_interval() -> None:
    mixture = make_mixture(24, 8)
    fake = Corruption(mode_fraction=0.5).sample(mixture, 400, seed=2)
    result = (
        FrechetDistance("v", 400).measure(results(mixture.sample(800, seed=1), fake, 400)).measurements["frechet[v]"]
    )
    assert result.floor is not None and result.low is not None and result.high is not None
    assert 0 <= result.floor < result.low <= result.value <= result.high
    assert Fid("v", 400).measure(results(mixture.sample(800, seed=1), fake, 400)).measurements["fid"] == result


def test_distance_grows_with_missing_modes() -> None:
    mixture = make_mixture(24, 8)
    real = mixture.sample(600, seed=1)
    levels = [
        frechet_distance(real, Corruption(mode_fraction=keep).sample(mixture, 600, seed=2))
        for keep in (1.0, 0.75, 0.5, 0.25, 0.125)
    ]
    assert levels == sorted(levels)


def test_missing_measurements_state_a_reason() -> None:
    assert FrechetDistance("v", 9, referenced=False).measure({}).measurements["frechet[v]"].reason == "no real data"
    assert "too few samples for a covariance: got 1" in str(
        FrechetDistance("v", 1).measure(results(draw(2, 3), draw(1, 3), 1)).measurements["frechet[v]"].reason
    )
    assert Fid(referenced=False).measure({}).measurements["fid"].status == "not_measured"
    assert (
        InceptionScore("v", 4).measure(results(draw(8, 3), draw(4, 3), 4)).measurements["inception_score"].status
        == "not_measured"
    )
    with pytest.raises(SourceError, match="features"):
        frechet_distance(draw(5, 3), draw(5, 4))
