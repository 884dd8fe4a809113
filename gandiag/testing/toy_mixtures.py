"""Toy generators whose collapse is known: a Gaussian mixture, and what an `Injection` does to it.

    world = mixture(dim=64, modes=20, seed=0)
    real = world.sample(3000, seed=1)                                  # (3000, 64)
    fake = Injection(keep=0.5, junk=0.2).sample(world, 1500, seed=2)   # half the modes, and 20 % uniform junk
    Injection(keep=0.5, junk=0.2).target(world)                        # 0.5

Everything is a pure function of its seed. One *width* is a mode's standard deviation along one axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class GaussianMixture:
    """K isotropic Gaussians. `centres` (K, D), `width` > 0 in data units, `shares` (K,) summing to 1."""

    centers: Tensor
    std: float
    weights: Tensor

    def sample(self, n: int, seed: int) -> Tensor:
        """n independent draws, (n, D) float32."""
        generator = torch.Generator().manual_seed(seed)
        return self._draw(n, self.std, generator)

    def _draw(self, n: int, width: float, generator: torch.Generator) -> Tensor:
        mode = torch.multinomial(self.weights, n, replacement=True, generator=generator)  # (n,)
        return self.centers[mode] + width * _normal(n, self.centers.shape[1], generator)  # (n, D)


def make_mixture(dim: int, n_modes: int, *, seed: int = 0, separation: float | None = None) -> GaussianMixture:
    """The real world of the validity tables.

    dim 2: a ring of radius 2, centres at 2πk/K (never `linspace` with its endpoint: that is K − 1 modes), width 2/`separation`,
    default 100, the usual 0.02. Other dims: centres ~ N(0, `separation`²) per axis around unit width, default 4.
    """
    shares = torch.full((n_modes,), 1 / n_modes)  # (K,)
    if dim == 2:
        angle = 2 * math.pi * torch.arange(n_modes) / n_modes
        centres = 2.0 * torch.stack([angle.cos(), angle.sin()], 1)  # (K, 2)
        return GaussianMixture(centres, 2.0 / (separation or 100.0), shares)
    generator = torch.Generator().manual_seed(seed)
    return GaussianMixture((separation or 4.0) * _normal(n_modes, dim, generator), 1.0, shares)


@dataclass(frozen=True, slots=True)
class Corruption:
    """What is wrong with a generator. The defaults are a perfect one; knobs combine and act in the order listed.

    keep        share of the modes it knows, in (0, 1]; the first ⌈keep·K⌉, or with `alternate` every second one
    zipf        shares ∝ rank^−zipf over the kept modes, ≥ 0
    width       every mode's standard deviation × width, ≥ 0; above 1 is over-dispersion, a fidelity fault
    shift       all samples moved by `shift` widths along one random direction, ≥ 0: a fidelity fault
    invented    share of the samples from as many new modes as are kept, in [0, 1): a fidelity fault
    unique      only unique·n distinct outputs, drawn again and again, in (0, 1]; `twice` shows every one exactly 1/unique times
    point       every sample the same point: "on" a mode centre, or "off" the manifold
    noise       Gaussian noise of that many widths added to each sample, ≥ 0: a fidelity fault (with `point`: a small blob)
    junk        share of the samples replaced by uniform draws from the real data's bounding box, in [0, 1): a fidelity fault
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
        """The variety lost, in [0, 1]: 1 − (mass kept) · (width kept) · (share of distinct outputs).

        Mass kept is 1 − total variation between the mode shares of the world and of the generator's own modes;
        faults of fidelity (width above 1, shift, noise, junk, invented modes) lose no variety.
        """
        if self.point is not None:
            return 1.0
        mass = float(torch.minimum(mixture.weights, self._shares(mixture)).double().sum())
        return round(
            1.0 - mass * min(1.0, self.std_factor) * self.unique_fraction, 6
        )  # the shares are float32: a perfect generator lost exactly 0

    def sample(self, mixture: GaussianMixture, n: int, seed: int) -> Tensor:
        """n samples of the faulty generator, (n, D) float32; a pure function of the seed."""
        generator = torch.Generator().manual_seed(seed)
        dim = mixture.centers.shape[1]
        out = self._outputs(mixture, n, generator)  # (n, D)
        out = out + self.noise * mixture.std * _normal(n, dim, generator)
        if not self.outlier_fraction:
            return out
        low, high = mixture.centers.amin(0) - 3 * mixture.std, mixture.centers.amax(0) + 3 * mixture.std
        is_junk = torch.rand(n, generator=generator) < self.outlier_fraction  # (n,)
        return torch.where(is_junk[:, None], low + (high - low) * torch.rand(n, dim, generator=generator), out)

    def _shares(self, world: GaussianMixture) -> Tensor:
        modes = len(world.weights)
        count = math.ceil(self.mode_fraction * modes - 1e-9)
        kept = torch.arange(modes)[::2] if self.alternate_modes else torch.arange(count)
        shares = torch.zeros(modes)
        shares[kept] = world.weights[kept] * torch.arange(1, len(kept) + 1).float() ** -self.zipf_exponent
        return shares / shares.sum()  # (K,)

    def _outputs(self, world: GaussianMixture, n: int, generator: torch.Generator) -> Tensor:
        dim = world.centers.shape[1]
        if self.point is not None:
            where = world.centers[0] if self.point == "on" else world.centers.mean(0) + 7.5 * world.std
            return where.expand(n, dim)
        shown = GaussianMixture(world.centers + self._offset(world, generator), world.std, self._shares(world))
        distinct = n if self.unique_fraction == 1 else max(1, round(self.unique_fraction * n))
        out = shown._draw(distinct, self.std_factor * world.std, generator)  # (distinct, D)
        if self.new_mode_fraction:
            new = GaussianMixture(_elsewhere(world, generator), world.std, shown.weights)
            invent = torch.rand(distinct, generator=generator) < self.new_mode_fraction
            out = torch.where(invent[:, None], new._draw(distinct, self.std_factor * world.std, generator), out)
        if distinct == n:
            return out
        again = (
            torch.arange(n) % distinct if self.repeat_exactly else torch.randint(distinct, (n,), generator=generator)
        )
        return out[again]

    def _offset(self, world: GaussianMixture, generator: torch.Generator) -> Tensor:
        direction = _normal(1, world.centers.shape[1], generator)
        return direction * (self.shift * world.std / float(direction.norm()))  # (1, D)


