"""Infers from BatchNorm running statistics what the weights omit: activation, eps, strides, dropout, prior.

Every open hyperparameter has a few candidates, the default first. All assignments are scored on the same latents; the
mismatch is the mean over the first few BatchNorm layers at which the candidates differ. The best assignment is taken.
If the runner-up fits almost as well, the choice is marked "undecided" and no collapse verdict is issued (`decisions`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from gandiag.checkpoints.batchnorm.moments import prior_std
from gandiag.checkpoints.batchnorm.thresholds import DECISIVE_RATIO, GOOD_MISMATCH
from gandiag.checkpoints.inference.activation_twins import settle_twin
from gandiag.checkpoints.inference.candidate_networks import Assignment
from gandiag.checkpoints.inference.candidate_scorer import CandidateScorer
from gandiag.checkpoints.inference.conditioning import InputLayout
from gandiag.checkpoints.inference.decisions import decide_hyperparameter
from gandiag.checkpoints.inference.gap_search import score_gap_layers, screen_gap_layers
from gandiag.checkpoints.inference.hyperparameters import (
    RARE_ACTIVATIONS,
    SCREENED_ACTIVATIONS,
    Hyperparameter,
    ScoreTables,
    open_hyperparameters,
)
from gandiag.checkpoints.inference.latent_evidence import (
    decide_label_position,
    decide_prior,
    search_with_fitted_scale,
)
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.inference.open_settings import (
    OpenSetting,
    count_readings,
    iter_readings,
    list_affine_settings,
    list_open_settings,
)
from gandiag.checkpoints.inference.output_activation import assume_last_gap
from gandiag.checkpoints.inference.search import search_with_defaults, sweep_mismatch
from gandiag.checkpoints.inference.search_state import OutOfBudget, SearchState
from gandiag.checkpoints.inference.sequential import (
    SequentialGenerator,
    SequentialSpec,
    build_sequential_generator,
    make_hidden_activation,
)
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.interfaces import Assumption, BatchNormFit, OutputSpec, Prior


@dataclass(frozen=True, slots=True)
class InferredModel:
    """The network, its input layout, output and prior, and how every open hyperparameter was decided.

    `open_settings`: those that nothing settles; `iter_alternatives` builds the networks of their other values.
    """

    generator: SequentialGenerator
    input_layout: InputLayout
    output: OutputSpec
    prior: Prior
    assumptions: tuple[Assumption, ...]
    open_settings: tuple[OpenSetting, ...] = ()
    scorer: CandidateScorer | None = None
    assignment: Assignment | None = None

    def total_mismatch(self) -> float | None:
        """Mean mismatch over every BatchNorm of the network; None without statistics."""
        if self.scorer is None or self.assignment is None or not self.scorer.n_batchnorms:
            return None
        try:
            mismatches = self.scorer.mismatch(self.assignment, self.scorer.n_batchnorms)
        except OutOfBudget:
            return None
        return sum(mismatches) / len(mismatches)

    def describe_open(self) -> dict[str, str]:
        """The open settings with the values taken, in words."""
        return {entry.setting: entry.value_text(entry.values[0]) for entry in self.open_settings}

    def count_alternatives(self) -> int:
        """How many other readings of the file there are."""
        return count_readings(self.open_settings)

    def iter_alternatives(self) -> Iterator[tuple[Mapping[str, str], InferredModel]]:
        """Every other reading of the file, with the open settings' values in words."""
        if self.scorer is None or self.assignment is None:
            return
        for texts, assignment in iter_readings(self.open_settings, self.assignment):
            try:
                yield texts, _build_model(self.scorer, assignment, self.assumptions)
            except ArchitectureMismatch:
                continue


