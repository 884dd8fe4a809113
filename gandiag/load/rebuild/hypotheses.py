"""Settles what the weights do not say by the checkpoint's own running statistics: activation, eps, layers, dropout, prior.

Every question has a few answers, the customary one first. All readings run on the same latents; a reading's mismatch is the
mean over the batch norms, a few, at which the answers differ. The best one is taken. It is settled where every answer that
makes other samples is at least twice as far off; else it is "undecided", and nobody may call such a generator collapsed.
Rare activations are no rivals of a usual one that fits better than they do, and strides are those of custom until others fit
clearly better: a padding more or less changes little but the border. Statistics that cannot see a question (it comes after
the last norm) leave it to custom, and that is said.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from gandiag.config import AuditConfig
from gandiag.contracts import Assumption, Output
from gandiag.errors import LoadError
from gandiag.load.moments import prior_deviation
from gandiag.load.rebuild.chain import Blueprint, Chain, assemble, hidden_module
from gandiag.load.rebuild.inputs import Inputs
from gandiag.load.rebuild.layers import NotThis
from gandiag.load.rebuild.trial import Reading, Trial, visible

UNDECIDED = "undecided"  # the source of an assumption that the statistics leave open
CLEAR = 2.0  # how many times worse the runner-up must be
POOR = 0.15  # a correct rebuild is below: above it, rarer activations are tried too
BAD = 0.5  # no reading is right
_FURTHER = ("elu", "gelu", "silu", "tanh")
_DROPOUTS = (0.0, 0.2, 0.3, 0.5)
_PRIORS = ("normal", "uniform")
_ROUNDS = 3
_NEITHER = 0.2  # of the logarithm: so far from a prior's deviation are weights and statistics that drift apart, not


@dataclass(frozen=True, slots=True)
class Settled:
    """The network, what its prior and output are, and how everything open was answered."""

    chain: Chain
    output: Output
    prior: str
    assumptions: tuple[Assumption, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """One thing that is open. `answers`: the customary one first; `put` writes one into a reading; `norm`: the first that may show it.

    `rare`: further answers, tried where that is cheap or the others fit poorly, and no rivals of those where they do not fit better.
    `customary`: the first answer stands unless another is clearly better. `alters`: does what the generator makes depend on it?
    `place`: it is the blueprint's own.
    """

    what: str
    answers: tuple[Any, ...]
    put: Callable[[Reading, Any], Reading]
    norm: int
    told: Callable[[Any], str] = str
    rare: tuple[Any, ...] = ()
    customary: bool = False
    alters: bool = True
    place: bool = False

    @property
    def joint(self) -> bool:
        """Activation, eps and dropout hide each other: they are tried together."""
        return self.what.startswith(("hidden activation", "batch-norm eps", "dropout"))


def settle(blueprint: Blueprint, inputs: Inputs, config: AuditConfig, deviation: float | None) -> Settled:
    """The best reading of a blueprint. `deviation`: of one latent, where the first layer shows it; else it is asked with the prior.

    LoadError where the undecided answers make pictures of different sizes; NotThis where the weights do not fit the layers.
    """
    if config.activation is not None:
        hidden_module(config.activation)
    prior = config.prior or "normal"
    reading = Reading(config.activation or blueprint.default if blueprint.activations else "none", 1e-5 if config.bn_eps is None else config.bn_eps,
                      0.0, prior, prior_deviation(prior) if deviation is None else deviation, (0,) * len(blueprint.open))  # fmt: skip
    assemble(blueprint, reading.activation, reading.eps)  # NotThis first
    trial = Trial(blueprint, inputs, reading)
    asked = _questions(blueprint, config, deviation)
    reading, scores = _climb(trial, asked, reading)
    said = []
    for question in asked:
        reading, entry = _answered(trial, question, reading, scores[question.what])
        said.append(entry)
    if deviation is not None and config.prior is None:
        reading, entry = _prior_by_scale(trial, reading)
        said.append(entry)
    chosen = trial.reading_of(reading.answers)
    if chosen is None:
        raise NotThis("no strides lead through its kernels")
    chain = assemble(chosen, reading.activation, reading.eps, reading.dropout)
    said = [_credited(entry, config) for entry in said]
    return Settled(chain, chosen.output, reading.prior, (*said, *_unasked(blueprint, config), *chosen.assumptions))


def _credited(entry: Assumption, config: AuditConfig) -> Assumption:
    """What the size of the picture was given for, with that flag as its source, unless statistics leave it open all the same."""
    given = entry.what.endswith("(--image-size)") or (config.upsampling is not None and "--upsampling" in entry.what)
    return replace(entry, source="flag") if given and config.image_size is not None and entry.source != UNDECIDED else entry


def _questions(blueprint: Blueprint, config: AuditConfig, deviation: float | None) -> list[Question]:
    asked = []
    norms = any(layer.kind == "norm" for layer in blueprint.layers)
    if deviation is None and config.prior is None:
        asked.append(Question("latent prior (--prior)", _PRIORS, lambda old, new: replace(old, prior=new, deviation=prior_deviation(new)), 0))
    if not blueprint.known and blueprint.activations and config.activation is None:
        usual = tuple(dict.fromkeys((blueprint.default, "relu", "leaky:0.2")))
        asked.append(Question("hidden activation (--activation)", usual, lambda old, new: replace(old, activation=new), 1, rare=_FURTHER))
    if not blueprint.known and norms and config.bn_eps is None:
        asked.append(Question("batch-norm eps (--bn-eps)", (1e-5, 0.8), lambda old, new: replace(old, eps=new), 1, "{:g}".format))
    for place, open_ in enumerate(blueprint.open):
        answers = tuple(range(len(open_.options)))
        asked.append(Question(open_.what, answers, _answer(place), open_.norm, open_.options.__getitem__, customary=open_.customary, place=True))
    if blueprint.dropouts:
        asked.append(Question("dropout in training, none in use", _DROPOUTS, lambda old, new: replace(old, dropout=new), 1, "{:g}".format, alters=False))
    return asked


def _answer(place: int) -> Callable[[Reading, int], Reading]:
    return lambda old, new: replace(old, answers=(*old.answers[:place], new, *old.answers[place + 1 :]))


# trying

Scores = dict[Any, tuple[float, Reading]]  # answer -> mismatch, and the reading that reaches it


def _climb(trial: Trial, asked: list[Question], reading: Reading) -> tuple[Reading, Mapping[str, Scores]]:
    """The best reading, by taking the questions in turn until none of them changes; where it fits poorly, from every activation."""
    found = _ascent(trial, asked, reading)
    pair = [question for question in asked if question.joint]
    others = [question for question in asked if question.place]
    if not pair or not pair[0].rare or not others or not trial.cheap or _score(found) <= 2 * POOR:
        return found
    starts = [_ascent(trial, asked, pair[0].put(reading, answer), held=True) for answer in (*pair[0].answers, *pair[0].rare)]
    return min((found, *starts), key=_score)


def _score(found: tuple[Reading, Mapping[str, Scores]]) -> float:
    """The mismatch of a reading, by the first question that norms can see; 0 where they see none."""
    return next((min(score for score, _ in table.values()) for table in found[1].values() if table), 0.0)


def _ascent(trial: Trial, asked: list[Question], reading: Reading, *, held: bool = False) -> tuple[Reading, Mapping[str, Scores]]:
    """From one reading upwards. Activation, eps and dropout are taken together, then what costs little, and the layers' own questions last.
    `held`: the first reading's activation stays until those have been asked."""
    pair = [question for question in asked if question.joint]
    light, heavy = ([question for question in asked if not question.joint and question.place is found] for found in (False, True))
    scores: dict[str, Scores] = {}
    for turn in range(_ROUNDS):
        before = reading
        if not held or turn:
            for _ in range(_ROUNDS):
                start = reading
                scores |= _joint(trial, pair, reading)
                reading = _taken(scores, pair, reading)
                reading = _each(trial, light, reading, scores)
                if reading == start:
                    break
        answers = reading.answers
        reading = _each(trial, heavy, reading, scores)
        if reading == before or (turn and reading.answers == answers) or not heavy:
            break
    return reading, {question.what: scores.get(question.what, {}) for question in asked}


