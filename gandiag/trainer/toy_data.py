"""Dataset registry of the trainer, and Gaussian mixtures whose modes are known.

DATASETS.get("ring8")() returns a Dataset: real samples on demand and, where modes are known, the mode of any sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.stats import chi2
from torch import Tensor

from gandiag.interfaces import OutputSpec
from gandiag.registry import Registry

DATASETS = Registry(
    "datasets",
    {
        "ring8": "gandiag.trainer.toy_data:make_ring8",
        "grid25": "gandiag.trainer.toy_data:make_grid25",
        "ring8-pacgan": "gandiag.trainer.toy_data:make_ring8_pacgan",
        "gaussians-64d": "gandiag.trainer.toy_data:make_gaussian_mixture",
        "digits": "gandiag.trainer.image_data:load_digits_dataset",
        "stacked-digits": "gandiag.trainer.image_data:load_stacked_digits",
        "mnist": "gandiag.trainer.image_data:load_mnist",
        "stacked-mnist": "gandiag.trainer.image_data:load_stacked_mnist",
        "cifar10": "gandiag.trainer.image_data:load_cifar10",
    },
    "data set",
)

REAL_HIGH_QUALITY_FRACTION = 1 - math.exp(-4.5)  # share of real samples within 3 sigma of their mode, in the plane


@dataclass(frozen=True, slots=True)
class ModeAssignment:
    """The nearest mode of each sample, `mode` (N,) int64, and whether it is of high quality, `good` (N,) bool."""

    mode: Tensor
    good: Tensor


@dataclass(frozen=True, slots=True)
class Dataset:
    """An unlimited supply of real samples.

    draw            draw(n, rng) -> (n, *output.shape) float32
    assign_modes    samples (N, *output.shape) -> ModeAssignment; None if the modes are unknown
    n_modes         number of modes, 0 if unknown
    real_good       share of real samples that `assign_modes` counts as high quality
    """

    name: str
    output: OutputSpec
    draw: Callable[[int, torch.Generator], Tensor]
    assign_modes: Callable[[Tensor], ModeAssignment] | None = None
    n_modes: int = 0
    real_good: float = 1.0


@dataclass(frozen=True, slots=True)
class GaussianMixture:
    """K equally likely isotropic Gaussians: `centers` (K, D), standard deviation `std` per axis."""

    centers: Tensor
    std: float

    @property
    def high_quality_radius(self) -> float:
        """Radius that holds REAL_HIGH_QUALITY_FRACTION of a mode's samples.

        This is 3 sigma in the plane, and a chi-square quantile in other dimensions.
        """
        return self.std * math.sqrt(float(chi2.ppf(REAL_HIGH_QUALITY_FRACTION, self.centers.shape[1])))

    def draw(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw samples (n, D)."""
        mode = torch.randint(len(self.centers), (n,), generator=rng)
        return torch.randn(n, self.centers.shape[1], generator=rng).mul_(self.std).add_(self.centers[mode])

    def assign_modes(self, samples: Tensor) -> ModeAssignment:
        """Assign samples (N, D) to their nearest center."""
        distance, mode = torch.cdist(samples.double(), self.centers.double()).min(1)  # (N,)
        return ModeAssignment(mode, distance <= self.high_quality_radius)

    def to_dataset(self, name: str) -> Dataset:
        """Return the mixture as a dataset."""
        output = OutputSpec("vector", (self.centers.shape[1],))
        return Dataset(name, output, self.draw, self.assign_modes, len(self.centers), REAL_HIGH_QUALITY_FRACTION)


def _ring_centers(radius: float) -> Tensor:
    # Angles 2πk/8: a linspace that includes its endpoint has seven modes, one of them twice.
    angle = 2 * math.pi * torch.arange(8) / 8
    return radius * torch.stack([angle.cos(), angle.sin()], 1)  # (8, 2)


def make_ring8() -> Dataset:
    """Eight Gaussians of std 0.02 on a circle of radius 2, as in Metz et al. 2016."""
    return GaussianMixture(_ring_centers(2.0), 0.02).to_dataset("ring8")


def make_ring8_pacgan() -> Dataset:
    """Radius 1, std 0.01, as in PacGAN's code (and, it says, VEEGAN's)."""
    return GaussianMixture(_ring_centers(1.0), 0.01).to_dataset("ring8-pacgan")


def make_grid25() -> Dataset:
    """25 Gaussians of std 0.05 at {-4, -2, 0, 2, 4}²."""
    centers = torch.cartesian_prod(*2 * [torch.arange(-4.0, 5.0, 2.0)])  # (25, 2)
    return GaussianMixture(centers, 0.05).to_dataset("grid25")


def make_gaussian_mixture() -> Dataset:
    """Ten Gaussians of std 0.1 in 64 dimensions; centers ~ N(0, 1) per axis, from a fixed seed."""
    centers = torch.randn(10, 64, generator=torch.Generator().manual_seed(64))
    return GaussianMixture(centers, 0.1).to_dataset("gaussians-64d")
