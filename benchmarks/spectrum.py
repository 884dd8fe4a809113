"""False alarms of the oscillation test on AR(1) noise, and its power against a sinusoid in that noise.

    python -m benchmarks spectrum [--repeats 2000] [--irregular 400] [--power 200]

Prints one line per cell. Nominal level 0.05; 99 draws per test keep the level exact (5 of 100 ranks). About 25 minutes
on one core.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gandiag.training_logs.red_noise import sample_ar1
from gandiag.training_logs.series import Array
from gandiag.training_logs.spectrum import estimate_spectrum

PHIS = (0.0, 0.5, 0.9, 0.98)
DRAWS = 99


def series(step: Array, phi: float, rng: np.random.Generator) -> Array:
    """AR(1) noise of unit variance at steps (n,): white for phi = 0."""
    return rng.standard_normal(len(step)) if phi == 0 else sample_ar1(step, phi, 1, rng, 1.0)[0]


def irregular_steps(n: int, rng: np.random.Generator) -> Array:
    """Exponential gaps with mean 1, none below 0.05."""
    return np.cumsum(np.maximum(rng.exponential(size=n), 0.05))


def alarms(n: int, phi: float, repeats: int, *, irregular: bool = False, seed: int = 0) -> float:
    """Share of noise series that are called oscillating at p <= 0.05."""
    rng = np.random.default_rng((n, round(100 * phi), seed, irregular))
    found = 0
    for repeat in range(repeats):
        step = irregular_steps(n, rng) if irregular else np.arange(n, dtype=np.float64)
        found += estimate_spectrum(step, series(step, phi, rng), n_draws=DRAWS, seed=repeat).line_p_value <= 0.05
    return found / repeats


def power(n: int, phi: float, amplitude: float, repeats: int, seed: int = 0) -> float:
    """Share of noisy sinusoids of about 64 steps, of any frequency and phase, amplitude in deviations of the noise,
    that are found.

    The turns in a log are drawn from a whole bin around n / 64: a plain FFT finds a sinusoid at the middle of a bin,
    and loses it between two."""
    rng = np.random.default_rng((n, round(100 * phi), seed, 7))
    step = np.arange(n, dtype=np.float64)
    found = 0
    for repeat in range(repeats):
        turns = n / 64 + rng.random() - 0.5
        wave = amplitude * np.sin(2 * math.pi * (turns * step / n + rng.random()))
        found += estimate_spectrum(step, series(step, phi, rng) + wave, n_draws=DRAWS, seed=repeat).line_p_value <= 0.05
    return found / repeats


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--irregular", type=int, default=400)
    parser.add_argument("--power", type=int, default=200)
    ask = parser.parse_args()
    print(f"power, n 1024, phi 0.5, amplitude 0.5: {power(1024, 0.5, 0.5, ask.power):.3f}", flush=True)
    for irregular, repeats in ((False, ask.repeats), (True, ask.irregular)):
        cells = []
        for n in (256, 1024):
            for phi in PHIS:
                start = time.perf_counter()
                cells.append(alarms(n, phi, repeats, irregular=irregular))
                kind = "irregular" if irregular else "regular"
                print(
                    f"{kind:<10} n {n:<5} phi {phi:<5} false alarms {cells[-1]:.4f}   "
                    f"({time.perf_counter() - start:.0f} s)",
                    flush=True,
                )
        print(f"pooled {sum(cells) / len(cells):.4f}", flush=True)


if __name__ == "__main__":
    main()
