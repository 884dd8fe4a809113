"""Tells a global transformation of the generated images, which is fidelity, from lost variety.

The fitted transformation is applied to the *real* images. Where a classifier of color, texture and layout cannot tell
the result from the generated images any more, the transformation is all that happened, and the variety is judged
against the transformed real images. No rescue by force: a transformation has few parameters, acts inside each image as
between images, and what remains after it is judged as ever.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gandiag.features.image_statistics import ASPECTS
from gandiag.interfaces import Estimate
from gandiag.metrics.score.classifier_test import LogOdds, cross_fit_log_odds
from gandiag.metrics.score.image_transformation import (
    CURVE_LAWS,
    ImageSummary,
    Transformation,
    fit_curves,
    fit_frequency_gain,
    summarize_images,
)
from gandiag.stats.resampling import draw_halves, replicate_half_width

MIN_SIDE = 4  # pixels: smaller images have no frequencies to compare
MIN_IMAGES = 100  # generated ones, and twice as many real ones
MIN_EXPLAINED = 0.05  # of the total variation, that a transformation must explain to be one
# Total variation up to which images pass for real: that of equal distributions is about 1.5 / √n.
PASSING_VARIATION, PASSING_FACTOR = 0.07, 1.5
REPLICATES = 8
FINE_DETAIL = 0.5  # of the Nyquist frequency, from which detail is fine


@dataclass(frozen=True, slots=True)
class FoundTransformation:
    """How generated images differ from real ones as a whole; ratios of 1 where they do not.

    `kind`: the simplest transformation that explains the difference, in words; empty where none is needed.
    `brightness`, `contrast`: of the pooled pixels. `color_cast`: the channel that differs most, over the brightness.
    `fine_detail`: amplitude of the upper half of the frequencies. `floor`: the same by name, of one half of the real
    images against the other. `explained`: the part of the total variation, as a classifier finds it, that the
    transformation explains. `n`: generated images. `real`, `fake`: features by aspect, (N, D) and (M, D), the real
    images transformed; empty where the transformation is none.
    """

    kind: str
    ratios: Mapping[str, Estimate]
    floor: Mapping[str, float]
    explained: Estimate
    n: int
    real: Mapping[str, Tensor]
    fake: Mapping[str, Tensor]


def find_transformation(real: Tensor, fake: Tensor, *, seed: int = 0) -> FoundTransformation | None:
    """The transformation of real images (N, C, H, W) in [0, 1] that makes them pass for the generated ones, (M, …).

    None where there is none: the images differ in other ways. Costs one to seven classifiers of about 200 inputs.
    """
    if len(fake) < MIN_IMAGES or len(real) < 2 * MIN_IMAGES or min(*real.shape[-2:], *fake.shape[-2:]) < MIN_SIDE:
        return None
    features, fake_features = describe_aspects(real), describe_aspects(fake)
    before = after = fit_aspects(features, fake_features, seed)
    summaries = summarize_images(real), summarize_images(fake)
    limit = PASSING_VARIATION + PASSING_FACTOR / math.sqrt(len(fake))
    kind = ""
    for name, transformation in _propose(real, *summaries):
        transformed = describe_aspects(transformation.apply(real))
        odds = fit_aspects(transformed, fake_features, seed)
        if odds.total_variation() < min(after.total_variation(), before.total_variation() - MIN_EXPLAINED):
            kind, after, features = name, odds, transformed
        if kind and after.total_variation() <= limit:
            break
    if after.total_variation() > limit:
        return None
    sets = (features, fake_features) if kind else ({}, {})
    floor = _measure_floor(summaries[0], seed)
    explained = _measure_explained(before, after, seed)
    return FoundTransformation(kind, measure_ratios(summaries, seed), floor, explained, len(fake), *sets)


def describe_aspects(images: Tensor) -> dict[str, Tensor]:
    """Color, texture and layout of images (N, C, H, W) in [0, 1], (N, D) each."""
    return {name: function(images).float() for name, function in ASPECTS.items()}


def fit_aspects(real: Mapping[str, Tensor], fake: Mapping[str, Tensor], seed: int) -> LogOdds:
    """A classifier of all aspects together, each at the same weight."""
    rows: tuple[list[Tensor], list[Tensor]] = ([], [])
    for name, values in real.items():
        center = values.mean(0)
        scale = (values - center).square().sum(1).mean().sqrt().clamp(min=1e-6)
        for part, features in zip(rows, (values, fake[name]), strict=True):
            part.append((features - center) / scale)
    return cross_fit_log_odds(torch.cat(rows[0], 1), torch.cat(rows[1], 1), seed=seed)


def _measure_explained(before: LogOdds, after: LogOdds, seed: int) -> Estimate:
    """The total variation before less that after, at least 0, from half-samples of the images."""
    generator = torch.Generator().manual_seed(seed)
    halves = [draw_halves((len(before.real), len(before.fake)), generator) for _ in range(REPLICATES)]
    replicates = [before.subset(*half).total_variation() - after.subset(*half).total_variation() for half in halves]
    value = max(0.0, before.total_variation() - after.total_variation())
    width = float(replicate_half_width(torch.tensor(replicates)))
    return Estimate(value, max(0.0, value - width), min(1.0, value + width))


def _fit_filter_and_curves(images: Tensor, real: ImageSummary, fake: ImageSummary) -> Transformation | None:
    """A filter that is fitted to curved images; then the curve again, since a filter changes the pixels' contrast."""
    curves = fit_curves(real, fake)
    if curves is None:
        return None
    gain = fit_frequency_gain(summarize_images(Transformation(curves).apply(images)), fake)
    filtered = Transformation(None, gain).apply(images)
    curves = fit_curves(summarize_images(filtered), fake)
    return None if curves is None else Transformation(curves, gain)


