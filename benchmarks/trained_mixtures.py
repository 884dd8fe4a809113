"""Rings and grids trained here under nine remedies and none: the score against the true loss, generator by generator.

    python -m benchmarks trained-mixtures                              # seeds 0 and 1
    python -m benchmarks trained-mixtures --first-seed 70 --seeds 1 --keep FILE    # resumes from FILE

True loss = 1 − (1 − TV) (width kept) (distinct), where TV is the total variation of the shares of nearest modes, the
width of a mode is the median distance to its median over that of the data, at most 1, averaged over the mass that both
have, and distinct is the share of different samples. Each run is looked at several times, from poor to good; looks at
which more than half of the samples are further than 5 deviations from every mode are counted apart: they have no modes.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from statistics import fmean
from typing import Any

import torch
from kept_results import KeptResults
from torch import Tensor

from gandiag.metrics.score.estimator import estimate_diversity_loss
from gandiag.testing.competing_metrics import compute_metrics
from gandiag.trainer.gan_trainer import GANTrainer, make_trainer
from gandiag.trainer.recipes import NetworkSettings, Recipe
from gandiag.trainer.remedies.registry import REMEDIES, get_remedy
from gandiag.trainer.toy_data import GaussianMixture
from gandiag.trainer.unrolling.adam import AdamSettings

# gandiag's own short settings: modes of a deviation that 2,500 steps can learn, 12 and 8 deviations apart or more.
RECIPE = Recipe(
    name="short",
    title="short",
    source="gandiag",
    dataset="ring8",
    steps=2500,
    batch=128,
    latent=8,
    loss="non-saturating",
    generator=NetworkSettings(hidden=(128, 128)),
    discriminator=NetworkSettings(hidden=(128, 128), activation="leaky:0.2"),
    adam_generator=AdamSettings(lr=1e-3, beta1=0.5),
    adam_discriminator=AdamSettings(lr=1e-3, beta1=0.5),
)
LOOKS = (400, 1000, 2500)  # steps of G
SLOW_LOOKS = (400, 1000)  # of remedies that cost several steps each
CENTERS = {
    "ring": 2 * torch.stack([f(2 * math.pi * torch.arange(8) / 8) for f in (torch.cos, torch.sin)], 1),
    "grid": torch.cartesian_prod(*2 * [torch.arange(-2.0, 3.0)]),
}
DEVIATIONS = {"ring": 0.12, "grid": 0.12}
N_FAKE = 1000
FAR = 5.0  # deviations
LIMIT = 0.15
TOLERANCE = 0.08
OTHERS = ("frechet", "coverage", "recall", "vendi_1", "irs", "pqmass")


def mode_width(rows: Tensor) -> float:
    """Median distance to the coordinates' medians."""
    return float((rows - rows.median(0).values).norm(dim=1).median())


def true_loss(mixture: GaussianMixture, samples: Tensor) -> tuple[float, float, float, float]:
    """(loss, total variation, width kept, share further than FAR deviations from every mode)."""
    distance, mode = torch.cdist(samples.double(), mixture.centers.double()).min(1)
    k = len(mixture.centers)
    shares = mode.bincount(minlength=k).double() / len(samples)
    kept = shares.clamp(max=1 / k)
    full = mixture.std * math.sqrt(2 * math.log(2))  # of a normal law in the plane
    widths = [min(1.0, mode_width(samples[mode == i]) / full) if (mode == i).sum() > 2 else 1.0 for i in range(k)]
    width = float((kept * torch.tensor(widths)).sum() / kept.sum())
    distinct = len(torch.unique(samples, dim=0)) / len(samples)
    loss = 1 - float(kept.sum()) * width * distinct
    return loss, 1 - float(kept.sum()), width, float((distance > FAR * mixture.std).double().mean())


def runs(seeds: range) -> Iterator[tuple[str, str, int]]:
    for seed in seeds:
        for world in CENTERS:
            for remedy in REMEDIES:
                yield world, remedy, seed


def make_run(world: str, name: str, seed: int) -> tuple[GANTrainer, GaussianMixture]:
    mixture, remedy = GaussianMixture(CENTERS[world], DEVIATIONS[world]), get_remedy(name)
    steps = min(remedy.unroll_steps, 5)
    return make_trainer(RECIPE, mixture.to_dataset(world), remedy, seed=seed, unroll_steps=steps), mixture


