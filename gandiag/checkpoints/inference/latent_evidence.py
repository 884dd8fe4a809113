"""Decides the prior and the label position by the latents' std and mean, as the first BatchNorm shows them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from gandiag.checkpoints.batchnorm.moments import prior_std
from gandiag.checkpoints.batchnorm.thresholds import BAD_MISMATCH, DECISIVE_RATIO
from gandiag.checkpoints.inference.candidate_networks import Assignment
from gandiag.checkpoints.inference.candidate_scorer import CandidateScorer
from gandiag.checkpoints.inference.decisions import decide_hyperparameter, make_fit
from gandiag.checkpoints.inference.hyperparameters import (
    PRIOR_CANDIDATES,
    CandidateScores,
    Hyperparameter,
    ScoreTables,
    describe_prior,
    label_position_hyperparameter,
)
from gandiag.checkpoints.inference.search import search_with_defaults
from gandiag.interfaces import UNDECIDED, Assumption

# How far, in log std, an observed std may be from a prior's: weights and statistics drift apart, but not further than
# this.
_MAX_LOG_STD_ERROR = 0.2


def decide_label_position(
    scorer: CandidateScorer, assignment: Assignment, latent_stds: Sequence[Mapping[str, float]]
) -> tuple[Assignment, Assumption]:
    """The label position that fits the first BatchNorm best, at the latent std it shows or at a prior's own.

    `latent_stds`: for each input layout, the std of one latent under each prior.
    """
    scores: CandidateScores = {}
    default_stds = {prior: prior_std(prior) for prior in PRIOR_CANDIDATES}
    for index, observed_stds in enumerate(latent_stds):
        candidates = [
            replace(assignment, layout_index=index, prior=prior, latent_std=std)
            for stds in (observed_stds, default_stds)
            for prior, std in stds.items()
        ]
        scores[index] = min(
            ((scorer.mismatch(entry, 1)[0], entry) for entry in candidates), key=lambda scored: scored[0]
        )
    hyperparameter = label_position_hyperparameter(scorer.input_layouts)
    chosen, assumption = decide_hyperparameter(scorer, hyperparameter, assignment, scores)
    mismatch = scores[chosen.layout_index][0]
    if mismatch >= BAD_MISMATCH:
        assumption = replace(assumption, source=UNDECIDED, fit=make_fit(mismatch, outcome="none_fits"))
    return replace(assignment, layout_index=chosen.layout_index), assumption


def decide_prior(
    scorer: CandidateScorer, assignment: Assignment, latent_stds: Mapping[str, float]
) -> tuple[Assignment, Assumption]:
    """The prior whose std and mean fit the first BatchNorm best.

    `latent_stds`: of one latent, observed under each prior.
    """
    candidates = {prior: replace(assignment, prior=prior, latent_std=prior_std(prior)) for prior in latent_stds}
    errors = [abs(math.log(latent_stds[prior] / entry.latent_std)) for prior, entry in candidates.items()]
    if min(errors) > _MAX_LOG_STD_ERROR:
        return _decide_prior_by_mean(scorer, assignment, latent_stds)
    scores = {prior: scorer.mismatch(entry, 1)[0] for prior, entry in candidates.items()}
    best, runner_up = sorted(scores, key=scores.__getitem__)[:2]
    source = UNDECIDED if scores[runner_up] < DECISIVE_RATIO * scores[best] else "batch-norm"
    fit = make_fit(scores[best], runner_up, scores[runner_up])
    return candidates[best], Assumption("prior", best, source, fit=fit, note=describe_prior(best).note)


def _decide_prior_by_mean(
    scorer: CandidateScorer, assignment: Assignment, latent_stds: Mapping[str, float]
) -> tuple[Assignment, Assumption]:
    """Where the observed std is no prior's own: only a mean other than zero tells the priors apart."""
    candidates = {
        prior: replace(assignment, prior=prior, latent_std=latent_stds[prior]) for prior in ("normal", "unit")
    }
    scores = {prior: scorer.mismatch(entry, 1)[0] for prior, entry in candidates.items()}
    if scores["normal"] < DECISIVE_RATIO * scores["unit"]:
        return candidates["normal"], _assume_scaled_normal(latent_stds["normal"])
    note = f"{describe_prior('unit').note}; latent std {latent_stds['unit']:.3g} in training, not 0.289"
    fit = make_fit(scores["unit"], "normal", scores["normal"])
    return candidates["unit"], Assumption("prior", "unit", "batch-norm", fit=fit, note=note)


def _assume_scaled_normal(std: float) -> Assumption:
    """A normal prior with a non-standard scale."""
    note = f"latent std {std:.3g} in training; a standard normal has 1, a uniform on [-1, 1] 0.577"
    return Assumption("prior", "normal", "default", note=note)


def search_with_fitted_scale(
    scorer: CandidateScorer, hyperparameters: list[Hyperparameter], assignment: Assignment, tables: ScoreTables
) -> tuple[Assignment, ScoreTables, Assumption] | None:
    """Search again at fitted latent scales, where no prior at its own scale explains the first BatchNorm.

    None where one does, where the prior was not open, or where no scale fits either.
    """
    by_field = {parameter.field: parameter for parameter in hyperparameters}
    default_mismatch = min((score for score, _ in tables.get("prior", {}).values()), default=0.0)
    if default_mismatch < BAD_MISMATCH:
        return None
    scored = _score_at_fitted_scale(scorer, by_field, assignment)
    mismatch, best = min(scored.values(), key=lambda entry: entry[0], default=(math.inf, assignment))
    if mismatch >= BAD_MISMATCH or DECISIVE_RATIO * mismatch > default_mismatch:
        return None
    rest = [parameter for parameter in hyperparameters if parameter.field not in ("prior", "activation", "eps")]
    rest_tables: ScoreTables = {}
    if rest:
        best, rest_tables = search_with_defaults(scorer, rest, best)
    for index, field in enumerate(("activation", "eps")):
        if field in by_field:
            rest_tables[field] = _best_by_value(scored, index)
    return best, rest_tables, _assume_scaled_normal(best.latent_std)


def _score_at_fitted_scale(
    scorer: CandidateScorer, by_field: Mapping[str | int, Hyperparameter], assignment: Assignment
) -> dict[tuple[Any, Any], tuple[float, Assignment]]:
    """(activation, eps) -> mismatch and assignment, each at its best latent std; without those that fit at no scale."""
    concerned = [by_field[field].last_batchnorm for field in ("activation", "eps") if field in by_field]
    depth = min(scorer.n_batchnorms, 1 + max(concerned, default=0))
    activations = by_field["activation"].all_candidates if "activation" in by_field else (assignment.activation,)
    epses = by_field["eps"].candidates if "eps" in by_field else (assignment.eps,)
    scored: dict[tuple[Any, Any], tuple[float, Assignment]] = {}
    for activation in activations:
        candidate = replace(assignment, activation=activation, prior="normal", latent_std=1.0)
        latent_std = scorer.fit_latent_std(candidate)
        if latent_std is None:
            continue
        for eps in epses:
            scaled = replace(candidate, eps=eps, latent_std=latent_std)
            scored[activation, eps] = sum(scorer.mismatch(scaled, depth)) / depth, scaled
    return scored


def _best_by_value(scored: Mapping[tuple[Any, Any], tuple[float, Assignment]], index: int) -> CandidateScores:
    """The best entry for each value at this position of the keys."""
    best: CandidateScores = {}
    for key, entry in scored.items():
        if key[index] not in best or entry[0] < best[key[index]][0]:
            best[key[index]] = entry
    return best
