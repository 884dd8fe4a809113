"""A module with all trainable parameters in one flat vector, and its Adam state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gandiag.trainer.unrolling.adam import AdamSettings, AdamState, adam_step


class FlatModule:
    """A module whose parameters are views of one flat vector, stepped by Adam.

    `parameters` lists the trainable tensors in a fixed order; `flatten` and `unflatten` convert between such a list and
    one vector (P,).
    """

    def __init__(self, net: nn.Module, adam: AdamSettings) -> None:
        self.net = net
        self.adam = adam
        named = [
            (owner, name, parameter)
            for owner in net.modules()
            for name, parameter in owner.named_parameters(recurse=False)
            if parameter.requires_grad
        ]
        unique = {id(parameter): parameter for _, _, parameter in named}
        self.parameters = list(unique.values())
        index = {key: position for position, key in enumerate(unique)}
        self._slots = [(owner, name, index[id(parameter)]) for owner, name, parameter in named]
        self._sizes = [parameter.numel() for parameter in self.parameters]
        self._shapes = [parameter.shape for parameter in self.parameters]
        self.state = AdamState.from_parameters(self.flatten([parameter.detach() for parameter in self.parameters]))
        self.load_state(self.state)

    def flatten(self, tensors: Sequence[Tensor | None]) -> Tensor:
        """Concatenate tensors shaped like the parameters into one vector (P,); None counts as zeros."""
        rows = zip(tensors, self._sizes, self.parameters, strict=True)
        return torch.cat([like.new_zeros(size) if part is None else part.reshape(-1) for part, size, like in rows])

    def unflatten(self, vector: Tensor) -> list[Tensor]:
        """Return views of a vector (P,), shaped like the parameters."""
        return [part.view(shape) for part, shape in zip(torch.split(vector, self._sizes), self._shapes, strict=True)]

    def step(self, gradient: Tensor) -> None:
        """Take one Adam step down a gradient (P,)."""
        self.load_state(adam_step(self.state, gradient, self.adam))

    def load_state(self, state: AdamState) -> None:
        """Adopt a state: the module's parameters become views of its vector."""
        self.state = state
        for parameter, part in zip(self.parameters, self.unflatten(state.theta), strict=True):
            parameter.data = part

    def leaf_parameters(self, state: AdamState) -> list[Tensor]:
        """Return a state's parameters as new autograd leaves."""
        return [part.requires_grad_() for part in self.unflatten(state.theta.detach())]

    @contextmanager
    def swap_parameters(self, tensors: Sequence[Tensor]) -> Iterator[None]:
        """Let the module compute with these tensors as its parameters, and restore its own on exit."""
        own = self.parameters
        try:
            for owner, name, position in self._slots:
                owner._parameters[name] = tensors[position]  # type: ignore[assignment]
            yield
        finally:
            for owner, name, position in self._slots:
                owner._parameters[name] = own[position]
