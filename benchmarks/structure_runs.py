"""structure_gap of the reference trainer's runs on digits and stacked digits: minibatch features beside none.

    python -m benchmarks structure-runs                                # seed 0
    python -m benchmarks structure-runs --first-seed 50 --keep FILE    # resumes from FILE

Digits are enlarged from 8 to 32 pixels, real and generated ones alike, since patches of a quarter of the side need
them. Beside the runs stand real digits as they are, blurred, noisy, and with their quarters
swapped: only the last are right parts in a wrong whole.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
from digit_generators import make_short_recipe
from kept_results import KeptResults
from torch import Tensor
from torch.nn import functional as F

from gandiag.interfaces import OutputSpec
from gandiag.metrics.structure_gap import Structure
from gandiag.stats.subset import SampleSubset, SubsetSpec
from gandiag.trainer.gan_trainer import make_trainer
from gandiag.trainer.image_data import load_digit_images
from gandiag.trainer.remedies.registry import get_remedy
from gandiag.trainer.toy_data import DATASETS, Dataset

N = 300
SIDE = 32
STEPS = {"digits": 2500, "stacked-digits": 2500}
REMEDIES = ("none", "minibatch", "minibatch-stddev")
Damage = Callable[[Tensor, torch.Generator], Tensor]
Row = dict[str, float | str | None]
DAMAGE: dict[str, Damage] = {
    "real": lambda images, rng: images,
    "real, blurred": lambda images, rng: F.avg_pool2d(images, 5, 1, 2),
    "real, noise": lambda images, rng: images + 0.2 * torch.randn(images.shape, generator=rng),
    "real, quarters swapped": lambda images, rng: images.roll((SIDE // 2, SIDE // 2), (2, 3)),
}


def enlarge(images: Tensor) -> Tensor:
    return F.interpolate(images, size=(SIDE, SIDE), mode="bilinear", align_corners=False)


def measure(real: Tensor, fake: Tensor) -> Row:
    """The gap and its parts of images in [-1, 1]."""
    metric = Structure(N, OutputSpec("image", tuple(fake.shape[1:]), (-1.0, 1.0)))
    sets = {"real": (real, 2 * N), "fake": (fake, N)}
    results = {
        role: {SubsetSpec("samples", k): SampleSubset(images, torch.arange(len(images)), None)}
        for role, (images, k) in sets.items()
    }
    found = metric.measure(results).measurements
    gap = found["structure_gap"]
    if gap.value is None:
        return {"gap": None, "reason": gap.reason}
    return {
        "gap": gap.value,
        "low": gap.low,
        "high": gap.high,
        "floor": gap.floor,
        "wholes": found["unreal_wholes"].value,
        "patches": found["patch_distance"].value,
    }


def real_digits(dataset: Dataset, n: int, seed: int) -> Tensor:
    """Enlarged real images; single digits without replacement, so that no image stands on both sides."""
    rng = torch.Generator().manual_seed(seed)
    if dataset.name != "digits":
        return enlarge(dataset.draw(n, rng))
    images = load_digit_images()[0]
    return enlarge(images[torch.randperm(len(images), generator=rng)[:n]])


def run_of(dataset: Dataset, remedy: str, seed: int) -> Row:
    """Trains with one remedy and measures."""
    trainer = make_trainer(make_short_recipe(), dataset, get_remedy(remedy), seed=seed, unroll_steps=0)
    while trainer.steps < STEPS[dataset.name]:
        trainer.step()
    return measure(real_digits(dataset, 2 * N, seed), enlarge(trainer.generate_samples(N, 5_000 + seed)))


def damaged(dataset: Dataset, name: str, seed: int) -> Row:
    images = real_digits(dataset, 3 * N, seed)
    rng = torch.Generator().manual_seed(seed)
    return measure(images[: 2 * N], DAMAGE[name](images[2 * N :], rng).clamp(-1, 1))


def run(options: argparse.Namespace) -> None:
    kept = KeptResults(options.keep)
    print("images           generator                seed   gap   interval        floor   wholes  patches")
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for name in STEPS:
            dataset = DATASETS.get(name)()
            jobs: dict[str, Callable[[], Row]] = {kind: partial(damaged, dataset, kind, seed) for kind in DAMAGE}
            jobs |= {remedy: partial(run_of, dataset, remedy, seed) for remedy in REMEDIES}
            for kind, job in jobs.items():
                row = kept.get(f"{name} {kind} {seed}", job)
                cells = (
                    row["reason"]
                    if row["gap"] is None
                    else f"{row['gap']:5.2f}  [{row['low']:5.2f}, {row['high']:5.2f}]  {row['floor']:5.2f}   "
                    f"{row['wholes']:.2f}    {row['patches']:.2f}"
                )
                print(f"{name:16s} {kind:24s} {seed:4d}  {cells}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--keep", metavar="FILE", help="write every result here at once, and resume from it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.monotonic()
    run(options)
    print(f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
