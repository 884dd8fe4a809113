"""Statistics of half-samples in tiles are those of the matrix of distances, whatever the size of a tile."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gandiag.metrics.score import estimator, neighborhoods, scale_matching, subset_reach
from gandiag.metrics.score.estimator import estimate_diversity_loss
from gandiag.metrics.score.neighborhoods import DistanceTiles, measure_distances, nearest_in_tiles, neighbor_radius
from gandiag.metrics.score.subset_reach import (
    count_copies,
    count_hits,
    make_balls,
    mark_members,
    measure_reach,
    reach_and_near_pairs,
)

N = 240


def draw_rows(seed: int, spread: float = 1.0, shift: float = 0.0) -> Tensor:
    """Rows in six dimensions, every fifth equal to another."""
    rows = spread * torch.randn(N, 6, generator=torch.Generator().manual_seed(seed)) + shift
    rows[::5] = rows[1::5]
    return rows


def draw_subsets(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.arange(N), *(torch.randperm(N, generator=generator)[: N // 2].sort().values for _ in range(5))]


@pytest.mark.parametrize(("spread", "shift"), [(1.0, 0.0), (0.2, 0.0), (1.0, 40.0), (8.0, 0.0)])
@pytest.mark.parametrize("small_tiles", [False, True])
def test_reach_and_hits_equal_those_of_the_matrix(
    spread: float, shift: float, small_tiles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if small_tiles:
        monkeypatch.setattr(neighborhoods, "TILE_SIZE", 64)
        monkeypatch.setattr(neighborhoods, "MAX_KEPT_ELEMENTS", 0)
        monkeypatch.setattr(subset_reach, "MAX_SPARSE_SHARE", 0.0)
        monkeypatch.setattr(subset_reach, "N_LISTED", 3)
    reference, rows = draw_rows(1), draw_rows(2, spread, shift)
    references, others = draw_subsets(3), draw_subsets(4)
    neighbors = nearest_in_tiles(DistanceTiles(reference, reference, skip_self=True))
    balls, members = make_balls(neighbors, references), mark_members(others, N)
    weight = members * torch.rand(6, N, generator=torch.Generator().manual_seed(5))
    growth = torch.tensor([1.0, 1.1, 1.2, 1.5, 3.0, 1.0])
    reach = measure_reach(DistanceTiles(rows, reference), balls, members)
    hits = count_hits(DistanceTiles(rows, reference), balls, weight, growth)
    matrix = measure_distances(rows, reference)
    for number, (columns, subset) in enumerate(zip(references, others, strict=True)):
        radius = neighbor_radius(neighbors, columns).clamp(min=1e-12)
        scaled = matrix[subset][:, columns] / radius
        assert torch.equal(reach[number, subset], scaled.kthvalue(2, 1).values)
        expected = weight[number, subset] @ (scaled <= growth[number]).float()
        assert torch.allclose(hits[number, columns], expected, rtol=1e-5, atol=1e-6)


def test_near_pairs_are_kept_only_while_they_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    reference, rows = draw_rows(1), draw_rows(2)
    tiles = DistanceTiles(rows, reference)
    neighbors = nearest_in_tiles(DistanceTiles(reference, reference, skip_self=True))
    balls = make_balls(neighbors, [torch.arange(N)])
    weight, unit = torch.ones(1, N), torch.ones(1)
    reach, pairs = reach_and_near_pairs(tiles, balls, weight > 0)
    assert pairs is not None and torch.equal(reach, measure_reach(tiles, balls, weight > 0))
    assert torch.equal(subset_reach.hits_of_pairs(pairs, balls, weight, unit), count_hits(tiles, balls, weight, unit))
    monkeypatch.setattr(subset_reach, "MAX_KEPT_PAIRS", 1)
    assert reach_and_near_pairs(tiles, balls, weight > 0)[1] is None


@pytest.mark.parametrize("sparse_share", [0.0, 1.0])
def test_copies_equal_those_of_the_matrix(sparse_share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subset_reach, "MAX_SPARSE_SHARE", sparse_share)
    monkeypatch.setattr(neighborhoods, "TILE_SIZE", 64)
    rows, subsets = draw_rows(7), draw_subsets(8)
    limit = torch.linspace(0, 1.5, N)
    counts, earlier = count_copies(DistanceTiles(rows, rows, skip_self=True), limit, mark_members(subsets, N))
    is_copy = (measure_distances(rows, rows) <= limit[:, None]).fill_diagonal_(True)
    assert torch.equal(earlier, is_copy.tril(-1).sum(1)) and int(earlier.max()) > 3
    for number, subset in enumerate(subsets):
        assert torch.equal(counts[number, subset], is_copy[subset][:, subset].sum(1).float())


def test_the_score_is_the_same_in_small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.cat([draw_rows(1), draw_rows(2, shift=5.0)])
    fake = torch.cat([draw_rows(3)[:150], draw_rows(4, 0.5, 5.0)[:60]])
    before = estimate_diversity_loss(real, fake, replicates=4)
    for module, name, value in (
        (neighborhoods, "TILE_SIZE", 64),
        (neighborhoods, "MAX_KEPT_ELEMENTS", 0),
        (subset_reach, "MAX_KEPT_PAIRS", 1),
        (subset_reach, "N_LISTED", 3),
    ):
        monkeypatch.setattr(module, name, value)
    after = estimate_diversity_loss(real, fake, replicates=4)
    assert after.score.value == pytest.approx(before.score.value, abs=1e-5)
    assert after.score.low == pytest.approx(before.score.low, abs=1e-5)
    assert after.replicates == pytest.approx(before.replicates, abs=1e-5)


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements that any operation returned."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        parts = out if isinstance(out, (tuple, list)) else (out,)
        self.elements = max([self.elements, *(part.numel() for part in parts if isinstance(part, Tensor))])
        return out


def test_the_score_makes_no_matrix_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the outputs repeat, so that copies are dense too."""
    for module, name, value in (
        (neighborhoods, "TILE_SIZE", 64),
        (neighborhoods, "MAX_KEPT_ELEMENTS", 0),
        (scale_matching, "MAX_ROWS", 200),
        (estimator, "MAX_CLASSIFIER_ROWS", 100),
        (estimator, "MAX_MODE_ROWS", 200),
    ):
        monkeypatch.setattr(module, name, value)
    generator = torch.Generator().manual_seed(0)
    n = 1000
    real, fake = torch.randn(2 * n, 3, generator=generator), torch.randn(n, 3, generator=generator)
    fake[: n // 2] = fake[0]
    with LargestTensor() as largest:
        estimate = estimate_diversity_loss(real, fake, replicates=2)
    assert estimate.profile["duplicated"].value > 0.3
    assert 64 * n <= largest.elements < n * n // 5  # a tile, never a matrix
