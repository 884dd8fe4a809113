"""Settles what the weights do not say by the checkpoint's own running statistics: activation, eps, layers, dropout, prior.

Every question has a few answers, the customary one first. All readings run on the same latents; a reading's mismatch is the
mean over the batch norms, a few, at which the answers differ. The best one is taken. It is settled where every answer that
makes other samples is at least twice as far off; else it is "undecided", and nobody may call such a generator collapsed.
Rare activations are no rivals of a usual one that fits better than they do, and strides are those of custom until others fit
clearly better: a padding more or less changes little but the border. Statistics that cannot see a question (it comes after
the last norm) leave it to custom, and that is said.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gandiag.checkpoints.batchnorm.moments import prior_std
from gandiag.checkpoints.inference.candidate_scorer import Assignment, CandidateScorer, OutOfBudget
from gandiag.checkpoints.inference.conditioning import InputLayout
from gandiag.checkpoints.inference.hyperparameters import (
    PRIOR_CANDIDATES,
    Hyperparameter,
    label_position_hyperparameter,
    open_hyperparameters,
)
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.inference.search import CandidateScores, beam_search
from gandiag.checkpoints.inference.sequential import (
    SequentialGenerator,
    SequentialSpec,
    build_sequential_generator,
    make_hidden_activation,
)
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.interfaces import Assumption, OutputSpec

UNDECIDED = "undecided"  # the source of an assumption that the statistics leave open
DECISIVE_RATIO = 2.0  # how many times worse the runner-up must be
DEFAULT_OVERRIDE_RATIO = (
    1.25  # how many times worse custom must be to be doubted: a padding more or less may change little but the border
)
GOOD_MISMATCH = 0.15  # a reading that fits so well may be right; one that does not may not make custom doubtful
BAD_MISMATCH = 0.5  # no reading is right
_INSPECT_BUDGET, _MAX_INSPECT_PARAMETERS = (
    8e10,
    2e7,
)  # multiplications in four seconds, about; parameters of networks of which one pass takes too long for a glance
_HURRIED = " (custom; an audit asks the batch norms, which takes seconds here)"
_RANGES = {"uniform": " on [-1, 1]", "unit": " (uniform on [0, 1])"}
_NEITHER = 0.2  # of the logarithm: so far from a prior's deviation are weights and statistics that drift apart, not


@dataclass(frozen=True, slots=True)
class InferredModel:
    """The network, what its inputs, prior and output are, and how everything open was answered."""

    generator: SequentialGenerator
    input_layout: InputLayout
    output: OutputSpec
    prior: str
    assumptions: tuple[Assumption, ...]


def infer_hyperparameters(
    spec: SequentialSpec,
    input_layouts: Sequence[InputLayout],
    config: AuditConfig,
    latent_stds: Sequence[Mapping[str, float]],
    *,
    inspect_only: bool = False,
) -> InferredModel:
    """The best reading of a blueprint. `inputs`: the ways to join the class, the customary one first.
    `deviations`: for each of them, of one latent under each prior, where the first layer shows it; else the prior is asked.
    `glance`: networks whose ranking takes seconds are not ranked, and that is said.

    LoadError where the undecided answers make pictures of different sizes; NotThis where the weights do not fit the layers.
    """
    if config.activation is not None:
        make_hidden_activation(config.activation)
    prior = config.prior or "normal"
    reading = Assignment(
        config.activation or spec.default_activation if spec.n_activations else "none",
        1e-5 if config.bn_eps is None else config.bn_eps,
        0.0,
        prior,
        prior_std(prior),
        (0,) * len(spec.open_choices),
    )
    build_sequential_generator(spec, reading.activation, reading.eps)  # NotThis first
    trial = CandidateScorer(spec, input_layouts, reading)
    told_first = []
    if len(input_layouts) > 1 and any(latent_stds):
        reading, entry = _place_by_scale(trial, reading, latent_stds)
        told_first.append(entry)
    found = latent_stds[reading.layout_index]
    if found and config.prior is None:
        reading, entry = _prior_by_scale(trial, reading, found)
        told_first.append(entry)
    elif found:
        reading = replace(reading, latent_std=found.get(prior, found["normal"]))
    asked = open_hyperparameters(spec, () if told_first else input_layouts, config, include_prior=not found)
    if inspect_only:
        trial.remaining_budget = (
            0
            if sum(entry.numel() for layer in spec.weighted_layers for entry in layer.tensors.values())
            > _MAX_INSPECT_PARAMETERS
            else _INSPECT_BUDGET
        )
    scores: dict[str, CandidateScores] = {}
    hurried = ""
    try:
        reading, scores = _search_with_defaults(trial, asked, reading)
    except OutOfBudget:
        hurried = _HURRIED
    with contextlib.suppress(OutOfBudget):
        rescaled = _rescaled(trial, asked, reading, scores)
        if rescaled is not None:
            reading, scores, entry = rescaled
            told_first.append(entry)
            asked = [question for question in asked if question.field != "prior"]
    said = []
    for question in asked:
        reading, entry = _answered(trial, question, reading, scores.get(question.setting, {}))
        said.append(replace(entry, value=entry.value + hurried))
    chosen = trial.get_spec(reading.choices)
    if chosen is None:
        raise ArchitectureMismatch("no strides lead through its kernels")
    chain = build_sequential_generator(chosen, reading.activation, reading.eps, reading.dropout)
    said = [_credited(entry, config) for entry in (*said, *told_first)]
    return InferredModel(
        chain,
        input_layouts[reading.layout_index],
        chosen.output,
        reading.prior,
        (*said, *_unasked(spec, config, trial), *chosen.assumptions),
    )


def _search_with_defaults(
    trial: CandidateScorer, asked: list[Hyperparameter], reading: Assignment
) -> tuple[Assignment, dict[str, CandidateScores]]:
    """The best reading in which custom stands wherever no other answer fits well enough, and what every answer fits.

    Where custom stands against an answer that fits better, what fitted beside that one need not fit beside custom: the rest is searched again.
    """
    scores: dict[str, CandidateScores] = {}
    while True:
        reading, found = beam_search(trial, asked, reading)
        scores |= found
        kept = [
            question
            for question in asked
            if found[question.setting] and _custom_stands(question, found[question.setting])
        ]
        if not kept:
            return reading, scores
        for question in kept:
            reading = question.assign(reading, question.candidates[0])
        asked = [question for question in asked if question not in kept]


def _custom_stands(question: Hyperparameter, table: CandidateScores) -> bool:
    """Does another answer fit better than custom, and not well enough?"""
    best = min(table, key=lambda answer: table[answer][0])
    return (
        question.prefer_default
        and best != question.candidates[0]
        and (select_candidate(question, table) != best or table[best][0] >= BAD_MISMATCH)
    )


def _credited(entry: Assumption, config: AuditConfig) -> Assumption:
    """What the size of the picture was given for, with that flag as its source, unless statistics leave it open all the same."""
    given = "(--image-size or --strides)" in entry.what or (
        config.upsampling is not None and "--upsampling" in entry.what
    )
    return (
        replace(entry, source="flag")
        if given and config.image_size is not None and entry.source != UNDECIDED
        else entry
    )


# telling


def select_candidate(hyperparameter: Hyperparameter, scores: CandidateScores) -> Any:
    """The answer that fits best; the customary one stands while no other fits clearly better, or well and noticeably better."""
    best, custom = min(scores, key=lambda answer: scores[answer][0]), hyperparameter.candidates[0]
    score = scores[best][0]
    return (
        custom
        if hyperparameter.prefer_default
        and scores[custom][0] < (DEFAULT_OVERRIDE_RATIO if score < GOOD_MISMATCH else DECISIVE_RATIO) * score
        else best
    )


def _answered(
    trial: CandidateScorer, question: Hyperparameter, reading: Assignment, table: CandidateScores
) -> tuple[Assignment, Assumption]:
    """The answer, its margin over the best answer that makes other samples, and whether that is enough."""
    custom = question.candidates[0]
    if not table:
        return question.assign(reading, custom), Assumption(question.setting, question.format_value(custom), "default")
    best = select_candidate(question, table)
    score, mine = table[best]
    if score >= BAD_MISMATCH and question.prefer_default:
        return question.assign(reading, custom), Assumption(
            question.setting,
            f"{question.format_value(custom)} (the statistics fit none: {score:.2f} at best)",
            UNDECIDED,
        )
    near = [answer for answer in table if answer != best and table[answer][0] < DECISIVE_RATIO * score]
    equal = [answer for answer in near if question.changes_output and trial.same_outputs(mine, table[answer][1])]
    if custom in equal:
        equal, best = [*equal, best], custom
    rivals = sorted(
        (answer for answer in table if answer != best and answer not in equal), key=lambda answer: table[answer][0]
    )
    chosen, said = question.assign(reading, best), question.format_value(best)
    if not rivals:
        return chosen, Assumption(
            question.setting,
            f"{said} (batch-norm mismatch {score:.3f}; the others make the same samples)",
            "batch-norm",
        )
    rival = (
        rivals[0] if question.changes_output or best == custom else custom
    )  # neighbouring shares dropped differ by little
    told = f"batch-norm mismatch {score:.3f}; {question.format_value(rival)}: {_times(table[rival][0], score)}"
    if not question.changes_output:
        return chosen, Assumption(
            question.setting, f"{said} ({'undecided: ' if rival in near else ''}{told})", "metadata"
        )  # that one is there, the file says
    if question.prefer_default and best == custom:
        return chosen, Assumption(
            question.setting,
            f"{said} ({'customary: ' if rival in near else ''}{told})",
            "default" if rival in near else "batch-norm",
        )
    close = [
        answer
        for answer in rivals
        if answer in near and (best in question.extra_candidates or answer not in question.extra_candidates)
    ]
    if not close:
        return chosen, Assumption(question.setting, f"{said} ({told})", "batch-norm")
    _demand_one_size(trial, chosen, question.assign(chosen, close[0]), score)
    return chosen, Assumption(question.setting, f"{said} (undecided: {told})", UNDECIDED)


def _times(other: float, score: float) -> str:
    if other >= 1e9:
        return "impossible"
    return f"{other:.3f}" + (f", {other / score:.1f} times as far" if score > 0 else "")


def _demand_one_size(trial: CandidateScorer, mine: Assignment, theirs: Assignment, score: float) -> None:
    """Undecided answers that alone make pictures of different sizes are no reading at all."""
    shapes = [made.output.shape for made in map(trial.get_spec, (mine.choices, theirs.choices)) if made is not None]
    if len({*shapes}) > 1 and score >= BAD_MISMATCH:
        raise LoadError(
            f"no plain chain of these layers fits their batch-norm statistics (mismatch {score:.2f} at best, where the right one has less than "
            f"{GOOD_MISMATCH:g}): layers may be skipped or joined",
            f"say what builds it: --model pkg.mod:factory [--init k=v]; or, for a plain chain, its size: --image-size {shapes[0][-1]}",
        )
    if len({*shapes}) > 1:
        sides = " and ".join(f"{shape[-2]} x {shape[-1]}" for shape in shapes)
        raise LoadError(
            f"the weights and their batch-norm statistics leave the size of the picture open: {sides} fit about as well",
            f"say which: --image-size {shapes[0][-1]}, or --image-size {shapes[1][-1]}",
        )


def _rescaled(
    trial: CandidateScorer, asked: list[Hyperparameter], reading: Assignment, scores: Mapping[str, CandidateScores]
) -> tuple[Assignment, dict[str, CandidateScores], Assumption] | None:
    """Where no prior at its own scale explains what the first norm remembers: the readings once more, each at the scale at which it does.

    None where one does, where nothing was asked, or where no scale fits either.
    """
    by = {question.field: question for question in asked}
    table = scores.get(by["prior"].setting, {}) if "prior" in by else {}
    usual = min((score for score, _ in table.values()), default=0.0)
    if usual < BAD_MISMATCH:
        return None
    depth = min(
        trial.n_batchnorms,
        1 + max((by[field].last_batchnorm for field in ("activation", "eps") if field in by), default=0),
    )
    found: dict[tuple[Any, Any], tuple[float, Assignment]] = {}
    for activation in (
        (*by["activation"].candidates, *by["activation"].extra_candidates)
        if "activation" in by
        else (reading.activation,)
    ):
        one = replace(reading, activation=activation, prior="normal", latent_std=1.0)
        scale = trial.fit_latent_std(one)
        for eps in by["eps"].candidates if "eps" in by else (reading.eps,):
            if scale is not None:
                tried = replace(one, eps=eps, latent_std=scale)
                found[activation, eps] = sum(trial.mismatch(tried, depth)) / depth, tried
    score, best = min(found.values(), key=lambda scored: scored[0], default=(math.inf, reading))
    if score >= BAD_MISMATCH or DECISIVE_RATIO * score > usual:
        return None
    rest = [question for question in asked if question.field not in ("prior", "activation", "eps")]
    best, more = _search_with_defaults(trial, rest, best) if rest else (best, {})
    for place, field in enumerate(("activation", "eps")):
        if field in by:
            rows = {key[place] for key in found}
            more[by[field].setting] = {
                row: min((scored for key, scored in found.items() if key[place] == row), key=lambda scored: scored[0])
                for row in rows
            }
    return best, more, Assumption(by["prior"].setting, _nobodys("normal", best.latent_std), "default")


def _nobodys(prior: str, deviation: float) -> str:
    """A prior at nobody's deviation, in words."""
    return f"{prior}; its latents had deviation {deviation:.3g} in training, where a standard normal has 1 and a uniform on [-1, 1] .577"


