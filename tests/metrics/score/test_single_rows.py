"""One row decides nothing: neither a row amid samples that lie elsewhere, nor how often the score is replicated."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from gandiag.metrics.score.estimator import estimate_diversity_loss
from gandiag.metrics.score.neighborhoods import DistanceTiles
from gandiag.metrics.score.scale_matching import estimate_missing_by_scale
from gandiag.metrics.score.subset_reach import limit_widest_ball

N, DIM = 500, 64


def draw_normal(seed: int, n: int = N, shift: float = 0.0) -> Tensor:
    return torch.from_numpy(shift + np.random.default_rng([11, seed]).normal(size=(n, DIM))).float()


@pytest.mark.parametrize("seed", [0, 10])
def test_a_real_row_amid_shifted_samples_matches_few_of_them(seed: int) -> None:
    """Nothing is known of samples that lie elsewhere, with one real row among them as without it."""
    reference, heldout, fake = draw_normal(seed), draw_normal(seed + 1), draw_normal(seed + 2, shift=1.0)
    plain, _ = estimate_missing_by_scale(reference, heldout, fake, replicates=0)
    reference[0] = 1.0
    moved, _ = estimate_missing_by_scale(reference, heldout, fake, replicates=0)
    assert abs(moved.value - plain.value) <= 2 / N + 0.01


def test_the_widest_ball_keeps_what_the_next_one_holds() -> None:
    real, fake = draw_normal(3), draw_normal(4, shift=1.0)
    real[0] = 1.0
    tiles = DistanceTiles(fake, real)
    radius = torch.full((N,), 9.5)
    factor = limit_widest_ball(tiles, radius, 1.0)
    distances = torch.cdist(fake, real)
    before, after = (distances <= radius).sum(0), (distances <= radius * factor * (1 + 1e-5)).sum(0)
    assert before[0] > 10 * before[1:].max() and after[0] <= max(int(before[1:].max()), 1)
    assert torch.equal(before[1:], after[1:])


def test_the_value_does_not_depend_on_replicates() -> None:
    random = np.random.default_rng([11, 1])
    rows = [random.normal(size=(n, DIM)) for n in (2 * N, N, 2 * N, N)]  # the two in the middle only move the stream
    real, fake = torch.from_numpy(rows[0]).float(), torch.from_numpy(rows[3]).float()
    values = {estimate_diversity_loss(real, fake, replicates=count).score.value for count in (0, 2, 20)}
    assert len(values) == 1
