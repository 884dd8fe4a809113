"""Cost of a vanilla step of the reference trainer relative to a bare PyTorch loop of the same networks.

    python -m benchmarks training-step [--rounds 40]

The bare loop has the same modules, batch and latents, `binary_cross_entropy_with_logits` and `torch.optim.Adam`.
Target: at most 1.15. Rounds alternate; medians are compared.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch.nn.functional import binary_cross_entropy_with_logits as bce  # noqa: E402

from gandiag.trainer.gan_trainer import GANTrainer, make_trainer  # noqa: E402
from gandiag.trainer.recipes import get_recipe, load_recipes  # noqa: E402
from gandiag.trainer.remedies.registry import get_remedy  # noqa: E402
from gandiag.trainer.toy_data import DATASETS  # noqa: E402

STEPS = 2


def bare(name: str) -> Callable[[], None]:
    """One step of D, then one of G, from one generated minibatch."""
    game = fresh(name)
    g, d, rng = game.generator.net, game.discriminator.net, torch.Generator().manual_seed(0)
    adams = [
        torch.optim.Adam(list(player.net.parameters()), lr=player.adam.lr, betas=(player.adam.beta1, player.adam.beta2))
        for player in sides(game)
    ]
    size, draw, latent = game.setup.batch_size, game.setup.data.draw, game.setup.latent.dim
    one, zero = torch.ones(size, 1), torch.zeros(size, 1)
    sign = -1.0 if get_recipe(name).loss == "minimax" else 1.0

    def step() -> None:
        fake = g(torch.randn(size, latent, generator=rng))
        loss_d = bce(d(draw(size, rng)), one) + bce(d(fake.detach()), zero)
        adams[1].zero_grad()
        loss_d.backward()
        adams[1].step()
        loss_g = sign * bce(d(fake), zero if sign < 0 else one)
        adams[0].zero_grad()
        loss_g.backward()
        adams[0].step()

    return step


def fresh(name: str) -> GANTrainer:
    entry = get_recipe(name)
    return make_trainer(entry, DATASETS.get(entry.dataset)(), get_remedy("none"), seed=0, unroll_steps=0)


def sides(game: GANTrainer) -> list:  # type: ignore[type-arg]
    return [game.generator, game.discriminator]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    ask = parser.parse_args()
    torch.set_num_threads(1)
    for name in load_recipes():
        if get_recipe(name).dataset not in ("ring8", "stacked-digits"):
            continue
        found = raced({"bare": bare(name), "trainer": fresh(name).step}, ask.rounds)
        ratios = "  ".join(
            f"{kind} {1e3 * seconds:6.2f} ms ({seconds / found['bare']:.2f})" for kind, seconds in found.items()
        )
        print(f"{name:<22}{ratios}", flush=True)


def raced(steps: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds a step, rounds in turn."""
    times: dict[str, list[float]] = {kind: [] for kind in steps}
    for turn in range(rounds + 1):
        for kind, step in steps.items():
            start = time.perf_counter()
            for _ in range(STEPS):
                step()
            if turn:
                times[kind].append((time.perf_counter() - start) / STEPS)
    return {kind: statistics.median(found) for kind, found in times.items()}


if __name__ == "__main__":
    main()
