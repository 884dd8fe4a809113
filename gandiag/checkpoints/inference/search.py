"""Beam search for the assignment that best fits the running statistics, and the best fit of every candidate.

A BatchNorm that normalizes by its batch hides from later layers what comes before it. So the BatchNorm layers are
visited in turn: at each, every candidate of the hyperparameters that it may depend on is combined with every assignment
that still fits, on few latents, and the poor ones are dropped. The survivors are compared on more latents, with each
single value changed and with the best assignment that had another value.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gandiag.checkpoints.inference.candidate_networks import Assignment
from gandiag.checkpoints.inference.candidate_scorer import MIN_LATENTS, CandidateScorer, informative_layers
from gandiag.checkpoints.inference.decisions import keeps_default
from gandiag.checkpoints.inference.hyperparameters import CandidateScores, Hyperparameter, ScoreTables

_KEEP_RATIO = 2.0  # assignments within this many times the best mismatch go on to the next BatchNorm
_WIDE_BEAM, _NARROW_BEAM = 32, 6  # assignments kept where a pass costs little, and where it costs much
_REFINEMENTS = 3
_SCREENED_DEPTH = 2  # BatchNorm layers by which a structure is compared with others before its search


@dataclass(slots=True)
class BeamState:
    """The best assignment; and the best one with each candidate value, with the fields open when it was scored."""

    best: Assignment
    alternatives: dict[tuple[str | int, Any], tuple[Assignment, frozenset[str | int]]] = field(default_factory=dict)


def search_with_defaults(
    scorer: CandidateScorer, hyperparameters: list[Hyperparameter], assignment: Assignment
) -> tuple[Assignment, ScoreTables]:
    """The best assignment in which a default stands wherever no other candidate fits well enough, and the score tables.

    Where a default stands although another candidate fits better, the other values were chosen to fit beside that
    candidate and may not fit beside the default: they are searched again.
    """
    tables: ScoreTables = {}
    while True:
        assignment, found = beam_search(scorer, hyperparameters, assignment)
        tables |= found
        kept = [parameter for parameter in hyperparameters if keeps_default(parameter, found[parameter.field])]
        if not kept:
            return assignment, tables
        for parameter in kept:
            assignment = parameter.assign(assignment, parameter.default)
        hyperparameters = [parameter for parameter in hyperparameters if parameter not in kept]


def sweep_mismatch(scorer: CandidateScorer, hyperparameters: list[Hyperparameter], initial: Assignment) -> float:
    """Mean mismatch at the first BatchNorm layers, on few latents, of the best assignment of a sweep over them."""
    depth = min(_SCREENED_DEPTH, scorer.n_batchnorms)
    best = _sweep(scorer, hyperparameters, initial, depth).best
    return sum(scorer.mismatch(best, depth, coarse=True)) / depth


def beam_search(
    scorer: CandidateScorer, hyperparameters: list[Hyperparameter], initial: Assignment
) -> tuple[Assignment, ScoreTables]:
    """The best assignment, and a score table per hyperparameter; it is empty where no BatchNorm depends on it."""
    state = _sweep(scorer, hyperparameters, initial)
    best = state.best
    tables: ScoreTables = {}
    for rounds_left in reversed(range(_REFINEMENTS)):
        tables = {
            parameter.field: _score_candidates(scorer, hyperparameters, parameter, best, state)
            for parameter in hyperparameters
        }
        gain, better = _find_improvement([table for table in tables.values() if table], best)
        if not rounds_left or gain >= 1 or better == best:
            break
        best = better
    return best, tables


def _find_improvement(tables: list[CandidateScores], best: Assignment) -> tuple[float, Assignment]:
    """The assignment that improves most on the best one within a table, and the ratio of their mismatches."""
    improvements = []
    for table in tables:
        score, assignment = min(table.values(), key=_score)
        current = next(value for value, other in table.values() if other == best)
        if current > 0:
            improvements.append((score / current, assignment))
    return min(improvements, key=_score, default=(1.0, best))


def _score(entry: tuple[float, Assignment]) -> float:
    return entry[0]


def _sweep(
    scorer: CandidateScorer, hyperparameters: list[Hyperparameter], initial: Assignment, max_depth: int | None = None
) -> BeamState:
    """Visit the BatchNorm layers in turn, on few latents. `max_depth`: the first of them alone."""
    state = BeamState(initial)
    beam = [initial]
    opened: list[Hyperparameter] = []
    depth = 1 + max((parameter.last_batchnorm for parameter in hyperparameters), default=-1)
    for index in range(min(scorer.n_batchnorms, depth, max_depth or depth)):
        new = [parameter for parameter in hyperparameters if parameter.first_batchnorm == index]
        opened += new
        expanded = [candidate for assignment in beam for candidate in _expand(new, assignment)]
        if len(expanded) < 2:
            continue
        first = min(parameter.first_batchnorm for parameter in opened)
        scores = {
            assignment: sum(scorer.mismatch(assignment, index + 1, coarse=True)[first:]) for assignment in expanded
        }
        ranked = sorted(scores, key=scores.__getitem__)
        state.best = ranked[0]
        open_fields = frozenset(parameter.field for parameter in opened)
        for assignment in reversed(ranked):
            for parameter in opened:
                state.alternatives[parameter.field, parameter.value_of(assignment)] = assignment, open_fields
        width = _WIDE_BEAM if scorer.costs[index].max_latents >= MIN_LATENTS else _NARROW_BEAM
        limit = _KEEP_RATIO * scores[ranked[0]]
        beam = [assignment for assignment in ranked[:width] if scores[assignment] <= limit]
    return state


def _expand(hyperparameters: list[Hyperparameter], assignment: Assignment) -> list[Assignment]:
    """The assignment with every combination of candidates."""
    result = []
    for values in itertools.product(*(parameter.all_candidates for parameter in hyperparameters)):
        candidate = assignment
        for parameter, value in zip(hyperparameters, values, strict=True):
            candidate = parameter.assign(candidate, value)
        result.append(candidate)
    return result


def _score_candidates(
    scorer: CandidateScorer,
    hyperparameters: list[Hyperparameter],
    parameter: Hyperparameter,
    best: Assignment,
    state: BeamState,
) -> CandidateScores:
    """Every candidate's best fit: with the rest of the best assignment, or of the best one in the sweep that had it."""
    assignments = {(value, 0): parameter.assign(best, value) for value in parameter.all_candidates}
    for value in parameter.all_candidates:
        if value != parameter.value_of(best) and (parameter.field, value) in state.alternatives:
            assignment, open_fields = state.alternatives[parameter.field, value]
            for other in hyperparameters:
                if other.field not in open_fields:
                    assignment = other.assign(assignment, other.value_of(best))
            assignments[value, 1] = assignment
    table: CandidateScores = {}
    for (value, _), (score, assignment) in _score_assignments(scorer, assignments, parameter).items():
        if value not in table or score < table[value][0]:
            table[value] = score, assignment
    return table


def _score_assignments(
    scorer: CandidateScorer, assignments: Mapping[Any, Assignment], parameter: Hyperparameter
) -> CandidateScores:
    """Mismatch of each assignment over the BatchNorm layers that tell them apart; empty where none does."""
    if scorer.n_batchnorms <= parameter.first_batchnorm or len(assignments) < 2:
        return {}
    depth = scorer.required_depth(parameter.last_batchnorm)
    rows = {key: scorer.mismatch(assignment, depth) for key, assignment in assignments.items()}
    informative = [index for index in informative_layers(rows.values()) if index >= parameter.first_batchnorm]
    if not informative:
        return {}
    return {
        key: (
            sum(row[index] for index in informative) / len(informative) if math.isfinite(row[0]) else math.inf,
            assignments[key],
        )
        for key, row in rows.items()
    }