def _elsewhere(world: GaussianMixture, generator: torch.Generator) -> Tensor:
    """As many centres again, where the world has none: (K, D)."""
    modes, dim = world.centers.shape
    if dim > 2:
        return world.centers.std() * _normal(modes, dim, generator)
    half = math.pi / modes
    turn = torch.tensor([[math.cos(half), -math.sin(half)], [math.sin(half), math.cos(half)]])
    return 1.5 * world.centers @ turn.T


def _normal(n: int, dim: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, dim, generator=generator)  # (n, D)


LOSS_LEVELS: dict[str, tuple[Corruption, ...]] = {
    "drop": tuple(Corruption(mode_fraction=k) for k in (1.0, 0.875, 0.75, 0.5, 0.25, 0.125)),
    "width": tuple(Corruption(std_factor=w) for w in (1.0, 0.8, 0.5, 0.2, 0.05)),
    "zipf": tuple(Corruption(zipf_exponent=s) for s in (0.0, 0.5, 1.0, 2.0)),
    "unique": tuple(Corruption(unique_fraction=u) for u in (1.0, 0.9, 0.5, 0.1, 0.01)),
}
"""Each from healthy to collapsed; the score must never fall along one."""

FIDELITY_CONTROLS: dict[str, Corruption] = {
    "shift 0.5": Corruption(shift=0.5),
    "over-dispersed 1.5": Corruption(std_factor=1.5),
    "junk 20 %": Corruption(outlier_fraction=0.2),
    "junk 50 %": Corruption(outlier_fraction=0.5),
    "invented 50 %": Corruption(new_mode_fraction=0.5),
    "noise 1": Corruption(noise=1.0),
    "noise 3": Corruption(noise=3.0),
}
"""Faults of fidelity alone: target 0, and `off_manifold` moves instead."""

MASKED_COLLAPSE: dict[str, Corruption] = {
    "half + junk 20 %": Corruption(mode_fraction=0.5, outlier_fraction=0.2),
    "half + junk 50 %": Corruption(mode_fraction=0.5, outlier_fraction=0.5),
    "half + over-dispersed 1.5": Corruption(mode_fraction=0.5, std_factor=1.5),
    "half + over-dispersed 3": Corruption(mode_fraction=0.5, std_factor=3.0),
    "half + noise 1": Corruption(mode_fraction=0.5, noise=1.0),
    "half + noise 3": Corruption(mode_fraction=0.5, noise=3.0),
    "half + width 0.5": Corruption(mode_fraction=0.5, std_factor=0.5),
}
"""A collapse that a fault of fidelity hides: targets 0.5, and 0.75 with half the width."""

EXTREME_CASES: dict[str, Corruption] = {
    "every second mode": Corruption(mode_fraction=0.5, alternate_modes=True),
    "unique 0.5, each twice": Corruption(unique_fraction=0.5, repeat_exactly=True),
    "one point": Corruption(point="on"),
    "one point, off the manifold": Corruption(point="off"),
    "one point, noise 0.1": Corruption(point="on", noise=0.1),
}


def standard_mixture(dim: int, seed: int = 0, *, separation: float | None = None) -> GaussianMixture:
    """The real world of the tables in `dim` dimensions: a ring of 8 modes in the plane, 20 modes in more. `separation`: see `mixture`."""
    return make_mixture(dim, 8 if dim == 2 else 20, seed=seed, separation=separation)


@dataclass(frozen=True, slots=True)
class ValidityCase:
    """One row of the table. `group`: "clean", "collapse", "control" (fidelity alone: target 0) or "masked" (both)."""

    name: str
    group: str
    corruption: Corruption


_KNOBS = {
    "drop": "modes kept {mode_fraction}",
    "width": "mode width × {std_factor}",
    "zipf": "Zipf weights, s = {zipf_exponent}",
    "unique": "distinct outputs {unique_fraction}",
}


def validity_cases() -> tuple[ValidityCase, ...]:
    """Every row of the validity table, once each: clean, the steps of the ladders, the points, the controls, the masked."""
    steps = [
        ValidityCase(
            _KNOBS[ladder].format(
                **{
                    k: f"{getattr(step, k):g}"
                    for k in ("mode_fraction", "std_factor", "zipf_exponent", "unique_fraction")
                }
            ),
            "collapse",
            step,
        )
        for ladder, rungs in LOSS_LEVELS.items()
        for step in rungs[1:]
    ]
    groups = (("collapse", EXTREME_CASES), ("control", FIDELITY_CONTROLS), ("masked", MASKED_COLLAPSE))
    rest = [ValidityCase(name, group, injection) for group, table in groups for name, injection in table.items()]
    return (ValidityCase("clean", "clean", Corruption()), *steps, *rest)
