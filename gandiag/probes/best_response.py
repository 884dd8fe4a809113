"""Finds one player's best response: Adam on a copy against a fixed opponent, evaluated on held-out samples.

Learning rate and starting point are chosen by what they gain on held-out samples in a quarter of the steps: three rates
from the present weights, and the middle one from weights perturbed by a tenth of their size, since gradients vanish at
stationary points that are no equilibrium (Sidheekh et al. 2021, arXiv:2103.12685). The best one continues, and the
weights with the best held-out value are kept, unless that value is within what the best of many evaluations reaches by
chance.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

LEARNING_RATES = (1e-4, 1e-3, 1e-2)
PERTURBATION_SCALE = 0.1  # of each tensor's root mean square
ADAM_BETAS = (0.5, 0.999)
N_EVALUATIONS = 20  # held-out evaluations along the way
MIN_STANDARD_ERRORS = 3.0  # of the gain: the best of some 40 correlated evaluations lies two above by chance


class PayoffResult(Protocol):
    """A player's payoff on held-out samples: `value`, the mean of `payoffs` (N,); larger is better for the player."""

    @property
    def value(self) -> float: ...
    @property
    def payoffs(self) -> Tensor: ...


ResultT = TypeVar("ResultT", bound=PayoffResult)


@dataclass(frozen=True, slots=True)
class BestResponse(Generic[ResultT]):
    """The best weights found and the path to them.

    `history`: (step, evaluation), from the present weights at step 0. `learning_rate`: Adam's, 0 where nothing gains.
    """

    module: nn.Module
    history: tuple[tuple[int, ResultT], ...]
    learning_rate: float
    perturbed: bool = False

    @property
    def best(self) -> ResultT:
        return _best_result(self.history)


def _best_result(history: tuple[tuple[int, ResultT], ...] | list[tuple[int, ResultT]]) -> ResultT:
    return max((result for _, result in history), key=lambda result: result.value)


class _Adam:
    """Kingma & Ba 2015, algorithm 1, in place. Importing torch.optim takes seconds, as it imports compilers."""

    def __init__(self, module: nn.Module, learning_rate: float) -> None:
        self._entries = [
            (parameter, torch.zeros_like(parameter), torch.zeros_like(parameter))
            for parameter in module.parameters()
            if parameter.requires_grad
        ]
        self._learning_rate, self._n_steps = learning_rate, 0

    @torch.no_grad()
    def step(self, loss: Tensor) -> None:
        """One step down the gradient of a scalar."""
        parameters = [parameter for parameter, _, _ in self._entries]
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        self._n_steps += 1
        beta1, beta2 = ADAM_BETAS
        rate = self._learning_rate / (1 - beta1**self._n_steps)
        for (parameter, first, second), gradient in zip(self._entries, gradients, strict=True):
            if gradient is not None:
                first.lerp_(gradient, 1 - beta1)
                second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
                denominator = (second / (1 - beta2**self._n_steps)).sqrt_().add_(1e-8)
                parameter.addcdiv_(first, denominator, value=-rate)


@dataclass(slots=True)
class _Search(Generic[ResultT]):
    """One search in progress: a copy of the player, and its best weights so far."""

    module: nn.Module
    learning_rate: float
    perturbed: bool
    adam: _Adam
    history: list[tuple[int, ResultT]] = field(default_factory=list)
    best_module: nn.Module | None = None
    best_value: float = -math.inf
    n_steps: int = 0

    def run(
        self,
        until: int,
        evaluate_every: int,
        loss_fn: Callable[[nn.Module, int], Tensor],
        evaluate: Callable[[nn.Module], ResultT],
    ) -> None:
        """Continue to step `until`; stop early at a loss that is not finite."""
        while self.n_steps < until:
            loss = loss_fn(self.module, self.n_steps)
            if not bool(torch.isfinite(loss)):
                return
            self.adam.step(loss)
            self.n_steps += 1
            if self.n_steps % evaluate_every == 0 or self.n_steps == until:
                self._evaluate(evaluate)

    def _evaluate(self, evaluate: Callable[[nn.Module], ResultT]) -> None:
        with torch.no_grad():
            result = evaluate(self.module)
        if math.isfinite(result.value):
            self.history.append((self.n_steps, result))
            if result.value > self.best_value:
                self.best_value, self.best_module = result.value, copy.deepcopy(self.module)


def best_response(
    initial_module: nn.Module,
    loss_fn: Callable[[nn.Module, int], Tensor],
    evaluate: Callable[[nn.Module], ResultT],
    *,
    steps: int,
    seed: int = 0,
) -> BestResponse[ResultT]:
    """The best response that `steps` steps of Adam find for a player against a fixed opponent.

    `initial_module`: the player's network in eval mode, which is copied and not changed; BatchNorm keeps its stored
    statistics. `loss_fn(module, k)`: the loss to minimize at step k, on a minibatch of its own. `evaluate(module)`: the
    payoff on held-out samples, called without gradients. A lower bound on what there is to gain: more steps can only
    find more. Cost: 1.75 x steps.
    """
    with torch.no_grad():
        present = evaluate(initial_module)
    evaluate_every, pilot_steps = max(1, steps // N_EVALUATIONS), max(1, steps // 4)
    best: _Search[ResultT] | None = None
    for learning_rate, perturbed in (*((rate, False) for rate in LEARNING_RATES), (LEARNING_RATES[1], True)):
        module = _trainable_copy(initial_module, seed if perturbed else None)
        search: _Search[ResultT] = _Search(module, learning_rate, perturbed, _Adam(module, learning_rate))
        search.run(pilot_steps, evaluate_every, loss_fn, evaluate)
        if best is None or search.best_value > best.best_value:
            best = search
    assert best is not None
    best.run(steps, evaluate_every, loss_fn, evaluate)
    if best.best_module is None or not _is_significant_gain(_best_result(best.history), present):
        return BestResponse(initial_module, ((0, present),), 0.0)
    module = best.best_module.requires_grad_(False)
    return BestResponse(module, ((0, present), *best.history), best.learning_rate, best.perturbed)


def _is_significant_gain(result: PayoffResult, present: PayoffResult) -> bool:
    """Whether the payoff on the same held-out samples rose by more than chance explains."""
    gains = (result.payoffs - present.payoffs).double()
    return float(gains.mean()) > MIN_STANDARD_ERRORS * float(gains.std()) / math.sqrt(len(gains))


def _trainable_copy(module: nn.Module, perturbation_seed: int | None) -> nn.Module:
    """A copy with gradients, perturbed at random where a seed is given."""
    clone = copy.deepcopy(module)
    rng = None if perturbation_seed is None else torch.Generator().manual_seed(perturbation_seed)
    for parameter in clone.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
        if rng is not None and parameter.is_floating_point():
            with torch.no_grad():
                noise = torch.randn(parameter.shape, generator=rng).to(parameter)
                parameter.add_(noise * (PERTURBATION_SCALE * parameter.square().mean().sqrt()))
    return clone
