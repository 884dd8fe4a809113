"""Losses and honest data that the mode estimate alone misjudges: continua, small modes, outliers, displaced modes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from gandiag.metrics.score.estimator import DiversityEstimate, estimate_diversity_loss
from gandiag.metrics.score.injected_losses import InjectedLoss, bound_power
from gandiag.metrics.score.radius_cap import cap_radii, find_manifold_edge
from gandiag.metrics.score.row_preparation import order_by_content, standardize_rows
from gandiag.record import Score

N, LIMIT = 500, 0.15
Pair = tuple[np.ndarray, np.ndarray]


def measure(pair: Pair, *, inject: bool = False) -> DiversityEstimate:
    fake, real = (torch.tensor(rows).float() for rows in pair)
    return estimate_diversity_loss(real, fake, replicates=8, inject=inject)


def half_space(dim: int) -> Pair:
    draw = np.random.default_rng(1)
    pool = draw.normal(size=(6 * N, dim))
    return pool[pool[:, 0] < 0][:N], draw.normal(size=(2 * N, dim))


def small_modes(kept: int) -> Pair:
    draw = np.random.default_rng(2)
    centers = draw.normal(size=(250, 30))

    def sample(n: int, count: int) -> np.ndarray:
        return centers[draw.integers(0, count, n)] + 0.05 * draw.normal(size=(n, 30))

    return sample(N, kept), sample(2 * N, 250)


def glitches(kept: int, share: float, factor: float) -> Pair:
    draw = np.random.default_rng(3)
    centers = 3 * draw.normal(size=(10, 8))

    def sample(n: int, count: int) -> np.ndarray:
        rows = centers[draw.integers(0, count, n)] + 0.3 * draw.normal(size=(n, 8))
        return rows * np.where(draw.random((n, 1)) < share, factor, 1)

    return sample(N, kept), sample(2 * N, 10)


def one_hot() -> Pair:
    draw = np.random.default_rng(4)
    tables = [draw.dirichlet(np.ones(k)) for k in (5, 8, 12, 3)]

    def sample(n: int) -> np.ndarray:
        return np.concatenate([np.eye(len(p))[draw.choice(len(p), n, p=p)] for p in tables], 1)

    return sample(N), sample(2 * N)


def ring(kept: int, displacement: float, width: float) -> Pair:
    draw = np.random.default_rng(5)
    angle = np.arange(8) * np.pi / 4
    centers = 2 * np.c_[np.cos(angle), np.sin(angle)]
    moved = centers + displacement * draw.normal(size=(8, 2))
    real = centers[draw.integers(0, 8, 2 * N)] + 0.05 * draw.normal(size=(2 * N, 2))
    return moved[draw.integers(0, kept, N)] + 0.05 * width * draw.normal(size=(N, 2)), real


def shifted() -> Pair:
    draw = np.random.default_rng(6)
    return 1 + draw.normal(size=(N, 8)), draw.normal(size=(2 * N, 8))


def even_pool() -> Pair:
    draw = np.random.default_rng(7)
    pool = draw.normal(size=(300, 16))
    return np.r_[pool, pool[:200]], draw.normal(size=(2 * N, 16))


COLLAPSED: dict[str, tuple[Callable[[], Pair], float, float]] = {
    "half of a continuum, 16 dimensions": (lambda: half_space(16), 0.25, 0.55),
    "half of a continuum, 32 dimensions": (lambda: half_space(32), 0.2, 0.55),
    "125 of 250 small modes": (lambda: small_modes(125), 0.3, 0.65),
    "half of the modes, 1 % glitches a thousand times out": (lambda: glitches(5, 0.01, 1000), 0.4, 0.6),
    "half of the modes, rare glitches in modes of one row": (lambda: glitches(5, 0.003, 300), 0.4, 0.6),
    "half of the modes beside their place": (lambda: ring(4, 0.2, 1.0), 0.4, 0.6),
    "modes half as wide, beside their place": (lambda: ring(8, 0.2, 0.5), 0.4, 0.6),
    "an evenly repeated pool of .6 n": (even_pool, 0.33, 0.47),
}
NOT_COLLAPSED: dict[str, Callable[[], Pair]] = {
    "250 small modes": lambda: small_modes(250),
    "1 % glitches a thousand times out": lambda: glitches(10, 0.01, 1000),
    "one-hot rows": one_hot,
    "all modes beside their place": lambda: ring(8, 0.2, 1.0),
    "shifted by one deviation an axis": shifted,
}


@pytest.mark.parametrize("name", COLLAPSED)
def test_a_loss_is_seen(name: str) -> None:
    make, low, high = COLLAPSED[name]
    score = measure(make()).score
    assert low <= score.value <= high and score.low >= LIMIT, score


@pytest.mark.parametrize("name", NOT_COLLAPSED)
def test_no_loss_is_invented(name: str) -> None:
    score = measure(NOT_COLLAPSED[name]()).score
    assert score.high < LIMIT, score


@pytest.mark.parametrize("name", [*COLLAPSED, *NOT_COLLAPSED])
def test_the_profile_multiplies_to_the_score(name: str) -> None:
    make = COLLAPSED[name][0] if name in COLLAPSED else NOT_COLLAPSED[name]
    fake, real = (torch.tensor(rows).float() for rows in make())
    estimate = estimate_diversity_loss(real, fake, replicates=2)
    factors = [1 - estimate.profile[key].value for key in ("missing", "skewed", "narrowed", "duplicated")]
    assert math.prod(factors) == pytest.approx(1 - estimate.score.value, abs=1e-6)
    for loss in (estimate.score, *estimate.profile.values()):
        assert 0 <= loss.low <= loss.value <= loss.high <= 1
    assert all(0 <= value <= 1 for value in estimate.replicates)


@pytest.mark.parametrize("distance", [1.0, 3.0, 1e6])
def test_one_row_moves_the_score_by_at_most_two_rows(distance: float) -> None:
    draw = np.random.default_rng(8)
    real, fake = draw.normal(size=(2 * N, 16)), draw.normal(size=(4 * N, 16))
    fake = fake[fake[:, 0] < 0.3][:N]
    plain = measure((fake, real)).score.value
    with_outlier = measure((fake, np.r_[real, distance * np.ones((1, 16))])).score.value
    assert abs(with_outlier - plain) <= 2 / N + 0.01  # the split moves by one row, and with it the classifier's folds


def test_order_depends_on_contents_alone() -> None:
    rows = torch.randint(0, 3, (300, 4), generator=torch.Generator().manual_seed(0)).float()  # many equal rows
    shuffled = rows[torch.randperm(300, generator=torch.Generator().manual_seed(1))]
    assert torch.equal(rows[order_by_content(rows)], shuffled[order_by_content(shuffled)])
    first_half = rows[order_by_content(rows)][:150]
    for row in rows.unique(dim=0):
        share = float((first_half == row).all(1).sum() / (rows == row).all(1).sum())
        assert 0 < share < 1 or (rows == row).all(1).sum() < 6  # equal rows are split between the halves


def test_far_rows_are_moved_in() -> None:
    rows = torch.randn(400, 5, generator=torch.Generator().manual_seed(0))
    far: Tensor = torch.cat([rows, torch.full((4, 5), 1e9)])
    plain, capped = standardize_rows(rows)[0], standardize_rows(far)[0]
    assert float(capped.norm(dim=1).max()) < 5 * float(plain.norm(dim=1).max())
    torch.testing.assert_close(capped[:400], plain, atol=0.15, rtol=0.15)


def test_known_losses_are_injected_only_into_low_scores() -> None:
    draw = np.random.default_rng(9)
    real, fake = draw.normal(size=(2 * N, 4)), draw.normal(size=(N, 4))
    estimate = measure((fake, real), inject=True)
    kinds = {entry.kind for entry in estimate.injected}
    assert {"continuum", "narrowing", "repeats"} <= kinds
    scores = {(entry.kind, entry.loss): entry.score for entry in estimate.injected}
    assert scores["repeats", 0.5] == pytest.approx(0.5, abs=0.1) and scores["continuum", 0.5] > LIMIT
    assert not measure((fake[:1].repeat(N, 0), real), inject=True).injected


def test_blind_spots_are_kinds_of_which_even_half_is_missed() -> None:
    injected = (
        {"kind": "continuum", "loss": 0.25, "score": 0.01},
        {"kind": "continuum", "loss": 0.5, "score": 0.05},
        {"kind": "repeats", "loss": 0.5, "score": 0.5},
    )
    assert Score(0.0, 0.0, 0.02, injected=injected).list_blind_spots() == ["continuum"]
    assert Score(0.0, 0.0, 0.02, limit=0.05, injected=injected).list_blind_spots() == []


def test_the_power_is_that_against_the_kind_seen_worst() -> None:
    seen = [InjectedLoss("modes", 0.25, 0.2), InjectedLoss("modes", 0.5, 0.5)]
    weak = [InjectedLoss("continuum", 0.25, 0.02), InjectedLoss("continuum", 0.5, 0.2)]
    blind = [InjectedLoss("narrowing", 0.5, 0.01)]
    assert bound_power(0.05, seen) == 0.05 and bound_power(None, weak) is None
    assert bound_power(0.05, [*seen, *weak]) == 0.5 and bound_power(0.6, weak) == 0.6
    assert bound_power(0.05, [*seen, *weak, *blind]) == 1.0


def test_the_ball_of_an_outlier_lets_nothing_pass() -> None:
    """Before its ball was capped, one row at three times the shift moved off_manifold by .13."""
    draw = np.random.default_rng(0)
    real, fake = draw.normal(size=(2 * N, 64)), 0.667 + draw.normal(size=(N, 64))
    plain, outlier = (
        measure((fake, rows)).profile["off_manifold"].value for rows in (real, np.r_[real, 3 * np.ones((1, 64))])
    )
    assert abs(outlier - plain) < 0.03


def test_radii_are_capped_by_those_around_them() -> None:
    draw = np.random.default_rng(1)
    dense, sparse = draw.normal(size=(300, 3)), 50 + 20 * draw.normal(size=(60, 3))
    rows = torch.tensor(np.r_[dense, sparse, [[30, -30, 30]]]).float()
    neighbors = torch.cdist(rows, rows).fill_diagonal_(torch.inf).topk(20, largest=False)
    every = torch.arange(len(rows))
    radius = neighbors.values[:, 4]
    capped = cap_radii(radius, neighbors.indices, every)
    assert float(capped[-1]) < 0.6 * float(radius[-1])  # the outlier
    assert float((capped[300:360] / radius[300:360]).mean()) > 0.9  # a sparse mode keeps its balls
    ties = torch.zeros(50)
    ties[0] = 1.0
    assert torch.equal(cap_radii(ties, torch.zeros(50, 20, dtype=torch.int64), torch.arange(50))[1:], ties[1:])


def test_the_edge_is_near_the_quantile_and_rests_on_many_rows() -> None:
    rows = torch.randn(500, generator=torch.Generator().manual_seed(0)).abs() + 1
    edge = float(find_manifold_edge(rows, 0.99))
    assert float(rows.quantile(0.98)) <= edge <= float(rows.max())
    moved = float(find_manifold_edge(torch.cat([rows, torch.tensor([1e3])]), 0.99))
    assert abs(moved - edge) < 0.05
    assert float(find_manifold_edge(torch.ones(100), 0.99)) == 1.0


def test_replicates_are_those_of_the_estimate_that_speaks() -> None:
    """Paired comparisons correlate them, so they must belong to the score's own value."""
    estimate = measure(half_space(16))
    replicates = torch.tensor(estimate.replicates)
    assert abs(float(replicates.mean()) - estimate.score.value) < 0.1 and estimate.power is not None
