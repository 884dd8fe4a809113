"""Verdicts on simulated losses: false alarms on stationary noise, and how often each fault gets its own verdict.

    python -m benchmarks loss-verdicts [--repeats 50] [--first-seed 6000] [--only NAME …] [--keep cells.jsonl]

Seeds below 2,000 were used to choose thresholds; the default reports on others. One line a cell, pooled rates last.
`--keep` names a file to which finished cells are appended, and from which they are taken when the command runs again.
About 0.15 s a repeat, 15 minutes of one processor in all; set OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.signal import lfilter

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gandiag.training_logs.analysis import losses
from gandiag.training_logs.series import Array
from gandiag.training_logs.verdict import FAILING_KINDS, VERDICT_ORDER

Pair = tuple[Array, Array]
PHIS = (0.0, 0.5, 0.9, 0.98)
ROWS = (60, 200, 600, 2000)


def ar1(phi: float, n: int, rng: np.random.Generator, heavy: bool = False) -> Array:
    """Stationary AR(1) noise (n,) of unit variance; `heavy`: innovations of Student's t with 3 degrees of freedom."""
    draws = rng.standard_t(3, n + 300) / np.sqrt(3) if heavy else rng.standard_normal(n + 300)
    series = draws * np.sqrt(1 - phi**2)
    series[0] = draws[0]
    return np.asarray(lfilter([1.0], [1.0, -phi], series)[300:], dtype=np.float64)


def smooth(value: Array, weight: float = 0.9) -> Array:
    """Exponential moving average (n,), as TensorBoard exports it."""
    rest = lfilter([1 - weight], [1.0, -weight], value - value[0])
    return np.asarray(rest + value[0], dtype=np.float64)


def independent(phi: float, n: int, rng: np.random.Generator) -> Pair:
    return 1.5 + 0.2 * ar1(phi, n, rng), 1.1 + 0.1 * ar1(phi, n, rng)


def shared(phi: float, n: int, rng: np.random.Generator) -> Pair:
    common = ar1(phi, n, rng)
    return 1.5 + 0.2 * (0.8 * common + 0.6 * ar1(phi, n, rng)), 1.1 - 0.1 * (0.8 * common + 0.6 * ar1(phi, n, rng))


def smoothed(phi: float, n: int, rng: np.random.Generator) -> Pair:
    generator, discriminator = independent(phi, n + 50, rng)
    return smooth(generator)[50:], smooth(discriminator)[50:]


def heavy(phi: float, n: int, rng: np.random.Generator) -> Pair:
    return 1.5 + 0.2 * ar1(phi, n, rng, heavy=True), 1.1 + 0.1 * ar1(phi, n, rng, heavy=True)


def shared_heavy(phi: float, n: int, rng: np.random.Generator) -> Pair:
    common = ar1(phi, n, rng, heavy=True)
    return 1.5 + 0.2 * common, 1.1 + 0.1 * (0.9 * common + 0.3 * ar1(phi, n, rng))


NOISES: dict[str, Callable[[float, int, np.random.Generator], Pair]] = {
    "independent": independent,
    "shared": shared,
    "smoothed": smoothed,
    "heavy": heavy,
    "shared heavy": shared_heavy,
}


def drift(n: int, rng: np.random.Generator) -> Pair:
    at = np.linspace(0, 1, n)
    return 1.3 + 6 * at + 0.4 * ar1(0.5, n, rng), 1.3 * np.exp(-2.5 * at) + 0.05 * ar1(0.5, n, rng)


def late_drift(n: int, rng: np.random.Generator) -> Pair:
    at = np.linspace(0, 1, n)
    rise = np.maximum(at - 0.4, 0)
    return 3.0 + 3 * rise + 0.4 * ar1(0.5, n, rng), 0.6 - 0.5 * rise + 0.05 * ar1(0.5, n, rng)


def critic(n: int, rng: np.random.Generator) -> Pair:
    at = np.linspace(0, 1, n)
    return 5000 * at + 50 * ar1(0.5, n, rng), -1e4 * at + 50 * ar1(0.5, n, rng)


