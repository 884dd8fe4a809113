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

from gandiag.load.rebuild.questions import Question
from gandiag.load.rebuild.trial import MANY, Reading, Trial, visible

Scores = dict[Any, tuple[float, Reading]]  # answer -> mismatch, and the reading that reaches it

_KEPT = 2.0  # times the best one's mismatch: what is left is tried at the next norm too
_MANY, _FEW = 32, 6  # readings that go on, where a pass costs little and where it costs much
_ROUNDS = 3


@dataclass(slots=True)
class Sweep:
    """The best reading of each answer to each question, and which questions were open when it was tried."""

    best: Reading
    rivals: dict[tuple[str, Any], tuple[Reading, frozenset[str]]] = field(default_factory=dict)


def search(trial: Trial, asked: list[Question], reading: Reading) -> tuple[Reading, Mapping[str, Scores]]:
    """The best reading, and per question the mismatch of each answer; no answers where no norm can see the question."""
    swept = _sweep(trial, asked, reading)
    best = swept.best
    for left in reversed(range(_ROUNDS)):
        tables = {question.what: _table(trial, asked, question, best, swept) for question in asked}
        better = [min(table.values(), key=_score) for table in tables.values() if table]
        gains = [(score / own, other) for (score, other), own in zip(better, (_own(table, best) for table in tables.values() if table), strict=True) if own > 0]
        gain, other = min(gains, key=lambda found: found[0], default=(1.0, best))
        if not left or gain >= 1 or other == best:
            break
        best = other
    return best, tables


def _score(found: tuple[float, Reading]) -> float:
    return found[0]


def _own(table: Scores, best: Reading) -> float:
    return next(score for score, reading in table.values() if reading == best)


def _sweep(trial: Trial, asked: list[Question], reading: Reading) -> Sweep:
    found = Sweep(reading)
    left = [reading]
    opened: list[Question] = []
    for norm in range(min(trial.norms, 1 + max((question.last for question in asked), default=-1))):
        fresh = [question for question in asked if question.norm == norm]
        opened += fresh
        grown = [made for start in left for made in _grown(fresh, start)]
        if len(grown) < 2:
            continue
        first = min(question.norm for question in opened)
        scores = {one: sum(trial.apart(one, norm + 1, coarse=True)[first:]) for one in grown}
        ranked = sorted(scores, key=scores.__getitem__)
        found.best = ranked[0]
        state = frozenset(question.what for question in opened)
        for one in reversed(ranked):
            found.rivals |= {(question.what, question.answer(one)): (one, state) for question in opened}
        width = _MANY if trial.costs[norm].latents >= MANY else _FEW
        left = [one for one in ranked[:width] if scores[one] <= _KEPT * scores[ranked[0]]]
    return found


def _grown(fresh: list[Question], start: Reading) -> list[Reading]:
    """A reading with every answer to the fresh questions."""
    made = []
    for answers in itertools.product(*((*question.answers, *question.rare) for question in fresh)):
        one = start
        for question, answer in zip(fresh, answers, strict=True):
            one = question.put(one, answer)
        made.append(one)
    return made


def _table(trial: Trial, asked: list[Question], question: Question, best: Reading, swept: Sweep) -> Scores:
    """Every answer at its best: with the rest as in the best reading, or as in the best one of the sweep that had it."""
    answers = (*question.answers, *question.rare)
    tried = {(answer, 0): question.put(best, answer) for answer in answers}
    for answer in answers:
        if answer != question.answer(best) and (question.what, answer) in swept.rivals:
            one, opened = swept.rivals[question.what, answer]
            for other in asked:
                one = one if other.what in opened else other.put(one, other.answer(best))
            tried[answer, 1] = one
    found: Scores = {}
    for (answer, _), (score, reading) in _scored(trial, tried, question).items():
        if answer not in found or score < found[answer][0]:
            found[answer] = score, reading
    return found


def _scored(trial: Trial, readings: Mapping[Any, Reading], question: Question) -> Scores:
    """Mismatch of each reading over the norms that tell them apart; nothing where none does."""
    if trial.norms <= question.norm or len(readings) < 2:
        return {}
    depth = trial.depth(question.last)
    rows = {name: trial.apart(reading, depth) for name, reading in readings.items()}
    seen = [norm for norm in visible(rows.values()) if norm >= question.norm]
    if not seen:
        return {}
    return {name: (sum(row[at] for at in seen) / len(seen) if math.isfinite(row[0]) else math.inf, readings[name]) for name, row in rows.items()}
