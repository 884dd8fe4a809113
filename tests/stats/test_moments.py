"""Moments: any batching, order and sharding give the same mean and covariance, also of a collapsed generator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from gandiag.interfaces import Batch
from gandiag.stats.moments import Gaussian, MomentsAccumulator, MomentsSpec, fit_gaussian

# (mean, sd): at the last two a raw second moment in float32 keeps no digit of the variance, and at the last none in float64.
WORLDS = [(0.0, 1.0), (1e3, 1e-1), (1e7, 1.0), (1e9, 1e0)]


def draw(mean: float, sd: float, n: int = 600, dim: int = 5) -> Tensor:
    return mean + sd * torch.randn(n, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def feed(state: MomentsAccumulator, values: Tensor, sizes: list[int]) -> MomentsAccumulator:
    at = 0
    for size in sizes:
        indices = torch.arange(at, at + size)
        state.update(Batch(values[indices], indices, features={"v": values[indices]}))
        at += size
    return state


def close(found: Gaussian, values: Tensor) -> None:
    expected = np.cov(values.numpy() - values.numpy().mean(0), rowvar=False)
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    assert found.n == len(values)
    assert np.allclose(found.mean.numpy(), values.numpy().mean(0), rtol=1e-12)
    assert np.abs((found.cov.numpy() - expected) / scale).max() < 1e-6


@pytest.mark.parametrize(("mean", "sd"), WORLDS)
@pytest.mark.parametrize("sizes", [[600], [1] * 600, [599, 1], [100, 0, 500], [64] * 9 + [24]])
def test_batching_does_not_show(mean: float, sd: float, sizes: list[int]) -> None:
    values = draw(mean, sd)
    close(feed(MomentsSpec("v").start(), values, sizes).result(), values)


@pytest.mark.parametrize(("mean", "sd"), WORLDS)
@pytest.mark.parametrize("shards", [2, 7])
def test_order_and_shards_do_not_show(mean: float, sd: float, shards: int) -> None:
    values = draw(mean, sd)
    parts = values[torch.randperm(600, generator=torch.Generator().manual_seed(1))].tensor_split(shards)
    total = MomentsSpec("v").start()
    for part in reversed(parts):
        total.merge(feed(MomentsSpec("v").start(), part, [len(part)]))
    total.merge(MomentsSpec("v").start())  # an idle rank
    close(total.result(), values)


def test_a_constant_has_no_variance_at_all() -> None:
    found = fit_gaussian(torch.full((100, 3), 12345.678))
    assert torch.equal(found.cov, torch.zeros(3, 3, dtype=torch.float64))


def test_one_sample_and_none() -> None:
    assert fit_gaussian(torch.ones(1, 3)).cov.abs().sum() == 0
    assert MomentsSpec("v").start().result().n == 0


def test_equal_specs_share_one_state() -> None:
    assert len({MomentsSpec("v"), MomentsSpec("v"), MomentsSpec("w")}) == 2


def test_samples_are_a_view_too() -> None:
    images = torch.rand(10, 3, 2, 2, generator=torch.Generator().manual_seed(2))
    state = MomentsSpec("samples").start()
    state.update(Batch(images, torch.arange(10)))
    assert torch.allclose(state.result().mean, images.flatten(1).double().mean(0))
