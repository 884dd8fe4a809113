"""Distances and neighbors, against SciPy in float64, and where float32 products cancel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from torch import Tensor

from gandiag.errors import OutputError, SourceError
from gandiag.stats.distances import TILE_SIZE, distance_matrix, even_slices
from gandiag.stats.neighbors import kth_neighbor_distance, nearest_neighbors
from gandiag.stats.validation import as_feature_pair, as_features


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def exact_matrix(x: Tensor, y: Tensor | None = None) -> np.ndarray:
    """Float64 differences; the diagonal is infinite without y."""
    result = cdist(x.double().numpy(), (x if y is None else y).double().numpy())
    if y is None:
        np.fill_diagonal(result, np.inf)
    return result


SETS = {
    "gaussian": draw(400, 64),
    "two dimensions": draw(400, 2),
    "far from the origin": draw(400, 64) + 1e3,
    "constant": torch.full((50, 64), 3.0),
    "two rows": draw(7, 40),
    "repeated": draw(20, 64).repeat(15, 1),
    "jittered": draw(20, 64).repeat(15, 1) + 1e-5 * draw(300, 64, seed=1),
    "one outlier": torch.cat([draw(300, 64), torch.full((1, 64), 1e5)]),
    "two far clusters": torch.cat([draw(150, 64) + 1e3, draw(150, 64, seed=2) - 1e3]),
}


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("k", [1, 5])
def test_neighbors_equal_those_of_float64(name: str, k: int) -> None:
    x = SETS[name]
    result = nearest_neighbors(x, k=k)
    assert np.allclose(result.distances.numpy(), np.sort(exact_matrix(x), 1)[:, :k], rtol=1e-9, atol=1e-12)
    assert torch.allclose(kth_neighbor_distance(x, k), result.distances[:, -1], rtol=1e-12, atol=0)
    assert not (result.indices == torch.arange(len(x))[:, None]).any()


@pytest.mark.parametrize("name", SETS)
def test_neighbors_between_two_sets(name: str) -> None:
    x = SETS[name]
    y = x.flip(0)[: len(x) // 2 + 3] + 0.01 * draw(len(x) // 2 + 3, x.shape[1], seed=3)
    result, expected = nearest_neighbors(x, y, k=3), exact_matrix(x, y)
    assert np.allclose(result.distances.numpy(), np.sort(expected, 1)[:, :3], rtol=1e-9, atol=1e-12)
    assert np.allclose(
        np.take_along_axis(expected, result.indices.numpy(), 1), result.distances.numpy(), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("name", SETS)
def test_matrix_equals_that_of_float64(name: str) -> None:
    x, expected = SETS[name], exact_matrix(SETS[name])
    np.fill_diagonal(expected, 0)
    result = distance_matrix(x)
    assert (result >= 0).all() and (result.diagonal() == 0).all()
    # Short distances are exact, others carry the relative error 1e-4 / 2 that `distance_matrix` states.
    assert np.allclose(result.numpy(), expected, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("width", [33, 512])
def test_near_points_far_from_the_origin_are_distinguished(width: int) -> None:
    """1e-4 apart at norm 1e3, with a center elsewhere: float32 products alone give 0 or less."""
    point = torch.full((width,), 1e3 / width**0.5)
    x = torch.cat([point[None], point[None], -point + draw(100, width)])
    x[1, :1] = x[0, :1] + 1e-4 * (1 + 1e-3)  # float32 at this size steps by less than 1.6e-5
    distance = float((x[0].double() - x[1].double()).norm())
    assert 5e-5 < distance < 2e-4
    assert float(nearest_neighbors(x).distances[0]) == pytest.approx(distance, rel=1e-9)
    assert float(distance_matrix(x)[0, 1]) == pytest.approx(distance, rel=1e-6)
    assert float(nearest_neighbors(x[:1], x[1:]).distances) == pytest.approx(distance, rel=1e-9)


def test_results_do_not_depend_on_tiles() -> None:
    """More rows than a tile holds, in any order."""
    x = draw(TILE_SIZE + 300, 40)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(4))
    result, shuffled = nearest_neighbors(x, k=4), nearest_neighbors(x[order], k=4)
    assert torch.equal(result.distances[order], shuffled.distances)
    assert np.allclose(result.distances.numpy(), np.sort(exact_matrix(x), 1)[:, :4], rtol=1e-9)


@pytest.mark.parametrize(("n", "size"), [(0, 5), (1, 5), (5, 5), (11, 5), (4096, 1000)])
def test_slices_cover_everything_once(n: int, size: int) -> None:
    parts = even_slices(n, size)
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(n))
    assert all(part.stop - part.start <= size for part in parts)


def test_too_few_rows_raise() -> None:
    with pytest.raises(SourceError, match="4 rows to choose from are too few for 5 neighbors"):
        nearest_neighbors(draw(5, 3), k=5)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        (torch.zeros(3), SourceError),
        (np.array([[1.0, np.nan]]), OutputError),
        (torch.full((2, 2), torch.inf), OutputError),
    ],
)
def test_invalid_rows_raise(values: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        as_features(values)


def test_arrays_tensors_and_images_become_rows() -> None:
    assert as_features(np.zeros((3, 4))).dtype == torch.float64
    assert as_features(np.zeros((3, 2, 2, 2), np.uint8)).shape == (3, 8)
    with pytest.raises(SourceError, match="3 features"):
        as_feature_pair(torch.zeros(5, 3), torch.zeros(5, 4))
