"""What loading a checkpoint costs, against the least that torch can do with it: `python benchmarks/load.py [--mb 500]`.

The peer opens the file with torch.load(mmap=True) and copies it into a module with load_state_dict; the module's memory is taken
within the time, as it must be somewhere, and not initialised, which nobody needs. Each side runs in a process of its own, after one
pass that puts the file into the page cache. Seconds without imports; peak memory is of the process, without its imports.

    load      gandiag.load.generator.load_network, which also hashes the file (the pass is timed apart) and rebuilds the network
    inspect   survey and reading, without the hash
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
import json, resource, sys, time, warnings
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
path = sys.argv[1]
def done(start, before):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": time.perf_counter() - start, "peak": peak - before}))
def now(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
"""
SIDES = {
    "torch": """
from torch import nn
sizes = json.loads(sys.argv[2])
before, start, layers = now(), time.perf_counter(), []
with torch.device("meta"):
    for into, out in sizes: layers += [nn.Linear(into, out), nn.ReLU()]
net = nn.Sequential(*layers[:-1]).to_empty(device="cpu")
net.load_state_dict(torch.load(path, mmap=True, weights_only=True, map_location="cpu"))
done(start, before)
""",
    "load": """
from gandiag.config import AuditConfig
from gandiag.load.generator import load_network
before, start = now(), time.perf_counter()
load_network(path, AuditConfig())
done(start, before)
""",
    "hash": """
import hashlib
before, start = now(), time.perf_counter()
with open(path, "rb") as file: hashlib.file_digest(file, "sha256").hexdigest()
done(start, before)
""",
    "inspect": """
from gandiag.cli.inspect import lines
from gandiag.config import AuditConfig
from gandiag.load.generator import load_network
from gandiag.load.survey import survey
from gandiag.subjects import with_likely_prior
before, start = now(), time.perf_counter()
seen = survey(path)
lines(seen, with_likely_prior(load_network(path, AuditConfig(), glance=True)), None)
done(start, before)
""",
}


def measure(side: str, path: Path, sizes: list[tuple[int, int]], repeats: int = 3) -> dict[str, float]:
    """The fastest of a few runs, and its peak memory above what the imports took."""
    runs = []
    for _ in range(repeats):
        done = subprocess.run([sys.executable, "-c", COMMON + SIDES[side], str(path), json.dumps(sizes)], capture_output=True, text=True, check=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    return {"seconds": min(run["seconds"] for run in runs), "peak": min(run["peak"] for run in runs)}


def main() -> None:
    parser = argparse.ArgumentParser(description="What loading a checkpoint costs.")
    parser.add_argument("--mb", type=int, default=500)
    width, options = 4096, parser.parse_args()
    count = max(1, round(options.mb * 2**20 / (4 * width * width)))
    sizes = [(128, width), *[(width, width)] * count, (width, 3072)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "generator.pt"
        layers: list[nn.Module] = []
        for into, out in sizes:
            layers += [nn.Linear(into, out), nn.ReLU()]
        torch.save(nn.Sequential(*layers[:-1]).state_dict(), path)
        del layers
        found = {side: measure(side, path, sizes) for side in SIDES}
        print(f"{path.stat().st_size / 2**20:.0f} MiB, MLP of {count + 2} layers")
    for side, row in found.items():
        print(f"  {side:<8} {row['seconds']:7.2f} s  {row['peak'] / 2**20:8.0f} MiB")
    rest = found["load"]["seconds"] - found["hash"]["seconds"]
    print(f"load without its hashing pass: {rest / found['torch']['seconds']:.2f} of torch's time (target 1.3), "
          f"{found['load']['peak'] / found['torch']['peak']:.2f} of its memory (target 1.2); inspect {found['inspect']['seconds']:.2f} s (target 1)")


if __name__ == "__main__":
    main()
