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

DiscriminatorFn = Callable[[Tensor], Tensor]  # samples (B, *shape) -> logits (B, 1)


class UniformSampler(Protocol):
    """The random numbers of a step, (*shape) uniform on [0, 1): a remedy draws from nothing else."""

    def __call__(self, *shape: int) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class Loss:
    """Two losses, of D's logits for a real and a generated minibatch, (B, 1) each; both are to fall."""

    name: str
    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """One minibatch: what penalty and reward see. `z` (B, dim), `real` and `fake` (B, *shape)."""

    z: Tensor
    real: Tensor
    fake: Tensor
    critic: DiscriminatorFn
    draws: UniformSampler


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
    wrap_discriminator: Callable[[nn.Module, torch.Generator], nn.Module] | None = None
    loss: Loss | None = None
    discriminator_penalty: Callable[[TrainingBatch], Tensor] | None = None
    generator_penalty: Callable[[TrainingBatch], Tensor] | None = None
    unroll_steps: int = 0
    pack_size: int = 1
    discriminator_steps: int = 1
    uses_batch_statistics: bool = False
