"""A global transformation of the generated images is fidelity; what a transformation cannot undo is lost variety."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gandiag.metrics.collapse_score import measure_transformation
from gandiag.metrics.score.image_transformation import Transformation, fit_curves, summarize_images
from gandiag.metrics.score.multi_view import estimate_multi_view_loss
from gandiag.metrics.score.transformed_images import describe_aspects, find_transformation
from gandiag.record import Record, Score
from gandiag.verdict.judge import apply_policy

N = 150


def scenes(n: int, seed: int) -> Tensor:
    """Images (n, 3, 32, 32) in [0, 1]: grainy discs of random place, size, color and light."""
    generator = torch.Generator().manual_seed(seed)
    place, size, hue, light, grain = (torch.rand(n, k, generator=generator) for k in (2, 1, 3, 1, 1))
    y, x = torch.meshgrid(torch.linspace(0, 1, 32), torch.linspace(0, 1, 32), indexing="ij")
    squared = (x - place[:, :1, None]).square() + (y - place[:, 1:, None]).square()
    disc = torch.exp(-squared / (0.02 + 0.1 * size[:, :, None].square()))[:, None]
    noise = (0.03 + 0.12 * grain[:, :, None, None]) * torch.randn(n, 1, 32, 32, generator=generator)
    return (0.15 + 0.3 * light[:, :, None, None] + hue[:, :, None, None] * 0.35 * disc + noise).clamp(0, 1)


def blur(images: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(images, (1, 1, 1, 1), "reflect"), 3, 1)


TRANSFORMED: dict[str, tuple[Callable[[Tensor], Tensor], str, bool]] = {
    "brighter": (lambda x: (1.2 * x).clamp(0, 1), "brightness", True),
    "gamma": (lambda x: x**1.5, "brightness", False),
    "an offset": (lambda x: (x + 0.1).clamp(0, 1), "brightness", True),
    "white balance": (lambda x: (x * torch.tensor([1.25, 1, 0.9])[:, None, None]).clamp(0, 1), "color_cast", True),
    "blurred": (blur, "fine_detail", False),
    "sharpened": (lambda x: (x + 0.8 * (x - blur(x))).clamp(0, 1), "fine_detail", True),
    "at half the resolution": (
        lambda x: F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="bilinear"),
        "fine_detail",
        False,
    ),
}


@pytest.mark.parametrize("name", TRANSFORMED)
def test_a_transformation_is_found_and_is_no_loss(name: str) -> None:
    transform, ratio, is_larger = TRANSFORMED[name]
    real, fake = scenes(2 * N, 1), transform(scenes(N, 2))
    found = find_transformation(real, fake)
    assert found is not None and found.explained.low > 0.03, found
    change = found.ratios[ratio]
    assert change.low > 1 if is_larger else change.high < 1


def test_a_transformation_does_not_raise_the_score() -> None:
    real, fake = scenes(2 * N, 1), scenes(N, 2) ** 1.5
    found = find_transformation(real, fake)
    assert found is not None and found.kind == "gamma"
    score, _ = estimate_multi_view_loss(
        describe_aspects(real),
        describe_aspects(fake),
        replicates=5,
        transformed={key: (found.real[key], found.fake[key]) for key in found.real},
    )
    assert score.score.low < 0.15 and score.score.value < 0.15


def narrow_colors(loss: float) -> Tensor:
    """Each image's mean color drawn to that of all, by `loss`; what lies inside the images stays."""
    images = scenes(N, 2)
    means = images.mean((2, 3), keepdim=True)
    return (images + loss * (means.mean(0) - means)).clamp(0, 1)


def lose(measure: Callable[[Tensor], Tensor], kept: float) -> Tensor:
    images = scenes(6 * N, 2)
    values = measure(images)
    return images[values <= values.quantile(kept)][:N]


LOST: dict[str, Callable[[], Tensor]] = {
    "warm images": lambda: lose(lambda x: x[:, 0].mean((1, 2)) - x[:, 2].mean((1, 2)), 0.5),
    "colors, narrowed by half": lambda: narrow_colors(0.5),
    "colors, all but one": lambda: narrow_colors(0.9),
    "bright images, and darker": lambda: lose(lambda x: x.mean((1, 2, 3)), 0.5) ** 1.4,
    "all but ten images": lambda: scenes(10, 2).repeat(N // 10, 1, 1, 1),
}


@pytest.mark.parametrize("name", LOST)
def test_lost_variety_is_not_explained_away(name: str) -> None:
    found = find_transformation(scenes(2 * N, 1), LOST[name]())
    assert found is None or not found.real, found
    if found is None:
        reason = measure_transformation(found)["transformation"].reason
        assert reason is not None and "no smooth transformation" in reason


def test_fresh_images_need_no_transformation() -> None:
    found = find_transformation(scenes(2 * N, 1), scenes(N, 2))
    assert found is not None and not found.real and found.explained.value == 0
    for name, ratio in found.ratios.items():
        assert ratio.low <= 1.03 and ratio.high >= 0.97, name
        assert abs(found.floor[name] - 1) < 0.25


def test_curves_are_those_that_were_applied() -> None:
    images = scenes(N, 3)
    applied = Transformation(torch.tensor([[0.05, 0.8, 1.0], [0.0, 1.0, 1.4], [0.0, 0.9, 0.8]]))
    curves = fit_curves(summarize_images(images), summarize_images(applied.apply(images)))
    assert curves is not None
    torch.testing.assert_close(Transformation(curves).apply(images), applied.apply(images), atol=0.01, rtol=0)


def test_images_without_range_have_no_curve() -> None:
    flat = torch.zeros(N, 1, 16, 16)
    assert fit_curves(summarize_images(flat), summarize_images(flat)) is None


def test_the_finding_names_the_change_with_its_interval() -> None:
    found = find_transformation(scenes(2 * N, 1), (1.2 * scenes(N, 2)).clamp(0, 1))
    record = Record(
        verdict="inconclusive",
        kinds=(),
        score=Score(0.0, 0.0, 0.05, n_fake=N, n_real=2 * N),
        subject={},
        measurements=measure_transformation(found),
    )
    judged = apply_policy(record)
    (finding,) = (entry for entry in judged.findings if entry.rule == "GD304")
    assert finding.level == "warning" and "brighter (ratio 1." in finding.text and "(gain) explains it" in finding.text
    assert judged.verdict == "healthy"


@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_tiny_images_have_no_transformation_and_no_error(side: int) -> None:
    images = torch.rand(600, 3, side, side, generator=torch.Generator().manual_seed(9))
    find_transformation(images[:400], images[400:])  # raises nothing at any size
    if side < 4:
        assert find_transformation(images[:400], 0.6 * images[400:]) is None