def _place_by_scale(
    trial: CandidateScorer, reading: Assignment, deviations: Sequence[Mapping[str, float]]
) -> tuple[Assignment, Assumption]:
    """Where the first layer shows the latents' deviation under a place of the class: which place fits best, at that deviation or at a prior's own."""
    table: CandidateScores = {}
    for way, found in enumerate(deviations):
        usual = {prior: prior_std(prior) for prior in PRIOR_CANDIDATES}
        tried = [
            replace(reading, layout_index=way, prior=prior, latent_std=scale)
            for known in (found, usual)
            for prior, scale in known.items()
        ]
        table[way] = min(((trial.mismatch(one, 1)[0], one) for one in tried), key=lambda scored: scored[0])
    chosen, entry = _answered(trial, label_position_hyperparameter(trial.input_layouts), reading, table)
    if table[chosen.layout_index][0] >= BAD_MISMATCH:
        entry = replace(
            entry,
            value=f"{entry.value.split(' (')[0]} (the statistics fit none: {table[chosen.layout_index][0]:.2f} at best)",
            source=UNDECIDED,
        )
    return replace(reading, layout_index=chosen.layout_index), entry


def _prior_by_scale(
    trial: CandidateScorer, reading: Assignment, deviations: Mapping[str, float]
) -> tuple[Assignment, Assumption]:
    """Where the first layer shows the latents' deviation: is it that of one of the usual priors, and is their mean that prior's?"""
    what = "latent prior (--prior)"
    tried = {prior: replace(reading, prior=prior, latent_std=prior_std(prior)) for prior in deviations}
    if min(abs(math.log(deviations[prior] / one.latent_std)) for prior, one in tried.items()) > _NEITHER:
        return _prior_by_mean(trial, reading, deviations)
    scores = {prior: trial.mismatch(one, 1)[0] for prior, one in tried.items()}
    best, rival = sorted(scores, key=scores.__getitem__)[:2]
    told = f"batch-norm mismatch {scores[best]:.3f}; {rival}: {_times(scores[rival], scores[best])}"
    if scores[rival] < DECISIVE_RATIO * scores[best]:
        return tried[best], Assumption(what, f"{best} (undecided: {told})", UNDECIDED)
    return tried[best], Assumption(what, f"{best}{_RANGES.get(best, '')} ({told})", "batch-norm")


