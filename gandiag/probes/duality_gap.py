"""Minimax or maximin? What each player could still gain while the other stands still, and where a frozen D drives G.

With M(G, D) = E log D(x) + E log(1 - D(G(z))), which D raises and G lowers, the value of the game lies between

    lower = min over G' of M(G', D)   <=   max min M  <=  min max M   <=   upper = max over D' of M(G, D')

and upper - lower, the duality gap, is 0 at an equilibrium and nowhere else (Grnarova et al. 2019, arXiv:1811.05512). The G' of the lower
bound is the maximin player: against a D that does not answer it is best to put every z where D is surest (Goodfellow 2016,
arXiv:1701.00160, section 5.1.1); only a D that answers keeps G from it. G' stays inside a box, since the theorem is one of compact sets.
Evidence on the dynamics: neither necessary nor sufficient for collapse.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from gandiag.interfaces import Estimate
from gandiag.probes.best_response import BestResponse, best_response
from gandiag.sampling.module_state import isolated_rng

MIN_REAL_SAMPLES = 32  # real samples in each of the three parts
BOX_MARGIN = 0.1  # of the box of real and generated samples, on each side
GAIN_FRACTION = 0.95  # of its gain, after which the maximin player is looked at
DUPLICATE_DISTANCE = 0.1  # of the mean distance between real samples: closer outputs count as one
CHANCE_PAYOFF = -2 * math.log(2)  # of M where D knows nothing
_NOTHING = Estimate(0.0, 0.0, 0.0)
_CHOOSE, _JUDGE = 1 << 30, 1 << 31  # numbers of the latents held out


@dataclass(frozen=True, slots=True)
class GamePlayers:
    """The two networks, in eval mode, and how they are called.

    `make(module, i)`: samples (B, *shape) of the generator `module` for latents number i (B,). `discriminator`: (B, *shape) to logits
    (B,), or fewer where it judges packs. `loss`: bce, relativistic or wasserstein. `span`: the range of every output value, if declared.
    """

    generator: nn.Module
    sample_fn: Callable[[nn.Module, Tensor], Tensor]
    discriminator: nn.Module
    loss: str = "bce"
    value_range: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class SearchBudget:
    """`steps` of each search on minibatches of `batch`; at most `held` samples held out in each part."""

    steps: int = 200
    batch_size: int = 128
    max_held_out: int = 400


@dataclass(frozen=True, slots=True)
class HeldOutOutputs:
    """Held-out outputs at one moment of a search. `terms` (N,): what the player wants, of each pair.

    `spread`: mean distance between two outputs; `outputs`: how many they amount to, 1 to the number held out.
    """

    payoffs: Tensor
    mean_distance: Estimate = _NOTHING
    effective_outputs: Estimate = _NOTHING

    @property
    def value(self) -> float:
        """The mean of the terms."""
        return float(self.payoffs.mean())


@dataclass(frozen=True, slots=True)
class DualityGapResult:
    """What was found. Values in nats, None for a loss without bounds; `gain`: what G' takes from the present D, in D's own units there.

    `before`, `after`: held-out outputs of G, and of the maximin player where it has taken its gain; `path`: its whole way by step.
    `rates`: Adam's step sizes, 0 where nothing was gained. `n`: held-out pairs that the values stand on. `floor`: the gap between real
    samples in G's place and the same D.
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
    """Both bounds on the value of the game, the gap between them, and how far the maximin player's outputs contract.

    real: (N, *shape) as D saw them, N >= 96; a third each, at most, is learnt from, chosen by and judged by. The networks are copied:
    weights, flags and the global random numbers stay as they are. Intervals (95 %) are over held-out samples. The searches are finite:
    upper reads low, lower reads high, the gap low. ValueError for too few samples. Cost: 1.75 × steps of G, and twice as many of D.
    """
    ask = budget or SearchBudget()
    parts = _split(real, ask, seed)
    with isolated_rng(seed):
        game = _Game(players, parts, _box(players, parts))
        return _played(game, ask, seed)


