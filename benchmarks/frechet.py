"""Fréchet distance: time against scipy.linalg.sqrtm and torch-fidelity's eigvals on the same moments.

    python -m benchmarks frechet [--dim 2048] [--threads 2] [--samples 500 1000 2000] [--clock wall|cpu]

Prints seconds, ratios and relative differences. The inputs have a spectrum over three decades, as network features do.
On a shared machine, `--threads 1 --clock cpu` counts processor seconds, which other processes change least.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.linalg import sqrtm
from threadpoolctl import threadpool_limits
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from gandiag.metrics.frechet import frechet_distance, frechet_to_reference, reference_statistics
from gandiag.stats.moments import Gaussian


def features(n: int, dim: int, seed: int) -> torch.Tensor:
    """Correlated rows, (n, dim) float64."""
    draw = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dim, dim, generator=torch.Generator().manual_seed(99), dtype=torch.float64) / dim**0.5
    rows = torch.randn(n, dim, generator=draw, dtype=torch.float64) * torch.logspace(0, -1.5, dim, dtype=torch.float64)
    return rows @ mixing + 0.02 * seed


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
clock = time.perf_counter


def timed(call: Callable[[], float], repeats: int = 1) -> tuple[float, float]:
    """The least seconds of some calls, and the result."""
    best, value = float("inf"), 0.0
    for _ in range(repeats):
        start = clock()
        value = call()
        best = min(best, clock() - start)
    return best, value


def by_sqrtm(real: Gaussian, fake: Gaussian) -> float:
    root = sqrtm(real.cov.numpy() @ fake.cov.numpy()).real
    return float((real.mean - fake.mean).square().sum() + real.cov.trace() + fake.cov.trace()) - 2 * float(
        np.trace(root)
    )


def row(name: str, seconds: float, value: float, base: tuple[float, float]) -> None:
    print(
        f"{name:<44} {seconds:8.3f} s   {base[0] / seconds:6.1f} x   {value:.10g}   differs by "
        f"{abs(value / base[1] - 1):.1e}"
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--dim", type=int, default=2048)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--samples", type=int, nargs="*", default=[500, 1000, 2000])
    options.add_argument("--clock", choices=CLOCKS, default="wall")
    chosen = options.parse_args()
    global clock
    clock = CLOCKS[chosen.clock]
    torch.set_num_threads(chosen.threads)
    with threadpool_limits(limits=chosen.threads):
        many(chosen.dim)
        for n in chosen.samples:
            few(n, chosen.dim)


def many(dim: int) -> None:
    """More samples than features: from moments, which all of them take."""
    sides = [fid_features_to_statistics(features(2 * dim, dim, seed)) for seed in (1, 2)]
    real, fake = (Gaussian(2 * dim, torch.from_numpy(side["mu"]), torch.from_numpy(side["sigma"])) for side in sides)
    print(f"D = {dim}, from means and covariances")
    base = timed(lambda: by_sqrtm(real, fake))
    row("scipy.linalg.sqrtm", *base, base)
    row(
        "torch-fidelity (eigvals of the product)",
        *timed(lambda: fid_statistics_to_metric(*sides, verbose=False)["frechet_inception_distance"]),
        base,
    )
    row("gandiag", *timed(lambda: frechet_distance(real, fake), 3), base)
    anchor = reference_statistics(real)
    row("gandiag, reference factored before", *timed(lambda: frechet_to_reference(anchor, fake), 3), base)


def few(n: int, dim: int) -> None:
    """No more samples than features: the covariances are singular. The base is the eigenvalue route, which stays
    accurate.
    """
    real, fake = features(n, dim, 1), features(n, dim, 2)
    sides = [fid_features_to_statistics(side) for side in (fake, real)]
    print(f"n = {n}, D = {dim}, from rows")
    base = timed(lambda: fid_statistics_to_metric(*sides, verbose=False)["frechet_inception_distance"])
    row("torch-fidelity, its moments not counted", *base, base)
    row("gandiag", *timed(lambda: frechet_distance(real, fake), 2), base)


if __name__ == "__main__":
    main()
