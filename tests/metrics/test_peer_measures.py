"""IRS, PQMass, RKE, conditional Vendi and kernel modes: each equal to a direct computation, and what it detects."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency, kstest
from torch import Tensor

import gandiag.metrics
from gandiag.errors import ConfigError, SourceError
from gandiag.metrics.image_retrieval import occupancy_estimate, retrieval_estimate
from gandiag.metrics.kernel_entropy import conditional_vendi, rke_score
from gandiag.metrics.kernel_modes import difference_eigenvalues, missing_kernel_modes
from gandiag.metrics.vendi import hill_number, vendi_score
from gandiag.metrics.voronoi_cells import compare_cells, pqmass, run_cell_tests


def normal(n: int, dim: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


@cache
def stirling(m: int, k: int) -> int:
    """Stirling numbers of the second kind."""
    if m == k:
        return 1
    return 0 if not 0 < k < m else k * stirling(m - 1, k) + stirling(m - 1, k - 1)


@pytest.mark.parametrize(("k", "m", "n_total"), [(5, 8, 20), (3, 12, 30), (10, 12, 15)])
def test_irs_is_the_maximum_of_the_occupancy_likelihood(k: int, m: int, n_total: int) -> None:
    exact = [
        math.log(stirling(m, k) * math.perm(n, k)) - m * math.log(n) if n >= k else -math.inf
        for n in range(1, n_total + 1)
    ]
    best = int(np.argmax(exact)) + 1
    inside = [n for n, value in enumerate(exact, 1) if value >= max(exact) - 1.9207]
    estimate = occupancy_estimate(k, m, n_total)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx(
        (best / n_total, inside[0] / n_total, inside[-1] / n_total)
    )


def test_irs_counts_what_is_reachable() -> None:
    real = 100 * torch.eye(40)
    half = real[torch.randint(0, 20, (400,), generator=torch.Generator().manual_seed(0))]
    assert gandiag.metrics.image_retrieval_score(real, half) == 0.5
    few = retrieval_estimate(real, half[:30])
    assert few.low <= 0.5 <= few.high and few.high - few.low > 0.1
    same = normal(300, seed=1)
    assert gandiag.metrics.image_retrieval_ratio(normal(300), same, same) == 1.0
    assert gandiag.metrics.image_retrieval_ratio(normal(300), same, 0.2 * normal(300, seed=2)) < 0.6


def test_irs_intervals_cover() -> None:
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        distinct = len(np.unique(generator.integers(0, 60, 80)))
        estimate = occupancy_estimate(distinct, 80, 100)
        hits += estimate.low <= 0.6 <= estimate.high
    assert 180 <= hits <= 199


def test_pqmass_is_the_contingency_test_of_the_cells() -> None:
    rows, n_real = torch.cat([normal(150), 1.3 * normal(130, seed=1)]), 150
    centers = torch.randperm(280, generator=torch.Generator().manual_seed(3))[:12]
    found = compare_cells(rows, n_real, centers)
    counted = np.setdiff1d(np.arange(280), centers.numpy())
    cell = torch.cdist(rows[counted], rows[centers]).argmin(1).numpy()
    table = np.stack([np.bincount(cell[(counted < n_real) == side], minlength=12) for side in (True, False)])
    expected = chi2_contingency(table[:, table.sum(0) > 0], correction=False)
    assert (found.statistic, found.degrees, found.p_value) == pytest.approx(
        (expected.statistic, expected.dof, expected.pvalue)
    )


def test_pqmass_is_calibrated_and_finds_a_difference() -> None:
    p_values = [
        run_cell_tests(normal(200, seed=2 * seed), normal(200, seed=2 * seed + 1), 10, 1, seed)[0].p_value
        for seed in range(120)
    ]
    assert kstest(p_values, "uniform").pvalue > 0.01
    assert pqmass(normal(400), normal(400, seed=1)) == pytest.approx(1, abs=0.4)
    assert pqmass(normal(400), 0.5 * normal(400, seed=1)) > 2
    with pytest.raises(ConfigError, match="cells"):
        pqmass(normal(10), normal(10), cells=11)


@pytest.mark.parametrize("order", [1.0, 2.0])
@pytest.mark.parametrize("bandwidth", [None, 1.5])
def test_conditional_vendi_is_that_of_the_full_matrices(order: float, bandwidth: float | None) -> None:
    rows, groups = normal(30, 6).double() + 2, [index % 4 for index in range(30)]
    if bandwidth is None:
        unit = rows / rows.norm(dim=1, keepdim=True)
        kernel = unit @ unit.T
    else:
        kernel = torch.exp(-torch.cdist(rows, rows).square() / (2 * bandwidth**2))
    same = torch.tensor([[float(a == b) for b in groups] for a in groups], dtype=torch.float64)
    total, joint, condition = (
        hill_number(torch.linalg.eigvalsh(matrix / 30).clamp(min=0), order) for matrix in (kernel, kernel * same, same)
    )
    found = conditional_vendi(rows, groups, order, bandwidth)
    assert (found.total, found.conditional) == pytest.approx((total, joint / condition), rel=1e-6)
    assert found.conditional * found.information == pytest.approx(found.total)


def test_conditional_vendi_separates_prompts_from_seeds() -> None:
    prompts = 50 * torch.eye(8)
    groups = [index // 6 for index in range(48)]
    frozen = conditional_vendi(prompts[groups], groups)
    assert frozen.conditional == pytest.approx(1) and frozen.information == pytest.approx(8)
    ignored = conditional_vendi(prompts[[index % 6 for index in range(48)]], groups)
    assert ignored.conditional == pytest.approx(6) and ignored.information == pytest.approx(1)
    assert frozen.total == pytest.approx(vendi_score(None, prompts[groups]))
    with pytest.raises(SourceError, match="3 groups for 48 samples"):
        conditional_vendi(prompts[groups], [1, 2, 3])


def test_rke_counts_separate_modes() -> None:
    modes = 100 * torch.eye(5)[[index % 5 for index in range(50)]]
    assert rke_score(modes, 1.0) == pytest.approx(5)
    rows = normal(40)
    kernel = np.exp(-np.square(torch.cdist(rows.double(), rows.double()).numpy()) / 8)
    assert rke_score(rows, 2.0) == pytest.approx(1 / np.square(kernel).mean(), rel=1e-6)


def test_kernel_eigenvalues_are_those_of_the_covariances() -> None:
    """With a linear kernel the operator is a D x D matrix."""
    real, fake = normal(20, 3).double(), 2 * normal(15, 3, seed=1).double()
    values, functions = difference_eigenvalues(real @ real.T, fake @ fake.T, real @ fake.T, eta=0.1)
    direct = torch.linalg.eigvalsh(real.T @ real / 20 - 0.1 * fake.T @ fake / 15)
    positive = direct[direct > 1e-12].flip(0)
    assert torch.allclose(values[: len(positive)], positive, atol=1e-9) and functions.shape == (20, len(values))


def test_missing_modes_are_found_with_their_members() -> None:
    labels = [index % 5 for index in range(200)]
    centers = 40 * torch.eye(5, 8)
    real = centers[labels] + normal(200, 8)
    fake = centers[[label % 3 for label in labels]] + normal(200, 8, seed=1)
    found = missing_kernel_modes(real, fake, bandwidth=8.0)
    assert len(found.shares) == 2 and found.missing == pytest.approx(0.4, abs=0.08)
    assert {labels[int(rows[0])] for rows in found.members} == {3, 4}
    again = missing_kernel_modes(real, centers[labels] + normal(200, 8, seed=2), bandwidth=8.0)
    assert len(again.shares) == 0
