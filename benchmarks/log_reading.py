"""Time and memory to read a CSV of a million rows and a text log of a gigabyte, each in its own process.

    python -m benchmarks log-reading [--rows 1000000] [--megabytes 1000]

Targets: a million rows in 10 s and 500 MB; a gigabyte of text in 60 s. The files are deleted afterwards.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
CHILD = """
import resource, sys, time
from gandiag.training_logs.analysis import losses
start = time.perf_counter()
found = losses(sys.argv[1])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
rows = found.document["read"]["rows"]
seconds, cpu = time.perf_counter() - start, time.process_time()
print(f"{rows:,} rows, {found.verdict}: {seconds:.1f} s ({cpu:.1f} s of processor), {peak:,.0f} MB")
"""


def table(path: Path, rows: int) -> None:
    rng = np.random.default_rng(0)
    with path.open("w") as file:
        file.write("step,epoch,d_loss,g_loss,lr\n")
        for start in range(0, rows, 100_000):
            noise = enumerate(rng.standard_normal((min(100_000, rows - start), 2)), start)
            file.writelines(f"{at},{at // 1000},{1 + 0.1 * d:.5f},{2 + 0.1 * g:.5f},0.0002\n" for at, (d, g) in noise)


def text(path: Path, megabytes: int) -> None:
    rng = np.random.default_rng(0)
    at, form = 0, "[{}/9999][{}/5000]\tLoss_D: {:.4f}\tLoss_G: {:.4f}\tD(x): 0.6123\tD(G(z)): 0.4012 / 0.2001\n"
    with path.open("w") as file:
        while file.tell() < megabytes * 1_000_000:
            noise = rng.standard_normal((50_000, 2))
            file.write(
                "".join(
                    form.format((at + i) // 5000, (at + i) % 5000, 1 + 0.1 * d, 2 + 0.1 * g)
                    for i, (d, g) in enumerate(noise)
                )
            )
            at += 50_000


def measured(path: Path) -> str:
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return f"{path.name}: {done.stdout.strip() or done.stderr[-500:]} (with start: {time.perf_counter() - start:.1f} s)"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--megabytes", type=int, default=1000)
    ask = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for path, write, size in (
            (Path(folder, "rows.csv"), table, ask.rows),
            (Path(folder, "scrollback.txt"), text, ask.megabytes),
        ):
            write(path, size)
            print(f"{path.stat().st_size / 1e6:,.0f} MB {measured(path)}", flush=True)
            path.unlink()


if __name__ == "__main__":
    main()
