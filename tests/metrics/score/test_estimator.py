"""The collapse score against corruptions with a known loss."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gandiag.metrics.score.estimator import estimate_diversity_loss
from gandiag.testing.toy_mixtures import (
    EXTREME_CASES,
    FIDELITY_CONTROLS,
    LOSS_LEVELS,
    MASKED_COLLAPSE,
    Corruption,
    make_mixture,
)

N = 800
MIXTURES = {dim: make_mixture(dim, 8 if dim == 2 else 20, seed=3) for dim in (2, 64)}
CASES = {**FIDELITY_CONTROLS, **MASKED_COLLAPSE, **EXTREME_CASES} | {
    f"{name} {i}": step for name, steps in LOSS_LEVELS.items() for i, step in enumerate(steps)
}


def score(corruption: Corruption, dim: int, n: int = N) -> float:
    mixture = MIXTURES[dim]
    return estimate_diversity_loss(
        mixture.sample(2 * n, seed=1), corruption.sample(mixture, n, seed=2), replicates=0
    ).score.value


@pytest.mark.parametrize("dim", MIXTURES)
@pytest.mark.parametrize("name", CASES)
def test_score_equals_the_true_loss(name: str, dim: int) -> None:
    """At n = 800 a share of 1/8 has a standard error of 0.012, over eight modes 0.03; twice that, and rounding."""
    assert score(CASES[name], dim) == pytest.approx(
        CASES[name].true_loss(MIXTURES[dim]), abs=0.12 if dim == 2 else 0.08
    )


@pytest.mark.parametrize("dim", MIXTURES)
@pytest.mark.parametrize("kind", LOSS_LEVELS)
def test_score_grows_with_the_loss(kind: str, dim: int) -> None:
    scores = [score(step, dim) for step in LOSS_LEVELS[kind]]
    assert scores == sorted(scores)


def test_invariant_to_rotation_scale_and_order() -> None:
    mixture, corruption = MIXTURES[64], Corruption(mode_fraction=0.75, std_factor=0.8)
    real, fake = mixture.sample(2 * N, seed=1), corruption.sample(mixture, N, seed=2)
    rotation = torch.linalg.qr(torch.randn(64, 64, generator=torch.Generator().manual_seed(0)))[0]
    shuffle = torch.randperm(2 * N, generator=torch.Generator().manual_seed(1))
    original = estimate_diversity_loss(real, fake, replicates=0).score.value
    for other in (
        estimate_diversity_loss(real @ rotation, fake @ rotation, replicates=0),
        estimate_diversity_loss(1000 * real, 1000 * fake, replicates=0),
        estimate_diversity_loss(real[shuffle], fake, replicates=0),
    ):
        assert other.score.value == pytest.approx(original, abs=0.02)


def test_profile_names_the_loss() -> None:
    mixture = MIXTURES[64]
    real = mixture.sample(2 * N, seed=1)
    for name, corruption in {
        "missing": Corruption(mode_fraction=0.5),
        "skewed": Corruption(zipf_exponent=0.5),
        "narrowed": Corruption(std_factor=0.5),
        "duplicated": Corruption(unique_fraction=0.5),
        "off_manifold": Corruption(outlier_fraction=0.5),
    }.items():
        profile = estimate_diversity_loss(real, corruption.sample(mixture, N, seed=2), replicates=0).profile
        assert max(profile, key=lambda key: profile[key].value) == name, profile


def test_interval_and_replicates_are_a_function_of_the_seed() -> None:
    mixture = MIXTURES[2]
    real, fake = mixture.sample(2 * N, seed=1), replace(Corruption(), mode_fraction=0.5).sample(mixture, N, seed=2)
    first, again = estimate_diversity_loss(real, fake, replicates=5), estimate_diversity_loss(real, fake, replicates=5)
    assert first == again and len(first.replicates) == 5
    assert first.score.low < first.score.value < first.score.high
    assert abs(first.score.value - 0.5) < 0.05
    assert first.power is not None and 0 < first.power < 0.3


def test_garbage_is_inconclusive_and_a_point_off_the_manifold_is_not() -> None:
    mixture = MIXTURES[64]
    real, size = mixture.sample(2 * N, seed=1), float(mixture.centers.std())
    garbage = 5 * size * torch.randn(N, 64, generator=torch.Generator().manual_seed(0))
    assert estimate_diversity_loss(real, garbage, replicates=3).inconclusive_reasons
    assert not estimate_diversity_loss(
        real, Corruption(point="off").sample(mixture, N, seed=2), replicates=3
    ).inconclusive_reasons
    assert not estimate_diversity_loss(
        real, Corruption(noise=3.0).sample(mixture, N, seed=2), replicates=3
    ).inconclusive_reasons


def test_too_few_samples_raise() -> None:
    with pytest.raises(ValueError, match="198 real and 99 generated samples"):
        estimate_diversity_loss(torch.randn(198, 2), torch.randn(99, 2))


def test_wide_samples_around_all_modes_are_no_collapse_but_around_one_mode_are() -> None:
    """Samples twenty times as wide as the modes show which modes they surround, but nothing of their insides."""
    mixture = MIXTURES[2]
    real = mixture.sample(2 * N, seed=1)
    every, one = (
        estimate_diversity_loss(real, Corruption(mode_fraction=keep, noise=20.0).sample(mixture, N, seed=2))
        for keep in (1.0, 0.125)
    )
    assert (
        every.score.low < 0.15
        and "wide as the modes" in every.inconclusive_reasons[0]
        and every.profile["off_manifold"].low > 0.8
    )
    assert one.score.low > 0.6 and not one.inconclusive_reasons
