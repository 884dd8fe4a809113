"""The score of images: aspect features, the classifier loss, and the worst aspect as the headline."""

from __future__ import annotations

import pytest
import torch

from gandiag.features.image_statistics import ASPECTS, color_features, layout_features, texture_features, to_gray
from gandiag.metrics.score.classifier_test import cross_fit_log_odds
from gandiag.metrics.score.multi_view import estimate_multi_view_loss

N = 400


def blobs(n: int, seed: int) -> torch.Tensor:
    """Images (n, 3, 32, 32) in [0, 1]: a bright disc of random position, size, color and grain."""
    generator = torch.Generator().manual_seed(seed)
    position, size, hue, grain = (torch.rand(n, k, generator=generator) for k in (2, 1, 3, 1))
    y, x = torch.meshgrid(torch.linspace(0, 1, 32), torch.linspace(0, 1, 32), indexing="ij")
    squared_distance = (x - position[:, :1, None]).square() + (y - position[:, 1:, None]).square()
    disc = torch.exp(-squared_distance / (0.02 + 0.1 * size[:, :, None].square()))
    noise = 0.3 * grain[:, :, None, None] * torch.randn(n, 1, 32, 32, generator=generator)
    return (0.2 + hue[:, :, None, None] * (0.3 + 0.4 * disc[:, None]) + noise).clamp(0, 1)


@pytest.mark.parametrize("name", ASPECTS)
@pytest.mark.parametrize("channels", [1, 3])
def test_aspects_are_functions_of_each_image_alone(name: str, channels: int) -> None:
    images = blobs(9, seed=0)[:, :channels]
    together = ASPECTS[name](images)
    parts = torch.cat([ASPECTS[name](part) for part in images.split(4)])
    assert together.shape[0] == 9 and together.isfinite().all() and together.dtype == torch.float32
    torch.testing.assert_close(together, parts, atol=1e-5, rtol=1e-4)


def test_aspects_respond_to_what_they_are_named_after() -> None:
    images = blobs(8, seed=1)
    assert torch.allclose(
        layout_features(images + 0.1), layout_features(images), atol=1e-5
    )  # a color cast changes no layout
    assert torch.allclose(
        color_features(images.flip(3)), color_features(images), atol=1e-5
    )  # mirroring changes no colors
    assert torch.allclose(
        texture_features(images * 0 + 0.3), texture_features(images * 0 + 0.6), atol=1e-4
    )  # flat images have no texture
    for channels in (1, 2, 3, 4, 12):
        assert to_gray(torch.ones(1, channels, 2, 2)).allclose(torch.ones(1, 2, 2))


def test_classifier_loss_detects_a_missing_half_but_not_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    real, fake = torch.randn(2000, 16, generator=generator), torch.randn(4000, 16, generator=generator)
    assert abs(cross_fit_log_odds(real, fake[:1000], seed=0).missing_fraction()) < 0.05
    half = cross_fit_log_odds(real, fake[fake[:, 0] > 0][:1000], seed=0)
    assert 0.3 < half.missing_fraction() <= half.total_variation() < 0.55
    noisy = cross_fit_log_odds(real, fake[:1000] + torch.randn(1000, 16, generator=generator), seed=0)
    assert noisy.total_variation() > 0.3 and noisy.missing_fraction() < 0.1 and noisy.fake_only_fraction() > 0.1


def test_the_worst_aspect_is_the_headline() -> None:
    images, pool = blobs(2 * N, seed=2), blobs(4 * N, seed=3)
    warm = pool[:, 0].mean((1, 2)) - pool[:, 2].mean((1, 2))
    for fake, worst in ((pool[:N], None), (pool[warm > warm.median()][:N], "color")):
        score, aspects = estimate_multi_view_loss(
            {k: f(images) for k, f in ASPECTS.items()}, {k: f(fake) for k, f in ASPECTS.items()}, replicates=5
        )
        assert list(aspects) == list(ASPECTS)
        if worst is None:
            assert score.score.high < 0.15
        else:
            assert max(aspects, key=lambda name: aspects[name].value) == worst
            assert score.score.low > 0.15 and score.score.value == aspects[worst].value


def test_degraded_view_counts_where_fidelity_is_low() -> None:
    """View `b` misses the data and is inconclusive; its degraded version matches, so that one counts."""
    generator = torch.Generator().manual_seed(0)
    real, fake = torch.randn(2 * N, 8, generator=generator), torch.randn(N, 8, generator=generator)
    undegraded, _ = estimate_multi_view_loss({"b": real}, {"b": fake + 2}, replicates=3)
    assert any("to tell lost diversity from low fidelity" in doubt for doubt in undegraded.inconclusive_reasons)
    degraded, aspects = estimate_multi_view_loss({"b": real, "b+1": real}, {"b": fake + 2, "b+1": fake}, replicates=3)
    assert not degraded.inconclusive_reasons and degraded.score.high < 0.15 and list(aspects) == ["b"]


def test_off_manifold_is_that_of_the_undegraded_view() -> None:
    """Degradation must not hide low fidelity: `off_manifold` comes from the undegraded view and the worst aspect."""
    generator = torch.Generator().manual_seed(0)
    real, fake = torch.randn(2 * N, 16, generator=generator), torch.randn(N, 16, generator=generator)
    noisy = fake + torch.randn(N, 16, generator=generator)
    views = {"a": real, "a+1": real}
    clean, _ = estimate_multi_view_loss(views, {"a": fake, "a+1": fake}, replicates=5)
    noisy_estimate, _ = estimate_multi_view_loss(views, {"a": noisy, "a+1": fake}, replicates=5)
    assert clean.profile["off_manifold"].low < 0.05 and clean.score.high < 0.15
    assert noisy_estimate.profile["off_manifold"].low > 0.1 and noisy_estimate.score.high < 0.15


def test_single_image_is_a_collapse_at_any_fidelity() -> None:
    images = blobs(2 * N, seed=4)
    for fake in (images[:1].expand(N, -1, -1, -1), torch.full((N, 3, 32, 32), 0.9)):
        score, _ = estimate_multi_view_loss(
            {k: f(images) for k, f in ASPECTS.items()}, {k: f(fake) for k, f in ASPECTS.items()}, replicates=3
        )
        assert score.score.value > 0.95 and score.score.low > 0.9 and not score.inconclusive_reasons


def test_views_must_match() -> None:
    with pytest.raises(ValueError, match="no view"):
        estimate_multi_view_loss({}, {})
