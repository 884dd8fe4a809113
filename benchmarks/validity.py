"""The collapse score against collapses of known size: every figure that the project claims for it.

    python -m benchmarks validity                         # the table: ten seeds, n = 1,500 generated against 3,000 real
    python -m benchmarks validity --dims 2,64 --seeds 2 --replicates 20 --only half
    python -m benchmarks validity --first-seed 1000       # the same on seeds that no rule was tuned on
    python -m benchmarks validity --mode auc              # any other mode: quick, and the full figures with --full

    table       target, mean score, standard deviation, interval coverage; mean absolute error and the worst row
    auc         every metric: at least 25 % of the variety lost against none, fidelity varied independently
    digits      scikit-learn's digits with classes dropped, by pixels and by imagenet features
    images      the fixtures' images with classes dropped, by imagenet features
    stability   n from 500 to 5,000; rotation, scale and order of rows; the ladders
    worlds      laws of other kinds, healthy and collapsed: tables, counts, tails, outliers, duplicates, series
    nulls       real against real, and a loss of 30 %: how often each verdict
    coverage    how often the 95 % interval holds the target
    cost        seconds and memory up to n = 20,000 in 1,280 dimensions; --plot FILE

Everything is a pure function of the seeds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from importlib import import_module
from statistics import fmean, pstdev

import torch

from gandiag.metrics.score.estimator import estimate_diversity_loss
from gandiag.testing.toy_mixtures import Corruption, standard_mixture, validity_cases

MODES = {
    "table": "validity",
    "auc": "validity_auc",
    "digits": "validity_classes",
    "images": "validity_classes",
    "stability": "validity_stability",
    "nulls": "validity_nulls",
    "coverage": "validity_nulls",
    "worlds": "validity_worlds",
    "cost": "validity_cost",
}


def dims_of(options: argparse.Namespace) -> list[int]:
    return [int(part) for part in options.dims.split(",")]


def seeds_of(options: argparse.Namespace, quick: int, full: int) -> range:
    """--seeds of them, else `full` with --full and `quick` without, from --first-seed on."""
    count = options.seeds or (full if options.full else quick)
    return range(options.first_seed, options.first_seed + count)


def drawn(
    injection: Corruption, dim: int, seed: int, n: int, separation: float | None = None
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Real rows (2n, D), generated rows (n, D) and the share of variety that they lack, for one seed."""
    world = standard_mixture(dim, seed, separation=separation)
    return world.sample(2 * n, 1000 + seed), injection.sample(world, n, 2000 + seed), injection.true_loss(world)


def measure(
    injection: Corruption, dim: int, seed: int, options: argparse.Namespace
) -> tuple[float, float, float, float]:
    """Target, score and interval for one seed."""
    real, fake, target = drawn(injection, dim, seed, options.n, options.separation)
    score = estimate_diversity_loss(real, fake, seed=seed, replicates=options.replicates).score
    return target, score.value, score.low, score.high


def table(dim: int, options: argparse.Namespace) -> tuple[float, float]:
    """One dimension's rows, as they are done, and their summary: mean absolute error and that of the worst row."""
    seeds = seeds_of(options, 10, 10)
    print(f"\n{dim} dimensions, n = {options.n}, seeds {seeds.start} to {seeds.stop - 1}")
    print(f"{'injection':30s} target   mean     sd   interval      covered", flush=True)
    errors = {}
    for case in validity_cases():
        if options.only not in case.name:
            continue
        found = [measure(case.corruption, dim, seed, options) for seed in seeds]
        target, value, low, high = (fmean(column) for column in zip(*found, strict=True))
        covered = fmean(a <= t <= b for t, _, a, b in found)
        errors[case.name] = abs(value - target)
        interval = f"{low:.3f}–{high:.3f}   {covered:4.0%}" if options.replicates > 1 else ""
        print(
            f"{case.name:30s} {target:.3f}  {value:.3f}  {pstdev(v for _, v, _, _ in found):.3f}   {interval}",
            flush=True,
        )
    if not errors:
        return 0.0, 0.0
    worst = max(errors, key=lambda name: errors[name])
    print(f"mean absolute error {fmean(errors.values()):.4f}; worst row {worst!r}, {errors[worst]:.3f} off")
    return fmean(errors.values()), errors[worst]


def run(options: argparse.Namespace) -> dict[int, tuple[float, float]]:
    return {dim: table(dim, options) for dim in dims_of(options)}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=MODES, default="table")
    parser.add_argument("--full", action="store_true", help="as many repeats as the published figures have")
    parser.add_argument("--dims", default="2,8,64,512", help="comma-separated")
    parser.add_argument("--seeds", type=int, default=0, help="how many; the table has ten")
    parser.add_argument(
        "--first-seed", type=int, default=0, help="seeds S, S + 1, …: fresh ones for a check that nothing was tuned on"
    )
    parser.add_argument("--replicates", type=int, default=0, help="half-samples for the interval; 0: none")
    parser.add_argument("-n", type=int, default=1500, help="generated samples; twice as many real ones")
    parser.add_argument("--separation", type=float, help="of the modes, see gandiag.testing.mixture")
    parser.add_argument("--only", default="", help="table: rows whose name contains this; digits: features likewise")
    parser.add_argument("--keep", metavar="FILE", help="worlds: write every result here at once, and resume from it")
    parser.add_argument("--plot", metavar="FILE", help="cost: save a plot here")
    return parser.parse_args(arguments)


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    start = time.monotonic()
    if options.mode == "table":
        run(options)
    else:
        import_module(MODES[options.mode]).run(options)
    print(f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