def make_step(where: float) -> Callable[[int, np.random.Generator], Pair]:
    def step(n: int, rng: np.random.Generator) -> Pair:
        after = np.arange(n) >= where * n
        return 1.2 + 1.0 * after + 0.15 * ar1(0.3, n, rng), 1.1 - 0.5 * after + 0.1 * ar1(0.3, n, rng)

    return step


def spikes(n: int, rng: np.random.Generator) -> Pair:
    generator, discriminator = independent(0.3, n, rng)
    at = rng.choice(n, max(n // 30, 4), replace=False)
    height = rng.uniform(8, 40, len(at))
    generator[at] += 0.2 * height
    discriminator[at] += 0.1 * height
    return generator, discriminator


def single_spikes(n: int, rng: np.random.Generator) -> Pair:
    generator, discriminator = independent(0.3, n, rng)
    at = rng.choice(n, max(n // 30, 4), replace=False)
    generator[at] += 0.2 * rng.uniform(8, 40, len(at))
    return generator, discriminator


def walk(n: int, rng: np.random.Generator) -> Pair:
    return 2 + 0.05 * np.cumsum(rng.standard_normal(n)), 1.2 + 0.02 * np.cumsum(rng.standard_normal(n))


def saturation(n: int, rng: np.random.Generator) -> Pair:
    at = np.arange(n) / n
    level = np.where(at < 0.5, 0.9, 0.03)
    return np.where(at < 0.5, 1.5, 6.0) + 0.3 * ar1(0.5, n, rng), np.abs(level * (1 + 0.3 * ar1(0.5, n, rng)))


def chance(n: int, rng: np.random.Generator) -> Pair:
    return 0.693 + 0.002 * ar1(0, n, rng), 1.386 + 0.003 * ar1(0, n, rng)


def relaxation(n: int, rng: np.random.Generator) -> Pair:
    """Van der Pol's oscillator with a wandering clock, about 20 cycles."""
    speed = 20 * 2 * np.pi / n * (1 + 0.1 * ar1(0.9, n, rng))
    phase = np.cumsum(speed)
    wave, lag = np.tanh(4 * np.sin(phase)), np.tanh(4 * np.sin(phase - np.pi / 2))
    return 1.5 + 0.4 * wave + 0.2 * ar1(0.5, n, rng), 1.1 + 0.2 * lag + 0.1 * ar1(0.5, n, rng)


def sinusoid(n: int, rng: np.random.Generator) -> Pair:
    angle = 2 * np.pi * (n / 24 * np.arange(n) / n + rng.random())
    return 1.5 + 0.3 * np.sin(angle) + 0.2 * ar1(0.5, n, rng), 1.1 + 0.15 * np.cos(angle) + 0.1 * ar1(0.5, n, rng)


def unshuffled(n: int, rng: np.random.Generator) -> Pair:
    saw = np.arange(n) % 40 / 40
    return 1.5 + 0.5 * saw + 0.1 * ar1(0.3, n, rng), 1.1 - 0.3 * saw + 0.05 * ar1(0.3, n, rng)


FAULTS: dict[str, tuple[Callable[[int, np.random.Generator], Pair], tuple[str, ...]]] = {
    "drift": (drift, ("drifting",)),
    "late drift": (late_drift, ("drifting",)),
    "critic to -1e4": (critic, ("drifting", "diverging")),
    "step at 70 %": (make_step(0.7), ("stepped",)),
    "step at 92 %": (make_step(0.92), ("stepped",)),
    "joint spikes": (spikes, ("mode_hopping",)),
    "spikes of G": (single_spikes, ("spiking",)),
    "random walk": (walk, ("drifting", "diverging")),
    "short random walk": (walk, tuple(set(VERDICT_ORDER) - {*FAILING_KINDS, "settled", "inconclusive"})),
    "saturation": (saturation, ("discriminator_wins",)),
    "D at chance": (chance, ("discriminator_at_chance",)),
    "relaxation cycle": (relaxation, ("oscillating",)),
    "sinusoid": (sinusoid, ("oscillating",)),
    "unshuffled": (unshuffled, ("settled", "no_instability_found")),
}
FAULT_ROWS = (300, 1000)
# A walk is told from noise where a test can; below, it must not be called settled.
ROWS_OF = {"random walk": (1000, 2000), "short random walk": (60, 200, 300, 600)}


class Cells:
    """Finished cells by name, kept in a file of JSON lines."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        text = path.read_text(encoding="utf-8") if path is not None and path.exists() else ""
        self.done = {entry["cell"]: entry for entry in map(json.loads, text.splitlines())}

    def get(self, name: str, make: Callable[[np.random.Generator], Pair], seeds: list[tuple[int, ...]]) -> Any:
        """The verdict and the step of a change of each repeat, from the file if it has them."""
        key = f"{name}, seeds {seeds[0][0]} + {len(seeds)}"
        if key not in self.done:
            found = [judge(make(np.random.default_rng(seed))) for seed in seeds]
            self.done[key] = {"cell": key, "verdicts": [entry[0] for entry in found], "steps": [e[1] for e in found]}
            if self.path is not None:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(self.done[key]) + "\n")
        return self.done[key]


def judge(pair: Pair) -> tuple[str, float | None]:
    """The verdict on a pair of series, and the step of the first change of level that it reports."""
    document = losses({"generator": pair[0], "discriminator": pair[1]}).document
    steps = [event["step"] for event in document["events"] if event["kind"] == "stepped"]
    return str(document["verdict"]), float(min(steps)) if steps else None


def report_noise(cells: Cells, repeats: int, first_seed: int) -> None:
    """A line for each cell of noise, and the pooled rates."""
    total: Counter[str] = Counter()
    worst = 0
    for n in ROWS:
        for name, make in NOISES.items():
            for phi in PHIS:
                seeds = [(first_seed + i, n, round(100 * phi)) for i in range(repeats)]
                cell = cells.get(f"{name} n {n} phi {phi}", partial(make, phi, n), seeds)
                counts = Counter(cell["verdicts"])
                total += counts
                failing = sum(counts[kind] for kind in FAILING_KINDS)
                worst = max(worst, failing)
                print(f"{name:<13} n {n:<5} phi {phi:<5} failing {failing}/{repeats}  {dict(counts)}", flush=True)
    failing, n_all = sum(total[kind] for kind in FAILING_KINDS), sum(total.values())
    print(
        f"pooled: failing {failing}/{n_all} = {failing / n_all:.4f}, worst cell {worst}/{repeats}, drifting "
        f"{total['drifting']}/{n_all} = {total['drifting'] / n_all:.4f}\n{dict(total)}",
        flush=True,
    )


def report_faults(cells: Cells, repeats: int, first_seed: int, only: tuple[str, ...]) -> None:
    """A line for each fault and length."""
    for name, (make, right) in FAULTS.items():
        if only and name not in only:
            continue
        for n in ROWS_OF.get(name, FAULT_ROWS):
            seeds = [(first_seed + i, n, 7) for i in range(repeats)]
            cell = cells.get(f"{name} n {n}", partial(make, n), seeds)
            counts = Counter(cell["verdicts"])
            hits = sum(counts[kind] for kind in right)
            extra = _describe_step_error(name, n, cell["steps"])
            print(f"{name:<17} n {n:<5} right {hits}/{repeats}  {dict(counts)}{extra}", flush=True)


def _describe_step_error(name: str, n: int, steps: list[float | None]) -> str:
    """How many of the reported steps are within 2 % of the log."""
    if not name.startswith("step at"):
        return ""
    where = float(name.split()[2]) / 100 * n
    near = sum(step is not None and abs(step - where) <= 0.02 * n for step in steps)
    return f"  step within 2 %: {near}/{len(steps)}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--first-seed", type=int, default=6000)
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--skip-noise", action="store_true")
    parser.add_argument("--keep", type=Path, default=None)
    ask = parser.parse_args()
    cells = Cells(ask.keep)
    report_faults(cells, ask.repeats, ask.first_seed, tuple(ask.only))
    if not ask.skip_noise and not ask.only:
        report_noise(cells, ask.repeats, ask.first_seed)


if __name__ == "__main__":
    main()
