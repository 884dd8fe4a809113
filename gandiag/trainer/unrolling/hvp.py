"""D's gradient at given parameters, and the derivative of that gradient: what looking ahead asks of a discriminator."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from gandiag.trainer.unrolling.adam import AdamState
from gandiag.trainer.unrolling.flat_parameters import FlatModule

LossFn = Callable[
    [Tensor], tuple[Tensor, Tensor]
]  # generated samples -> (D's loss, G's loss), with D's present parameters


class GradientWithVjp(NamedTuple):
    """D's loss and gradient (P,) at a point; `pull(v)` -> derivatives of gradient · v by parameters (P,) and samples (B, *shape)."""

    loss: Callable[[], float]
    gradient: Tensor
    vjp: Callable[[Tensor], tuple[Tensor, Tensor]]


class DiscriminatorGradients(Protocol):
    """A discriminator on one fixed minibatch. `final`: G's loss and its derivatives by parameters (P,) and samples (B, *shape)."""

    def discriminator_gradient(self, state: AdamState) -> GradientWithVjp: ...
    def generator_gradient(self, state: AdamState) -> tuple[float, Tensor, Tensor]: ...


class AutogradGradients:
    """Any discriminator: autograd differentiates twice. `fake` (B, *shape) is a leaf."""

    def __init__(self, discriminator: FlatModule, loss_fn: LossFn, fake: Tensor) -> None:
        self._player = discriminator
        self._losses = loss_fn
        self._fake = fake

    def discriminator_gradient(self, state: AdamState) -> GradientWithVjp:
        player, fake, leaves = self._player, self._fake, self._player.leaf_parameters(state)
        with player.swap_parameters(leaves):
            loss = self._losses(fake)[0]
        gradients = torch.autograd.grad(loss, leaves, create_graph=True, allow_unused=True, materialize_grads=True)

        def pull(v: Tensor) -> tuple[Tensor, Tensor]:
            found = torch.autograd.grad(
                gradients, [*leaves, fake], player.unflatten(v), allow_unused=True, materialize_grads=True
            )
            return player.flatten(found[:-1]), found[-1]

        return GradientWithVjp(
            lambda: float(loss.detach()), player.flatten([entry.detach() for entry in gradients]), pull
        )

    def generator_gradient(self, state: AdamState) -> tuple[float, Tensor, Tensor]:
        leaves = self._player.leaf_parameters(state)
        with self._player.swap_parameters(leaves):
            loss = self._losses(self._fake)[1]
        found = torch.autograd.grad(loss, [*leaves, self._fake], allow_unused=True, materialize_grads=True)
        return float(loss.detach()), self._player.flatten(found[:-1]), found[-1]
