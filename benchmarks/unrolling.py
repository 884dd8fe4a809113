"""Cost of unrolling K steps relative to its parts and to the `higher` package, and agreement of the gradients.

    python -m benchmarks unrolling [--rounds 12] [--steps 10]

Parts: K x (forward and double backward of one step of D) + one step of G (generated minibatch, backward, Adam).
Targets: at most 1.3 x, and not slower than `higher` (skipped if not installed); gradient within 1e-5 of its, and of
plain autograd through torch's formula of Adam at the training's own eps. "generic" differentiates with autograd;
"trainer" is what the trainer uses.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import torch  # noqa: E402
from training_step import raced  # noqa: E402

from gandiag.trainer.gan_trainer import GANTrainer, make_trainer  # noqa: E402
from gandiag.trainer.recipes import get_recipe  # noqa: E402
from gandiag.trainer.remedies.registry import get_remedy  # noqa: E402
from gandiag.trainer.remedies.unrolled import unroll_discriminator  # noqa: E402
from gandiag.trainer.toy_data import DATASETS  # noqa: E402
from gandiag.trainer.unrolling.hvp import AutogradGradients  # noqa: E402

WARM = 5  # steps before the gradients are compared
RECIPES = ("metz-appendix", "metz-stacked-quarter", "metz-stacked-half")  # those that the benchmark unrolls


def fresh(name: str, steps: int) -> GANTrainer:
    entry = get_recipe(name)
    return make_trainer(entry, DATASETS.get(entry.dataset)(), get_remedy("unrolled"), seed=0, unroll_steps=steps)


def parts(game: GANTrainer, steps: int) -> Callable[[], None]:
    """The yardstick: what cannot be spared."""
    g, d = game.generator, game.discriminator

    def run() -> None:
        z, real, fake = game._draw_minibatch()
        leaf = fake.detach().requires_grad_()
        for _ in range(steps):
            loss = game._compute_losses(z, real, leaf)[0]
            gradients = torch.autograd.grad(loss, d.parameters, create_graph=True)
            found = torch.autograd.grad(
                gradients,
                [*d.parameters, leaf],
                [entry.detach() for entry in gradients],
                materialize_grads=True,
                allow_unused=True,
            )
        by_g = torch.autograd.grad(fake, g.parameters, found[-1])
        g.step(g.flatten(by_g))

    return run


def by_higher(game: GANTrainer, steps: int) -> Callable[[], torch.Tensor] | None:
    """The same look ahead written with `higher`; the derivative by the generated minibatch."""
    try:
        import higher  # type: ignore[import-not-found]
    except ImportError:
        return None
    d, g = game.discriminator, game.generator
    adam = torch.optim.Adam(d.net.parameters(), lr=d.adam.lr, betas=(d.adam.beta1, d.adam.beta2), eps=d.adam.eps)

    def run() -> torch.Tensor:
        _, real, fake = game._draw_minibatch()
        leaf, real = fake.detach().requires_grad_(), real.to(fake.dtype)
        with higher.innerloop_ctx(d.net, adam, copy_initial_weights=True) as (net, inner):
            for _ in range(steps):
                inner.step(game.setup.loss.discriminator(net(real), net(leaf)))
            (by_fake,) = torch.autograd.grad(game.setup.loss.generator(net(real), net(leaf)), leaf)
        by_g = torch.autograd.grad(fake, g.parameters, by_fake)
        g.step(g.flatten(by_g))
        return torch.as_tensor(by_fake)

    return run


def agreement(name: str, steps: int) -> float | None:
    """Relative difference of our gradient from higher's, at the same start and minibatch, in double precision.

    eps is next to nothing here: higher adds it before the second moment's bias correction, torch and we after it.
    """
    torch.set_default_dtype(torch.float64)
    try:
        game, other = fresh(name, steps), fresh(name, steps)
        for player in (game.discriminator, other.discriminator):
            player.adam = replace(player.adam, eps=1e-30)
        theirs = by_higher(other, steps)
        if theirs is None:
            return None
        found = theirs()
        z, real, fake = game._draw_minibatch()
        leaf, real = fake.detach().requires_grad_(), real.to(fake.dtype)
        slopes = AutogradGradients(game.discriminator, lambda made: game._compute_losses(z, real, made), leaf)
        mine = unroll_discriminator(slopes, game.discriminator.state, steps, game.discriminator.adam).fake_gradient
        return float((mine - found).norm() / found.norm())
    finally:
        torch.set_default_dtype(torch.float32)


def expansion(name: str, steps: int) -> float:
    """Relative difference of the trainer's gradient from plain autograd through the written-out steps, in double
    precision.

    The formula is torch's Adam, eps where torch has it and at the training's own value. D has taken a few steps before:
    at its first one, where every moment is the present gradient, Adam is a sign and eps alone decides what is
    differentiated."""
    torch.set_default_dtype(torch.float64)
    try:
        game = fresh(name, steps)
        d, losses = game.discriminator, game.setup.loss
        for _ in range(WARM):
            game.step()
        _, real, fake = game._draw_minibatch()
        leaf, real = fake.detach().requires_grad_(), real.to(fake.dtype)
        slopes = game._fast_gradients
        assert slopes is not None
        mine = unroll_discriminator(slopes.set_minibatch(real, leaf), d.state, steps, d.adam).fake_gradient
        theta, m, v, t = d.state
        theta = theta.detach().clone().requires_grad_()
        for _ in range(steps):
            with d.swap_parameters(d.unflatten(theta)):
                (g,) = torch.autograd.grad(losses.discriminator(d.net(real), d.net(leaf)), theta, create_graph=True)
            m, v, t = d.adam.beta1 * m + (1 - d.adam.beta1) * g, d.adam.beta2 * v + (1 - d.adam.beta2) * g**2, t + 1
            theta = theta - d.adam.lr * (m / (1 - d.adam.beta1**t)) / ((v / (1 - d.adam.beta2**t)).sqrt() + d.adam.eps)
        with d.swap_parameters(d.unflatten(theta)):
            (found,) = torch.autograd.grad(losses.generator(d.net(real), d.net(leaf)), leaf)
        return float((mine - found).norm() / found.norm())
    finally:
        torch.set_default_dtype(torch.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=10)
    ask = parser.parse_args()
    torch.set_num_threads(1)
    for name in RECIPES:
        generic = fresh(name, ask.steps)
        generic._fast_gradients = None
        yardstick = parts(fresh(name, ask.steps), ask.steps)
        steps: dict[str, Callable[[], object]] = {
            "parts": yardstick,
            "trainer": fresh(name, ask.steps).step,
            "generic": generic.step,
        }
        theirs = by_higher(fresh(name, ask.steps), ask.steps)
        found = raced(steps | ({"higher": theirs} if theirs else {}), ask.rounds)
        ratios = "  ".join(
            f"{kind} {1e3 * seconds:7.1f} ms ({seconds / found['parts']:.2f})" for kind, seconds in found.items()
        )
        gap = agreement(name, ask.steps)
        told = "not installed" if gap is None else f"{gap:.1e}"
        print(
            f"{name:<22}{ratios}  gradient against higher: {told}, against autograd throughout: "
            f"{expansion(name, ask.steps):.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
