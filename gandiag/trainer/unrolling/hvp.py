"""Gradients of a discriminator and their vector-Jacobian products (Hessian-vector products), by autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from gandiag.trainer.unrolling.adam import AdamState
from gandiag.trainer.unrolling.flat_parameters import FlatModule

# Generated samples -> (D's loss, G's loss), at D's current parameters.
LossFn = Callable[[Tensor], tuple[Tensor, Tensor]]


class GradientWithVjp(NamedTuple):
    """D's loss and gradient (P,) at one point of parameter space.

    `vjp(v)` returns the derivatives of gradient · v by the parameters (P,) and by the generated samples (B, *shape).
    """

    loss: Callable[[], float]
    gradient: Tensor
    vjp: Callable[[Tensor], tuple[Tensor, Tensor]]


class DiscriminatorGradients(Protocol):
    """Gradients of a discriminator on one fixed minibatch, at any of its states."""

    def discriminator_gradient(self, state: AdamState) -> GradientWithVjp:
        """Return D's loss and gradient at `state`."""
        ...

    def generator_gradient(self, state: AdamState) -> tuple[float, Tensor, Tensor]:
        """Return G's loss and its derivatives by D's parameters (P,) and by the generated samples (B, *shape)."""
        ...


class AutogradGradients:
    """Gradients of any discriminator, differentiated twice by autograd. `fake` (B, *shape) is a leaf."""

    def __init__(self, discriminator: FlatModule, loss_fn: LossFn, fake: Tensor) -> None:
        self._discriminator = discriminator
        self._loss_fn = loss_fn
        self._fake = fake

    def discriminator_gradient(self, state: AdamState) -> GradientWithVjp:
        discriminator, fake = self._discriminator, self._fake
        leaves = discriminator.leaf_parameters(state)
        with discriminator.swap_parameters(leaves):
            loss = self._loss_fn(fake)[0]
        gradients = torch.autograd.grad(loss, leaves, create_graph=True, allow_unused=True, materialize_grads=True)

        def vjp(v: Tensor) -> tuple[Tensor, Tensor]:
            *by_parameters, by_fake = torch.autograd.grad(
                gradients, [*leaves, fake], discriminator.unflatten(v), allow_unused=True, materialize_grads=True
            )
            return discriminator.flatten(by_parameters), by_fake

        flat_gradient = discriminator.flatten([part.detach() for part in gradients])
        return GradientWithVjp(lambda: float(loss.detach()), flat_gradient, vjp)

    def generator_gradient(self, state: AdamState) -> tuple[float, Tensor, Tensor]:
        leaves = self._discriminator.leaf_parameters(state)
        with self._discriminator.swap_parameters(leaves):
            loss = self._loss_fn(self._fake)[1]
        *by_parameters, by_fake = torch.autograd.grad(
            loss, [*leaves, self._fake], allow_unused=True, materialize_grads=True
        )
        return float(loss.detach()), self._discriminator.flatten(by_parameters), by_fake
