"""Start-up time of the light commands relative to `python -c "import torch"`, in one run.

    python -m benchmarks startup [--runs 5]

Targets: --help, the terminal report and `gate` on a record at most 1/5; `gate` on a record at most 60 MB.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]


def run(command: list[str]) -> tuple[float, float]:
    """(seconds, peak memory in MB) of a command."""
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    import records

    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "audit.json"
        record.write_text(records.collapsed().to_json())
        python, gandiag = [sys.executable, "-c"], [sys.executable, "-m", "gandiag"]
        commands = {
            "import torch": [*python, "import torch"],
            "gandiag --help": [*gandiag, "--help"],
            "gandiag audit --help": [*gandiag, "audit", "--help"],
            "gandiag report": [*gandiag, "report", str(record)],
            "gandiag gate": [*gandiag, "gate", str(record), "--max-score", "0.6"],
            "gandiag compare": [*gandiag, "compare", str(record), str(record)],
        }
        for command in commands.values():
            run(command)  # once unmeasured: the disk is warm then
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(runs):  # in turn, so that a slow moment hits all of them
            for name, command in commands.items():
                taken[name].append(run(command))
    base = statistics.median(time for time, _ in taken["import torch"])
    for name, values in taken.items():
        middle, memory = statistics.median(time for time, _ in values), max(peak for _, peak in values)
        print(f"{name:<22}{middle:7.2f} s   {middle / base:5.2f} of import torch   {memory:5.0f} MB")


if __name__ == "__main__":
    main()