def infer_hyperparameters(
    spec: SequentialSpec,
    input_layouts: Sequence[InputLayout],
    config: AuditConfig,
    latent_stds: Sequence[Mapping[str, float]],
    state: SearchState | None = None,
) -> InferredModel:
    """The network of a spec with the hyperparameters that best fit its BatchNorm statistics.

    `input_layouts`: the ways to join the class, the default first. `latent_stds`: for each of them, the std of one
    latent under each prior where the first layer shows it; without it the prior is one of the open hyperparameters.
    `state`: the budget of the search; where it is spent, the settings that were not ranked keep their defaults, the
    assumptions state it, and their other values stay open.

    LoadError where undecided candidates give images of different sizes; ArchitectureMismatch where the weights do not
    fit the layers.
    """
    assignment = _initial_assignment(spec, config)
    build_sequential_generator(spec, assignment.activation, assignment.eps)  # ArchitectureMismatch first
    scorer = CandidateScorer(spec, input_layouts, assignment, state)
    tables: ScoreTables = {}
    default_fit = None
    evidence: list[Assumption] = []
    try:
        assignment, evidence = _read_first_layer(scorer, assignment, config, latent_stds)
    except OutOfBudget:
        latent_stds = [{} for _ in latent_stds]
    hyperparameters = open_hyperparameters(
        spec, () if evidence else input_layouts, config, include_prior=not latent_stds[assignment.layout_index]
    )
    gaps = [parameter for parameter in hyperparameters if parameter.field == "norm"]
    hyperparameters = [parameter for parameter in hyperparameters if parameter not in gaps]
    try:
        for parameter in gaps:
            assignment = screen_gap_layers(scorer, hyperparameters, parameter, assignment)
        assignment, tables = search_with_defaults(scorer, hyperparameters, assignment)
        tables |= {parameter.field: score_gap_layers(scorer, parameter, assignment) for parameter in gaps}
        hyperparameters, assignment, tables = _try_rare_activations(scorer, hyperparameters, assignment, tables)
    except OutOfBudget:
        default_fit = BatchNormFit(outcome="not_ranked")
    with contextlib.suppress(OutOfBudget):
        rescaled = search_with_fitted_scale(scorer, hyperparameters, assignment, tables)
        if rescaled is not None:
            assignment, tables, entry = rescaled
            evidence.append(entry)
            hyperparameters = [parameter for parameter in hyperparameters if parameter.field != "prior"]
    hyperparameters = [*hyperparameters, *gaps]
    assignment, decided = _decide_all(scorer, hyperparameters, assignment, tables, default_fit)
    assignment, decided = _settle_twins(scorer, spec, assignment, decided)
    pairs = [(parameter, entry) for parameter, entry in zip(hyperparameters, decided, strict=True)]
    open_settings = (
        *list_open_settings(pairs, tables, assignment),
        *list_affine_settings(spec.affine_norms),
    )
    assumptions = [_credit_flags(entry, config) for entry in (*decided, *evidence)]
    known = _known_settings(spec, config, scorer)
    model = _build_model(scorer, assignment, (*assumptions, *known))
    _require_image_size(model.output, config)
    return replace(model, open_settings=open_settings, scorer=scorer, assignment=assignment)


def adopt_settings(
    spec: SequentialSpec,
    input_layouts: Sequence[InputLayout],
    config: AuditConfig,
    latent_stds: Sequence[Mapping[str, float]],
    model: InferredModel,
) -> InferredModel:
    """The network of the same layers with other inputs: a model's settings, and the prior that the inputs show."""
    assert model.scorer is not None and model.assignment is not None
    scorer = CandidateScorer(spec, input_layouts, _initial_assignment(spec, config), model.scorer.state)
    assignment = replace(model.assignment, layout_index=0)
    evidence: list[Assumption] = []
    with contextlib.suppress(OutOfBudget):
        assignment, evidence = _read_first_layer(scorer, assignment, config, latent_stds)
    replaced = {"class_place", *(entry.setting for entry in evidence)}
    kept = [entry for entry in model.assumptions if entry.setting not in replaced and entry not in spec.assumptions]
    built = _build_model(scorer, assignment, (*kept, *evidence))
    open_settings = tuple(entry for entry in model.open_settings if entry.setting not in replaced)
    return replace(built, open_settings=open_settings, scorer=scorer, assignment=assignment)


def screen_spec(
    spec: SequentialSpec,
    input_layouts: Sequence[InputLayout],
    config: AuditConfig,
    latent_stds: Sequence[Mapping[str, float]],
    state: SearchState,
) -> float | None:
    """The mismatch of the best assignment of a first sweep on few latents; None without statistics.

    The search of that spec begins with the same sweep, which then costs nothing.
    """
    assignment = _initial_assignment(spec, config)
    scorer = CandidateScorer(spec, input_layouts, assignment, state)
    if not scorer.n_batchnorms:
        return None
    assignment, evidence = _read_first_layer(scorer, assignment, config, latent_stds)
    hyperparameters = open_hyperparameters(
        spec, () if evidence else input_layouts, config, include_prior=not latent_stds[assignment.layout_index]
    )
    searched = [parameter for parameter in hyperparameters if parameter.field != "norm"]
    return sweep_mismatch(scorer, searched, assignment)


