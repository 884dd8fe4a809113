"""Seconds and memory of the score in 1,280 dimensions, each size in its own process."""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

DIM = 1280
SIZES = (500, 1000, 2000, 5000)
FULL = (500, 1000, 2000, 5000, 10_000, 20_000)
REPLICATES = 20
HERE = Path(__file__).resolve()


def once(n: int, replicates: int) -> dict[str, float]:
    """Seconds of one judgement, and the mebibytes that it needed above the imports and the data."""
    import torch

    from gandiag.metrics.score.estimator import estimate_diversity_loss
    from gandiag.testing.toy_mixtures import Corruption, make_mixture

    world = make_mixture(DIM, 20)
    estimate_diversity_loss(world.sample(400, 1), world.sample(200, 2), replicates=2)  # imports and first calls
    real, fake = world.sample(2 * n, 1), Corruption(mode_fraction=0.5).sample(world, n, 2)
    before = resident()
    start = time.monotonic()
    score = estimate_diversity_loss(real, fake, replicates=replicates).score
    seconds = time.monotonic() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "n": n,
        "replicates": replicates,
        "seconds": seconds,
        "mebibytes": peak - before,
        "score": score.value,
        "threads": torch.get_num_threads(),
    }


def resident() -> float:
    """Mebibytes that this process holds now (Linux; elsewhere the most that it ever held, so that the difference reads
    low).
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return next(int(line.split()[1]) / 1024 for line in status.read_text().splitlines() if line.startswith("VmRSS"))


def run(options: argparse.Namespace) -> list[dict[str, float]]:
    found = []
    print(f"{DIM} dimensions, half of 20 modes dropped, as many threads as OMP_NUM_THREADS or the machine has")
    print("     n   replicates   seconds   MiB above imports and data   score")
    for n in FULL if options.full else SIZES:
        for replicates in (0, REPLICATES):
            done = subprocess.run(
                [sys.executable, str(HERE), str(n), str(replicates)], capture_output=True, text=True, check=False
            )
            if done.returncode:
                print(
                    f"{n:6d}   {replicates:10d}   failed: "
                    f"{done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.returncode}",
                    flush=True,
                )
                continue
            one = json.loads(done.stdout)
            found.append(one)
            print(
                f"{n:6d}   {replicates:10d}   {one['seconds']:7.2f}   {one['mebibytes']:26.0f}   {one['score']:.3f}",
                flush=True,
            )
    if options.plot:
        plot(found, options.plot)
        print(f"plot {options.plot}")
    return found


def plot(found: list[dict[str, float]], path: str) -> None:
    """Time and memory against n, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for ax, key, name in zip(axes, ("seconds", "mebibytes"), ("seconds", "MiB above imports and data"), strict=True):
        for replicates, mark, said in (
            (0, "o-", "value"),
            (REPLICATES, "s--", f"value and interval, {REPLICATES} replicates"),
        ):
            rows = [row for row in found if row["replicates"] == replicates and row[key] > 0]
            ax.loglog([row["n"] for row in rows], [row[key] for row in rows], mark, label=said)
        ax.set(xlabel="n generated samples, against 2n real ones", ylabel=name)
        ax.grid(alpha=0.3, which="both")
        ax.legend()
    figure.suptitle(f"Cost of the collapse score in {DIM:,} dimensions")
    figure.savefig(path, dpi=140)
    plt.close(figure)


if __name__ == "__main__":
    print(json.dumps(once(int(sys.argv[1]), int(sys.argv[2]))))