def _prior_by_mean(
    trial: CandidateScorer, reading: Assignment, deviations: Mapping[str, float]
) -> tuple[Assignment, Assumption]:
    """Latents of nobody's deviation: only a mean that is not zero tells them apart."""
    what = "latent prior (--prior)"
    tried = {prior: replace(reading, prior=prior, latent_std=deviations[prior]) for prior in ("normal", "unit")}
    scores = {prior: trial.mismatch(one, 1)[0] for prior, one in tried.items()}
    if scores["normal"] < DECISIVE_RATIO * scores["unit"]:
        return tried["normal"], Assumption(what, _nobodys("normal", deviations["normal"]), "default")
    told = f"batch-norm mismatch {scores['unit']:.3f}; normal: {_times(scores['normal'], scores['unit'])}"
    return tried["unit"], Assumption(
        what, f"unit; its latents had deviation {deviations['unit']:.3g} in training, not .289 ({told})", "batch-norm"
    )


def _unasked(blueprint: SequentialSpec, config: AuditConfig, trial: CandidateScorer) -> tuple[Assumption, ...]:
    """What flags or the file answered, and why the statistics did not."""
    found = []
    if any(layer.kind == "norm" for layer in blueprint.weighted_layers) and not trial.n_batchnorms:
        found.append(
            Assumption(
                "batch-norm statistics", "never updated (mean 0, variance 1): they tell nothing of the rest", "file"
            )
        )
    if blueprint.settings_from_file:
        found.append(Assumption("activations and batch-norm eps", "as the pickled layers say", "file"))
    if config.prior is not None:
        found.append(Assumption("latent prior (--prior)", config.prior, "flag"))
    if config.activation is not None and blueprint.n_activations and not blueprint.settings_from_file:
        found.append(Assumption("hidden activation (--activation)", config.activation, "flag"))
    if (
        config.bn_eps is not None
        and not blueprint.settings_from_file
        and any(layer.kind == "norm" for layer in blueprint.weighted_layers)
    ):
        found.append(Assumption("batch-norm eps (--bn-eps)", f"{config.bn_eps:g}", "flag"))
    return tuple(found)