def compare_spec(
    spec: SequentialSpec, input_layouts: Sequence[InputLayout], config: AuditConfig, model: InferredModel
) -> float:
    """How many times worse than a model another spec of the same weights fits, on few latents, at the model's settings.

    The best of the usual activations counts. 0 where that cannot be told. Cost: a dozen passes.
    """
    if model.scorer is None or model.assignment is None:
        return 0.0
    own, base = model.assignment, _initial_assignment(spec, config)
    scorer = CandidateScorer(spec, input_layouts, base, model.scorer.state)
    if not scorer.n_batchnorms or scorer.n_batchnorms != model.scorer.n_batchnorms:
        return 0.0
    same_choices = len(own.choices) == len(base.choices)
    candidates = [
        replace(own, activation=name, choices=choices, layout_index=index, norm=base.norm)
        for name in dict.fromkeys((own.activation, *_screened_activations(spec, config, base)))
        for choices in dict.fromkeys((own.choices if same_choices else base.choices, base.choices))
        for index in range(len(input_layouts))
    ]
    reference = sum(model.scorer.mismatch(own, model.scorer.n_batchnorms, coarse=True))
    best = min(sum(scorer.mismatch(entry, scorer.n_batchnorms, coarse=True)) for entry in candidates)
    return best / max(reference, 1e-6)


def _screened_activations(spec: SequentialSpec, config: AuditConfig, base: Assignment) -> tuple[str, ...]:
    if config.activation is not None or not spec.n_activations or spec.settings_from_file:
        return (base.activation,)
    return tuple(dict.fromkeys((base.activation, *SCREENED_ACTIVATIONS)))


def _try_rare_activations(
    scorer: CandidateScorer, hyperparameters: list[Hyperparameter], assignment: Assignment, tables: ScoreTables
) -> tuple[list[Hyperparameter], Assignment, ScoreTables]:
    """Search again with uncommon activations, where one of them fits better, or nothing fits well."""
    table = tables.get("activation")
    parameter = next((entry for entry in hyperparameters if entry.field == "activation"), None)
    if not table or parameter is None:
        return hyperparameters, assignment, tables
    depth = scorer.required_depth(parameter.last_batchnorm)
    best = min(score for score, _ in table.values())

    def score(candidate: Assignment) -> float:
        row = scorer.mismatch(candidate, depth)[parameter.first_batchnorm :]
        return sum(row) / max(1, len(row))

    # Strides and upsampling chosen beside a wrong activation may be wrong too.
    bases = dict.fromkeys((assignment, replace(assignment, choices=(0,) * len(assignment.choices))))
    scores = {name: min(score(replace(base, activation=name)) for base in bases) for name in RARE_ACTIVATIONS}
    if min(scores.values()) >= score(assignment) and best < GOOD_MISMATCH:
        return hyperparameters, assignment, tables
    extra = tuple(name for name in RARE_ACTIVATIONS if best >= GOOD_MISMATCH or scores[name] < DECISIVE_RATIO * best)
    wider = replace(parameter, extra_candidates=(*parameter.extra_candidates, *extra))
    widened = [wider if entry is parameter else entry for entry in hyperparameters]
    assignment, found = search_with_defaults(scorer, widened, assignment)
    return widened, assignment, {**tables, **found}


def _initial_assignment(spec: SequentialSpec, config: AuditConfig) -> Assignment:
    """The defaults, and the values of flags. ConfigError for an unknown --activation."""
    if config.activation is not None:
        make_hidden_activation(config.activation)
    activation = config.activation or spec.default_activation
    prior = config.prior or "normal"
    return Assignment(
        activation if spec.n_activations else "none",
        1e-5 if config.bn_eps is None else config.bn_eps,
        0.0,
        prior,
        prior_std(prior),
        (0,) * len(spec.open_choices),
        norm=config.hidden_norm or (*spec.affine_norms, "none")[0],
    )


def _read_first_layer(
    scorer: CandidateScorer,
    assignment: Assignment,
    config: AuditConfig,
    latent_stds: Sequence[Mapping[str, float]],
) -> tuple[Assignment, list[Assumption]]:
    """Label position and prior, where the first layer shows the latents' std."""
    evidence = []
    if len(scorer.input_layouts) > 1 and any(latent_stds):
        assignment, entry = decide_label_position(scorer, assignment, latent_stds)
        evidence.append(entry)
    stds = latent_stds[assignment.layout_index]
    if stds and config.prior is None:
        assignment, entry = decide_prior(scorer, assignment, stds)
        evidence.append(entry)
    elif stds:
        assignment = replace(assignment, latent_std=stds.get(assignment.prior, stds["normal"]))
    return assignment, evidence