def _each(trial: Trial, asked: list[Question], reading: Reading, scores: dict[str, Scores]) -> Reading:
    for question in asked:
        scores[question.what] = _scored(trial, {answer: question.put(reading, answer) for answer in question.answers}, question.norm)
        reading = _taken(scores, [question], reading)
    return reading


def _joint(trial: Trial, pair: list[Question], reading: Reading) -> dict[str, Scores]:
    """Every activation with every eps and dropout, each with its best partner. Rare activations where a pass is cheap, or the usual ones fit poorly."""
    if not pair:
        return {}
    table = _product(trial, pair, reading)
    best = min(table, key=lambda answers: table[answers][0], default=None)
    if pair[0].rare and best is not None and (table[best][0] > POOR or trial.cheap):
        partner = [replace(question, answers=(answer,)) for question, answer in zip(pair[1:], best[1:], strict=True)]
        table |= _product(trial, [replace(pair[0], answers=(best[0], *pair[0].rare)), *partner], reading)
    found: dict[str, Scores] = {question.what: {} for question in pair}
    for answers, (score, tried) in table.items():
        for question, answer in zip(pair, answers, strict=True):
            kept = found[question.what].get(answer)
            if kept is None or score < kept[0]:
                found[question.what][answer] = score, tried
    return found


