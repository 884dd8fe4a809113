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

from gandiag.contracts import Output
from gandiag.registry import Registry

DATASETS = Registry("datasets", {
    "ring8": "gandiag.reference.data:ring8",
    "grid25": "gandiag.reference.data:grid25",
    "ring8-pacgan": "gandiag.reference.data:ring8_pacgan",
    "gaussians-64d": "gandiag.reference.data:gaussians",
    "digits": "gandiag.reference.images:digits",
    "stacked-digits": "gandiag.reference.images:stacked_digits",
    "mnist": "gandiag.reference.images:mnist",
    "stacked-mnist": "gandiag.reference.images:stacked_mnist",
    "cifar10": "gandiag.reference.images:cifar10",
}, "data set")  # fmt: skip

CEILING = 1 - math.exp(-4.5)  # of "high quality" for real data: within 3 sigma in the plane


@dataclass(frozen=True, slots=True)
class Reading:
    """Samples as modes: `mode` (N,) int64, `good` (N,) bool, whether the sample is one of high quality."""

    mode: Tensor
    good: Tensor


@dataclass(frozen=True, slots=True)
class Dataset:
    """Real samples without end. `draw(n, rng)` -> (n, *output.shape) float32; `read` where modes are known, `modes` of them.

    `ceiling`: the share of real samples that the reader calls good.
    """

    name: str
    output: Output
    draw: Callable[[int, torch.Generator], Tensor]
    read: Callable[[Tensor], Reading] | None = None
    modes: int = 0
    ceiling: float = 1.0


@dataclass(frozen=True, slots=True)
class Gaussians:
    """K equal isotropic Gaussians: `centres` (K, D), standard deviation `sigma` per axis."""

    centres: Tensor
    sigma: float

    @property
    def radius(self) -> float:
        """Distance within which `CEILING` of a mode's real samples lie: 3 sigma in the plane, a chi-square quantile elsewhere."""
        return self.sigma * math.sqrt(float(chi2.ppf(CEILING, self.centres.shape[1])))

    def draw(self, n: int, rng: torch.Generator) -> Tensor:
        mode = torch.randint(len(self.centres), (n,), generator=rng)
        return torch.randn(n, self.centres.shape[1], generator=rng).mul_(self.sigma).add_(self.centres[mode])  # (n, D)

    def read(self, samples: Tensor) -> Reading:
        distance, mode = torch.cdist(samples.double(), self.centres.double()).min(1)  # (N,)
        return Reading(mode, distance <= self.radius)

    def named(self, name: str) -> Dataset:
        return Dataset(name, Output("vector", (self.centres.shape[1],)), self.draw, self.read, len(self.centres), CEILING)


def _ring(radius: float) -> Tensor:
    """2πk/8: a linspace that includes its endpoint has seven modes, one of them twice."""
    angle = 2 * math.pi * torch.arange(8) / 8
    return radius * torch.stack([angle.cos(), angle.sin()], 1)  # (8, 2)


def _grid() -> Tensor:
    return torch.cartesian_prod(*2 * [torch.arange(-4.0, 5.0, 2.0)])  # (25, 2)


def ring8() -> Dataset:
    """Eight Gaussians of deviation 0.02 on a circle of radius 2, as in Metz et al. 2016."""
    return Gaussians(_ring(2.0), 0.02).named("ring8")


def ring8_pacgan() -> Dataset:
    """Radius 1, deviation 0.01, as in PacGAN's code (and, it says, VEEGAN's)."""
    return Gaussians(_ring(1.0), 0.01).named("ring8-pacgan")


def grid25() -> Dataset:
    """{-4, -2, 0, 2, 4}² with deviation 0.05."""
    return Gaussians(_grid(), 0.05).named("grid25")



def gaussians() -> Dataset:
    """Ten Gaussians in 64 dimensions: centres ~ N(0, 1) per axis from a fixed seed, deviation 0.1."""
    centres = torch.randn(10, 64, generator=torch.Generator().manual_seed(64))
    return Gaussians(centres, 0.1).named("gaussians-64d")
