"""Cost of loading a checkpoint relative to the least that torch can do with it.

    python -m benchmarks loading [--mb 500] [--norm]

The peer opens the file with torch.load(mmap=True) and copies it into a module with load_state_dict; allocating that
module counts. Each side runs in its own processes, alternating, after one pass that fills the page cache. Reported:
processor and wall seconds without imports, and peak memory of the process (VmHWM; ru_maxrss would include a large
parent) without its imports. With --norm a BatchNorm follows every hidden layer, and loading also ranks what the weights
leave open by their statistics.

    load      load_generator(), which also hashes the file (timed separately) and rebuilds the network
    inspect   summary and inference, without the hash
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

COMMON = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
path = sys.argv[1]
def now():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
def clocks(): return time.process_time(), time.perf_counter()
def done(start, before):
    cpu, wall = (end - begin for end, begin in zip(clocks(), start))
    print(json.dumps({"cpu": cpu, "wall": wall, "peak": now() - before}))
"""
SIDES = {
    "torch": """
from torch import nn
sizes = json.loads(sys.argv[2])
before, start, layers = now(), clocks(), []
with torch.device("meta"):
    for into, out, norm in sizes: layers += [nn.Linear(into, out), *([nn.BatchNorm1d(out)] if norm else []), nn.ReLU()]
net = nn.Sequential(*layers[:-1]).to_empty(device="cpu")
net.load_state_dict(torch.load(path, mmap=True, weights_only=True, map_location="cpu"))
done(start, before)
""",
    "load": """
from gandiag.config import AuditConfig
from gandiag.checkpoints.loader import load_generator
before, start = now(), clocks()
load_generator(path, AuditConfig())
done(start, before)
""",
    "hash": """
import hashlib
before, start = now(), clocks()
with open(path, "rb") as file: hashlib.file_digest(file, "sha256").hexdigest()
done(start, before)
""",
    "inspect": """
from gandiag.cli.inspect import format_summary
from gandiag.config import AuditConfig
from gandiag.checkpoints.loader import load_generator
from gandiag.checkpoints.summary import summarize_file
from gandiag.pipeline.subject import with_inferred_prior
before, start = now(), clocks()
seen = summarize_file(path)
format_summary(seen, with_inferred_prior(load_generator(path, AuditConfig(), glance=True)), None)
done(start, before)
""",
}


def saved(sizes: list[tuple[int, int, bool]], path: Path) -> None:
    """An MLP's weights; statistics as some training steps leave them."""
    layers: list[nn.Module] = []
    for into, out, norm in sizes:
        layers += [nn.Linear(into, out), *([nn.BatchNorm1d(out)] if norm else []), nn.ReLU()]
    net = nn.Sequential(*layers[:-1]).train()
    if any(norm for *_, norm in sizes):
        with torch.no_grad():
            for _ in range(30):
                net(torch.randn(64, sizes[0][0]))
    torch.save(net.state_dict(), path)


def measure(path: Path, sizes: list[tuple[int, int, bool]], repeats: int) -> dict[str, dict[str, float]]:
    """Of each side the fastest of a few runs, taken in turn, and the least peak memory above what the imports took."""
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(repeats):
        for side, code in SIDES.items():
            done = subprocess.run(
                [sys.executable, "-c", COMMON + code, str(path), json.dumps(sizes)],
                capture_output=True,
                text=True,
                check=True,
            )
            runs[side].append(json.loads(done.stdout.splitlines()[-1]))
    return {
        side: {key: min(run[key] for run in rows) for key in ("cpu", "wall", "peak")} for side, rows in runs.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="What loading a checkpoint costs.")
    parser.add_argument("--mb", type=int, default=500)
    parser.add_argument("--norm", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    width, options = 4096, parser.parse_args()
    count = max(1, round(options.mb * 2**20 / (4 * width * width)))
    sizes = [(128, width, options.norm), *[(width, width, options.norm)] * count, (width, 3072, False)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "generator.pt"
        saved(sizes, path)
        found = measure(path, sizes, options.repeats)
        print(
            f"{path.stat().st_size / 2**20:.0f} MiB, MLP of {count + 2} "
            f"layers{', batch norm between them' * options.norm}"
        )
    for side, row in found.items():
        print(f"  {side:<8} {row['cpu']:6.2f} s processor {row['wall']:7.2f} s wall {row['peak'] / 2**20:8.0f} MiB")
    rest = {key: (found["load"][key] - found["hash"][key]) / found["torch"][key] for key in ("cpu", "wall")}
    print(
        f"load without its hashing pass: {rest['cpu']:.2f} of torch's processor time, {rest['wall']:.2f} of its "
        "wall time (target 1.3), "
        f"{found['load']['peak'] / found['torch']['peak']:.2f} of its memory (target 1.2); inspect "
        f"{found['inspect']['cpu']:.2f} s (target 1)"
    )


if __name__ == "__main__":
    main()
