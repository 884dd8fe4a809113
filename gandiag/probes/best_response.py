"""How far a player gets alone: Adam on a copy while the other stands still, judged on samples that it does not learn from.

Step size and start are chosen by what they gain on held-out samples in a quarter of the steps: three sizes from the present weights, and
the middle one from weights that are perturbed by a tenth of their size, since gradients vanish at stationary points that are no
equilibrium (Sidheekh et al. 2021, arXiv:2103.12685). The best one goes on, and the weights with the best held-out value are kept,
where that is more than the luck of the best of many looks.
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
N_EVALUATIONS = 20  # held-out values taken along the way
MIN_STANDARD_ERRORS = 3.0  # standard errors of the gain: the best of some 40 correlated looks lies two above by chance


class PayoffResult(Protocol):
    """What is seen of a player on held-out samples: `value`, the mean of `terms` (N,); the larger, the better for it."""

    @property
    def value(self) -> float: ...
    @property
    def payoffs(self) -> Tensor: ...


ResultT = TypeVar("ResultT", bound=PayoffResult)


@dataclass(frozen=True, slots=True)
class BestResponse(Generic[ResultT]):
    """The best weights found, and the way there: (step, what was seen), from the present weights at step 0. `rate`: Adam's step size, 0 where nothing gains."""

    module: nn.Module
    history: tuple[tuple[int, ResultT], ...]
    learning_rate: float
    perturbed: bool = False

    @property
    def best(self) -> ResultT:
        return max((seen for _, seen in self.history), key=lambda seen: seen.value)


class _Adam:
    """Kingma & Ba 2015, algorithm 1, in place; torch.optim would first import seconds' worth of compilers."""

    def __init__(self, module: nn.Module, rate: float) -> None:
        self._entries = [
            (entry, torch.zeros_like(entry), torch.zeros_like(entry))
            for entry in module.parameters()
            if entry.requires_grad
        ]
        self._rate, self._steps = rate, 0

    @torch.no_grad()
    def step(self, loss: Tensor) -> None:
        """One step down the gradient of a scalar."""
        gradients = torch.autograd.grad(loss, [entry for entry, _, _ in self._entries], allow_unused=True)
        self._steps += 1
        rate = self._rate / (1 - ADAM_BETAS[0] ** self._steps)
        for (entry, first, second), slope in zip(self._entries, gradients, strict=True):
            if slope is not None:
                first.lerp_(slope, 1 - ADAM_BETAS[0])
                second.mul_(ADAM_BETAS[1]).addcmul_(slope, slope, value=1 - ADAM_BETAS[1])
                entry.addcdiv_(first, (second / (1 - ADAM_BETAS[1] ** self._steps)).sqrt_().add_(1e-8), value=-rate)


@dataclass(slots=True)
class _Run(Generic[ResultT]):
    """One search: a copy under way, and its best weights so far."""

    module: nn.Module
    rate: float
    perturbed: bool
    adam: _Adam
    path: list[tuple[int, ResultT]] = field(default_factory=list)
    kept: nn.Module | None = None
    top: float = -math.inf
    done: int = 0

    def go(
        self, until: int, every: int, loss: Callable[[nn.Module, int], Tensor], look: Callable[[nn.Module], ResultT]
    ) -> None:
        while self.done < until:
            found = loss(self.module, self.done)
            if not bool(torch.isfinite(found)):
                return
            self.adam.step(found)
            self.done += 1
            if self.done % every == 0 or self.done == until:
                self._look(look)

    def _look(self, look: Callable[[nn.Module], ResultT]) -> None:
        with torch.no_grad():
            seen = look(self.module)
        if math.isfinite(seen.value):
            self.path.append((self.done, seen))
            if seen.value > self.top:
                self.top, self.kept = seen.value, copy.deepcopy(self.module)


def best_response(
    initial_module: nn.Module,
    loss_fn: Callable[[nn.Module, int], Tensor],
    evaluate: Callable[[nn.Module], ResultT],
    *,
    steps: int,
    seed: int = 0,
) -> BestResponse[ResultT]:
    """The best that `steps` steps find for a player against one who stands still.

    start: the player's network in eval mode, which is copied and not touched. `loss(module, k)`: what is to fall at step k, on a
    minibatch of its own. `look(module)`: what held-out samples say, without gradients. Batch norm keeps its stored statistics.
    An estimate from below of what there is to gain: more steps can only find more. Cost: 1.75 × steps.
    """
    with torch.no_grad():
        present = evaluate(initial_module)
    every, pilot = max(1, steps // N_EVALUATIONS), max(1, steps // 4)
    best: _Run[ResultT] | None = None
    for rate, perturbed in (*((rate, False) for rate in LEARNING_RATES), (LEARNING_RATES[1], True)):
        module = _copy(initial_module, seed if perturbed else None)
        run: _Run[ResultT] = _Run(module, rate, perturbed, _Adam(module, rate))
        run.go(pilot, every, loss_fn, evaluate)
        if best is None or run.top > best.top:
            best = run
    assert best is not None
    best.go(steps, every, loss_fn, evaluate)
    if best.kept is None or not _surely(max((seen for _, seen in best.path), key=lambda seen: seen.value), present):
        return BestResponse(initial_module, ((0, present),), 0.0)
    return BestResponse(best.kept.requires_grad_(False), ((0, present), *best.path), best.rate, best.perturbed)


def _surely(found: PayoffResult, present: PayoffResult) -> bool:
    """Whether the same held-out samples are worth more than luck explains."""
    gains = (found.payoffs - present.payoffs).double()
    return float(gains.mean()) > MIN_STANDARD_ERRORS * float(gains.std()) / math.sqrt(len(gains))


def _copy(start: nn.Module, nudge: int | None) -> nn.Module:
    """A copy that learns, perturbed by the seed `nudge`."""
    module = copy.deepcopy(start)
    rng = None if nudge is None else torch.Generator().manual_seed(nudge)
    for entry in module.parameters():
        entry.requires_grad_(entry.is_floating_point())
        if rng is not None and entry.is_floating_point():
            with torch.no_grad():
                entry.add_(
                    torch.randn(entry.shape, generator=rng).to(entry)
                    * (PERTURBATION_SCALE * entry.square().mean().sqrt())
                )
    return module