def _product(trial: Trial, pair: list[Question], reading: Reading) -> Scores:
    table = {}
    for answers in itertools.product(*(question.answers for question in pair)):
        tried = reading
        for question, answer in zip(pair, answers, strict=True):
            tried = question.put(tried, answer)
        table[answers] = tried
    return _scored(trial, table, 1)


def _scored(trial: Trial, readings: Mapping[Any, Reading], norm: int) -> Scores:
    """Mismatch of each reading over the norms that tell them apart; nothing where none does."""
    if trial.norms <= norm or len(readings) < 2:
        return {}
    depth, seen = trial.depth(norm), list[int]()
    while not seen:
        rows = {answer: trial.apart(reading, depth) for answer, reading in readings.items()}
        seen = visible(rows.values())
        if not seen and depth == trial.norms:
            return {}
        depth += 1
    return {answer: (sum(row[at] for at in seen) / len(seen) if len(row) > max(seen) else math.inf, readings[answer]) for answer, row in rows.items()}


def _taken(scores: Mapping[str, Scores], asked: list[Question], reading: Reading) -> Reading:
    for question in asked:
        if scores[question.what]:
            reading = question.put(reading, _best(question, scores[question.what]))
    return reading


def _best(question: Question, table: Scores) -> Any:
    """The answer that fits best; of customary ones another only where it is clearly better."""
    best, custom = min(table, key=lambda answer: table[answer][0]), question.answers[0]
    return custom if question.customary and table[custom][0] < CLEAR * table[best][0] else best


# telling

