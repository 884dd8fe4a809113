"""Cost of gandiag.Monitor and how early it warns, on the reference trainer's ring of eight Gaussians.

    python -m benchmarks monitor [seeds]

Each seed first covers eight modes; then D stops learning, G follows the remaining gradient, and the modes disappear
within a few hundred steps. A warning is early if it comes before half of them are gone. Then a vanilla ring, whose
collapse the first evaluation must report, and whether the weights are bit-identical with and without the monitor.
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

import torch

import gandiag
from gandiag.trainer.gan_trainer import GANTrainer, make_trainer
from gandiag.trainer.recipes import get_recipe
from gandiag.trainer.remedies.registry import REMEDIES
from gandiag.trainer.toy_data import make_ring8

EVERY, COUNT_EVERY, LEARNED, MOST = 50, 25, 1_000, 4_000
GONE = 0.1  # of its share: a mode with fewer nearest samples is gone


def game(seed: int, name: str = "metz-appendix", ahead: int = 0) -> GANTrainer:
    return make_trainer(get_recipe(name), make_ring8(), REMEDIES.get("none"), seed=seed, unroll_steps=ahead)


def monitor(every: int = EVERY, **settings: Any) -> gandiag.Monitor:
    real = make_ring8().draw(2_048, torch.Generator().manual_seed(100))
    return gandiag.Monitor(real=real, every=every, latent_dim=256, status=False, **settings)


def modes(made: GANTrainer) -> int:
    """Modes that are there, by whoever knows them."""
    data, samples = make_ring8(), made.generate_samples(2_500, seed=7)
    assert data.assign_modes is not None
    return int((torch.bincount(data.assign_modes(samples).mode, minlength=8) >= GONE * len(samples) / 8).sum())


def collapse(seed: int) -> str:
    """One run that covers eight modes and then loses them."""
    made, watch = game(seed, "metz-notebook"), monitor()
    frozen = lost = 0
    while made.steps < MOST and not lost:
        made.step()
        watch(made.steps, made.generator.net)
        if made.steps % COUNT_EVERY == 0 and made.steps >= LEARNED:
            start = watch.time_budget.clock()
            count = modes(made)
            watch.time_budget.exclude(watch.time_budget.clock() - start)  # counting is not training
            if not frozen and count == 8:
                frozen, made.discriminator.adam = made.steps, dataclasses.replace(made.discriminator.adam, lr=0.0)
            lost = made.steps if frozen and count <= 4 else 0
    warnings = [look.step for look in watch.evaluations if look.is_alarm and look.step > frozen]
    first = warnings[0] if warnings else None
    before = sum(look.is_alarm for look in watch.evaluations if LEARNED <= look.step <= frozen)
    told = "early" if first is not None and first <= lost else "LATE"
    return (
        f"seed {seed}: eight modes until {frozen}, half gone at {lost}, first warning at {first}: {told}; "
        f"{before} warnings between "
        f"{LEARNED} and {frozen}; {len(watch.evaluations)} looks, overhead {100 * watch.overhead:.2f} %"
    )


def vanilla(seed: int) -> str:
    made, watch = game(seed), monitor(every=250)
    while not watch.evaluations:
        made.step()
        watch(made.steps, made.generator.net)
    return f"seed {seed}: vanilla, first look: {watch.evaluations[0]}; modes: {modes(made)}"


def identical(seed: int, steps: int = 300) -> bool:
    """The weights after some steps, with and without a monitor that looks as often as it can."""
    weights = []
    for watched in (False, True):
        made, watch = game(seed, ahead=5), monitor(budget=None)
        for _ in range(steps):
            made.step()
            if watched:
                watch(made.steps, made.generator.net)
        weights.append(
            torch.cat(
                [
                    entry.detach().flatten()
                    for net in (made.generator.net, made.discriminator.net)
                    for entry in net.state_dict().values()
                ]
            )
        )
    return torch.equal(*weights)


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", nargs="?", type=int, default=5)
    for seed in range(parser.parse_args().seeds):
        print(collapse(seed), flush=True)
        print(vanilla(seed), flush=True)
    print("weights identical to the bit:", identical(0))
