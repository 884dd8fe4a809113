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
from importlib import import_module
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Mixture:
    """K isotropic Gaussians. `centres` (K, D), `width` > 0 in data units, `shares` (K,) summing to 1."""

    centres: Tensor
    width: float
    shares: Tensor

    def sample(self, n: int, seed: int) -> Tensor:
        """n independent draws, (n, D) float32."""
        generator = torch.Generator().manual_seed(seed)
        return self._draw(n, self.width, generator)

    def _draw(self, n: int, width: float, generator: torch.Generator) -> Tensor:
        mode = torch.multinomial(self.shares, n, replacement=True, generator=generator)  # (n,)
        return self.centres[mode] + width * _normal(n, self.centres.shape[1], generator)  # (n, D)


def mixture(dim: int, modes: int, *, seed: int = 0, separation: float | None = None) -> Mixture:
    """The real world of the validity tables.

    dim 2: a ring of radius 2, centres at 2πk/K (never `linspace` with its endpoint: that is K − 1 modes), width 2/`separation`,
    default 100, the usual 0.02. Other dims: centres ~ N(0, `separation`²) per axis around unit width, default 4.
    """
    shares = torch.full((modes,), 1 / modes)  # (K,)
    if dim == 2:
        angle = 2 * math.pi * torch.arange(modes) / modes
        centres = 2.0 * torch.stack([angle.cos(), angle.sin()], 1)  # (K, 2)
        return Mixture(centres, 2.0 / (separation or 100.0), shares)
    generator = torch.Generator().manual_seed(seed)
    return Mixture((separation or 4.0) * _normal(modes, dim, generator), 1.0, shares)


@dataclass(frozen=True, slots=True)
class Injection:
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

    keep: float = 1.0
    alternate: bool = False
    zipf: float = 0.0
    width: float = 1.0
    shift: float = 0.0
    invented: float = 0.0
    unique: float = 1.0
    twice: bool = False
    point: str | None = None
    noise: float = 0.0
    junk: float = 0.0

    def target(self, world: Mixture) -> float:
        """The variety lost, in [0, 1]: 1 − (mass kept) · (width kept) · (share of distinct outputs).

        Mass kept is 1 − total variation between the mode shares of the world and of the generator's own modes;
        faults of fidelity (width above 1, shift, noise, junk, invented modes) lose no variety.
        """
        if self.point is not None:
            return 1.0
        mass = float(torch.minimum(world.shares, self._shares(world)).double().sum())
        return round(1.0 - mass * min(1.0, self.width) * self.unique, 6)  # the shares are float32: a perfect generator lost exactly 0

    def sample(self, world: Mixture, n: int, seed: int) -> Tensor:
        """n samples of the faulty generator, (n, D) float32; a pure function of the seed."""
        generator = torch.Generator().manual_seed(seed)
        dim = world.centres.shape[1]
        out = self._outputs(world, n, generator)  # (n, D)
        out = out + self.noise * world.width * _normal(n, dim, generator)
        if not self.junk:
            return out
        low, high = world.centres.amin(0) - 3 * world.width, world.centres.amax(0) + 3 * world.width
        is_junk = torch.rand(n, generator=generator) < self.junk  # (n,)
        return torch.where(is_junk[:, None], low + (high - low) * torch.rand(n, dim, generator=generator), out)

    def _shares(self, world: Mixture) -> Tensor:
        modes = len(world.shares)
        count = math.ceil(self.keep * modes - 1e-9)
        kept = torch.arange(modes)[::2] if self.alternate else torch.arange(count)
        shares = torch.zeros(modes)
        shares[kept] = world.shares[kept] * torch.arange(1, len(kept) + 1).float() ** -self.zipf
        return shares / shares.sum()  # (K,)

    def _outputs(self, world: Mixture, n: int, generator: torch.Generator) -> Tensor:
        dim = world.centres.shape[1]
        if self.point is not None:
            where = world.centres[0] if self.point == "on" else world.centres.mean(0) + 7.5 * world.width
            return where.expand(n, dim)
        shown = Mixture(world.centres + self._offset(world, generator), world.width, self._shares(world))
        distinct = n if self.unique == 1 else max(1, round(self.unique * n))
        out = shown._draw(distinct, self.width * world.width, generator)  # (distinct, D)
        if self.invented:
            new = Mixture(_elsewhere(world, generator), world.width, shown.shares)
            invent = torch.rand(distinct, generator=generator) < self.invented
            out = torch.where(invent[:, None], new._draw(distinct, self.width * world.width, generator), out)
        if distinct == n:
            return out
        again = torch.arange(n) % distinct if self.twice else torch.randint(distinct, (n,), generator=generator)
        return out[again]

    def _offset(self, world: Mixture, generator: torch.Generator) -> Tensor:
        direction = _normal(1, world.centres.shape[1], generator)
        return direction * (self.shift * world.width / float(direction.norm()))  # (1, D)


