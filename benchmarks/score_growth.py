"""How the score grows with n: processor seconds beyond its products of rows, and working memory beside the rows.

Each size runs in a process of its own, one thread. `products`: as many n x n x D products of tiles as the score makes.
The rest should grow no faster than 2.1 times per doubling of n, and memory as n.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

from validity_cost import resident

SIZES = (1000, 2000, 5000, 10_000, 20_000)
REPLICATES = 20
HERE = Path(__file__).resolve()


def measure(n: int, dim: int) -> dict[str, float]:
    """Processor seconds of one score with its interval and of its products, and MiB above imports and rows."""
    import torch

    from gandiag.metrics.score.estimator import estimate_diversity_loss
    from gandiag.metrics.score.neighborhoods import MAX_KEPT_ELEMENTS, DistanceTiles
    from gandiag.testing.toy_mixtures import Corruption, make_mixture

    world = make_mixture(dim, 20)
    estimate_diversity_loss(world.sample(400, 1), world.sample(200, 2), replicates=2)  # imports and first calls
    real, fake = world.sample(2 * n, 1), Corruption(mode_fraction=0.5).sample(world, n, 2)
    before = reset_peak()
    start = time.process_time()
    score = estimate_diversity_loss(real, fake, replicates=REPLICATES).score
    seconds = time.process_time() - start
    peak = read_peak()
    start = time.process_time()
    for _ in DistanceTiles(fake, real[:n]):
        pass
    n_products = 5 if n * n <= MAX_KEPT_ELEMENTS else 7
    products = n_products * (time.process_time() - start)
    return {
        "n": n,
        "seconds": seconds,
        "products": products,
        "mebibytes": peak - before,
        "rows": (real.nbytes + fake.nbytes) / 2**20,
        "score": score.value,
        "threads": torch.get_num_threads(),
    }


def reset_peak() -> float:
    """MiB that the process holds now; the kernel's peak starts from here."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return resident()


def read_peak() -> float:
    """The most MiB that the process has held since `reset_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def run(sizes: list[int], dim: int) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    print(f"{dim} dimensions, {REPLICATES} half-samples, one thread, n generated samples against 2n real ones")
    print("     n   seconds   of which products   rest   rest per doubling   MiB of work   MiB of rows")
    last: dict[str, float] | None = None
    for n in sizes:
        command = [sys.executable, str(HERE), "--once", str(n), "--dim", str(dim)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout)
        rest = found["seconds"] - found["products"]
        growth = ""
        if last is not None:
            before = last["seconds"] - last["products"]
            growth = f"{(rest / before) ** (1 / math.log2(n / last['n'])):.2f}"
        print(
            f"{n:6d}   {found['seconds']:7.1f}   {found['products']:17.1f}   {rest:4.1f}   {growth:>17}   "
            f"{found['mebibytes']:11.0f}   {found['rows']:11.0f}",
            flush=True,
        )
        last = found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--dim", type=int, default=1280)
    parser.add_argument("--once", type=int, help="one size, as JSON")
    options = parser.parse_args()
    if options.once:
        print(json.dumps(measure(options.once, options.dim)))
    else:
        run(options.sizes, options.dim)
