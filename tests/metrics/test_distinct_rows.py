"""Data whose rows repeat exactly: shares of distinct rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import gandiag
from gandiag.metrics.distinct_rows import estimate_repeated_rows, has_repeated_rows


def one_hot(n: int, seed: int, kept: int = 60) -> Tensor:
    """Rows of 5 x 12 categories, one-hot; only the first `kept` of the 60 combinations."""
    codes = np.random.default_rng(seed).integers(0, kept, n)
    return torch.cat([torch.eye(5)[codes % 5], torch.eye(12)[codes // 5]], 1)


def test_it_serves_rows_that_repeat_and_no_others() -> None:
    assert has_repeated_rows(one_hot(1000, 0), one_hot(500, 1))
    generator = torch.Generator().manual_seed(0)
    continuous = torch.randn(1000, 3, generator=generator)
    assert not has_repeated_rows(continuous, continuous[:500])
    softmax = one_hot(500, 1) + 0.01 * torch.rand(500, 17, generator=generator)
    assert not has_repeated_rows(one_hot(1000, 0), softmax)


@pytest.mark.parametrize("n", [300, 1000, 4000])
@pytest.mark.parametrize("seed", [11, 12, 13])
def test_a_fresh_draw_is_healthy(n: int, seed: int) -> None:
    score = estimate_repeated_rows(one_hot(n, seed), one_hot(n // 2, seed + 100)).score
    assert score.low < 0.05 and score.value < 0.12


@pytest.mark.parametrize("kept", [15, 30, 45])
def test_lost_combinations_weigh_their_share(kept: int) -> None:
    estimate = estimate_repeated_rows(one_hot(2000, 0), one_hot(1000, 1, kept))
    truth = 1 - kept / 60
    assert estimate.score.value == pytest.approx(truth, abs=0.06)
    assert estimate.score.low > 0.15 and estimate.profile["missing"].value == pytest.approx(truth, abs=0.06)


def test_unequal_shares_are_skewed_and_not_missing() -> None:
    weights = torch.tensor([0.8, 0.2])
    real = torch.eye(2)[torch.arange(1000) % 2]
    fake = torch.eye(2)[torch.multinomial(weights, 500, True, generator=torch.Generator().manual_seed(0))]
    estimate = estimate_repeated_rows(real, fake)
    assert estimate.profile["skewed"].value == pytest.approx(0.3, abs=0.05) and estimate.profile["missing"].value == 0


def test_one_hot_vectors_get_a_verdict() -> None:
    real = one_hot(1000, 0).numpy()
    assert gandiag.audit(one_hot(500, 1).numpy(), real=real, exhibits=False).verdict == "healthy"
    assert gandiag.audit(one_hot(500, 1, 30).numpy(), real=real, exhibits=False).verdict == "collapsed"
