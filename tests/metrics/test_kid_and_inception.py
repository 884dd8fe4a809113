"""KID and IS: equal to torch-fidelity on the same features, and their statistical properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from metric_inputs import draw, results
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kernel_mmd, kid_features_to_metric

from gandiag.errors import SourceError
from gandiag.metrics.inception import InceptionScore, inception_score
from gandiag.metrics.kernel_distance import Kid, kid, kid_subsets
from gandiag.testing.toy_mixtures import Corruption, make_mixture

KERNEL = {
    "kid_kernel": "poly",
    "kid_kernel_poly_degree": 3,
    "kid_kernel_poly_gamma": None,
    "kid_kernel_poly_coef0": 1.0,
}


@pytest.mark.parametrize("dim", [2, 96])
def test_all_pairs_equal_torch_fidelity_on_one_subset(dim: int) -> None:
    real, fake = draw(300, dim).double(), 0.9 * draw(300, dim, seed=1).double() + 0.1
    assert kid(real, fake) == pytest.approx(float(kernel_mmd(fake.numpy(), real.numpy(), **KERNEL)), rel=1e-6)


def test_subsets_equal_torch_fidelity() -> None:
    real, fake = draw(500, 64).double(), 0.9 * draw(400, 64, seed=1).double() + 0.1
    expected = kid_features_to_metric(
        fake, real, kid_subsets=20, kid_subset_size=100, rng_seed=7, verbose=False, **KERNEL
    )
    mean, std = kid_subsets(real, fake, subsets=20, size=100, seed=7)
    assert mean == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-6)
    assert std == pytest.approx(expected["kernel_inception_distance_std"], rel=1e-6)


def test_many_rows_take_tiles_and_float32_products() -> None:
    """5,000 rows exceed both limits. Float32 products err by 1e-6 of a kernel of order 1, their mean by less."""
    real, fake = draw(5000, 8), 1.1 * draw(2500, 8, seed=1)
    exact = kid(real[:4000].double(), fake.double())
    assert kid(real, fake) == pytest.approx(kid(real.double(), fake.double()), abs=1e-7)
    assert kid(real, fake) == pytest.approx(exact, rel=0.5)


def test_unbiased_at_any_n() -> None:
    """Real against real has mean 0 at every n, to 3 standard errors of 200 draws; a biased estimate is off by 20."""
    for n in (5, 40):
        result = torch.tensor([kid(draw(n, 4, seed=2 * i), draw(n, 4, seed=2 * i + 1)) for i in range(200)])
        assert abs(float(result.mean())) < 3 * float(result.std()) / math.sqrt(200)


def test_symmetry_and_collapse() -> None:
    real, fake = draw(100, 8), draw(80, 8, seed=1) + 1
    assert kid(real, fake) == pytest.approx(kid(fake, real), rel=1e-9)
    assert kid(torch.ones(5, 3), torch.ones(5, 3)) == pytest.approx(0, abs=1e-12)
    assert kid(real, torch.ones(2, 8)) > kid(real[:50], real[50:])


def test_kid_measured_with_floor_and_interval() -> None:
    mixture = make_mixture(24, 8)
    result = [
        Kid("v", 300, seed=i)
        .measure(
            results(mixture.sample(600, seed=i), Corruption(mode_fraction=0.5).sample(mixture, 300, seed=50 + i), 300)
        )
        .measurements["kid[v]"]
        for i in range(30)
    ]
    assert all(entry.low < entry.value < entry.high and abs(entry.floor) < entry.low for entry in result)
    scatter = float(np.std([entry.value for entry in result], ddof=1))
    width = float(np.mean([entry.high - entry.low for entry in result])) / 2 / 1.96
    assert 0.6 < width / scatter < 1.8  # 30 draws give the std to 13 %; t with 11 degrees of freedom widens by 12 %


@pytest.mark.parametrize(("splits", "n"), [(10, 500), (10, 503), (1, 64)])
def test_inception_score_equals_torch_fidelity(splits: int, n: int) -> None:
    logits = 4 * draw(n, 20)
    expected = isc_features_to_metric(logits, splits=splits, shuffle=True, rng_seed=2020)
    mean, std = inception_score(logits, splits)
    assert mean == pytest.approx(expected["inception_score_mean"], rel=1e-6)
    assert std == pytest.approx(expected["inception_score_std"], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("classes", [1, 2, 7])
def test_one_certain_sample_per_class_scores_the_number_of_classes(classes: int) -> None:
    """Also where the softmax is exactly 0 and 1: 0·log 0 is 0."""
    logits = 1e4 * torch.eye(classes).repeat(10, 1)
    assert inception_score(logits, splits=1)[0] == pytest.approx(classes, rel=1e-9)


def test_inception_score_measured_with_and_without_real_data() -> None:
    real, fake = 4 * draw(400, 10), 4 * draw(200, 10, seed=1)
    with_real = InceptionScore("v", 200).measure(results(real, fake, 200)).measurements["inception_score"]
    alone = InceptionScore("v", 200, referenced=False).measure(results(None, fake, 200)).measurements["inception_score"]
    assert with_real.low <= with_real.value <= with_real.high and with_real.floor is not None
    assert alone.value == with_real.value and alone.floor is None and alone.reason == "no real data"


def test_too_few_samples() -> None:
    with pytest.raises(SourceError, match="at least 1000"):
        kid_subsets(draw(999, 2), draw(2000, 2))
    with pytest.raises(SourceError, match="splits"):
        inception_score(draw(9, 4))
    assert "too few" in str(Kid("v", 3).measure(results(draw(6, 2), draw(3, 2), 3)).measurements["kid[v]"].reason)
    assert Kid("v", 3, referenced=False).measure({}).measurements["kid[v]"].reason == "no real data"
