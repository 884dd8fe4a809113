"""Benchmark runs on two processes relative to one. Target: at most 0.6 on two idle cores.

    python -m benchmarks parallel-training [--steps 1500]

Four runs of the ring without a remedy, with audits of two snapshots each. The single process is a child as well, so
both pay for start-up.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", PYTHONPATH=str(ROOT))

import multiprocessing  # noqa: E402
from concurrent.futures import ProcessPoolExecutor  # noqa: E402

from gandiag.trainer.benchmark.jobs import BenchmarkJob  # noqa: E402
from gandiag.trainer.benchmark.runner import run_job, run_jobs  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_500)
    ask = parser.parse_args()
    todo = [BenchmarkJob("benchmark", "metz-appendix", "none", seed, ask.steps, 1) for seed in range(4)]
    with tempfile.TemporaryDirectory() as place:
        start = time.perf_counter()
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            said = list(pool.map(run_job, todo, [Path(place) / "one"] * len(todo)))
        one = time.perf_counter() - start
        start = time.perf_counter()
        problems = run_jobs(todo, Path(place) / "two", 2)
        two = time.perf_counter() - start
    assert said == ["done"] * 4 and not problems, (said, problems)
    print(
        f"one process {one:.1f} s, two {two:.1f} s: {two / one:.2f}; load of the machine {os.getloadavg()[0]:.1f} "
        f"on {os.cpu_count()} cores"
    )


if __name__ == "__main__":
    main()
