"""What weights do not say, as questions with a few answers each, the customary one first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gandiag.checkpoints.batchnorm.moments import prior_std
from gandiag.checkpoints.inference.candidate_scorer import Assignment
from gandiag.checkpoints.inference.conditioning import LABEL_POSITION_SETTING, InputLayout
from gandiag.checkpoints.inference.sequential import SequentialSpec
from gandiag.config import AuditConfig

PRIOR_CANDIDATES = ("normal", "uniform", "unit")
_FURTHER = ("elu", "gelu", "silu", "tanh")
_DROPOUTS = (0.0, 0.2, 0.3, 0.5)


@dataclass(frozen=True, slots=True)
class Hyperparameter:
    """One thing that is open. `answers`: the customary one first; `field`: of a reading, or the place among the blueprint's own questions;
    `norm`: the first batch norm that may show it; `last`: the one that has seen all of it.

    `rare`: further answers, no rivals of the usual ones where they do not fit better. `customary`: the other answers are rare.
    `alters`: does what the generator makes depend on it?
    """

    setting: str
    candidates: tuple[Any, ...]
    field: str | int
    first_batchnorm: int
    last_batchnorm: int
    format_value: Callable[[Any], str] = str
    extra_candidates: tuple[Any, ...] = ()
    prefer_default: bool = False
    changes_output: bool = True

    def assign(self, assignment: Assignment, value: Any) -> Assignment:
        """The reading with this answer."""
        if isinstance(self.field, int):
            return replace(
                assignment, choices=(*assignment.choices[: self.field], value, *assignment.choices[self.field + 1 :])
            )
        if self.field == "prior":
            return replace(assignment, prior=value, latent_std=prior_std(value))
        return replace(assignment, **{self.field: value})

    def value_of(self, assignment: Assignment) -> Any:
        """The answer that a reading gives."""
        return assignment.choices[self.field] if isinstance(self.field, int) else getattr(assignment, self.field)


def label_position_hyperparameter(input_layouts: Sequence[InputLayout]) -> Hyperparameter:
    """Which of the ways to join the class to the latents."""
    return Hyperparameter(
        LABEL_POSITION_SETTING,
        tuple(range(len(input_layouts))),
        "layout_index",
        0,
        0,
        lambda way: f"{input_layouts[way].label_position} the latents",
    )


def open_hyperparameters(
    spec: SequentialSpec, input_layouts: Sequence[InputLayout], config: AuditConfig, *, include_prior: bool
) -> list[Hyperparameter]:
    """Everything that flags, the file and the shapes leave open. `prior`: that and the place of the class too, as no norm behind the first layer
    shows them alone."""
    asked = [label_position_hyperparameter(input_layouts)] if include_prior and len(input_layouts) > 1 else []
    norms = any(layer.kind == "norm" for layer in spec.weighted_layers)
    if include_prior and config.prior is None:
        asked.append(Hyperparameter("latent prior (--prior)", PRIOR_CANDIDATES, "prior", 0, 0))
    start = 0 if include_prior else 1  # the first norm stands right behind the first layer, or it does not
    shown = max(1, _behind_activations(spec))
    if not spec.settings_from_file and spec.n_activations and config.activation is None:
        usual = tuple(dict.fromkeys((spec.default_activation, "relu", "leaky:0.2")))
        asked.append(
            Hyperparameter(
                "hidden activation (--activation)", usual, "activation", start, shown, extra_candidates=_FURTHER
            )
        )
    if not spec.settings_from_file and norms and config.bn_eps is None:
        asked.append(Hyperparameter("batch-norm eps (--bn-eps)", (1e-5, 0.8), "eps", 1, shown, "{:g}".format))
    for place, open_ in enumerate(spec.open_choices):
        answers = tuple(range(len(open_.options)))
        last = open_.first_batchnorm if open_.last_batchnorm is None else open_.last_batchnorm
        asked.append(
            Hyperparameter(
                open_.setting,
                answers,
                place,
                open_.first_batchnorm,
                last,
                open_.options.__getitem__,
                prefer_default=open_.prefer_default,
            )
        )
    if spec.n_dropouts:
        asked.append(
            Hyperparameter(
                "dropout in training, none in use", _DROPOUTS, "dropout", start, 1, "{:g}".format, changes_output=False
            )
        )
    return asked


def _behind_activations(blueprint: SequentialSpec) -> int:
    """The first norm that receives what an activation made; 0 where there is none."""
    norms, active = 0, False
    for step in blueprint.layer_specs:
        if step.weights is not None and step.weights.kind == "norm":
            if active:
                return norms
            norms += 1
        active |= step.kind == "activation"
    return 0
