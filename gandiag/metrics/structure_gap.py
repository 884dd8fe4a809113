"""Structure: whether images of right parts are wrong as wholes.

Minibatch features and other remedies have a known price: parts look right and are put together wrongly (Goodfellow
2016, section 5). Here a classifier sees patches of a quarter of the side, and another whole images, by the same
features. `structure_gap` is the share of wholes that no real image resembles, less the total variation of the patches,
each over the same number of real against real images. Blur, noise or a wrong palette show in patches as well, and lost
modes leave no whole unlike the data, so that neither opens the gap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gandiag.exhibits.images import image_grid
from gandiag.interfaces import Metric, MetricResult, Needs, OutputSpec
from gandiag.metrics.base import missing_measurements
from gandiag.metrics.degeneracy import find_repeats
from gandiag.metrics.registry import MetricContext
from gandiag.metrics.repeats.groups import first_rows
from gandiag.metrics.score.classifier_test import LogOdds, cross_fit_log_odds
from gandiag.record import MIN_STRUCTURE_GAP, Exhibit, Measurement
from gandiag.sampling.preprocessing import to_unit_range
from gandiag.stats.resampling import DEFAULT_REPLICATES, draw_halves, replicate_half_width
from gandiag.stats.splits import split_indices
from gandiag.stats.subset import SubsetSpec

KEYS = ("structure_gap", "unreal_wholes", "patch_distance")
MAX_IMAGES = 500  # per set
MAX_VALUES = 4e7  # of the images of a set, so that large ones need little memory
MIN_IMAGES = 100
PATCHES_PER_IMAGE = 3
MIN_SIDE = 16
WHOLE_SIDE = 12  # pixels that an image or patch is averaged to
DETAIL_LEVELS = 2  # octaves whose energy is a feature
MIN_CONTRAST = 0.02  # of the range: flatter patches are not amplified
N_SHOWN = 16


@dataclass(frozen=True, slots=True)
class Structure:
    """The measurements of `structure_gap`: of images with real data."""

    n: int
    output: OutputSpec
    seed: int = 0
    key: str = "structure_gap"

    @property
    def n_images(self) -> int:
        """Images per set."""
        return count_images(self.output, self.n)

    def needs(self) -> Needs:
        return {
            "real": frozenset({SubsetSpec("samples", 2 * self.n_images)}),
            "fake": frozenset({SubsetSpec("samples", self.n_images)}),
        }

    def measure(self, results: Any) -> MetricResult:
        real = results["real"][SubsetSpec("samples", 2 * self.n_images)]
        fake = results["fake"][SubsetSpec("samples", self.n_images)].values
        repeats = find_repeats(fake, self.output, seed=self.seed).observed.labels
        fake = fake[first_rows(repeats)] if len(repeats) == len(fake) else fake
        n = min(len(fake), len(real.indices) // 2)
        if n < MIN_IMAGES:
            reason = f"{n} different images per set are too few to compare patches with wholes: {MIN_IMAGES} are needed"
            return MetricResult(missing_measurements(KEYS, reason))
        if min(self.output.shape[-2:]) < MIN_SIDE:
            reason = f"images below {MIN_SIDE} pixels have no patches to compare"
            return MetricResult(missing_measurements(KEYS, reason))
        reference, heldout = split_indices(len(real.indices), n, real.indices)
        sets = [
            to_unit_range(images, self.output) for images in (real.values[reference], real.values[heldout], fake[:n])
        ]
        wholes, patches = compare_structure(sets[0], sets[1], sets[2], seed=self.seed)
        measurements = _make_measurements(wholes, patches, self.seed)
        if (measurements["structure_gap"].low or 0.0) < MIN_STRUCTURE_GAP:
            return MetricResult(measurements)
        worst = wholes.odds.fake.argsort()[:N_SHOWN]
        return MetricResult(measurements, {}, _show_worst(sets[2][worst]))


def count_images(output: OutputSpec, n: int) -> int:
    """Generated images, of n, that are kept as they are; twice as many real ones. Bounded in memory."""
    return int(min(n, MAX_IMAGES, MAX_VALUES / math.prod(output.shape)))


@dataclass(frozen=True, slots=True)
class Comparison:
    """A classifier of real against generated rows, and the same of real against real. `per_image`: rows an image."""

    odds: LogOdds
    floor: LogOdds
    per_image: int = 1


def compare_structure(
    reference: Tensor, heldout: Tensor, fake: Tensor, *, seed: int = 0
) -> tuple[Comparison, Comparison]:
    """Compare images (n, C, H, W) in [0, 1] as wholes and by patches. Cost: four classifiers of 129 inputs."""
    wholes = [describe_images(images) for images in (reference, heldout, fake)]
    patches = [
        describe_images(cut_patches(images, seed=seed + i)) for i, images in enumerate((reference, heldout, fake))
    ]
    return _compare(wholes, 1, seed), _compare(patches, PATCHES_PER_IMAGE, seed)


def _compare(rows: Sequence[Tensor], per_image: int, seed: int) -> Comparison:
    reference, heldout, fake = rows
    odds, floor = (cross_fit_log_odds(reference, other, seed=seed) for other in (fake, heldout))
    return Comparison(odds, floor, per_image)


def cut_patches(images: Tensor, *, seed: int = 0) -> Tensor:
    """Random patches of a quarter of the side, three an image in a row: (3 n, C, H / 4, W / 4)."""
    height, width = (max(4, side // 4) for side in images.shape[2:])
    generator = torch.Generator().manual_seed(seed)
    shape = (len(images), PATCHES_PER_IMAGE)
    tops = torch.randint(images.shape[2] - height + 1, shape, generator=generator).tolist()
    lefts = torch.randint(images.shape[3] - width + 1, shape, generator=generator).tolist()
    return torch.stack(
        [
            image[:, top : top + height, left : left + width]
            for image, row, column in zip(images, tops, lefts, strict=True)
            for top, left in zip(row, column, strict=True)
        ]
    )


def describe_images(images: Tensor, *, detail: bool = False) -> Tensor:
    """Features of images or patches (n, C, H, W): 12 x 12 pixels, and for patches the energy of fine detail, (n, D).

    At 12 x 12 pixels a whole shows how its parts are arranged, and a patch what the parts are like. Each image is
    standardized first, per channel in level and as a whole in contrast, so that exposure does not count.
    """
    contrast = images.flatten(1).std(1)[:, None, None, None].clamp_min(MIN_CONTRAST)
    standardized = (images - images.mean((2, 3), keepdim=True)) / contrast
    sides = (min(WHOLE_SIDE, images.shape[2]), min(WHOLE_SIDE, images.shape[3]))
    pixels = F.adaptive_avg_pool2d(standardized, sides).flatten(1)
    pixels = pixels / pixels.std().clamp_min(1e-6)
    if not detail:
        return pixels
    energies, level = [], standardized
    for _ in range(DETAIL_LEVELS):
        smooth = F.avg_pool2d(level, 3, 1, 1)
        energies.append(((level - smooth).square().mean((2, 3)) + 1e-4).log())
        level = F.avg_pool2d(level, 2)
    return torch.cat([pixels, *energies], 1)


def _make_measurements(wholes: Comparison, patches: Comparison, seed: int) -> dict[str, Measurement]:
    """The gap and its two parts, with intervals from random halves of the images, the classifiers held fixed."""
    n = len(wholes.odds.fake)
    generator = torch.Generator().manual_seed(seed)
    replicates = []
    for _ in range(DEFAULT_REPLICATES):
        halves = draw_halves((n, n), generator)
        replicates.append(_measure_parts(_take_half(wholes, halves), _take_half(patches, halves)))
    values = _measure_parts(wholes, patches)
    half_widths = replicate_half_width(torch.stack(replicates)).tolist()
    unreal, distance = wholes.floor.fake_only_fraction(), max(0.0, patches.floor.total_variation())
    floors = (unreal - distance, unreal, distance)
    units = ("difference of shares", "share of samples", "total variation")
    measurements = {}
    for key, value, error, floor, unit in zip(KEYS, values.tolist(), half_widths, floors, units, strict=True):
        least = -1.0 if key == "structure_gap" else 0.0
        low, high = max(least, value - error), min(1.0, value + error)
        measurements[key] = Measurement(value, low, high, floor, unit, "lower", n)
    return measurements


def _measure_parts(wholes: Comparison, patches: Comparison) -> Tensor:
    """The gap, the share of unreal wholes, and the distance of the patches, (3,) float64."""
    unreal, distance = wholes.odds.fake_only_fraction(), max(0.0, patches.odds.total_variation())
    unreal_floor = wholes.floor.fake_only_fraction()
    distance_floor = max(0.0, patches.floor.total_variation())
    gap = max(0.0, unreal - unreal_floor) - max(0.0, distance - distance_floor)
    return torch.tensor([gap, unreal, distance], dtype=torch.float64)


def _take_half(comparison: Comparison, halves: tuple[Tensor, ...]) -> Comparison:
    offsets = torch.arange(comparison.per_image)
    rows = [(half[:, None] * comparison.per_image + offsets).flatten() for half in halves]
    return Comparison(
        comparison.odds.subset(rows[0], rows[1]), comparison.floor.subset(rows[0], rows[1]), comparison.per_image
    )


def _show_worst(images: Tensor) -> tuple[Exhibit, ...]:
    caption = "Wholes that are most clearly not real"
    return (image_grid("structure", caption, images, (0.0, 1.0)),)


def create_structure_metrics(context: MetricContext) -> Sequence[Metric]:
    """The factory of "structure": for images with real data."""
    if context.output.kind != "image" or not context.referenced:
        return []
    return [Structure(context.n, context.output, context.seed)]
