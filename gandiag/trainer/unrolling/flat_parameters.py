"""A network, its parameters in one vector, and its optimiser: what plays the game."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gandiag.trainer.unrolling.adam import AdamSettings, AdamState, adam_step


class FlatModule:
    """A module whose parameters are views of one flat vector, stepped by Adam.

    `parameters`: the trainable tensors in a fixed order; `flat`, `split` go between that list and one vector (P,).
    """

    def __init__(self, net: nn.Module, adam: AdamSettings) -> None:
        self.net = net
        self.adam = adam
        named = [
            (owner, name, entry)
            for owner in net.modules()
            for name, entry in owner.named_parameters(recurse=False)
            if entry.requires_grad
        ]
        unique = {id(entry): entry for _, _, entry in named}
        self.parameters = list(unique.values())
        order = {key: place for place, key in enumerate(unique)}
        self._slots = [(owner, name, order[id(entry)]) for owner, name, entry in named]
        self._sizes = [entry.numel() for entry in self.parameters]
        self._shapes = [entry.shape for entry in self.parameters]
        self.state = AdamState.from_parameters(self.flatten([entry.detach() for entry in self.parameters]))
        self.load_state(self.state)

    def flatten(self, tensors: Sequence[Tensor | None]) -> Tensor:
        """One vector (P,) of tensors shaped as the parameters; None counts as zeros."""
        filled = zip(tensors, self._sizes, self.parameters, strict=True)
        return torch.cat([like.new_zeros(size) if entry is None else entry.reshape(-1) for entry, size, like in filled])

    def unflatten(self, vector: Tensor) -> list[Tensor]:
        """Views of a vector (P,), shaped as the parameters."""
        return [part.view(shape) for part, shape in zip(torch.split(vector, self._sizes), self._shapes, strict=True)]

    def step(self, gradient: Tensor) -> None:
        """One step of Adam along a gradient (P,) of a loss that is to fall."""
        self.load_state(adam_step(self.state, gradient, self.adam))

    def load_state(self, state: AdamState) -> None:
        """Take a state over: the module's parameters become views of it."""
        self.state = state
        for entry, part in zip(self.parameters, self.unflatten(state.theta), strict=True):
            entry.data = part

    def leaf_parameters(self, state: AdamState) -> list[Tensor]:
        """A state's parameters as new leaves of autograd."""
        return [part.requires_grad_() for part in self.unflatten(state.theta.detach())]

    @contextmanager
    def swap_parameters(self, tensors: Sequence[Tensor]) -> Iterator[None]:
        """The module computes with these tensors as parameters; afterwards with its own again."""
        own = self.parameters
        try:
            for owner, name, place in self._slots:
                owner._parameters[name] = tensors[place]  # type: ignore[assignment]
            yield
        finally:
            for owner, name, place in self._slots:
                owner._parameters[name] = own[place]
