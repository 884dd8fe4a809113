"""The collapse score against injections whose loss is known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gandiag.metrics.variety import variety
from gandiag.testing import CONTROLS, LADDERS, MASKED, POINTS, Injection, mixture

N = 800
WORLDS = {dim: mixture(dim, 8 if dim == 2 else 20, seed=3) for dim in (2, 64)}
CASES = {**CONTROLS, **MASKED, **POINTS} | {f"{name} {i}": step for name, steps in LADDERS.items() for i, step in enumerate(steps)}


def score(injection: Injection, dim: int, n: int = N) -> float:
    world = WORLDS[dim]
    return variety(world.sample(2 * n, seed=1), injection.sample(world, n, seed=2), replicates=0).score.value


@pytest.mark.parametrize("dim", WORLDS)
@pytest.mark.parametrize("name", CASES)
def test_an_injection_costs_what_it_takes_away(name: str, dim: int) -> None:
    """At n = 800 a share of 1/8 has a standard error of 0.012 a side, over eight modes 0.03; twice that, and rounding."""
    assert score(CASES[name], dim) == pytest.approx(CASES[name].target(WORLDS[dim]), abs=0.12 if dim == 2 else 0.08)


@pytest.mark.parametrize("dim", WORLDS)
@pytest.mark.parametrize("ladder", LADDERS)
def test_more_damage_never_scores_less(ladder: str, dim: int) -> None:
    scores = [score(step, dim) for step in LADDERS[ladder]]
    assert scores == sorted(scores)


def test_rotation_scale_and_order_change_nothing() -> None:
    world, injection = WORLDS[64], Injection(keep=0.75, width=0.8)
    real, fake = world.sample(2 * N, seed=1), injection.sample(world, N, seed=2)
    turn = torch.linalg.qr(torch.randn(64, 64, generator=torch.Generator().manual_seed(0)))[0]
    shuffle = torch.randperm(2 * N, generator=torch.Generator().manual_seed(1))
    plain = variety(real, fake, replicates=0).score.value
    for other in (variety(real @ turn, fake @ turn, replicates=0), variety(1000 * real, 1000 * fake, replicates=0), variety(real[shuffle], fake, replicates=0)):
        assert other.score.value == pytest.approx(plain, abs=0.02)


def test_profile_names_the_damage() -> None:
    world = WORLDS[64]
    real = world.sample(2 * N, seed=1)
    for name, injection in {
        "missing": Injection(keep=0.5),
        "skewed": Injection(zipf=0.5),
        "narrowed": Injection(width=0.5),
        "duplicated": Injection(unique=0.5),
        "off_manifold": Injection(junk=0.5),
    }.items():
        profile = variety(real, injection.sample(world, N, seed=2), replicates=0).profile
        assert max(profile, key=lambda key: profile[key].value) == name, profile


def test_interval_and_replicates_are_a_function_of_the_seed() -> None:
    world = WORLDS[2]
    real, fake = world.sample(2 * N, seed=1), replace(Injection(), keep=0.5).sample(world, N, seed=2)
    first, again = variety(real, fake, replicates=5), variety(real, fake, replicates=5)
    assert first == again and len(first.replicates) == 5
    assert first.score.low < first.score.value < first.score.high
    assert abs(first.score.value - 0.5) < 0.05
    assert first.power is not None and 0 < first.power < 0.3


def test_garbage_is_inconclusive_and_a_point_off_the_manifold_is_not() -> None:
    world = WORLDS[64]
    real, size = world.sample(2 * N, seed=1), float(world.centres.std())
    garbage = 5 * size * torch.randn(N, 64, generator=torch.Generator().manual_seed(0))
    assert variety(real, garbage, replicates=3).doubts
    assert not variety(real, Injection(point="off").sample(world, N, seed=2), replicates=3).doubts
    assert not variety(real, Injection(noise=3.0).sample(world, N, seed=2), replicates=3).doubts


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="99 samples"):
        variety(torch.randn(198, 2), torch.randn(99, 2))


def test_a_cloud_about_the_modes_is_no_collapse_and_one_about_a_single_mode_is() -> None:
    """Samples twenty times as wide as the modes say nothing of their insides; which modes they gather about, they do."""
    world = WORLDS[2]
    real = world.sample(2 * N, seed=1)
    every, one = (variety(real, Injection(keep=keep, noise=20.0).sample(world, N, seed=2)) for keep in (1.0, 0.125))
    assert every.score.low < 0.15 and "wide as the modes" in every.doubts[0] and every.profile["off_manifold"].low > 0.8
    assert one.score.low > 0.6 and not one.doubts
