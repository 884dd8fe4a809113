"""Moments: any batching, order and sharding give the same mean and covariance, also after a collapse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from gandiag.interfaces import Batch
from gandiag.stats.moments import Gaussian, MomentsAccumulator, MomentsSpec, fit_gaussian

# (mean, std). A raw second moment in float32 keeps no digit of the variance for the last two, in float64 for the last.
DISTRIBUTIONS = [(0.0, 1.0), (1e3, 1e-1), (1e7, 1.0), (1e9, 1e0)]


def draw(mean: float, std: float, n: int = 600, dim: int = 5) -> Tensor:
    return mean + std * torch.randn(n, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def accumulate(state: MomentsAccumulator, values: Tensor, sizes: list[int]) -> MomentsAccumulator:
    at = 0
    for size in sizes:
        indices = torch.arange(at, at + size)
        state.update(Batch(values[indices], indices, features={"v": values[indices]}))
        at += size
    return state


def assert_close(result: Gaussian, values: Tensor) -> None:
    expected = np.cov(values.numpy() - values.numpy().mean(0), rowvar=False)
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    assert result.n == len(values)
    assert np.allclose(result.mean.numpy(), values.numpy().mean(0), rtol=1e-12)
    assert np.abs((result.cov.numpy() - expected) / scale).max() < 1e-6


def test_batching_changes_no_bit() -> None:
    values = draw(1e3, 1e-1)
    whole = accumulate(MomentsAccumulator(MomentsSpec("v")), values, [600]).result()
    for sizes in ([1] * 600, [7] * 85 + [5], [64] * 9 + [24], [200] * 3):
        result = accumulate(MomentsAccumulator(MomentsSpec("v")), values, sizes).result()
        assert torch.equal(result.mean, whole.mean) and torch.equal(result.cov, whole.cov), sizes


@pytest.mark.parametrize(("mean", "std"), DISTRIBUTIONS)
@pytest.mark.parametrize("sizes", [[600], [1] * 600, [599, 1], [100, 0, 500], [64] * 9 + [24]])
def test_result_does_not_depend_on_batching(mean: float, std: float, sizes: list[int]) -> None:
    values = draw(mean, std)
    assert_close(accumulate(MomentsSpec("v").start(), values, sizes).result(), values)


@pytest.mark.parametrize(("mean", "std"), DISTRIBUTIONS)
@pytest.mark.parametrize("shards", [2, 7])
def test_result_does_not_depend_on_order_or_shards(mean: float, std: float, shards: int) -> None:
    values = draw(mean, std)
    parts = values[torch.randperm(600, generator=torch.Generator().manual_seed(1))].tensor_split(shards)
    total = MomentsSpec("v").start()
    for part in reversed(parts):
        total.merge(accumulate(MomentsSpec("v").start(), part, [len(part)]))
    total.merge(MomentsSpec("v").start())  # an idle rank
    assert_close(total.result(), values)


def test_constant_has_zero_variance() -> None:
    result = fit_gaussian(torch.full((100, 3), 12345.678))
    assert torch.equal(result.cov, torch.zeros(3, 3, dtype=torch.float64))


def test_one_sample_and_no_samples() -> None:
    assert fit_gaussian(torch.ones(1, 3)).cov.abs().sum() == 0
    assert MomentsSpec("v").start().result().n == 0


def test_equal_specs_are_equal_keys() -> None:
    assert len({MomentsSpec("v"), MomentsSpec("v"), MomentsSpec("w")}) == 2


def test_samples_are_a_view() -> None:
    images = torch.rand(10, 3, 2, 2, generator=torch.Generator().manual_seed(2))
    state = MomentsSpec("samples").start()
    state.update(Batch(images, torch.arange(10)))
    assert torch.allclose(state.result().mean, images.flatten(1).double().mean(0))
