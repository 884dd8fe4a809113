"""Invariance of the score to n, rotation, scale and row order; monotonicity along each severity ladder."""

from __future__ import annotations

import argparse
from itertools import pairwise
from statistics import fmean

import torch
from validity import dims_of, drawn, seeds_of

from gandiag.metrics.score.estimator import estimate_diversity_loss
from gandiag.testing.toy_mixtures import LOSS_LEVELS, Corruption

SIZES = (500, 1000, 2000, 5000)
ROWS = {
    "clean": Corruption(),
    "half of the modes": Corruption(mode_fraction=0.5),
    "width .5": Corruption(std_factor=0.5),
    "Zipf 1": Corruption(zipf_exponent=1.0),
    "half + junk 20 %": Corruption(mode_fraction=0.5, outlier_fraction=0.2),
    "noise 1": Corruption(noise=1.0),
}


def by_size(dim: int, seeds: range, sizes: tuple[int, ...]) -> dict[str, float]:
    """For each row, how far the mean score moves between any two sizes; a share of distinct outputs is not a property
    of the law.
    """
    out = {}
    for name, injection in ROWS.items():
        means = []
        for n in sizes:
            scores = []
            for seed in seeds:
                real, fake, _ = drawn(injection, dim, seed, n)
                scores.append(estimate_diversity_loss(real, fake, seed=seed, replicates=0).score.value)
            means.append(fmean(scores))
        out[name] = max(means) - min(means)
        print(
            f"{dim:4d}-D  {name:20s}" + "".join(f"  {mean:.3f}" for mean in means) + f"   moves {out[name]:.3f}",
            flush=True,
        )
    return out


def invariances(dim: int, seed: int, n: int) -> dict[str, float]:
    """How far the score moves when nothing has changed: the largest over the rows."""
    draw = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(dim, dim, generator=draw))[0]
    moved = {"rotation": 0.0, "scale": 0.0, "shift": 0.0, "order": 0.0}
    for injection in ROWS.values():
        real, fake, _ = drawn(injection, dim, seed, n)
        plain = estimate_diversity_loss(real, fake, seed=seed, replicates=0).score.value
        i, j = torch.randperm(len(real), generator=draw), torch.randperm(len(fake), generator=draw)
        offset = 10 * torch.randn(dim, generator=draw)
        changed = {
            "rotation": (real @ turn, fake @ turn),
            "scale": (1000 * real, 1000 * fake),
            "shift": (real + offset, fake + offset),
            "order": (real[i], fake[j]),
        }
        for name, (a, b) in changed.items():
            moved[name] = max(
                moved[name], abs(estimate_diversity_loss(a, b, seed=seed, replicates=0).score.value - plain)
            )
    return moved


def falls(dim: int, seed: int, n: int) -> dict[str, float]:
    """For each ladder, the deepest fall of the score from a rung to a worse one; 0 where it never falls. Ties at 1.00
    are none.
    """
    out = {}
    for name, rungs in LOSS_LEVELS.items():
        scores = []
        for rung in rungs:
            real, fake, _ = drawn(rung, dim, seed, n)
            scores.append(estimate_diversity_loss(real, fake, seed=seed, replicates=0).score.value)
        out[name] = max(0.0, 0.0, *(a - b for a, b in pairwise(scores) if b < 0.995))
    return out


def run(options: argparse.Namespace) -> dict[str, dict[int, dict[str, float]]]:
    """Prints and returns {"size" | "invariance" | "ladder": {dim: {name: movement}}}."""
    seeds = seeds_of(options, 1, 10)
    sizes = SIZES if options.full else SIZES[:3]
    out: dict[str, dict[int, dict[str, float]]] = {"size": {}, "invariance": {}, "ladder": {}}
    for dim in dims_of(options):
        print(f"\nmean score at n = {', '.join(map(str, sizes))}; seeds {seeds.start} to {seeds.stop - 1}")
        out["size"][dim] = by_size(dim, seeds, sizes)
        for kind, found in (
            ("invariance", [invariances(dim, seed, options.n) for seed in seeds]),
            ("ladder", [falls(dim, seed, options.n) for seed in seeds]),
        ):
            out[kind][dim] = {name: max(one[name] for one in found) for name in found[0]}
            said = "moved at most" if kind == "invariance" else "fell at most"
            print(
                f"{dim:4d}-D  {said}: " + ", ".join(f"{name} {value:.4f}" for name, value in out[kind][dim].items()),
                flush=True,
            )
    return out
