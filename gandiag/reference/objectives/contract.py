"""What a remedy may change: the networks, the loss, a penalty for D, a reward for G, how G looks ahead.

A remedy is a value of this class under a name in the entry-point group `gandiag.remedies` (or in REMEDIES below). Unset parts
change nothing, so that remedies combine: `minibatch+unrolled`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

Critic = Callable[[Tensor], Tensor]  # samples (B, *shape) -> logits (B, 1)


class Draws(Protocol):
    """The random numbers of a step, (*shape) uniform on [0, 1): a remedy draws from nothing else."""

    def __call__(self, *shape: int) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class Loss:
    """Two losses, of D's logits for a real and a generated minibatch, (B, 1) each; both are to fall."""

    name: str
    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Turn:
    """One minibatch: what penalty and reward see. `z` (B, dim), `real` and `fake` (B, *shape)."""

    z: Tensor
    real: Tensor
    fake: Tensor
    critic: Critic
    draws: Draws


@dataclass(frozen=True, slots=True)
class Remedy:
    """One remedy.

    dress      D to a D that sees more: (module, generator of its new weights) -> module
    loss       in place of the recipe's
    penalty    added to D's loss; reward: added to G's loss
    ahead      by how many steps of D's optimiser G looks ahead, by default
    pack       samples that D judges together
    critic     steps of D per step of G
    """

    name: str
    title: str
    source: str
    dress: Callable[[nn.Module, torch.Generator], nn.Module] | None = None
    loss: Loss | None = None
    penalty: Callable[[Turn], Tensor] | None = None
    reward: Callable[[Turn], Tensor] | None = None
    ahead: int = 0
    pack: int = 1
    critic: int = 1
    batchwise: bool = False
