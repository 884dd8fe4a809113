"""Ranks layers without weights in the gaps of a network by the BatchNorm layers behind them."""

from __future__ import annotations

from dataclasses import replace

from gandiag.checkpoints.batchnorm.thresholds import DECISIVE_RATIO
from gandiag.checkpoints.inference.candidate_networks import Assignment
from gandiag.checkpoints.inference.candidate_scorer import CandidateScorer
from gandiag.checkpoints.inference.hyperparameters import SCREENED_ACTIVATIONS, CandidateScores, Hyperparameter


def screen_gap_layers(
    scorer: CandidateScorer, others: list[Hyperparameter], parameter: Hyperparameter, assignment: Assignment
) -> Assignment:
    """The assignment with the layer that fits clearly better than none beside the usual activations, on few latents.

    `others`: the other open hyperparameters, which are searched with that layer in place.
    """
    if scorer.n_batchnorms <= parameter.first_batchnorm:
        return assignment
    names = [assignment.activation]
    if any(entry.field == "activation" for entry in others):
        names = [*dict.fromkeys((assignment.activation, *SCREENED_ACTIVATIONS))]
    # A gap that shows two modules may hold dropout, which changes the statistics too.
    dropouts = next((entry.candidates for entry in others if entry.field == "dropout"), (0.0,))

    def score(norm: str, dropout: float) -> float:
        bases = [replace(assignment, norm=norm, activation=name, dropout=dropout) for name in names]
        return min(_score(scorer, parameter, base, coarse=True) for base in bases)

    scores = {norm: score(norm, 0.0) for norm in parameter.candidates}
    scores[parameter.default] = min(score(parameter.default, dropout) for dropout in dropouts)
    best = min(scores, key=scores.__getitem__)
    is_clear = DECISIVE_RATIO * scores[best] <= scores[parameter.default]
    return replace(assignment, norm=best) if is_clear else assignment


def score_gap_layers(scorer: CandidateScorer, parameter: Hyperparameter, assignment: Assignment) -> CandidateScores:
    """Every layer's fit beside the settings found; empty where no BatchNorm comes after a gap."""
    if scorer.n_batchnorms <= parameter.first_batchnorm:
        return {}
    candidates = {norm: parameter.assign(assignment, norm) for norm in parameter.candidates}
    return {norm: (_score(scorer, parameter, entry, coarse=False), entry) for norm, entry in candidates.items()}


def _score(scorer: CandidateScorer, parameter: Hyperparameter, assignment: Assignment, *, coarse: bool) -> float:
    """Mean mismatch from the first BatchNorm behind a gap to the last one."""
    depth = min(scorer.n_batchnorms, parameter.last_batchnorm + 1)
    row = scorer.mismatch(assignment, depth, coarse=coarse)[parameter.first_batchnorm :]
    return sum(row) / max(1, len(row))
