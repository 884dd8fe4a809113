"""The reading of a blueprint that its running statistics fit best, and for every question what each answer would fit at its best.

A norm that normalises by its batch hides what stands in front of it from the norms behind. So the norms are visited in turn; at each,
every answer to the questions that it may show is tried with every reading that still fits, on few latents, and the poor ones are left.
What remains is compared on more latents with each single answer changed, and with the best reading that had another answer.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gandiag.checkpoints.inference.candidate_scorer import MIN_LATENTS, Assignment, CandidateScorer, informative_layers
from gandiag.checkpoints.inference.hyperparameters import Hyperparameter

CandidateScores = dict[Any, tuple[float, Assignment]]  # answer -> mismatch, and the reading that reaches it

_KEPT = 2.0  # times the best one's mismatch: what is left is tried at the next norm too
_MANY, _FEW = 32, 6  # readings that go on, where a pass costs little and where it costs much
_ROUNDS = 3


@dataclass(slots=True)
class BeamState:
    """The best reading of each answer to each question, and which questions were open when it was tried."""

    best: Assignment
    alternatives: dict[tuple[str, Any], tuple[Assignment, frozenset[str]]] = field(default_factory=dict)


def beam_search(
    scorer: CandidateScorer, hyperparameters: list[Hyperparameter], initial: Assignment
) -> tuple[Assignment, Mapping[str, CandidateScores]]:
    """The best reading, and per question the mismatch of each answer; no answers where no norm can see the question."""
    swept = _sweep(scorer, hyperparameters, initial)
    best = swept.best
    for left in reversed(range(_ROUNDS)):
        tables = {
            question.setting: _table(scorer, hyperparameters, question, best, swept) for question in hyperparameters
        }
        better = [min(table.values(), key=_score) for table in tables.values() if table]
        gains = [
            (score / own, other)
            for (score, other), own in zip(
                better, (_own(table, best) for table in tables.values() if table), strict=True
            )
            if own > 0
        ]
        gain, other = min(gains, key=lambda found: found[0], default=(1.0, best))
        if not left or gain >= 1 or other == best:
            break
        best = other
    return best, tables


def _score(found: tuple[float, Assignment]) -> float:
    return found[0]


def _own(table: CandidateScores, best: Assignment) -> float:
    return next(score for score, reading in table.values() if reading == best)


def _sweep(trial: CandidateScorer, asked: list[Hyperparameter], reading: Assignment) -> BeamState:
    found = BeamState(reading)
    left = [reading]
    opened: list[Hyperparameter] = []
    for norm in range(min(trial.n_batchnorms, 1 + max((question.last_batchnorm for question in asked), default=-1))):
        fresh = [question for question in asked if question.first_batchnorm == norm]
        opened += fresh
        grown = [made for start in left for made in _grown(fresh, start)]
        if len(grown) < 2:
            continue
        first = min(question.first_batchnorm for question in opened)
        scores = {one: sum(trial.mismatch(one, norm + 1, coarse=True)[first:]) for one in grown}
        ranked = sorted(scores, key=scores.__getitem__)
        found.best = ranked[0]
        state = frozenset(question.setting for question in opened)
        for one in reversed(ranked):
            found.alternatives |= {(question.setting, question.value_of(one)): (one, state) for question in opened}
        width = _MANY if trial.costs[norm].max_latents >= MIN_LATENTS else _FEW
        left = [one for one in ranked[:width] if scores[one] <= _KEPT * scores[ranked[0]]]
    return found


def _grown(fresh: list[Hyperparameter], start: Assignment) -> list[Assignment]:
    """A reading with every answer to the fresh questions."""
    made = []
    for answers in itertools.product(*((*question.candidates, *question.extra_candidates) for question in fresh)):
        one = start
        for question, answer in zip(fresh, answers, strict=True):
            one = question.assign(one, answer)
        made.append(one)
    return made


def _table(
    trial: CandidateScorer, asked: list[Hyperparameter], question: Hyperparameter, best: Assignment, swept: BeamState
) -> CandidateScores:
    """Every answer at its best: with the rest as in the best reading, or as in the best one of the sweep that had it."""
    answers = (*question.candidates, *question.extra_candidates)
    tried = {(answer, 0): question.assign(best, answer) for answer in answers}
    for answer in answers:
        if answer != question.value_of(best) and (question.setting, answer) in swept.alternatives:
            one, opened = swept.alternatives[question.setting, answer]
            for other in asked:
                one = one if other.setting in opened else other.assign(one, other.value_of(best))
            tried[answer, 1] = one
    found: CandidateScores = {}
    for (answer, _), (score, reading) in _scored(trial, tried, question).items():
        if answer not in found or score < found[answer][0]:
            found[answer] = score, reading
    return found


def _scored(trial: CandidateScorer, readings: Mapping[Any, Assignment], question: Hyperparameter) -> CandidateScores:
    """Mismatch of each reading over the norms that tell them apart; nothing where none does."""
    if trial.n_batchnorms <= question.first_batchnorm or len(readings) < 2:
        return {}
    depth = trial.required_depth(question.last_batchnorm)
    rows = {name: trial.mismatch(reading, depth) for name, reading in readings.items()}
    seen = [norm for norm in informative_layers(rows.values()) if norm >= question.first_batchnorm]
    if not seen:
        return {}
    return {
        name: (sum(row[at] for at in seen) / len(seen) if math.isfinite(row[0]) else math.inf, readings[name])
        for name, row in rows.items()
    }
