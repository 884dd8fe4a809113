"""Precision, recall, density and coverage: time and peak memory against the prdc package, each in its own process.

    python -m benchmarks precision-recall [-n 10000] [--dim 2048] [--threads 2] [--clock wall|cpu]

Memory is the peak resident size above what the process held once features were drawn and libraries imported. On a
shared machine, `--threads 1 --clock cpu` counts processor seconds, which other processes change least.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WHO = ("prdc", "gandiag")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def work(who: str, n: int, dim: int, clock: Callable[[], float]) -> dict[str, Any]:
    """Draw, measure, and say what it took: in the subprocess."""
    import torch

    draw = torch.Generator().manual_seed(0)
    real, fake = torch.randn(n, dim, generator=draw), 0.97 * torch.randn(n, dim, generator=draw)
    run = _prdc if who == "prdc" else _gandiag
    run(real[:64], fake[:64])  # imports, thread pools
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = clock()
    found = run(real, fake)
    seconds = clock() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "megabytes": (peak - held) / 1024, "total": peak / 1024, **found}


def _prdc(real: Any, fake: Any) -> dict[str, float]:
    import contextlib
    import io

    from prdc import compute_prdc

    with contextlib.redirect_stdout(io.StringIO()):
        return {key: float(value) for key, value in compute_prdc(real.numpy(), fake.numpy(), 5).items()}


def _gandiag(real: Any, fake: Any) -> dict[str, float]:
    from dataclasses import asdict

    from gandiag.metrics.precision_recall import prdc

    return asdict(prdc(real, fake, 5))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("-n", type=int, default=10_000)
    options.add_argument("--dim", type=int, default=2048)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--clock", choices=CLOCKS, default="wall")
    options.add_argument("--who", choices=WHO, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.who:
        print(json.dumps(work(chosen.who, chosen.n, chosen.dim, CLOCKS[chosen.clock])))
        return
    threads = str(chosen.threads)
    environ = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    environ["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).resolve().parent.parent), os.environ.get("PYTHONPATH", "")]
    )
    found = {}
    for who in WHO:
        command = [
            sys.executable,
            __file__,
            "--who",
            who,
            "-n",
            str(chosen.n),
            "--dim",
            str(chosen.dim),
            "--clock",
            chosen.clock,
        ]
        found[who] = json.loads(subprocess.run(command, env=environ, check=True, capture_output=True, text=True).stdout)
        print(who.ljust(8), "  ".join(f"{key} {value:.6g}" for key, value in found[who].items()), flush=True)
    theirs, ours = found["prdc"], found["gandiag"]
    worst = max(abs(theirs[key] - ours[key]) for key in ("precision", "recall", "density", "coverage"))
    print(
        f"gandiag is {theirs['seconds'] / ours['seconds']:.1f} x faster at "
        f"{ours['megabytes'] / theirs['megabytes']:.2f} of the memory "
        f"({ours['total'] / theirs['total']:.2f} of the whole process's); results differ by at most {worst:.1e}"
    )


if __name__ == "__main__":
    main()