def _elsewhere(world: Mixture, generator: torch.Generator) -> Tensor:
    """As many centres again, where the world has none: (K, D)."""
    modes, dim = world.centres.shape
    if dim > 2:
        return world.centres.std() * _normal(modes, dim, generator)
    half = math.pi / modes
    turn = torch.tensor([[math.cos(half), -math.sin(half)], [math.sin(half), math.cos(half)]])
    return 1.5 * world.centres @ turn.T


def _normal(n: int, dim: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, dim, generator=generator)  # (n, D)


LADDERS: dict[str, tuple[Injection, ...]] = {
    "drop": tuple(Injection(keep=k) for k in (1.0, 0.875, 0.75, 0.5, 0.25, 0.125)),
    "width": tuple(Injection(width=w) for w in (1.0, 0.8, 0.5, 0.2, 0.05)),
    "zipf": tuple(Injection(zipf=s) for s in (0.0, 0.5, 1.0, 2.0)),
    "unique": tuple(Injection(unique=u) for u in (1.0, 0.9, 0.5, 0.1, 0.01)),
}
"""Each from healthy to collapsed; the score must never fall along one."""

CONTROLS: dict[str, Injection] = {
    "shift 0.5": Injection(shift=0.5),
    "over-dispersed 1.5": Injection(width=1.5),
    "junk 20 %": Injection(junk=0.2),
    "junk 50 %": Injection(junk=0.5),
    "invented 50 %": Injection(invented=0.5),
    "noise 1": Injection(noise=1.0),
    "noise 3": Injection(noise=3.0),
}
"""Faults of fidelity alone: target 0, and `off_manifold` moves instead."""

MASKED: dict[str, Injection] = {
    "half + junk 20 %": Injection(keep=0.5, junk=0.2),
    "half + junk 50 %": Injection(keep=0.5, junk=0.5),
    "half + over-dispersed 1.5": Injection(keep=0.5, width=1.5),
    "half + over-dispersed 3": Injection(keep=0.5, width=3.0),
    "half + noise 1": Injection(keep=0.5, noise=1.0),
    "half + noise 3": Injection(keep=0.5, noise=3.0),
    "half + width 0.5": Injection(keep=0.5, width=0.5),
}
"""A collapse that a fault of fidelity hides: targets 0.5, and 0.75 with half the width."""

POINTS: dict[str, Injection] = {
    "every second mode": Injection(keep=0.5, alternate=True),
    "unique 0.5, each twice": Injection(unique=0.5, twice=True),
    "one point": Injection(point="on"),
    "one point, off the manifold": Injection(point="off"),
    "one point, noise 0.1": Injection(point="on", noise=0.1),
}


def standard_world(dim: int, seed: int = 0, *, separation: float | None = None) -> Mixture:
    """The real world of the tables in `dim` dimensions: a ring of 8 modes in the plane, 20 modes in more. `separation`: see `mixture`."""
    return mixture(dim, 8 if dim == 2 else 20, seed=seed, separation=separation)


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table. `group`: "clean", "collapse", "control" (fidelity alone: target 0) or "masked" (both)."""

    name: str
    group: str
    injection: Injection


_KNOBS = {"drop": "modes kept {keep}", "width": "mode width × {width}", "zipf": "Zipf weights, s = {zipf}", "unique": "distinct outputs {unique}"}


def cases() -> tuple[Case, ...]:
    """Every row of the validity table, once each: clean, the steps of the ladders, the points, the controls, the masked."""
    steps = [Case(_KNOBS[ladder].format(**{k: f"{getattr(step, k):g}" for k in ("keep", "width", "zipf", "unique")}), "collapse", step)
             for ladder, rungs in LADDERS.items() for step in rungs[1:]]
    groups = (("collapse", POINTS), ("control", CONTROLS), ("masked", MASKED))
    rest = [Case(name, group, injection) for group, table in groups for name, injection in table.items()]
    return (Case("clean", "clean", Injection()), *steps, *rest)


def __getattr__(name: str) -> Any:
    """`check_metric`, `check_features` … for plug-ins: see `gandiag.conformance`, which needs much more than toy worlds do."""
    if name.startswith("check_"):
        return getattr(import_module("gandiag.conformance"), name)
    raise AttributeError(f"module 'gandiag.testing' has no attribute {name!r}")
