"""What weights do not say, as questions with a few answers each, the customary one first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gandiag.config import AuditConfig
from gandiag.load.moments import prior_deviation
from gandiag.load.rebuild.chain import Blueprint
from gandiag.load.rebuild.inputs import PLACE, Inputs
from gandiag.load.rebuild.trial import Reading

PRIORS = ("normal", "uniform", "unit")
_FURTHER = ("elu", "gelu", "silu", "tanh")
_DROPOUTS = (0.0, 0.2, 0.3, 0.5)


@dataclass(frozen=True, slots=True)
class Question:
    """One thing that is open. `answers`: the customary one first; `field`: of a reading, or the place among the blueprint's own questions;
    `norm`: the first batch norm that may show it; `last`: the one that has seen all of it.

    `rare`: further answers, no rivals of the usual ones where they do not fit better. `customary`: the other answers are rare.
    `alters`: does what the generator makes depend on it?
    """

    what: str
    answers: tuple[Any, ...]
    field: str | int
    norm: int
    last: int
    told: Callable[[Any], str] = str
    rare: tuple[Any, ...] = ()
    customary: bool = False
    alters: bool = True

    def put(self, reading: Reading, answer: Any) -> Reading:
        """The reading with this answer."""
        if isinstance(self.field, int):
            return replace(reading, answers=(*reading.answers[: self.field], answer, *reading.answers[self.field + 1 :]))
        if self.field == "prior":
            return replace(reading, prior=answer, deviation=prior_deviation(answer))
        return replace(reading, **{self.field: answer})

    def answer(self, reading: Reading) -> Any:
        """The answer that a reading gives."""
        return reading.answers[self.field] if isinstance(self.field, int) else getattr(reading, self.field)


def place_question(inputs: Sequence[Inputs]) -> Question:
    """Which of the ways to join the class to the latents."""
    return Question(PLACE, tuple(range(len(inputs))), "joined", 0, 0, lambda way: f"{inputs[way].place} the latents")


def questions(blueprint: Blueprint, inputs: Sequence[Inputs], config: AuditConfig, *, prior: bool) -> list[Question]:
    """Everything that flags, the file and the shapes leave open. `prior`: that and the place of the class too, as no norm behind the first layer
    shows them alone."""
    asked = [place_question(inputs)] if prior and len(inputs) > 1 else []
    norms = any(layer.kind == "norm" for layer in blueprint.layers)
    if prior and config.prior is None:
        asked.append(Question("latent prior (--prior)", PRIORS, "prior", 0, 0))
    start = 0 if prior else 1  # the first norm stands right behind the first layer, or it does not
    shown = max(1, _behind_activations(blueprint))
    if not blueprint.known and blueprint.activations and config.activation is None:
        usual = tuple(dict.fromkeys((blueprint.default, "relu", "leaky:0.2")))
        asked.append(Question("hidden activation (--activation)", usual, "activation", start, shown, rare=_FURTHER))
    if not blueprint.known and norms and config.bn_eps is None:
        asked.append(Question("batch-norm eps (--bn-eps)", (1e-5, 0.8), "eps", 1, shown, "{:g}".format))
    for place, open_ in enumerate(blueprint.open):
        answers = tuple(range(len(open_.options)))
        last = open_.norm if open_.last is None else open_.last
        asked.append(Question(open_.what, answers, place, open_.norm, last, open_.options.__getitem__, customary=open_.customary))
    if blueprint.dropouts:
        asked.append(Question("dropout in training, none in use", _DROPOUTS, "dropout", start, 1, "{:g}".format, alters=False))
    return asked


def _behind_activations(blueprint: Blueprint) -> int:
    """The first norm that receives what an activation made; 0 where there is none."""
    norms, active = 0, False
    for step in blueprint.steps:
        if step.layer is not None and step.layer.kind == "norm":
            if active:
                return norms
            norms += 1
        active |= step.kind == "activation"
    return 0
