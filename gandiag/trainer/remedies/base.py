"""The Remedy contract: what a remedy may change about the networks, the losses and the training step.

A remedy is a `Remedy` registered in `remedies/registry.py` or by a plug-in in the entry-point group `gandiag.remedies`.
Unset fields change nothing, so remedies combine: `minibatch+unrolled`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

DiscriminatorFn = Callable[[Tensor], Tensor]  # samples (B, *shape) -> logits (B, 1)
LossType = Literal["bce", "wasserstein", "relativistic"]


class UniformSampler(Protocol):
    """Draws a tensor of the given shape, uniform on [0, 1): a remedy's only source of randomness in a training step."""

    def __call__(self, *shape: int) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class Loss:
    """The losses of D and G, both minimized, as functions of D's logits for real and generated samples, (B, 1) each.

    `type` tells an audit how to read D's logits when it probes the duality gap of a saved discriminator; None: unknown,
    so the probe is skipped.
    """

    name: str
    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor, Tensor], Tensor]
    type: LossType | None = None


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """One minibatch, as the penalties see it: `z` (B, dim), `real` and `fake` (B, *shape).

    `discriminator` maps samples to logits (B, 1); `uniform` draws random numbers that depend on the run's seed alone.
    """

    z: Tensor
    real: Tensor
    fake: Tensor
    discriminator: DiscriminatorFn
    uniform: UniformSampler


@dataclass(frozen=True, slots=True)
class Remedy:
    """One remedy.

    wrap_discriminator      (D, random generator for new weights) -> D with added or changed layers
    adds_layers             whether `wrap_discriminator` adds layers, rather than reparametrizing the existing ones
    loss                    replaces the recipe's loss
    discriminator_penalty   TrainingBatch -> scalar, added to D's loss
    generator_penalty       TrainingBatch -> scalar, added to G's loss
    unroll_steps            default number of D's optimizer steps that G differentiates through
    pack_size               samples that D judges together
    discriminator_steps     steps of D per step of G
    uses_batch_statistics   whether D's logit for a sample depends on the rest of the minibatch
    compare_by_default      whether `gandiag train --generator … --discriminator …` tries it without being asked
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
    adds_layers: bool = True
    compare_by_default: bool = True
