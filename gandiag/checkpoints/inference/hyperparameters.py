"""Hyperparameters that the weights leave open, with their candidate values; the first candidate is the default."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gandiag.checkpoints.batchnorm.moments import prior_std
from gandiag.checkpoints.inference.candidate_networks import Assignment
from gandiag.checkpoints.inference.conditioning import InputLayout
from gandiag.checkpoints.inference.gap_norms import RESIZING_LAYERS
from gandiag.checkpoints.inference.sequential import Choice, OpenChoice, SequentialSpec
from gandiag.config import AuditConfig

CandidateScores = dict[Any, tuple[float, Assignment]]  # candidate -> mismatch, and the assignment that reaches it
ScoreTables = dict[str | int, CandidateScores]  # by Hyperparameter.field

PRIOR_CANDIDATES = ("normal", "uniform", "unit")
EPS_CANDIDATES = (1e-5, 0.8)
_EXTRA_ACTIVATIONS = ("elu", "gelu", "silu", "tanh")
RARE_ACTIVATIONS = ("leaky:0.1", "leaky:0.3", "leaky:0.01", "selu", "mish")  # tried once the rest is known
SCREENED_ACTIVATIONS = ("relu", "leaky:0.2", "elu", "selu", "silu", "tanh")  # by which a structure is judged at first
_DROPOUT_CANDIDATES = (0.0, 0.2, 0.3, 0.5)
_PRIOR_NOTES = {"uniform": "on [-1, 1]", "unit": "uniform on [0, 1]"}


@dataclass(frozen=True, slots=True)
class Hyperparameter:
    """One open hyperparameter.

    `candidates`: the default first; `extra_candidates`: uncommon values that win only if they fit better. `field`: the
    Assignment's field, or an index into its choices. `first_batchnorm`: the first BatchNorm that may depend on it;
    `last_batchnorm`: the one after all layers concerned. `prefer_default`: the other candidates are uncommon.
    `changes_output`: whether the generator's samples depend on it. `layers`: names of the layers concerned. `describe`:
    a candidate as its option takes it.
    """

    setting: str
    candidates: tuple[Any, ...]
    field: str | int
    first_batchnorm: int
    last_batchnorm: int
    describe: Callable[[Any], Choice] = Choice
    extra_candidates: tuple[Any, ...] = ()
    prefer_default: bool = False
    changes_output: bool = True
    layers: tuple[str, ...] = ()

    @property
    def default(self) -> Any:
        """The candidate that stands without evidence."""
        return self.candidates[0]

    @property
    def all_candidates(self) -> tuple[Any, ...]:
        """Candidates and extra candidates."""
        return (*self.candidates, *self.extra_candidates)

    def assign(self, assignment: Assignment, value: Any) -> Assignment:
        """The assignment with this value."""
        if isinstance(self.field, int):
            choices = assignment.choices
            return replace(assignment, choices=(*choices[: self.field], value, *choices[self.field + 1 :]))
        if self.field == "prior":
            return replace(assignment, prior=value, latent_std=prior_std(value))
        return replace(assignment, **{self.field: value})

    def value_of(self, assignment: Assignment) -> Any:
        """The value in an assignment."""
        return assignment.choices[self.field] if isinstance(self.field, int) else getattr(assignment, self.field)

    def compare_text(self, candidate: Any, other: Any) -> str:
        """A candidate as text that differs from another's: "relu"; "nearest, before conv1" if only the note differs."""
        choice, value = self.describe(candidate), self.describe(other).value
        text = f"{choice.value:g}" if isinstance(choice.value, float) else str(choice.value)
        return f"{text}, {choice.note}" if choice.value == value and choice.note else text


def describe_prior(prior: str) -> Choice:
    """A prior, with its range."""
    return Choice(prior, _PRIOR_NOTES.get(prior, ""))


def _describe_gap(norm: str) -> Choice:
    return Choice(norm, "a layer without weights leaves no trace in the file" if norm == "none" else "")


def label_position_hyperparameter(input_layouts: Sequence[InputLayout]) -> Hyperparameter:
    """Which of the ways to join the class to the latents."""
    return Hyperparameter(
        "class_place",
        tuple(range(len(input_layouts))),
        "layout_index",
        0,
        0,
        lambda index: Choice(input_layouts[index].label_position),
    )


def open_hyperparameters(
    spec: SequentialSpec, input_layouts: Sequence[InputLayout], config: AuditConfig, *, include_prior: bool
) -> list[Hyperparameter]:
    """Everything that flags, the file and the shapes leave open.

    `include_prior`: the prior and the label position too, where no BatchNorm directly after the first layer shows them
    by itself.
    """
    result = [label_position_hyperparameter(input_layouts)] if include_prior and len(input_layouts) > 1 else []
    if include_prior and config.prior is None:
        result.append(Hyperparameter("prior", PRIOR_CANDIDATES, "prior", 0, 0, describe_prior))
    start = 0 if include_prior else 1  # without the prior, the first BatchNorm directly follows the first layer
    shown = max(1, _first_batchnorm_after_activation(spec))
    if not spec.settings_from_file:
        if spec.n_activations and config.activation is None:
            candidates = tuple(dict.fromkeys((spec.default_activation, "relu", "leaky:0.2")))
            result.append(
                Hyperparameter(
                    "activation", candidates, "activation", start, shown, extra_candidates=_EXTRA_ACTIVATIONS
                )
            )
        if spec.has_batchnorm and config.bn_eps is None:
            result.append(Hyperparameter("bn_eps", EPS_CANDIDATES, "eps", 1, shown))
    if spec.has_open_norms and not spec.affine_norms and config.hidden_norm is None:
        # The layers that the file shows lead to --image-size: pooling or upsampling beside them would not.
        layers = tuple(name for name in spec.gap_layers if config.image_size is None or name not in RESIZING_LAYERS)
        result.append(
            Hyperparameter("hidden_norm", layers, "norm", *spec.gap_batchnorms, _describe_gap, prefer_default=True)
        )
    result += [_choice_hyperparameter(choice, index) for index, choice in enumerate(spec.open_choices)]
    if spec.n_dropouts:
        result.append(Hyperparameter("dropout", _DROPOUT_CANDIDATES, "dropout", start, 1, changes_output=False))
    return result


def _choice_hyperparameter(choice: OpenChoice, index: int) -> Hyperparameter:
    return Hyperparameter(
        choice.setting,
        tuple(range(len(choice.options))),
        index,
        choice.first_batchnorm,
        choice.first_batchnorm if choice.last_batchnorm is None else choice.last_batchnorm,
        choice.options.__getitem__,
        prefer_default=choice.prefer_default,
        layers=choice.layers,
    )


def _first_batchnorm_after_activation(spec: SequentialSpec) -> int:
    """Index of the first BatchNorm that depends on an activation; 0 where there is none."""
    n_batchnorms, active = 0, False
    for layer in spec.layer_specs:
        if layer.weights is not None and layer.weights.kind == "norm":
            if active:
                return n_batchnorms
            n_batchnorms += 1
        active |= layer.kind == "activation"
    return 0