def _answered(trial: Trial, question: Question, reading: Reading, table: Scores) -> tuple[Reading, Assumption]:
    """The answer, its margin over the best answer that makes other samples, and whether that is enough."""
    custom = question.answers[0]
    if not table:
        return reading, Assumption(question.what, question.told(custom), "default")
    best = _best(question, table)
    score, mine = table[best]
    if score >= BAD and question.customary:
        return question.put(reading, custom), Assumption(question.what, f"{question.told(custom)} (the statistics fit none: {score:.2f} at best)", UNDECIDED)
    near = [answer for answer in table if answer != best and table[answer][0] < CLEAR * score]
    equal = [answer for answer in near if question.alters and trial.alike(mine, table[answer][1])]
    best = custom if custom in equal else best
    rivals = sorted((answer for answer in table if answer != best and answer not in equal), key=lambda answer: table[answer][0])
    chosen, said = question.put(reading, best), question.told(best)
    if not rivals:
        return chosen, Assumption(question.what, f"{said} (batch-norm mismatch {score:.3f}; the others make the same samples)", "batch-norm")
    rival = rivals[0] if question.alters or best == custom else custom  # neighbouring shares dropped differ by little
    told = f"batch-norm mismatch {score:.3f}; {question.told(rival)}: {_times(table[rival][0], score)}"
    if not question.alters:
        return chosen, Assumption(question.what, f"{said} ({'undecided: ' if rival in near else ''}{told})", "metadata")  # that one is there, the file says
    if question.customary and best == custom:
        return chosen, Assumption(question.what, f"{said} ({'customary: ' if rival in near else ''}{told})", "default" if rival in near else "batch-norm")
    close = [answer for answer in rivals if answer in near and (best in question.rare or answer not in question.rare)]
    if not close:
        return chosen, Assumption(question.what, f"{said} ({told})", "batch-norm")
    _demand_one_size(trial, mine, table[close[0]][1])
    return chosen, Assumption(question.what, f"{said} (undecided: {told})", UNDECIDED)


def _times(other: float, score: float) -> str:
    if other >= 1e9:
        return "impossible"
    return f"{other:.3f}" + (f", {other / score:.1f} times as far" if score > 0 else "")


def _demand_one_size(trial: Trial, mine: Reading, theirs: Reading) -> None:
    """Undecided answers that make pictures of different sizes are no reading at all."""
    shapes = [made.output.shape for made in map(trial.reading_of, (mine.answers, theirs.answers)) if made is not None]
    if len({*shapes}) > 1:
        sides = " and ".join(f"{shape[-2]} x {shape[-1]}" for shape in shapes)
        raise LoadError(f"the weights and their batch-norm statistics leave the size of the picture open: {sides} fit about as well",
                        f"say which: --image-size {shapes[0][-1]}, or --image-size {shapes[1][-1]}")


def _prior_by_scale(trial: Trial, reading: Reading) -> tuple[Reading, Assumption]:
    """Where the first layer shows the latents' deviation: is it that of one of the usual priors?"""
    what = "latent prior (--prior)"
    tried = {prior: replace(reading, prior=prior, deviation=prior_deviation(prior)) for prior in _PRIORS}
    if min(abs(math.log(reading.deviation / one.deviation)) for one in tried.values()) > _NEITHER:
        return reading, Assumption(what, f"normal; its latents had deviation {reading.deviation:.3g} in training, neither 1 nor .577 (uniform)", "default")
    scores = {prior: trial.apart(one, 1)[0] for prior, one in tried.items()}
    best, rival = sorted(_PRIORS, key=lambda prior: scores[prior])
    told = f"batch-norm mismatch {scores[best]:.3f}; {rival}: {_times(scores[rival], scores[best])}"
    if scores[rival] < CLEAR * scores[best]:
        return tried[best], Assumption(what, f"{best} (undecided: {told})", UNDECIDED)
    return tried[best], Assumption(what, f"{best}{' on [-1, 1]' * (best == 'uniform')} ({told})", "batch-norm")


def _unasked(blueprint: Blueprint, config: AuditConfig) -> tuple[Assumption, ...]:
    """What flags or the file answered."""
    found = []
    if blueprint.known:
        found.append(Assumption("activations and batch-norm eps", "as the pickled layers say", "file"))
    if config.prior is not None:
        found.append(Assumption("latent prior (--prior)", config.prior, "flag"))
    if config.activation is not None and blueprint.activations and not blueprint.known:
        found.append(Assumption("hidden activation (--activation)", config.activation, "flag"))
    if config.bn_eps is not None and not blueprint.known and any(layer.kind == "norm" for layer in blueprint.layers):
        found.append(Assumption("batch-norm eps (--bn-eps)", f"{config.bn_eps:g}", "flag"))
    return tuple(found)
