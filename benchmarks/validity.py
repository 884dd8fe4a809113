"""The validity table of the collapse score: injections with a known loss, in 2, 8, 64 and 512 dimensions.

    python benchmarks/validity.py                         # ten seeds, n = 1,500 generated against 3,000 real
    python benchmarks/validity.py --dims 2,64 --seeds 2 --replicates 20 --only half

Prints, for each injection, its target, the mean score over the seeds, their standard deviation, the mean interval and how often it
covers the target; then the mean absolute error and the worst row.
"""

from __future__ import annotations

import argparse
import time
from statistics import fmean, pstdev

import torch

from gandiag.metrics.variety import variety
from gandiag.testing import CONTROLS, LADDERS, MASKED, POINTS, Injection, mixture

MODES = {2: 8}  # 20 elsewhere


def rows() -> dict[str, Injection]:
    """Every injection of the table by name."""
    knob = {"drop": "keep", "width": "width", "zipf": "zipf", "unique": "unique"}
    ladders = {f"{knob[name]} {getattr(step, knob[name])}": step for name, steps in LADDERS.items() for step in steps}
    return {**ladders, **CONTROLS, **MASKED, **POINTS}


def measure(injection: Injection, dim: int, seed: int, options: argparse.Namespace) -> tuple[float, float, float, float]:
    """Target, score and interval for one seed."""
    world = mixture(dim, MODES.get(dim, 20), seed=seed, separation=options.separation)
    real, fake = world.sample(2 * options.n, 1000 + seed), injection.sample(world, options.n, 2000 + seed)
    score = variety(real, fake, seed=seed, replicates=options.replicates).score
    return injection.target(world), score.value, score.low, score.high


def table(dim: int, options: argparse.Namespace) -> None:
    """One dimension's rows, as they are done, and their summary."""
    print(f"\n{dim} dimensions, n = {options.n}, {options.seeds} seeds\n{'injection':30s} target   mean     sd   interval      covered", flush=True)
    errors = {}
    for name, injection in rows().items():
        if options.only not in name:
            continue
        found = [measure(injection, dim, seed, options) for seed in range(options.seeds)]
        target, value, low, high = (fmean(column) for column in zip(*found, strict=True))
        covered = fmean(a <= t <= b for t, _, a, b in found)
        errors[name] = abs(value - target)
        interval = f"{low:.3f}–{high:.3f}   {covered:4.0%}" if options.replicates > 1 else ""
        print(f"{name:30s} {target:.3f}  {value:.3f}  {pstdev(v for _, v, _, _ in found):.3f}   {interval}", flush=True)
    if errors:
        worst = max(errors, key=lambda name: errors[name])
        print(f"mean absolute error {fmean(errors.values()):.4f}; worst row {worst!r}, {errors[worst]:.3f} off")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dims", default="2,8,64,512", help="comma-separated")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--replicates", type=int, default=0, help="half-samples for the interval; 0: none")
    parser.add_argument("-n", type=int, default=1500, help="generated samples; twice as many real ones")
    parser.add_argument("--separation", type=float, help="of the modes, see gandiag.testing.mixture")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.monotonic()
    for dim in map(int, options.dims.split(",")):
        table(dim, options)
    print(f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
