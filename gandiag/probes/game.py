"""The two-player game on samples: payoffs, output diversity, and each player's search against a fixed opponent."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from gandiag.interfaces import Estimate
from gandiag.probes.best_response import BestResponse, best_response

MIN_PART_SIZE = 32  # real samples in each of the three parts
MIN_REAL_SAMPLES = 3 * MIN_PART_SIZE
BOX_MARGIN = 0.1  # of the box around real and generated samples, at each end
DUPLICATE_DISTANCE = 0.1  # of the mean distance between real samples: closer outputs count as one
HELD_OUT_START = 1 << 30  # latent numbers from here on are held out
_EVALUATION_START = 1 << 31  # and from here on they serve for evaluation, not for selection
_ZERO = Estimate(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class GamePlayers:
    """The two networks, in eval mode, and how they are called.

    `sample_fn(module, i)`: samples (B, *shape) of the generator `module` for the latents numbered i (B,).
    `discriminator`: (B, *shape) to logits (B,), or fewer where it judges packs. `loss`: bce, relativistic or
    wasserstein. `value_range`: the range of every output value, if declared.
    """

    generator: nn.Module
    sample_fn: Callable[[nn.Module, Tensor], Tensor]
    discriminator: nn.Module
    loss: str = "bce"
    value_range: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class SearchBudget:
    """Length and size of each search.

    `steps` on minibatches of `batch_size`; at most `max_held_out` samples each for selection and for evaluation.
    """

    steps: int = 200
    batch_size: int = 128
    max_held_out: int = 400


@dataclass(frozen=True, slots=True)
class HeldOutOutputs:
    """Held-out outputs at one step of a search. `payoffs` (N,): what the searching player maximizes, per pair.

    `mean_distance`: between two outputs; `effective_outputs`: how many distinct outputs they amount to, 1 to N.
    """

    payoffs: Tensor
    mean_distance: Estimate = _ZERO
    effective_outputs: Estimate = _ZERO

    @property
    def value(self) -> float:
        """The mean payoff."""
        return float(self.payoffs.mean())


def compute_payoffs(loss: str, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """The terms of M(G, D), (B,), from paired logits (B,). In nats; for wasserstein in the critic's own units."""
    if loss == "relativistic":
        return logsigmoid(real_logits - fake_logits)
    return real_logits - fake_logits if loss == "wasserstein" else logsigmoid(real_logits) + logsigmoid(-fake_logits)


def generator_loss(loss: str, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """G's loss, a scalar. The non-saturating one: same minimum as M, but with a gradient where D is certain."""
    if loss == "relativistic":
        return softplus(real_logits - fake_logits).mean()
    return -fake_logits.mean() if loss == "wasserstein" else softplus(-fake_logits).mean()


def estimate_mean(values: Tensor) -> Estimate:
    """Mean and 95 % interval of values (N,)."""
    mean, error = float(values.mean()), _standard_error(values)
    return Estimate(mean, mean - 1.96 * error, mean + 1.96 * error)


def _standard_error(values: Tensor) -> float:
    return float(values.double().std()) / math.sqrt(len(values))


def output_diversity(outputs: Tensor, duplicate_distance: float) -> tuple[Estimate, Estimate]:
    """Mean distance between two of the outputs (N, *shape), and the effective number of outputs.

    The latter is 1 / mean of exp(-d² / 2 duplicate_distance²) over all pairs, a point with itself included: K for K
    equally frequent outputs, at most N. The intervals use the rows' means with twice their standard error, since each
    pair is in two rows.
    """
    n = len(outputs)
    distances = torch.cdist(outputs.flatten(1), outputs.flatten(1))  # (N, N)
    kernel = torch.exp(-distances.square() / (2 * duplicate_distance * duplicate_distance))
    similarity = kernel.mean(1).double()  # (N,)
    mean_distances = distances.sum(1).double() / (n - 1)  # (N,)
    share, error = float(similarity.mean()), 2 * 1.96 * _standard_error(similarity)
    effective = Estimate(1 / share, 1 / min(1.0, share + error), min(float(n), 1 / max(share - error, 1e-12)))
    mean, error = float(mean_distances.mean()), 2 * 1.96 * _standard_error(mean_distances)
    return Estimate(mean, max(0.0, mean - error), mean + error), effective


@dataclass(frozen=True, slots=True)
class RealParts:
    """Real samples in three disjoint parts: to learn from, to select weights by, and to evaluate on."""

    learning: Tensor
    selection: Tensor
    evaluation: Tensor
    batch_size: int

    def minibatch(self, step: int, samples: Tensor) -> Tensor:
        """The minibatch of a step, (batch_size, *shape), cycling through `samples`."""
        start = step * self.batch_size
        return samples[torch.arange(start, start + self.batch_size, device=samples.device) % len(samples)]


def split_real(real: Tensor, budget: SearchBudget, seed: int) -> RealParts:
    """Shuffle real samples (N, *shape) and split them. ValueError for fewer than 96."""
    third = len(real) // 3
    if third < MIN_PART_SIZE:
        raise ValueError(f"{len(real)} real samples are too few: {MIN_REAL_SAMPLES} are needed")
    n_held = min(third, budget.max_held_out) // 4 * 4  # so that halves of it fill packs of two
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(seed)).to(real.device)
    shuffled = real[order]
    return RealParts(shuffled[2 * n_held :], shuffled[:n_held], shuffled[n_held : 2 * n_held], budget.batch_size)