def _played(game: _Game, ask: SearchBudget, seed: int) -> DualityGapResult:
    players, judged = game.players, game.parts.judge
    maximin = game.descend(players.discriminator, ask.steps, seed)
    before, after = maximin.history[0][1], _taken(maximin)
    with torch.no_grad():
        fake = players.sample_fn(players.generator, game.latents(_JUDGE))
        present = compute_payoffs(players.loss, players.discriminator(judged), players.discriminator(fake))
        low = compute_payoffs(
            players.loss, players.discriminator(judged), players.discriminator(game.moved(maximin.module, _JUDGE))
        )
    gain, rates, n = estimate_mean(present - low), {"generator": maximin.learning_rate}, len(present)
    if players.loss == "wasserstein":
        return DualityGapResult(None, None, None, None, gain, before, after, maximin.history, rates, n)
    worst = game.climb(ask.steps, seed)
    with torch.no_grad():
        high = compute_payoffs(players.loss, worst.module(judged), worst.module(fake))
    floor = _of_real(game, ask, seed) - float(low.mean())
    return DualityGapResult(
        estimate_mean(present),
        estimate_mean(high),
        estimate_mean(low),
        estimate_mean(high - low),
        gain,
        before,
        after,
        maximin.history,
        {**rates, "discriminator": worst.learning_rate},
        n,
        floor,
    )


def _of_real(game: _Game, ask: SearchBudget, seed: int) -> float:
    """The upper bound where real samples stand in for the generator's."""
    blind = game.climb(ask.steps, seed, real_for_fake=True).module
    one, other = game.parts.judge.chunk(2)
    with torch.no_grad():
        return float(compute_payoffs(game.players.loss, blind(one), blind(other)).mean())


def _taken(found: BestResponse[HeldOutOutputs]) -> HeldOutOutputs:
    """The first moment at which the gain is nearly taken: where D is flat there is nothing to take, and G stays."""
    start, top = found.history[0][1].value, found.best.value
    return next(seen for _, seen in found.history if seen.value >= start + GAIN_FRACTION * (top - start))


