"""Measures the duality gap: what each player could still gain against a fixed opponent, and where a frozen D drives G.

With M(G, D) = E log D(x) + E log(1 - D(G(z))), which D raises and G lowers, the value of the game lies between

    lower = min over G' of M(G', D)   <=   max min M  <=  min max M   <=   upper = max over D' of M(G, D')

and upper - lower, the duality gap, is 0 at an equilibrium and nowhere else (Grnarova et al. 2019, arXiv:1811.05512).
The G' of the lower bound is the maximin player: against a D that does not respond, the best it can do is map every z to
where D is most certain (Goodfellow 2016, arXiv:1701.00160, section 5.1.1); only a D that responds prevents that. G'
stays inside a box, since the theorem is about compact sets. Evidence on the dynamics: neither necessary nor sufficient
for collapse.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gandiag.interfaces import Estimate
from gandiag.probes.best_response import BestResponse
from gandiag.probes.game import (
    Game,
    GamePlayers,
    HeldOutOutputs,
    SearchBudget,
    compute_payoffs,
    estimate_mean,
    split_real,
)
from gandiag.sampling.module_state import isolated_rng

GAIN_FRACTION = 0.95  # of its gain, at which the maximin player is examined
CHANCE_PAYOFF = -2 * math.log(2)  # of M where D cannot tell real from fake


@dataclass(frozen=True, slots=True)
class DualityGapResult:
    """Bounds, gap and the maximin player's path. Values in nats, None for a loss without bounds.

    `gain`: what G' takes from the present D, in D's own units there. `before`, `after`: held-out outputs of G, and of
    the maximin player once it has most of its gain; `history`: its whole path by step. `learning_rates`: Adam's, 0
    where nothing was gained. `n_held_out`: held-out pairs that the values are averages over. `floor`: the gap between
    real samples in G's place and the same D.
    """

    value: Estimate | None
    upper: Estimate | None
    lower: Estimate | None
    gap: Estimate | None
    gain: Estimate
    before: HeldOutOutputs
    after: HeldOutOutputs
    history: tuple[tuple[int, HeldOutOutputs], ...]
    learning_rates: Mapping[str, float]
    n_held_out: int
    floor: float | None = None


def duality_gap(
    players: GamePlayers, real: Tensor, *, budget: SearchBudget | None = None, seed: int = 0
) -> DualityGapResult:
    """Bound the value of the game from both sides and follow the maximin player.

    real: (N, *shape) as D saw them, N >= 96; at most a third each is used for selection and for evaluation, the rest
    for learning. The networks are copied: weights, flags and the global random state do not change. Intervals (95 %)
    are over held-out samples. The searches are finite: upper reads low, lower reads high, the gap low. ValueError for
    too few samples. Cost: 1.75 x steps of G, and twice as many of D.
    """
    budget = budget or SearchBudget()
    parts = split_real(real, budget, seed)
    with isolated_rng(seed):
        return _play(Game(players, parts), budget.steps, seed)


def _play(game: Game, steps: int, seed: int) -> DualityGapResult:
    players, real = game.players, game.parts.evaluation
    maximin = game.search_generator(players.discriminator, steps, seed)
    with torch.no_grad():
        fake = game.sample_evaluation(players.generator)
        real_logits = players.discriminator(real)
        present = compute_payoffs(players.loss, real_logits, players.discriminator(fake))
        maximin_logits = players.discriminator(game.sample_evaluation_in_box(maximin.module))
        lower = compute_payoffs(players.loss, real_logits, maximin_logits)
    bounds: dict[str, Estimate] = {}
    floor = None
    learning_rates = {"generator": maximin.learning_rate}
    if players.loss != "wasserstein":
        best = game.search_discriminator(steps, seed)
        with torch.no_grad():
            upper = compute_payoffs(players.loss, best.module(real), best.module(fake))
        floor = _real_upper_bound(game, steps, seed) - float(lower.mean())
        terms = {"value": present, "upper": upper, "lower": lower, "gap": upper - lower}
        bounds = {name: estimate_mean(values) for name, values in terms.items()}
        learning_rates["discriminator"] = best.learning_rate
    return DualityGapResult(
        value=bounds.get("value"),
        upper=bounds.get("upper"),
        lower=bounds.get("lower"),
        gap=bounds.get("gap"),
        gain=estimate_mean(present - lower),
        before=maximin.history[0][1],
        after=_outputs_after_gain(maximin),
        history=maximin.history,
        learning_rates=learning_rates,
        n_held_out=len(present),
        floor=floor,
    )


def _real_upper_bound(game: Game, steps: int, seed: int) -> float:
    """The upper bound with real samples in the generator's place."""
    discriminator = game.search_discriminator(steps, seed, real_for_fake=True).module
    real_half, fake_half = game.parts.evaluation.chunk(2)
    with torch.no_grad():
        return float(compute_payoffs(game.players.loss, discriminator(real_half), discriminator(fake_half)).mean())


def _outputs_after_gain(maximin: BestResponse[HeldOutOutputs]) -> HeldOutOutputs:
    """Held-out outputs at the first step with most of the gain; those of step 0 where D is flat and there is none."""
    start, best = maximin.history[0][1].value, maximin.best.value
    target = start + GAIN_FRACTION * (best - start)
    return next(outputs for _, outputs in maximin.history if outputs.value >= target)
