"""Where the reference trainer's real samples come from, and who can say which mode a sample belongs to.

DATASETS.get("ring8")()  ->  Dataset        a name, what a sample looks like, draw(n, rng), and a reader of modes
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

REAL_HIGH_QUALITY_FRACTION = 1 - math.exp(-4.5)  # of "high quality" for real data: within 3 sigma in the plane


@dataclass(frozen=True, slots=True)
class ModeAssignment:
    """Samples as modes: `mode` (N,) int64, `good` (N,) bool, whether the sample is one of high quality."""

    mode: Tensor
    good: Tensor


@dataclass(frozen=True, slots=True)
class Dataset:
    """Real samples without end. `draw(n, rng)` -> (n, *output.shape) float32; `read` where modes are known, `modes` of them.

    `ceiling`: the share of real samples that the reader calls good.
    """

    name: str
    output: OutputSpec
    draw: Callable[[int, torch.Generator], Tensor]
    read: Callable[[Tensor], ModeAssignment] | None = None
    modes: int = 0
    ceiling: float = 1.0


@dataclass(frozen=True, slots=True)
class GaussianMixture:
    """K equal isotropic Gaussians: `centres` (K, D), standard deviation `sigma` per axis."""

    centers: Tensor
    std: float

    @property
    def high_quality_radius(self) -> float:
        """Distance within which `CEILING` of a mode's real samples lie: 3 sigma in the plane, a chi-square quantile elsewhere."""
        return self.std * math.sqrt(float(chi2.ppf(REAL_HIGH_QUALITY_FRACTION, self.centers.shape[1])))

    def draw(self, n: int, rng: torch.Generator) -> Tensor:
        mode = torch.randint(len(self.centers), (n,), generator=rng)
        return torch.randn(n, self.centers.shape[1], generator=rng).mul_(self.std).add_(self.centers[mode])  # (n, D)

    def assign_modes(self, samples: Tensor) -> ModeAssignment:
        distance, mode = torch.cdist(samples.double(), self.centers.double()).min(1)  # (N,)
        return ModeAssignment(mode, distance <= self.high_quality_radius)

    def to_dataset(self, name: str) -> Dataset:
        return Dataset(
            name,
            OutputSpec("vector", (self.centers.shape[1],)),
            self.draw,
            self.assign_modes,
            len(self.centers),
            REAL_HIGH_QUALITY_FRACTION,
        )


def _ring(radius: float) -> Tensor:
    """2πk/8: a linspace that includes its endpoint has seven modes, one of them twice."""
    angle = 2 * math.pi * torch.arange(8) / 8
    return radius * torch.stack([angle.cos(), angle.sin()], 1)  # (8, 2)


def _grid() -> Tensor:
    return torch.cartesian_prod(*2 * [torch.arange(-4.0, 5.0, 2.0)])  # (25, 2)


def make_ring8() -> Dataset:
    """Eight Gaussians of deviation 0.02 on a circle of radius 2, as in Metz et al. 2016."""
    return GaussianMixture(_ring(2.0), 0.02).to_dataset("ring8")


def make_ring8_pacgan() -> Dataset:
    """Radius 1, deviation 0.01, as in PacGAN's code (and, it says, VEEGAN's)."""
    return GaussianMixture(_ring(1.0), 0.01).to_dataset("ring8-pacgan")


def make_grid25() -> Dataset:
    """{-4, -2, 0, 2, 4}² with deviation 0.05."""
    return GaussianMixture(_grid(), 0.05).to_dataset("grid25")


def make_gaussian_mixture() -> Dataset:
    """Ten Gaussians in 64 dimensions: centres ~ N(0, 1) per axis from a fixed seed, deviation 0.1."""
    centres = torch.randn(10, 64, generator=torch.Generator().manual_seed(64))
    return GaussianMixture(centres, 0.1).to_dataset("gaussians-64d")
