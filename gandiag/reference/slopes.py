"""D's gradient at given parameters, and the derivative of that gradient: what looking ahead asks of a discriminator."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from gandiag.reference.adam import AdamState
from gandiag.reference.player import Player

Losses = Callable[[Tensor], tuple[Tensor, Tensor]]  # generated samples -> (D's loss, G's loss), with D's present parameters


class Slope(NamedTuple):
    """D's loss and gradient (P,) at a point; `pull(v)` -> derivatives of gradient · v by parameters (P,) and samples (B, *shape)."""

    loss: Callable[[], float]
    gradient: Tensor
    pull: Callable[[Tensor], tuple[Tensor, Tensor]]


class Slopes(Protocol):
    """A discriminator on one fixed minibatch. `final`: G's loss and its derivatives by parameters (P,) and samples (B, *shape)."""

    def descend(self, state: AdamState) -> Slope: ...
    def final(self, state: AdamState) -> tuple[float, Tensor, Tensor]: ...


class Autograd:
    """Any discriminator: autograd differentiates twice. `fake` (B, *shape) is a leaf."""

    def __init__(self, player: Player, losses: Losses, fake: Tensor) -> None:
        self._player = player
        self._losses = losses
        self._fake = fake

    def descend(self, state: AdamState) -> Slope:
        player, fake, leaves = self._player, self._fake, self._player.leaves(state)
        with player.wearing(leaves):
            loss = self._losses(fake)[0]
        gradients = torch.autograd.grad(loss, leaves, create_graph=True, allow_unused=True, materialize_grads=True)

        def pull(v: Tensor) -> tuple[Tensor, Tensor]:
            found = torch.autograd.grad(gradients, [*leaves, fake], player.split(v), allow_unused=True, materialize_grads=True)
            return player.flat(found[:-1]), found[-1]

        return Slope(lambda: float(loss.detach()), player.flat([entry.detach() for entry in gradients]), pull)

    def final(self, state: AdamState) -> tuple[float, Tensor, Tensor]:
        leaves = self._player.leaves(state)
        with self._player.wearing(leaves):
            loss = self._losses(self._fake)[1]
        found = torch.autograd.grad(loss, [*leaves, self._fake], allow_unused=True, materialize_grads=True)
        return float(loss.detach()), self._player.flat(found[:-1]), found[-1]
