"""Cost of gandiag.Monitor, how early it warns and stops, and whether it leaves healthy trainings alone.

    python -m benchmarks monitor [seeds] [--first SEED]

On a ring of eight Gaussians, with the reference trainer. `healthy`: trainings that do not collapse, watched from step
0; none may be called collapsed or stopped. `collapse`: each seed first covers eight modes; then D stops learning, G
follows the remaining gradient, and the modes disappear within a few hundred steps. A stop is in time if it comes before
half of them are gone. Both without a budget, which on steps of milliseconds would leave no time to look. `budget`: a
training with the default budget. Then whether the weights are bit-identical with and without the monitor.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import math
import time
from collections import Counter
from typing import Any

import torch

import gandiag
from gandiag.trainer.gan_trainer import GANTrainer, make_trainer
from gandiag.trainer.recipes import get_recipe
from gandiag.trainer.remedies.registry import REMEDIES
from gandiag.trainer.toy_data import Dataset, GaussianMixture

EVERY, COUNT_EVERY, LEARNED, MOST = 50, 25, 800, 3_000
HEALTHY_STEPS, HEALTHY_EVERY, BUDGET_STEPS = 1_500, 75, 1_500
STD, SLOWER = 0.15, 0.2  # of the modes; of G's learning rate once D stands still
GONE = 0.1  # of its share: a mode with fewer nearest samples is gone


def make_ring() -> Dataset:
    """Eight Gaussians on a circle of radius 2, wide enough that samples pass for real within a thousand steps."""
    angle = 2 * math.pi * torch.arange(8) / 8
    return GaussianMixture(2 * torch.stack([angle.cos(), angle.sin()], 1), STD).to_dataset("ring8")


def game(seed: int, name: str = "metz-appendix", ahead: int = 0) -> GANTrainer:
    return make_trainer(get_recipe(name), make_ring(), REMEDIES.get("none"), seed=seed, unroll_steps=ahead)


def monitor(every: int = EVERY, **settings: Any) -> gandiag.Monitor:
    real = make_ring().draw(512, torch.Generator().manual_seed(100))
    return gandiag.Monitor(**{"real": real, "every": every, "latent_dim": 256, "status": False, "n": 256, **settings})


def modes(made: GANTrainer) -> int:
    """Modes that are there, by whoever knows them."""
    data, samples = make_ring(), made.generate_samples(2_500, seed=7)
    assert data.assign_modes is not None
    return int((torch.bincount(data.assign_modes(samples).mode, minlength=8) >= GONE * len(samples) / 8).sum())


def healthy(seed: int) -> str:
    """A training that does not collapse, from step 0. The control recipe of the unrolling papers."""
    made, watch = game(seed, "metz-notebook"), monitor(HEALTHY_EVERY, budget=None, stop=True)
    stopped = 0
    while made.steps < HEALTHY_STEPS:
        made.step()
        watch(made.steps, made.generator.net)
        stopped = stopped or made.steps * watch.stopped
    return f"seed {seed}: healthy, {modes(made)} modes at the end; {_count_states(watch)}; stopped at {stopped or None}"


def _count_states(watch: gandiag.Monitor) -> str:
    states = Counter(look.state for look in watch.evaluations)
    return ", ".join(f"{count} {state}" for state, count in sorted(states.items()))


def collapse(seed: int) -> str:
    """One run that covers eight modes and then loses them."""
    made, watch = game(seed, "metz-notebook"), monitor(budget=None, stop=True)
    frozen = lost = stopped = 0
    while made.steps < MOST and not lost:
        made.step()
        watch(made.steps, made.generator.net)
        stopped = stopped or made.steps * watch.stopped
        if made.steps % COUNT_EVERY == 0 and made.steps >= LEARNED:
            count = modes(made)
            if not frozen and count == 8:
                frozen, adam = made.steps, made.generator.adam
                made.discriminator.adam = dataclasses.replace(made.discriminator.adam, lr=0.0)
                made.generator.adam = dataclasses.replace(adam, lr=SLOWER * adam.lr)
            lost = made.steps if frozen and count <= 4 else 0
    warnings = [look.step for look in watch.evaluations if look.is_alarm and look.step > frozen]
    early = sum(look.is_alarm for look in watch.evaluations if look.step <= frozen)
    told = "in time" if stopped and stopped <= lost else "LATE"
    return (
        f"seed {seed}: collapse, eight modes until {frozen}, half gone at {lost}, first warning at "
        f"{warnings[0] if warnings else None}, stopped at {stopped or None}: {told}; {early} warnings before"
    )


def budget(seed: int) -> str:
    """The default budget on steps of milliseconds: few looks, and none that does not fit."""
    made, status = game(seed), io.StringIO()
    watch = monitor(status=status)
    start = time.perf_counter()
    while made.steps < BUDGET_STEPS:
        made.step()
        watch(made.steps, made.generator.net)
    seconds = time.perf_counter() - start
    looks = sum(look.seconds for look in watch.evaluations)
    share = 100 * looks / (seconds - looks - watch.time_budget.setup_seconds)
    return (
        f"seed {seed}: budget, {BUDGET_STEPS} steps in {seconds:.1f} s, "
        f"set-up {watch.time_budget.setup_seconds:.1f} s, "
        f"{len(watch.evaluations)} looks, {share:.2f} % of the training time\n{status.getvalue()}"
    ).rstrip()


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
    parser.add_argument("seeds", nargs="?", type=int, default=3)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    for seed in range(options.first, options.first + options.seeds):
        for study in (healthy, collapse, budget):
            print(study(seed), flush=True)
    print("weights identical to the bit:", identical(options.first))