def _propose(images: Tensor, real: ImageSummary, fake: ImageSummary) -> Iterator[tuple[str, Transformation]]:
    """Kinds of transformation that might carry the real images to the generated ones, the simplest first."""
    for law in CURVE_LAWS:
        curves = fit_curves(real, fake, law)
        if curves is not None:
            yield law, Transformation(curves)
    frequency_gain = fit_frequency_gain(real, fake)
    is_softer = float(frequency_gain[len(frequency_gain) // 2 :].log().mean()) < 0
    filter_name = "blur or a lower resolution" if is_softer else "sharpening"
    yield filter_name, Transformation(None, frequency_gain)
    both = _fit_filter_and_curves(images, real, fake)
    if both is not None:
        yield f"tone curve, and {filter_name}", both


def measure_ratios(summaries: tuple[ImageSummary, ImageSummary], seed: int) -> dict[str, Estimate]:
    """The ratios of a FoundTransformation with intervals from half-samples of both sets."""
    generator = torch.Generator().manual_seed(seed)
    sizes = len(summaries[0].histogram), len(summaries[1].histogram)
    replicates = []
    for _ in range(REPLICATES):
        halves = draw_halves(sizes, generator)
        replicates.append(_compute_ratios(*(part.subset(half) for part, half in zip(summaries, halves, strict=True))))
    values = _compute_ratios(*summaries)
    estimates = {}
    for name, value in values.items():
        width = float(replicate_half_width(torch.tensor([entry[name] for entry in replicates])))
        estimates[name] = Estimate(value, max(0.0, value - width), value + width)
    return estimates


def _measure_floor(summary: ImageSummary, seed: int) -> dict[str, float]:
    order = torch.randperm(len(summary.histogram), generator=torch.Generator().manual_seed(seed))
    half = len(order) // 2
    return _compute_ratios(summary.subset(order[:half]), summary.subset(order[half:]))


def _compute_ratios(real: ImageSummary, fake: ImageSummary) -> dict[str, float]:
    (real_mean, real_spread), (fake_mean, fake_spread) = (part.pixel_moments() for part in (real, fake))
    brightness = float(fake_mean.mean() / real_mean.mean().clamp(min=1e-6))
    contrast = float(fake_spread.mean() / real_spread.mean().clamp(min=1e-6))
    casts = fake_mean / real_mean.clamp(min=1e-6) / max(brightness, 1e-6)  # (C,)
    cast = float(casts[(casts.clamp(min=1e-6).log()).abs().argmax()])
    gain = fit_frequency_gain(real, fake)
    detail = float(gain[round(FINE_DETAIL * len(gain)) :].log().mean().exp())
    return {"brightness": brightness, "contrast": contrast, "color_cast": cast, "fine_detail": detail}
