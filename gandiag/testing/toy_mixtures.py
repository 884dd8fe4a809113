"""Toy generators with known collapse: a Gaussian mixture, and corruptions of it.

    mixture = make_mixture(dim=64, n_modes=20, seed=0)
    corruption = Corruption(mode_fraction=0.5, outlier_fraction=0.2)   # half of the modes, and 20 % uniform outliers
    real = mixture.sample(3000, seed=1)                                # (3000, 64)
    fake = corruption.sample(mixture, 1500, seed=2)
    corruption.true_loss(mixture)                                      # 0.5

Everything is a pure function of its seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class GaussianMixture:
    """K isotropic Gaussians: `centers` (K, D), `std` > 0 in data units, `weights` (K,) summing to 1."""

    centers: Tensor
    std: float
    weights: Tensor

    def sample(self, n: int, seed: int) -> Tensor:
        """n independent draws, (n, D) float32."""
        return self.draw(n, self.std, torch.Generator().manual_seed(seed))

    def draw(self, n: int, std: float, generator: torch.Generator) -> Tensor:
        """n independent draws at another standard deviation of the modes, (n, D) float32."""
        mode = torch.multinomial(self.weights, n, replacement=True, generator=generator)  # (n,)
        return self.centers[mode] + std * _normal(n, self.centers.shape[1], generator)  # (n, D)


def make_mixture(dim: int, n_modes: int, *, seed: int = 0, separation: float | None = None) -> GaussianMixture:
    """The real distribution of the validity tables.

    dim 2: a ring of radius 2, centers at 2πk/K (`linspace` with its endpoint would give K − 1 modes), std
    2/`separation`, default 100, the usual 0.02. Other dims: centers ~ N(0, `separation`²) per axis with unit std,
    default 4.
    """
    weights = torch.full((n_modes,), 1 / n_modes)  # (K,)
    if dim == 2:
        angle = 2 * math.pi * torch.arange(n_modes) / n_modes
        centers = 2.0 * torch.stack([angle.cos(), angle.sin()], 1)  # (K, 2)
        return GaussianMixture(centers, 2.0 / (separation or 100.0), weights)
    generator = torch.Generator().manual_seed(seed)
    return GaussianMixture((separation or 4.0) * _normal(n_modes, dim, generator), 1.0, weights)


@dataclass(frozen=True, slots=True)
class Corruption:
    """The faults of a generator. The defaults are a perfect one; faults combine and act in the order listed.

    mode_fraction       fraction of the modes that are kept, in (0, 1]: the first ⌈fraction·K⌉, or every second one
                        with `alternate_modes`
    zipf_exponent       weights of the kept modes ∝ rank^−exponent, ≥ 0
    std_factor          factor of every mode's standard deviation, ≥ 0; above 1 is over-dispersion, a fidelity fault
    shift               distance in mode stds by which all samples move in one random direction, ≥ 0: a fidelity fault
    new_mode_fraction   fraction of the samples from as many new modes as are kept, in [0, 1): a fidelity fault
    unique_fraction     fraction of distinct outputs, drawn repeatedly, in (0, 1]; with `repeat_exactly` each output
                        exactly 1/fraction times
    point               every sample is the same point: "on" a mode center, or "off" the manifold
    noise               Gaussian noise added to each sample, in mode stds, ≥ 0: a fidelity fault; with `point`: a blob
    outlier_fraction    fraction of the samples replaced by uniform draws from the bounding box of the real data, in
                        [0, 1): a fidelity fault
    """

    mode_fraction: float = 1.0
    alternate_modes: bool = False
    zipf_exponent: float = 0.0
    std_factor: float = 1.0
    shift: float = 0.0
    new_mode_fraction: float = 0.0
    unique_fraction: float = 1.0
    repeat_exactly: bool = False
    point: str | None = None
    noise: float = 0.0
    outlier_fraction: float = 0.0

    def true_loss(self, mixture: GaussianMixture) -> float:
        """The lost diversity, in [0, 1]: 1 − (kept mass) · (kept width) · (fraction of distinct outputs).

        Kept mass is 1 − total variation between the mode weights of the mixture and of the generator's own modes.
        Fidelity faults (std_factor above 1, shift, noise, outliers, new modes) lose no diversity.
        """
        if self.point is not None:
            return 1.0
        mass = float(torch.minimum(mixture.weights, self._mode_weights(mixture)).double().sum())
        # Rounded because the weights are float32: a perfect generator has lost exactly 0.
        return round(1.0 - mass * min(1.0, self.std_factor) * self.unique_fraction, 6)

    def sample(self, mixture: GaussianMixture, n: int, seed: int) -> Tensor:
        """n samples of the corrupted generator, (n, D) float32; a pure function of the seed."""
        generator = torch.Generator().manual_seed(seed)
        dim = mixture.centers.shape[1]
        samples = self._draw_clean(mixture, n, generator)  # (n, D)
        samples = samples + self.noise * mixture.std * _normal(n, dim, generator)
        if not self.outlier_fraction:
            return samples
        low, high = mixture.centers.amin(0) - 3 * mixture.std, mixture.centers.amax(0) + 3 * mixture.std
        is_outlier = torch.rand(n, generator=generator) < self.outlier_fraction  # (n,)
        outliers = low + (high - low) * torch.rand(n, dim, generator=generator)
        return torch.where(is_outlier[:, None], outliers, samples)

    def _mode_weights(self, mixture: GaussianMixture) -> Tensor:
        n_modes = len(mixture.weights)
        n_kept = math.ceil(self.mode_fraction * n_modes - 1e-9)
        kept = torch.arange(n_modes)[::2] if self.alternate_modes else torch.arange(n_kept)
        weights = torch.zeros(n_modes)
        weights[kept] = mixture.weights[kept] * torch.arange(1, len(kept) + 1).float() ** -self.zipf_exponent
        return weights / weights.sum()  # (K,)

    def _draw_clean(self, mixture: GaussianMixture, n: int, generator: torch.Generator) -> Tensor:
        """Samples before noise and outliers, (n, D)."""
        dim = mixture.centers.shape[1]
        if self.point is not None:
            point = mixture.centers[0] if self.point == "on" else mixture.centers.mean(0) + 7.5 * mixture.std
            return point.expand(n, dim)
        centers = mixture.centers + self._random_offset(mixture, generator)
        kept_modes = GaussianMixture(centers, mixture.std, self._mode_weights(mixture))
        n_distinct = n if self.unique_fraction == 1 else max(1, round(self.unique_fraction * n))
        std = self.std_factor * mixture.std
        samples = kept_modes.draw(n_distinct, std, generator)  # (n_distinct, D)
        if self.new_mode_fraction:
            new_modes = GaussianMixture(_new_centers(mixture, generator), mixture.std, kept_modes.weights)
            is_new = torch.rand(n_distinct, generator=generator) < self.new_mode_fraction
            samples = torch.where(is_new[:, None], new_modes.draw(n_distinct, std, generator), samples)
        if n_distinct == n:
            return samples
        if self.repeat_exactly:
            return samples[torch.arange(n) % n_distinct]
        return samples[torch.randint(n_distinct, (n,), generator=generator)]

    def _random_offset(self, mixture: GaussianMixture, generator: torch.Generator) -> Tensor:
        direction = _normal(1, mixture.centers.shape[1], generator)
        return direction * (self.shift * mixture.std / float(direction.norm()))  # (1, D)


def _new_centers(mixture: GaussianMixture, generator: torch.Generator) -> Tensor:
    """As many centers as the mixture has, at other places: (K, D)."""
    n_modes, dim = mixture.centers.shape
    if dim > 2:
        return mixture.centers.std() * _normal(n_modes, dim, generator)
    angle = math.pi / n_modes
    rotation = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return 1.5 * mixture.centers @ rotation.T


def _normal(n: int, dim: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, dim, generator=generator)  # (n, D)


LOSS_LEVELS: dict[str, tuple[Corruption, ...]] = {
    "drop": tuple(Corruption(mode_fraction=k) for k in (1.0, 0.875, 0.75, 0.5, 0.25, 0.125)),
    "width": tuple(Corruption(std_factor=w) for w in (1.0, 0.8, 0.5, 0.2, 0.05)),
    "zipf": tuple(Corruption(zipf_exponent=s) for s in (0.0, 0.5, 1.0, 2.0)),
    "unique": tuple(Corruption(unique_fraction=u) for u in (1.0, 0.9, 0.5, 0.1, 0.01)),
}
"""Each from healthy to collapsed; the score must never decrease along one."""

FIDELITY_CONTROLS: dict[str, Corruption] = {
    "shift 0.5": Corruption(shift=0.5),
    "over-dispersed 1.5": Corruption(std_factor=1.5),
    "junk 20 %": Corruption(outlier_fraction=0.2),
    "junk 50 %": Corruption(outlier_fraction=0.5),
    "invented 50 %": Corruption(new_mode_fraction=0.5),
    "noise 1": Corruption(noise=1.0),
    "noise 3": Corruption(noise=3.0),
}
"""Fidelity faults alone: the true loss is 0, and `off_manifold` responds instead."""

MASKED_COLLAPSE: dict[str, Corruption] = {
    "half + junk 20 %": Corruption(mode_fraction=0.5, outlier_fraction=0.2),
    "half + junk 50 %": Corruption(mode_fraction=0.5, outlier_fraction=0.5),
    "half + over-dispersed 1.5": Corruption(mode_fraction=0.5, std_factor=1.5),
    "half + over-dispersed 3": Corruption(mode_fraction=0.5, std_factor=3.0),
    "half + noise 1": Corruption(mode_fraction=0.5, noise=1.0),
    "half + noise 3": Corruption(mode_fraction=0.5, noise=3.0),
    "half + width 0.5": Corruption(mode_fraction=0.5, std_factor=0.5),
}
"""A collapse masked by another fault: the true loss is 0.5, and 0.75 with half the width."""

EXTREME_CASES: dict[str, Corruption] = {
    "every second mode": Corruption(mode_fraction=0.5, alternate_modes=True),
    "unique 0.5, each twice": Corruption(unique_fraction=0.5, repeat_exactly=True),
    "one point": Corruption(point="on"),
    "one point, off the manifold": Corruption(point="off"),
    "one point, noise 0.1": Corruption(point="on", noise=0.1),
}


def standard_mixture(dim: int, seed: int = 0, *, separation: float | None = None) -> GaussianMixture:
    """The mixture of the tables in `dim` dimensions: a ring of 8 modes in the plane, 20 modes in more dimensions.

    `separation`: see `make_mixture`.
    """
    return make_mixture(dim, 8 if dim == 2 else 20, seed=seed, separation=separation)


@dataclass(frozen=True, slots=True)
class ValidityCase:
    """One row of the table. `group`: "clean", "collapse", "control" (a fidelity fault alone) or "masked" (both)."""

    name: str
    group: str
    corruption: Corruption


_LEVEL_NAMES = {
    "drop": "modes kept {0.mode_fraction:g}",
    "width": "mode width × {0.std_factor:g}",
    "zipf": "Zipf weights, s = {0.zipf_exponent:g}",
    "unique": "distinct outputs {0.unique_fraction:g}",
}


def validity_cases() -> tuple[ValidityCase, ...]:
    """Every row of the validity table: clean, the loss levels, the extremes, the controls, the masked ones."""
    levels = [
        ValidityCase(_LEVEL_NAMES[kind].format(corruption), "collapse", corruption)
        for kind, corruptions in LOSS_LEVELS.items()
        for corruption in corruptions[1:]
    ]
    groups = (("collapse", EXTREME_CASES), ("control", FIDELITY_CONTROLS), ("masked", MASKED_COLLAPSE))
    others = [ValidityCase(name, group, corruption) for group, table in groups for name, corruption in table.items()]
    return (ValidityCase("clean", "clean", Corruption()), *levels, *others)