class Game:
    """The players on their samples, with one search for each player."""

    def __init__(self, players: GamePlayers, parts: RealParts) -> None:
        self.players, self.parts = players, parts
        self._low, self._high = self._output_box()
        chosen = parts.selection.flatten(1)
        n_pairs = len(chosen) * (len(chosen) - 1)
        self._duplicate_distance = DUPLICATE_DISTANCE * float(torch.cdist(chosen, chosen).sum()) / n_pairs

    def sample_evaluation(self, module: nn.Module) -> Tensor:
        """Samples of a generator for evaluation, as many as real ones; not clipped."""
        return self._sample_held_out(module, _EVALUATION_START)

    def sample_evaluation_in_box(self, module: nn.Module) -> Tensor:
        """Samples of a generator for evaluation, clipped to the box that bounds G."""
        return self._clip(self.sample_evaluation(module))

    def search_generator(self, discriminator: nn.Module, steps: int, seed: int) -> BestResponse[HeldOutOutputs]:
        """G's search against a fixed D: the maximin player."""
        with torch.no_grad():
            real_logits = discriminator(self.parts.selection)
        return best_response(
            self.players.generator,
            partial(self._generator_loss, discriminator),
            partial(self._evaluate_generator, discriminator, real_logits),
            steps=steps,
            seed=seed,
        )

    def search_discriminator(
        self, steps: int, seed: int, *, real_for_fake: bool = False
    ) -> BestResponse[HeldOutOutputs]:
        """D's search against the present G, or against real samples in its place."""
        fake = None
        if not real_for_fake:
            with torch.no_grad():
                fake = self._sample_held_out(self.players.generator, HELD_OUT_START)
        return best_response(
            self.players.discriminator,
            partial(self._discriminator_loss, real_for_fake),
            partial(self._evaluate_discriminator, fake),
            steps=steps,
            seed=seed,
        )

    def _output_box(self) -> tuple[Tensor, Tensor]:
        """Where G may move: the declared range, else the box around real and present samples with a margin."""
        with torch.no_grad():
            fake = self._sample_held_out(self.players.generator, HELD_OUT_START)
        both = torch.cat([self.parts.selection, fake])
        low, high = both.amin(0), both.amax(0)  # (*shape)
        if self.players.value_range is not None:
            declared_low, declared_high = self.players.value_range
            return low.clamp_max(declared_low).amin(), high.clamp_min(declared_high).amax()
        return low - BOX_MARGIN * (high - low), high + BOX_MARGIN * (high - low)

    def _clip(self, samples: Tensor) -> Tensor:
        return torch.maximum(torch.minimum(samples, self._high), self._low)

    def _sample_held_out(self, module: nn.Module, start: int) -> Tensor:
        return self.players.sample_fn(module, torch.arange(start, start + len(self.parts.selection)))

    def _sample_minibatch(self, module: nn.Module, step: int) -> Tensor:
        start = step * self.parts.batch_size
        return self.players.sample_fn(module, torch.arange(start, start + self.parts.batch_size))

    def _generator_loss(self, discriminator: nn.Module, generator: nn.Module, step: int) -> Tensor:
        loss = self.players.loss
        fake_logits = discriminator(self._clip(self._sample_minibatch(generator, step)))
        real_logits = fake_logits
        if loss == "relativistic":
            with torch.no_grad():
                real_logits = discriminator(self.parts.minibatch(step, self.parts.learning))
        return generator_loss(loss, real_logits, fake_logits)

    def _evaluate_generator(
        self, discriminator: nn.Module, real_logits: Tensor, generator: nn.Module
    ) -> HeldOutOutputs:
        fake = self._clip(self._sample_held_out(generator, HELD_OUT_START))
        payoffs = compute_payoffs(self.players.loss, real_logits, discriminator(fake))
        return HeldOutOutputs(-payoffs, *output_diversity(fake, self._duplicate_distance))

    def _discriminator_loss(self, real_for_fake: bool, discriminator: nn.Module, step: int) -> Tensor:
        parts = self.parts
        if real_for_fake:
            real_half, fake_half = parts.learning.chunk(2)
            real, fake = parts.minibatch(step, real_half), parts.minibatch(step, fake_half)
        else:
            with torch.no_grad():
                fake = self._sample_minibatch(self.players.generator, step)
            real = parts.minibatch(step, parts.learning)
        return -compute_payoffs(self.players.loss, discriminator(real), discriminator(fake)).mean()

    def _evaluate_discriminator(self, fake: Tensor | None, discriminator: nn.Module) -> HeldOutOutputs:
        real = self.parts.selection
        pair = real.chunk(2) if fake is None else (real, fake)
        return HeldOutOutputs(compute_payoffs(self.players.loss, *(discriminator(part) for part in pair)))
