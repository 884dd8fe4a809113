"""Builds the network of each hyperparameter assignment."""

from __future__ import annotations

from dataclasses import dataclass

from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.inference.sequential import (
    SequentialGenerator,
    SequentialSpec,
    build_sequential_generator,
    set_hyperparameters,
)


@dataclass(frozen=True, slots=True)
class Assignment:
    """A value for every open hyperparameter.

    `latent_std`: of one latent. `norm`: without weights, in the gaps that may hold one. `choices`: one option of
    each of the spec's open choices. `layout_index`: which input layout.
    """

    activation: str
    eps: float
    dropout: float
    prior: str
    latent_std: float
    choices: tuple[int, ...]
    layout_index: int = 0
    norm: str = "none"


class CandidateNetworks:
    """Specs by choices, and one network per spec that is changed in place from assignment to assignment."""

    def __init__(self, spec: SequentialSpec, choices: tuple[int, ...]) -> None:
        self._rebuild_with = spec.rebuild_with
        self._specs: dict[tuple[int, ...], SequentialSpec | None] = {choices: spec}
        self._networks: dict[tuple[int, ...], SequentialGenerator] = {}

    def get_spec(self, choices: tuple[int, ...]) -> SequentialSpec | None:
        """The spec of these choices; None where they do not fit the weights."""
        if choices not in self._specs:
            try:
                self._specs[choices] = self._rebuild_with(choices) if self._rebuild_with else None
            except ArchitectureMismatch:
                self._specs[choices] = None
        return self._specs[choices]

    def build(self, assignment: Assignment) -> SequentialGenerator | None:
        """A new network of an assignment; None where its choices do not fit the weights."""
        spec = self.get_spec(assignment.choices)
        if spec is None:
            return None
        return build_sequential_generator(
            spec, assignment.activation, assignment.eps, assignment.dropout, norm=assignment.norm
        )

    def configure(self, assignment: Assignment) -> SequentialGenerator | None:
        """The layers of an assignment, shared by all with the same choices: valid until the next call."""
        choices = assignment.choices
        spec = self.get_spec(choices)
        if spec is None:
            return None
        settings = assignment.activation, assignment.eps, assignment.dropout
        if choices not in self._networks:
            self._networks[choices] = build_sequential_generator(spec, *settings)
        return set_hyperparameters(self._networks[choices], spec, *settings, norm=assignment.norm)