def _decide_all(
    scorer: CandidateScorer,
    hyperparameters: Sequence[Hyperparameter],
    assignment: Assignment,
    tables: ScoreTables,
    default_fit: BatchNormFit | None,
) -> tuple[Assignment, list[Assumption]]:
    """Decide every hyperparameter in turn. `default_fit`: of those that were not ranked."""
    decided = []
    for parameter in hyperparameters:
        assignment, entry = decide_hyperparameter(scorer, parameter, assignment, tables.get(parameter.field, {}))
        decided.append(entry if default_fit is None else replace(entry, fit=default_fit))
    return assignment, decided


def _settle_twins(
    scorer: CandidateScorer, spec: SequentialSpec, assignment: Assignment, decided: list[Assumption]
) -> tuple[Assignment, list[Assumption]]:
    """The activation and its twin compared by all channels, once the rest is known."""
    for index, entry in enumerate(decided):
        if entry.setting == "activation":
            assignment, decided[index] = settle_twin(scorer, spec, assignment, entry)
    return assignment, decided


def _credit_flags(entry: Assumption, config: AuditConfig) -> Assumption:
    """Credit --image-size for strides and upsampling chosen to reach it, unless the statistics leave them open."""
    if config.image_size is None or entry.undecided:
        return entry
    upsampling_given = config.upsampling is not None and entry.setting in ("upsampling", "pixel_shuffle_order")
    return replace(entry, source="flag") if entry.setting == "strides" or upsampling_given else entry


def _build_model(scorer: CandidateScorer, assignment: Assignment, assumptions: tuple[Assumption, ...]) -> InferredModel:
    spec = scorer.networks.get_spec(assignment.choices)
    if spec is None:
        raise ArchitectureMismatch("no strides lead through its kernels")
    generator = build_sequential_generator(
        spec, assignment.activation, assignment.eps, assignment.dropout, norm=assignment.norm
    )
    layout = scorer.input_layouts[assignment.layout_index]
    prior = cast(Prior, assignment.prior)  # one of AuditConfig's choices
    output = replace(spec.output, shape=generator.output_shape)  # pooling and upsampling change it
    return InferredModel(generator, layout, output, prior, (*assumptions, *spec.assumptions))


def _require_image_size(output: OutputSpec, config: AuditConfig) -> None:
    """LoadError where --hidden-norm leads to another size than --image-size."""
    if config.image_size is None or config.hidden_norm is None or output.kind != "image":
        return
    if output.shape[-1] != config.image_size:
        raise LoadError(
            f"--hidden-norm {config.hidden_norm} leads to image size {output.shape[-1]}, and --image-size is "
            f"{config.image_size}",
            "give one of them",
        )


def _known_settings(spec: SequentialSpec, config: AuditConfig, scorer: CandidateScorer) -> tuple[Assumption, ...]:
    """What flags or the file settle, and statistics that cannot settle anything."""
    result = []
    if spec.has_batchnorm and not scorer.n_batchnorms:
        note = "mean 0 and variance 1, which say nothing about the other settings"
        result.append(Assumption("batchnorm_statistics", "never updated", "file", note=note))
    if spec.settings_from_file:
        result.append(Assumption("layer_settings", "as pickled", "file"))
    if config.prior is not None:
        result.append(Assumption("prior", config.prior, "flag"))
    if spec.has_open_norms and not spec.affine_norms and config.hidden_norm is not None:
        result.append(Assumption("hidden_norm", config.hidden_norm, "flag"))
    is_stated = any(entry.setting == "before_last_layer" for entry in spec.assumptions)
    if spec.n_unseen_modules and not is_stated and config.image_size is None:
        result += assume_last_gap(spec.n_unseen_modules, config)
    if spec.affine_assumption is not None:
        result.append(spec.affine_assumption)
    if config.activation is not None and spec.n_activations and not spec.settings_from_file:
        result.append(Assumption("activation", config.activation, "flag"))
    if config.bn_eps is not None and spec.has_batchnorm and not spec.settings_from_file:
        result.append(Assumption("bn_eps", config.bn_eps, "flag"))
    return tuple(result)