def compute_payoffs(loss: str, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """M's terms, (B,), of paired logits (B,) of real and generated samples. Nats; for wasserstein the critic's own units."""
    if loss == "relativistic":
        return logsigmoid(real_logits - fake_logits)
    return real_logits - fake_logits if loss == "wasserstein" else logsigmoid(real_logits) + logsigmoid(-fake_logits)


def generator_loss(loss: str, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """G's loss, a scalar: the non-saturating one, which has its minimum where M has and a gradient where D is sure."""
    if loss == "relativistic":
        return softplus(real_logits - fake_logits).mean()
    return -fake_logits.mean() if loss == "wasserstein" else softplus(-fake_logits).mean()


def estimate_mean(values: Tensor) -> Estimate:
    """Mean and 95 % interval of values (N,)."""
    mean, error = float(values.mean()), _error(values)
    return Estimate(mean, mean - 1.96 * error, mean + 1.96 * error)


def _error(values: Tensor) -> float:
    return float(values.double().std()) / math.sqrt(len(values))


def output_diversity(outputs: Tensor, duplicate_distance: float) -> tuple[Estimate, Estimate]:
    """Mean distance between two of the outputs x (N, D), and how many outputs they amount to.

    The latter is 1 / mean of exp(-d² / 2 near²) over all pairs, a point with itself included: K for K equally frequent outputs, at most N.
    Intervals from the rows' means, twice their standard error, since each pair stands in two rows.
    """
    n = len(outputs)
    distance = torch.cdist(outputs.flatten(1), outputs.flatten(1))  # (N, N)
    alike = torch.exp(-distance.square() / (2 * duplicate_distance * duplicate_distance)).mean(1).double()  # (N,)
    apart = distance.sum(1).double() / (n - 1)  # (N,)
    share, error = float(alike.mean()), 2 * 1.96 * _error(alike)
    most = Estimate(1 / share, 1 / min(1.0, share + error), min(float(n), 1 / max(share - error, 1e-12)))
    mean, error = float(apart.mean()), 2 * 1.96 * _error(apart)
    return Estimate(mean, max(0.0, mean - error), mean + error), most


@dataclass(frozen=True, slots=True)
class _Parts:
    """Real samples to learn from, to choose by and to judge by."""

    learn: Tensor
    choose: Tensor
    judge: Tensor
    batch: int

    def minibatch(self, k: int, of: Tensor) -> Tensor:
        """Samples of step k, (batch, *shape), in turn."""
        rows = torch.arange(k * self.batch, (k + 1) * self.batch, device=of.device) % len(of)
        return of[rows]


def _split(real: Tensor, ask: SearchBudget, seed: int) -> _Parts:
    third = len(real) // 3
    if third < MIN_REAL_SAMPLES:
        raise ValueError(f"{len(real)} real samples are too few: {3 * MIN_REAL_SAMPLES} are needed")
    held = min(third, ask.max_held_out) // 4 * 4  # halves of it fill packs of two
    mixed = real[torch.randperm(len(real), generator=torch.Generator().manual_seed(seed)).to(real.device)]
    return _Parts(mixed[2 * held :], mixed[:held], mixed[held : 2 * held], ask.batch_size)


def _box(players: GamePlayers, parts: _Parts) -> tuple[Tensor, Tensor]:
    """Where G' may go: the declared range, else the box of the real and the present samples with a margin."""
    with torch.no_grad():
        both = torch.cat(
            [parts.choose, players.sample_fn(players.generator, torch.arange(_CHOOSE, _CHOOSE + len(parts.choose)))]
        )
    low, high = both.amin(0), both.amax(0)  # (*shape)
    if players.value_range is not None:
        return low.clamp_max(players.value_range[0]).amin(), high.clamp_min(players.value_range[1]).amax()
    return low - BOX_MARGIN * (high - low), high + BOX_MARGIN * (high - low)


class _Game:
    """The players on their samples: the two searches."""

    def __init__(self, players: GamePlayers, parts: _Parts, box: tuple[Tensor, Tensor]) -> None:
        self.players, self.parts, self.box = players, parts, box
        chosen = parts.choose.flatten(1)
        self.near = DUPLICATE_DISTANCE * float(torch.cdist(chosen, chosen).sum()) / (len(chosen) * (len(chosen) - 1))

    def latents(self, start: int) -> Tensor:
        """Numbers of the latents held out, as many as real samples."""
        return torch.arange(start, start + len(self.parts.choose))

    def moved(self, module: nn.Module, start: int) -> Tensor:
        """Held-out samples of a G', inside the box."""
        return self._inside(self.players.sample_fn(module, self.latents(start)))

    def descend(self, judge: nn.Module, steps: int, seed: int) -> BestResponse[HeldOutOutputs]:
        """G's search against a D that stands still: the maximin player."""
        with torch.no_grad():
            chosen = judge(self.parts.choose)
        return best_response(
            self.players.generator,
            partial(self._pull, judge),
            partial(self._seen, judge, chosen),
            steps=steps,
            seed=seed,
        )

    def climb(self, steps: int, seed: int, *, real_for_fake: bool = False) -> BestResponse[HeldOutOutputs]:
        """D's search against the present G, or against real samples in its place."""
        with torch.no_grad():
            fake = None if real_for_fake else self.players.sample_fn(self.players.generator, self.latents(_CHOOSE))
        return best_response(
            self.players.discriminator,
            partial(self._tell, real_for_fake),
            partial(self._told, fake),
            steps=steps,
            seed=seed,
        )

    def _inside(self, x: Tensor) -> Tensor:
        return torch.maximum(torch.minimum(x, self.box[1]), self.box[0])

    def _made(self, module: nn.Module, k: int) -> Tensor:
        return self.players.sample_fn(module, torch.arange(k * self.parts.batch, (k + 1) * self.parts.batch))

    def _pull(self, judge: nn.Module, generator: nn.Module, k: int) -> Tensor:
        fake = judge(self._inside(self._made(generator, k)))
        with torch.no_grad():
            real = judge(self.parts.minibatch(k, self.parts.learn)) if self.players.loss == "relativistic" else fake
        return generator_loss(self.players.loss, real, fake)

    def _seen(self, judge: nn.Module, chosen: Tensor, generator: nn.Module) -> HeldOutOutputs:
        made = self.moved(generator, _CHOOSE)
        return HeldOutOutputs(
            -compute_payoffs(self.players.loss, chosen, judge(made)), *output_diversity(made, self.near)
        )

    def _tell(self, real_for_fake: bool, judge: nn.Module, k: int) -> Tensor:
        if real_for_fake:
            one, other = self.parts.learn.chunk(2)
            return -compute_payoffs(
                self.players.loss, judge(self.parts.minibatch(k, one)), judge(self.parts.minibatch(k, other))
            ).mean()
        with torch.no_grad():
            fake = self._made(self.players.generator, k)
        return -compute_payoffs(self.players.loss, judge(self.parts.minibatch(k, self.parts.learn)), judge(fake)).mean()

    def _told(self, fake: Tensor | None, judge: nn.Module) -> HeldOutOutputs:
        real = self.parts.choose
        return HeldOutOutputs(
            compute_payoffs(
                self.players.loss, *(judge(part) for part in ((real, fake) if fake is not None else real.chunk(2)))
            )
        )
