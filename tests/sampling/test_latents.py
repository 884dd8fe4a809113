"""Latents are a function of (seed, index) and follow their prior."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from gandiag.errors import ConfigError
from gandiag.interfaces import LatentSpec
from gandiag.sampling.latents import PRIORS, derive_seed, make_labels, sample_latents, sample_normal

N = 20_000
KNOWN_0 = [0.39194, 0.52789, -0.28682, 0.40270]
KNOWN_1 = [-0.59407, -0.78622, 1.17052, -1.03253]


@pytest.mark.parametrize("prior", PRIORS)
def test_any_batching_and_order_draw_the_same_rows(prior):
    latent = LatentSpec(16, prior)
    whole = sample_latents(latent, torch.arange(300), seed=3)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    shuffled = torch.cat([sample_latents(latent, part, seed=3) for part in order.split(7)])
    assert torch.equal(whole[order], shuffled)


def test_one_index_alone_far_out_and_twice():
    latent = LatentSpec(4)
    far = torch.tensor([2**40, 5, 2**40])
    z = sample_latents(latent, far, seed=0)
    assert torch.equal(z[0], z[2]) and torch.equal(z[1], sample_latents(latent, torch.tensor([5]), seed=0)[0])
    assert not torch.equal(z[0], z[1])


@pytest.mark.parametrize(
    "prior, law",
    [
        ("normal", stats.norm()),
        ("uniform", stats.uniform(-1, 2)),
        ("truncated", stats.truncnorm(-2, 2)),
    ],
)
def test_priors_pass_kolmogorov_smirnov(prior, law):
    z = sample_latents(LatentSpec(8, prior), torch.arange(N), seed=1).double().numpy()
    # 8 tests: the smallest p-value exceeds 1e-4 in all but one of 1,250 seeds, and the seed is fixed
    assert min(stats.kstest(z[:, column], law.cdf).pvalue for column in range(8)) > 1e-4
    assert stats.kstest(z[5], law.cdf).pvalue > 1e-4


def test_coordinates_samples_and_seeds_are_uncorrelated():
    a = sample_latents(LatentSpec(32), torch.arange(N), seed=0).double()
    b = sample_latents(LatentSpec(32), torch.arange(N), seed=1).double()
    within = torch.corrcoef(a.T) - torch.eye(32)
    between = (a * b).mean(0)
    neighbours = (a[1:] * a[:-1]).mean(0)
    # each is N(0, 1/N); 1,024 of them stay below 5 standard errors with probability .999
    assert max(float(x.abs().max()) for x in (within, between, neighbours)) < 5 / math.sqrt(N)


def test_truncation_bounds_and_sphere_radius():
    assert (
        float(sample_latents(LatentSpec(8, "truncated", truncation=0.5), torch.arange(500), seed=0).abs().max()) <= 0.5
    )
    z = sample_latents(LatentSpec(50, "sphere"), torch.arange(100), seed=0)
    torch.testing.assert_close(z.norm(dim=1), torch.full((100,), 50**0.5))
    assert abs(float(z.mean())) < 5 / math.sqrt(z.numel())


@pytest.mark.parametrize("prior", PRIORS)
def test_scales_share_their_base_draws(prior):
    latent, indices = LatentSpec(8, prior), torch.arange(64)
    torch.testing.assert_close(
        sample_latents(latent, indices, seed=0, scale=0.02), 0.02 * sample_latents(latent, indices, seed=0)
    )
    assert not sample_latents(latent, indices, seed=0, scale=0.0).any()


def test_shape_dtype_and_the_global_generator():
    before = torch.get_rng_state()
    z = sample_latents(LatentSpec(6, shape=(6, 1, 1)), torch.arange(5), seed=0)
    assert z.shape == (5, 6, 1, 1) and z.dtype == torch.float32 and z.is_contiguous()
    assert torch.equal(z.flatten(1), sample_latents(LatentSpec(6), torch.arange(5), seed=0))
    assert sample_latents(LatentSpec(6), torch.arange(0), seed=0).shape == (0, 6)
    assert torch.equal(before, torch.get_rng_state())


def test_known_values_do_not_drift():
    """Another machine or version must draw the same latents (to 1e-4), or every record changes."""
    expected = torch.tensor([KNOWN_0, KNOWN_1])
    torch.testing.assert_close(sample_latents(LatentSpec(4), torch.tensor([0, 1]), seed=0), expected, atol=1e-4, rtol=0)


def test_seeds_of_any_size_and_purposes_differ():
    draws = [
        sample_normal(torch.arange(3), 4, seed=seed)
        for seed in (0, 1, -1, 2**63, 2**64 - 2, derive_seed(0, "a"), derive_seed(0, "b"))
    ]
    assert all(not torch.equal(a, b) for i, a in enumerate(draws) for b in draws[:i])
    assert derive_seed(0, "a") == derive_seed(0, "a") != derive_seed(1, "a")


def test_labels_are_balanced_and_follow_the_index():
    found = make_labels(torch.arange(1000), 10)
    assert torch.bincount(found).tolist() == [100] * 10
    assert torch.equal(make_labels(torch.tensor([999, 3]), 10), found[[999, 3]])
    assert make_labels(torch.arange(4), 10, only_class=7).tolist() == [7] * 4


def test_a_class_or_prior_that_does_not_exist():
    with pytest.raises(ConfigError, match="class 10"):
        make_labels(torch.arange(3), 10, only_class=10)
    with pytest.raises(ConfigError, match="'norml'"):
        sample_latents(LatentSpec(3, "norml"), torch.arange(3), seed=0)  # type: ignore[arg-type]
