"""How often the verdict is right at the default limit, and how often the 95 % interval covers the truth."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import asdict
from statistics import fmean, stdev

import torch
from validity import dims_of, drawn, seeds_of

from gandiag.metrics.score.estimator import estimate_diversity_loss
from gandiag.record import Score
from gandiag.testing.toy_mixtures import Corruption, standard_mixture
from gandiag.verdict.policy import Policy, compute_score_verdict

N = 2000
REPLICATES = 20
COVERED = {
    "clean": Corruption(),
    "half dropped": Corruption(mode_fraction=0.5),
    "width .5": Corruption(std_factor=0.5),
    "half + 20 % junk": Corruption(mode_fraction=0.5, outlier_fraction=0.2),
}
LOSS = 0.3  # of the modes, rounded to whole ones: 2 of 8 in the plane would be .25, so three are dropped there


def verdict(real: torch.Tensor, fake: torch.Tensor, seed: int) -> tuple[str, float]:
    found = estimate_diversity_loss(real, fake, seed=seed, replicates=REPLICATES)
    return (
        "inconclusive"
        if found.inconclusive_reasons
        else compute_score_verdict(Score(**asdict(found.score)), Policy().limit)
    ), found.score.value


def real_against_real(dim: int, seeds: range, n: int) -> tuple[Counter[str], list[float]]:
    """Each seed splits other samples of one world: 2n are the reference, n play the generator."""
    world = standard_mixture(dim)
    found = []
    for seed in seeds:
        pool = world.sample(3 * n, 10_000 + seed)
        found.append(verdict(pool[: 2 * n], pool[2 * n :], seed))
    return Counter(name for name, _ in found), [score for _, score in found]


def with_a_loss(dim: int, seeds: range, n: int) -> Counter[str]:
    """30 % of the modes gone: 6 of 20, or 3 of 8."""
    world = standard_mixture(dim)
    modes = len(world.weights)
    injection = Corruption(mode_fraction=1 - round(LOSS * modes + 0.49) / modes)
    return Counter(
        verdict(world.sample(2 * n, 20_000 + seed), injection.sample(world, n, 30_000 + seed), seed)[0]
        for seed in seeds
    )


def covered(dim: int, injection: Corruption, seeds: range, n: int) -> tuple[float, float, float, float]:
    """Share of seeds whose interval holds the target; the mean error; the scores' deviation, and the intervals' own
    idea of it.
    """
    hits, errors, reach = [], [], []
    for seed in seeds:
        real, fake, target = drawn(injection, dim, seed, n)
        score = estimate_diversity_loss(real, fake, seed=seed, replicates=REPLICATES).score
        hits.append(score.low - 1e-9 <= target <= score.high + 1e-9)
        errors.append(score.value - target)
        reach.append(max(score.high - score.value, score.value - score.low) / 1.96)
    return fmean(hits), fmean(errors), stdev(errors), fmean(reach)


def run(options: argparse.Namespace) -> dict[object, object]:
    """Prints and returns {(dim, kind): verdicts}, or {(dim, row): share covered}."""
    return _coverage(options) if options.mode == "coverage" else _nulls(options)


def _nulls(options: argparse.Namespace) -> dict[object, object]:
    seeds = seeds_of(options, 10, 200)
    out: dict[object, object] = {}
    print(f"{len(seeds)} splits from seed {seeds.start}, n = {N}, limit {Policy().limit}")
    for dim in dims_of(options):
        nulls, scores = real_against_real(dim, seeds, N)
        losses = with_a_loss(dim, seeds, N)
        out[dim, "null"], out[dim, "loss"] = nulls, losses
        print(
            f"{dim:4d}-D  real against real {dict(nulls)}, score {fmean(scores):.3f} on average, "
            f"{max(scores):.3f} at most;  "
            f"30 % of the modes gone {dict(losses)}",
            flush=True,
        )
    return out


def _coverage(options: argparse.Namespace) -> dict[object, object]:
    seeds = seeds_of(options, 30, 300)
    dims = [8, 64] if options.dims == "2,8,64,512" else dims_of(options)
    out: dict[object, object] = {}
    print(
        f"{len(seeds)} repeats from seed {seeds.start}, n = {options.n}\n{'':28s}covered   mean error   deviation "
        "  by interval"
    )
    for dim in dims:
        for name, injection in COVERED.items():
            share, error, deviation, told = covered(dim, injection, seeds, options.n)
            out[dim, name] = share
            print(
                f"{dim:4d}-D  {name:20s}  {share:6.1%}      {error:+.4f}       {deviation:.4f}        {told:.4f}",
                flush=True,
            )
    return out
