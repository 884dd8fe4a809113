"""What gandiag.Monitor costs, and how early it warns, on the reference trainer's ring of eight Gaussians.

    python benchmarks/monitor.py [seeds] [state.pt]

state.pt, from a folder of `gandiag train ring8 --remedy unrolled`, saves the first half: every seed then goes on from there with
minibatches of its own. Otherwise each seed trains with a look-ahead of 10 until eight modes are covered, then with none, until four
or fewer are left. The warning
is early if it comes while more than half of the modes are there. Then the overhead against the budget, and whether the weights
are the same to the bit with and without the monitor; then vanilla rings, whose collapse the first look must report.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from typing import Any

import torch

import gandiag
from gandiag.reference.coverage import coverage
from gandiag.reference.data import ring8
from gandiag.reference.game import Game, make_game
from gandiag.reference.objectives.remedies import REMEDIES
from gandiag.reference.recipes import recipe

EVERY, COUNT_EVERY, MOST = 250, 125, 25_000


def game(seed: int, ahead: int) -> Game:
    return make_game(recipe("metz-appendix"), ring8(), REMEDIES.get("none"), seed=seed, ahead=ahead)


def monitor(seed: int = 1, **settings: Any) -> gandiag.Monitor:
    real = ring8().draw(2_048, torch.Generator().manual_seed(99 + seed))
    return gandiag.Monitor(real=real, every=EVERY, latent_dim=256, status=False, **settings)


def modes(made: Game) -> int:
    found = coverage(ring8(), made.sample(2_500, seed=7))
    return 0 if found is None else found.modes


def collapse(seed: int, state: str | None) -> str:
    """One run that covers eight modes and then loses them."""
    made, watch = game(seed, 10), monitor()
    if state is not None:
        made.restore(torch.load(state, weights_only=True))
        made.rng.manual_seed(seed)
    begun = made.steps
    start, watched = time.perf_counter(), 0.0
    covered_at = lost_at = warned_at = None
    while made.steps < begun + MOST:
        made.step()
        watch(made.steps, made.generator.net)
        if warned_at is None and covered_at is not None and watch.looks and watch.looks[-1].step > covered_at and watch.looks[-1].alarming:
            warned_at = watch.looks[-1].step
        if made.steps % COUNT_EVERY == 0:
            tick = time.perf_counter()
            count = modes(made)
            watched += time.perf_counter() - tick
            if covered_at is None and count == 8 and made.steps >= begun + 4 * EVERY:
                covered_at, made.rules = made.steps, dataclasses.replace(made.rules, ahead=0)
            elif covered_at is not None and count <= 4:
                lost_at = made.steps
                break
    seconds = time.perf_counter() - start - watched
    early = warned_at is not None and (lost_at is None or warned_at <= lost_at)
    return (f"seed {seed}: eight modes at {covered_at}, half gone at {lost_at}, first warning at {warned_at}: {'early' if early else 'LATE'}; "
            f"{len(watch.looks)} looks, {seconds:.0f} s, overhead {100 * watch.overhead:.2f} %")  # fmt: skip


def vanilla(seed: int) -> str:
    made, watch = game(seed, 0), monitor()
    while not watch.looks:
        made.step()
        watch(made.steps, made.generator.net)
    return f"seed {seed}: first look: {watch.looks[0]}; modes by the reader: {modes(made)}"


def identical(seed: int, steps: int = 1_000) -> bool:
    """The weights after some steps, with and without a monitor that looks as often as it can."""
    weights = []
    for watched in (False, True):
        made, watch = game(seed, 5), monitor(budget=None)
        for _ in range(steps):
            made.step()
            if watched:
                watch(made.steps, made.generator.net)
        weights.append(torch.cat([entry.detach().flatten() for net in (made.generator.net, made.discriminator.net) for entry in net.state_dict().values()]))
    return torch.equal(*weights)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for seed in range(int(sys.argv[1]) if len(sys.argv) > 1 else 5):
        print(collapse(seed, sys.argv[2] if len(sys.argv) > 2 else None), flush=True)
        print(vanilla(seed), flush=True)
    print("weights identical to the bit:", identical(0))
