"""Verdicts on simulated losses: false alarms on stationary noise, and how often each fault gets its own verdict.

    python -m benchmarks loss-verdicts [--repeats 50] [--first-seed 1000] [--only NAME …]

Seeds below 1,000 were used to choose thresholds; the default reports on others. One line a cell, pooled rates last.
About 0.3 s a repeat.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gandiag.training_logs.analysis import losses
from gandiag.training_logs.series import Array
from gandiag.training_logs.verdict import FAILING_KINDS

Pair = tuple[Array, Array]
PHIS = (0.0, 0.5, 0.9, 0.98)
ROWS = (60, 200, 600, 2000)


def ar1(phi: float, n: int, rng: np.random.Generator, heavy: bool = False) -> Array:
    """Stationary AR(1) noise (n,) of unit variance; `heavy`: innovations of Student's t with 3 degrees of freedom."""
    draws = rng.standard_t(3, n + 300) / np.sqrt(3) if heavy else rng.standard_normal(n + 300)
    series = draws * np.sqrt(1 - phi**2)
    series[0] = draws[0]
    for i in range(1, len(series)):
        series[i] += phi * series[i - 1]
    return np.asarray(series[300:], dtype=np.float64)


def smooth(value: Array, weight: float = 0.9) -> Array:
    """Exponential moving average (n,), as TensorBoard exports it."""
    out = value.copy()
    for i in range(1, len(out)):
        out[i] = weight * out[i - 1] + (1 - weight) * out[i]
    return out


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
    "saturation": (saturation, ("discriminator_wins",)),
    "D at chance": (chance, ("discriminator_at_chance",)),
    "relaxation cycle": (relaxation, ("oscillating",)),
    "sinusoid": (sinusoid, ("oscillating",)),
    "unshuffled": (unshuffled, ("settled", "no_instability_found")),
}
FAULT_ROWS = (300, 1000)


def judge(pair: Pair, seed: int) -> dict[str, object]:
    """The losses document of a pair of series."""
    return dict(losses({"generator": pair[0], "discriminator": pair[1]}, seed=seed).document)


def report_noise(repeats: int, first_seed: int) -> None:
    """A line for each cell of noise."""
    total: Counter[str] = Counter()
    for name, make in NOISES.items():
        for n in ROWS:
            for phi in PHIS:
                found = [
                    judge(make(phi, n, np.random.default_rng((first_seed + i, n, round(100 * phi)))), i)["verdict"]
                    for i in range(repeats)
                ]
                counts = Counter(str(verdict) for verdict in found)
                total += counts
                failing = sum(counts[kind] for kind in FAILING_KINDS)
                print(f"{name:<13} n {n:<5} phi {phi:<5} failing {failing}/{repeats}  {dict(counts)}", flush=True)
    failing, n_all = sum(total[kind] for kind in FAILING_KINDS), sum(total.values())
    print(
        f"pooled: failing {failing}/{n_all} = {failing / n_all:.4f}, drifting {total['drifting'] / n_all:.4f}",
        flush=True,
    )
    print(dict(total), flush=True)


def report_faults(repeats: int, first_seed: int, only: tuple[str, ...]) -> None:
    """A line for each fault and length."""
    for name, (make, right) in FAULTS.items():
        if only and name not in only:
            continue
        for n in FAULT_ROWS:
            documents = [judge(make(n, np.random.default_rng((first_seed + i, n, 7))), i) for i in range(repeats)]
            counts = Counter(str(document["verdict"]) for document in documents)
            hits = sum(counts[kind] for kind in right)
            extra = _describe_step_error(name, n, documents)
            print(f"{name:<17} n {n:<5} right {hits}/{repeats}  {dict(counts)}{extra}", flush=True)


def _describe_step_error(name: str, n: int, documents: list[dict[str, object]]) -> str:
    """How far off the reported steps are, in percent of the log."""
    if not name.startswith("step at"):
        return ""
    where = float(name.split()[2]) / 100 * n
    events = [event for document in documents for event in document["events"] if event["kind"] == "stepped"]  # type: ignore[attr-defined]
    errors = [abs(event["step"] - where) / n for event in events]
    return f"  step within 2 %: {sum(error <= 0.02 for error in errors)}/{len(documents)}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--first-seed", type=int, default=1000)
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--skip-noise", action="store_true")
    ask = parser.parse_args()
    report_faults(ask.repeats, ask.first_seed, tuple(ask.only))
    if not ask.skip_noise and not ask.only:
        report_noise(ask.repeats, ask.first_seed)


if __name__ == "__main__":
    main()
