"""How fast the light commands start, as a ratio to `python -c "import torch"`, all in one run.

    python benchmarks/startup.py [--runs 5]

Target: --help and the terminal report at most 1/5.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    import records

    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "audit.json"
        record.write_text(records.collapsed().to_json())
        python, gandiag = [sys.executable, "-c"], [sys.executable, "-m", "gandiag"]
        commands = {"import torch": [*python, "import torch"], "gandiag --help": [*gandiag, "--help"], "gandiag audit --help": [*gandiag, "audit", "--help"],
                    "gandiag report": [*gandiag, "report", str(record)]}  # fmt: skip
        for command in commands.values():
            seconds(command)  # once unmeasured: the disk is warm then
        taken: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(runs):  # in turn, so that a slow moment hits all of them
            for name, command in commands.items():
                taken[name].append(seconds(command))
    base = statistics.median(taken["import torch"])
    for name, values in taken.items():
        middle = statistics.median(values)
        print(f"{name:<22}{middle:7.2f} s   {middle / base:5.2f} of import torch")


if __name__ == "__main__":
    main()