def look(trainer: GANTrainer, mixture: GaussianMixture, seed: int) -> dict[str, float]:
    """Truth, score with interval, and other metrics of the generator as it is."""
    samples = trainer.generate_samples(N_FAKE, 7_000 + seed)
    real = mixture.draw(2 * N_FAKE, torch.Generator().manual_seed(8_000 + seed))
    loss, variation, width, far = true_loss(mixture, samples)
    estimate = estimate_diversity_loss(real, samples)
    score = estimate.score
    return {
        "truth": loss,
        "variation": variation,
        "width": width,
        "far": far,
        "score": score.value,
        "low": score.low,
        "high": 1.0 if estimate.inconclusive_reasons else score.high,
        "off_manifold": estimate.profile["off_manifold"].value,
        "doubtful": float(bool(estimate.inconclusive_reasons)),
        **compute_metrics(real[:N_FAKE], samples, OTHERS),
    }


def train_and_look(world: str, remedy: str, seed: int) -> list[dict[str, float]]:
    """One row per look of one run; a run that diverges ends early."""
    trainer, mixture = make_run(world, remedy, seed)
    slow = trainer.setup.unroll_steps > 0 or get_remedy(remedy).discriminator_steps > 1
    rows = []
    for steps in SLOW_LOOKS if slow else LOOKS:
        while trainer.steps < steps:
            trainer.step()
        if not bool(torch.isfinite(trainer.generator.state.theta).all()):
            break
        rows.append({"step": float(steps), **look(trainer, mixture, seed)})
    return rows


def verdict(row: dict[str, float]) -> str:
    if row["doubtful"]:
        return "inconclusive"
    return "collapsed" if row["low"] >= LIMIT else "healthy" if row["high"] < LIMIT else "inconclusive"


def spearman(first: list[float], second: list[float]) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(first, second).statistic)


def summarize(rows: list[dict[str, float]], title: str) -> None:
    errors = [abs(row["score"] - row["truth"]) for row in rows]
    false_alarms = sum(verdict(row) == "collapsed" and row["truth"] < LIMIT for row in rows)
    missed = sum(verdict(row) == "healthy" and row["truth"] >= LIMIT for row in rows)
    undecided = sum(verdict(row) == "inconclusive" for row in rows)
    print(
        f"{title}: {len(rows)} generators; |score − truth| ≤ {TOLERANCE} for "
        f"{fmean(error <= TOLERANCE for error in errors):.0%}, mean {fmean(errors):.3f}; truth below {LIMIT} called "
        f"collapsed {false_alarms}, above called healthy {missed}, undecided {undecided}"
    )
    truth = [row["truth"] for row in rows]
    ranks = {key: abs(spearman(truth, [row[key] for row in rows])) for key in ("score", *OTHERS)}
    print("    |Spearman| to the truth: " + ", ".join(f"{key} {value:.2f}" for key, value in ranks.items()))


def run(options: argparse.Namespace) -> list[dict[str, float]]:
    kept = KeptResults(options.keep)
    found: dict[str, list[dict[str, Any]]] = {world: [] for world in CENTERS}
    print("run                       step  truth   TV   width  far   score  interval      off  verdict")
    for world, remedy, seed in runs(range(options.first_seed, options.first_seed + options.seeds)):
        if options.only not in f"{world} {remedy}":
            continue
        rows = kept.get(f"{world} {remedy} {seed}", lambda run=(world, remedy, seed): train_and_look(*run))  # type: ignore[misc]
        for row in rows:
            found[world].append(row)
            print(
                f"{world:5s} {remedy:16s} {seed:3d} {row['step']:5.0f}  {row['truth']:.2f}  {row['variation']:.2f}  "
                f"{row['width']:.2f}  {row['far']:.2f}   {row['score']:.2f}  [{row['low']:.2f}, {row['high']:.2f}]  "
                f"{row['off_manifold']:.2f}  {verdict(row)}",
                flush=True,
            )
    everything = [row for rows in found.values() for row in rows]
    for title, rows in (*found.items(), ("all", everything)):
        near = [row for row in rows if row["far"] <= 0.5]
        for part, name in ((near, "with modes"), ([row for row in rows if row["far"] > 0.5], "without modes")):
            if len(part) > 2:
                summarize(part, f"{title}, {name}")
    return everything


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", default="", help="runs whose name contains this, such as 'ring wgan-gp'")
    parser.add_argument("--keep", metavar="FILE", help="write every run's results here at once, and resume from it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.monotonic()
    run(options)
    print(f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
