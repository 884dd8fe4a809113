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

from gandiag.config import AuditConfig
from gandiag.contracts import Assumption, Output
from gandiag.errors import LoadError
from gandiag.load.moments import prior_deviation
from gandiag.load.rebuild.chain import Blueprint, Chain, assemble, hidden_module
from gandiag.load.rebuild.inputs import Inputs
from gandiag.load.rebuild.layers import NotThis
from gandiag.load.rebuild.questions import PRIORS, Question, place_question, questions
from gandiag.load.rebuild.search import Scores, search
from gandiag.load.rebuild.trial import Reading, TooLong, Trial

UNDECIDED = "undecided"  # the source of an assumption that the statistics leave open
CLEAR = 2.0  # how many times worse the runner-up must be
NOTICED = 1.25  # how many times worse custom must be to be doubted: a padding more or less may change little but the border
GOOD = 0.15  # a reading that fits so well may be right; one that does not may not make custom doubtful
BAD = 0.5  # no reading is right
_GLANCE, _LARGE = 8e10, 2e7  # multiplications in four seconds, about; parameters of networks of which one pass takes too long for a glance
_HURRIED = " (custom; an audit asks the batch norms, which takes seconds here)"
_RANGES = {"uniform": " on [-1, 1]", "unit": " (uniform on [0, 1])"}
_NEITHER = 0.2  # of the logarithm: so far from a prior's deviation are weights and statistics that drift apart, not


@dataclass(frozen=True, slots=True)
class Settled:
    """The network, what its inputs, prior and output are, and how everything open was answered."""

    chain: Chain
    inputs: Inputs
    output: Output
    prior: str
    assumptions: tuple[Assumption, ...]


def settle(
    blueprint: Blueprint, inputs: Sequence[Inputs], config: AuditConfig, deviations: Sequence[Mapping[str, float]], *, glance: bool = False
) -> Settled:
    """The best reading of a blueprint. `inputs`: the ways to join the class, the customary one first.
    `deviations`: for each of them, of one latent under each prior, where the first layer shows it; else the prior is asked.
    `glance`: networks whose ranking takes seconds are not ranked, and that is said.

    LoadError where the undecided answers make pictures of different sizes; NotThis where the weights do not fit the layers.
    """
    if config.activation is not None:
        hidden_module(config.activation)
    prior = config.prior or "normal"
    reading = Reading(config.activation or blueprint.default if blueprint.activations else "none", 1e-5 if config.bn_eps is None else config.bn_eps,
                      0.0, prior, prior_deviation(prior), (0,) * len(blueprint.open))  # fmt: skip
    assemble(blueprint, reading.activation, reading.eps)  # NotThis first
    trial = Trial(blueprint, inputs, reading)
    told_first = []
    if len(inputs) > 1 and any(deviations):
        reading, entry = _place_by_scale(trial, reading, deviations)
        told_first.append(entry)
    found = deviations[reading.joined]
    if found and config.prior is None:
        reading, entry = _prior_by_scale(trial, reading, found)
        told_first.append(entry)
    elif found:
        reading = replace(reading, deviation=found.get(prior, found["normal"]))
    asked = questions(blueprint, () if told_first else inputs, config, prior=not found)
    if glance:
        trial.left = 0 if sum(entry.numel() for layer in blueprint.layers for entry in layer.tensors.values()) > _LARGE else _GLANCE
    scores: dict[str, Scores] = {}
    hurried = ""
    try:
        reading, scores = _searched(trial, asked, reading)
    except TooLong:
        hurried = _HURRIED
    with contextlib.suppress(TooLong):
        rescaled = _rescaled(trial, asked, reading, scores)
        if rescaled is not None:
            reading, scores, entry = rescaled
            told_first.append(entry)
            asked = [question for question in asked if question.field != "prior"]
    said = []
    for question in asked:
        reading, entry = _answered(trial, question, reading, scores.get(question.what, {}))
        said.append(replace(entry, value=entry.value + hurried))
    chosen = trial.reading_of(reading.answers)
    if chosen is None:
        raise NotThis("no strides lead through its kernels")
    chain = assemble(chosen, reading.activation, reading.eps, reading.dropout)
    said = [_credited(entry, config) for entry in (*said, *told_first)]
    return Settled(chain, inputs[reading.joined], chosen.output, reading.prior, (*said, *_unasked(blueprint, config, trial), *chosen.assumptions))


def _searched(trial: Trial, asked: list[Question], reading: Reading) -> tuple[Reading, dict[str, Scores]]:
    """The best reading in which custom stands wherever no other answer fits well enough, and what every answer fits.

    Where custom stands against an answer that fits better, what fitted beside that one need not fit beside custom: the rest is searched again.
    """
    scores: dict[str, Scores] = {}
    while True:
        reading, found = search(trial, asked, reading)
        scores |= found
        kept = [question for question in asked if found[question.what] and _custom_stands(question, found[question.what])]
        if not kept:
            return reading, scores
        for question in kept:
            reading = question.put(reading, question.answers[0])
        asked = [question for question in asked if question not in kept]


def _custom_stands(question: Question, table: Scores) -> bool:
    """Does another answer fit better than custom, and not well enough?"""
    best = min(table, key=lambda answer: table[answer][0])
    return question.customary and best != question.answers[0] and (best_of(question, table) != best or table[best][0] >= BAD)


def _credited(entry: Assumption, config: AuditConfig) -> Assumption:
    """What the size of the picture was given for, with that flag as its source, unless statistics leave it open all the same."""
    given = "(--image-size or --strides)" in entry.what or (config.upsampling is not None and "--upsampling" in entry.what)
    return replace(entry, source="flag") if given and config.image_size is not None and entry.source != UNDECIDED else entry


# telling

def best_of(question: Question, table: Scores) -> Any:
    """The answer that fits best; the customary one stands while no other fits clearly better, or well and noticeably better."""
    best, custom = min(table, key=lambda answer: table[answer][0]), question.answers[0]
    score = table[best][0]
    return custom if question.customary and table[custom][0] < (NOTICED if score < GOOD else CLEAR) * score else best


def _answered(trial: Trial, question: Question, reading: Reading, table: Scores) -> tuple[Reading, Assumption]:
    """The answer, its margin over the best answer that makes other samples, and whether that is enough."""
    custom = question.answers[0]
    if not table:
        return question.put(reading, custom), Assumption(question.what, question.told(custom), "default")
    best = best_of(question, table)
    score, mine = table[best]
    if score >= BAD and question.customary:
        return question.put(reading, custom), Assumption(question.what, f"{question.told(custom)} (the statistics fit none: {score:.2f} at best)", UNDECIDED)
    near = [answer for answer in table if answer != best and table[answer][0] < CLEAR * score]
    equal = [answer for answer in near if question.alters and trial.alike(mine, table[answer][1])]
    if custom in equal:
        equal, best = [*equal, best], custom
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
    _demand_one_size(trial, chosen, question.put(chosen, close[0]), score)
    return chosen, Assumption(question.what, f"{said} (undecided: {told})", UNDECIDED)


def _times(other: float, score: float) -> str:
    if other >= 1e9:
        return "impossible"
    return f"{other:.3f}" + (f", {other / score:.1f} times as far" if score > 0 else "")


def _demand_one_size(trial: Trial, mine: Reading, theirs: Reading, score: float) -> None:
    """Undecided answers that alone make pictures of different sizes are no reading at all."""
    shapes = [made.output.shape for made in map(trial.reading_of, (mine.answers, theirs.answers)) if made is not None]
    if len({*shapes}) > 1 and score >= BAD:
        raise LoadError(f"no plain chain of these layers fits their batch-norm statistics (mismatch {score:.2f} at best, where the right one has less than "
                        f"{GOOD:g}): layers may be skipped or joined",
                        f"say what builds it: --model pkg.mod:factory [--init k=v]; or, for a plain chain, its size: --image-size {shapes[0][-1]}")
    if len({*shapes}) > 1:
        sides = " and ".join(f"{shape[-2]} x {shape[-1]}" for shape in shapes)
        raise LoadError(f"the weights and their batch-norm statistics leave the size of the picture open: {sides} fit about as well",
                        f"say which: --image-size {shapes[0][-1]}, or --image-size {shapes[1][-1]}")


def _rescaled(trial: Trial, asked: list[Question], reading: Reading, scores: Mapping[str, Scores]) -> tuple[Reading, dict[str, Scores], Assumption] | None:
    """Where no prior at its own scale explains what the first norm remembers: the readings once more, each at the scale at which it does.

    None where one does, where nothing was asked, or where no scale fits either.
    """
    by = {question.field: question for question in asked}
    table = scores.get(by["prior"].what, {}) if "prior" in by else {}
    usual = min((score for score, _ in table.values()), default=0.0)
    if usual < BAD:
        return None
    depth = min(trial.norms, 1 + max((by[field].last for field in ("activation", "eps") if field in by), default=0))
    found: dict[tuple[Any, Any], tuple[float, Reading]] = {}
    for activation in (*by["activation"].answers, *by["activation"].rare) if "activation" in by else (reading.activation,):
        one = replace(reading, activation=activation, prior="normal", deviation=1.0)
        scale = trial.scale_of(one)
        for eps in by["eps"].answers if "eps" in by else (reading.eps,):
            if scale is not None:
                tried = replace(one, eps=eps, deviation=scale)
                found[activation, eps] = sum(trial.apart(tried, depth)) / depth, tried
    score, best = min(found.values(), key=lambda scored: scored[0], default=(math.inf, reading))
    if score >= BAD or CLEAR * score > usual:
        return None
    rest = [question for question in asked if question.field not in ("prior", "activation", "eps")]
    best, more = _searched(trial, rest, best) if rest else (best, {})
    for place, field in enumerate(("activation", "eps")):
        if field in by:
            rows = {key[place] for key in found}
            more[by[field].what] = {row: min((scored for key, scored in found.items() if key[place] == row), key=lambda scored: scored[0]) for row in rows}
    return best, more, Assumption(by["prior"].what, _nobodys("normal", best.deviation), "default")


def _nobodys(prior: str, deviation: float) -> str:
    """A prior at nobody's deviation, in words."""
    return f"{prior}; its latents had deviation {deviation:.3g} in training, where a standard normal has 1 and a uniform on [-1, 1] .577"


def _place_by_scale(trial: Trial, reading: Reading, deviations: Sequence[Mapping[str, float]]) -> tuple[Reading, Assumption]:
    """Where the first layer shows the latents' deviation under a place of the class: which place fits best, at that deviation or at a prior's own."""
    table: Scores = {}
    for way, found in enumerate(deviations):
        usual = {prior: prior_deviation(prior) for prior in PRIORS}
        tried = [replace(reading, joined=way, prior=prior, deviation=scale) for known in (found, usual) for prior, scale in known.items()]
        table[way] = min(((trial.apart(one, 1)[0], one) for one in tried), key=lambda scored: scored[0])
    chosen, entry = _answered(trial, place_question(trial.inputs), reading, table)
    if table[chosen.joined][0] >= BAD:
        entry = replace(entry, value=f"{entry.value.split(' (')[0]} (the statistics fit none: {table[chosen.joined][0]:.2f} at best)", source=UNDECIDED)
    return replace(reading, joined=chosen.joined), entry


def _prior_by_scale(trial: Trial, reading: Reading, deviations: Mapping[str, float]) -> tuple[Reading, Assumption]:
    """Where the first layer shows the latents' deviation: is it that of one of the usual priors, and is their mean that prior's?"""
    what = "latent prior (--prior)"
    tried = {prior: replace(reading, prior=prior, deviation=prior_deviation(prior)) for prior in deviations}
    if min(abs(math.log(deviations[prior] / one.deviation)) for prior, one in tried.items()) > _NEITHER:
        return _prior_by_mean(trial, reading, deviations)
    scores = {prior: trial.apart(one, 1)[0] for prior, one in tried.items()}
    best, rival = sorted(scores, key=scores.__getitem__)[:2]
    told = f"batch-norm mismatch {scores[best]:.3f}; {rival}: {_times(scores[rival], scores[best])}"
    if scores[rival] < CLEAR * scores[best]:
        return tried[best], Assumption(what, f"{best} (undecided: {told})", UNDECIDED)
    return tried[best], Assumption(what, f"{best}{_RANGES.get(best, '')} ({told})", "batch-norm")


def _prior_by_mean(trial: Trial, reading: Reading, deviations: Mapping[str, float]) -> tuple[Reading, Assumption]:
    """Latents of nobody's deviation: only a mean that is not zero tells them apart."""
    what = "latent prior (--prior)"
    tried = {prior: replace(reading, prior=prior, deviation=deviations[prior]) for prior in ("normal", "unit")}
    scores = {prior: trial.apart(one, 1)[0] for prior, one in tried.items()}
    if scores["normal"] < CLEAR * scores["unit"]:
        return tried["normal"], Assumption(what, _nobodys("normal", deviations["normal"]), "default")
    told = f"batch-norm mismatch {scores['unit']:.3f}; normal: {_times(scores['normal'], scores['unit'])}"
    return tried["unit"], Assumption(what, f"unit; its latents had deviation {deviations['unit']:.3g} in training, not .289 ({told})", "batch-norm")


def _unasked(blueprint: Blueprint, config: AuditConfig, trial: Trial) -> tuple[Assumption, ...]:
    """What flags or the file answered, and why the statistics did not."""
    found = []
    if any(layer.kind == "norm" for layer in blueprint.layers) and not trial.norms:
        found.append(Assumption("batch-norm statistics", "never updated (mean 0, variance 1): they tell nothing of the rest", "file"))
    if blueprint.known:
        found.append(Assumption("activations and batch-norm eps", "as the pickled layers say", "file"))
    if config.prior is not None:
        found.append(Assumption("latent prior (--prior)", config.prior, "flag"))
    if config.activation is not None and blueprint.activations and not blueprint.known:
        found.append(Assumption("hidden activation (--activation)", config.activation, "flag"))
    if config.bn_eps is not None and not blueprint.known and any(layer.kind == "norm" for layer in blueprint.layers):
        found.append(Assumption("batch-norm eps (--bn-eps)", f"{config.bn_eps:g}", "flag"))
    return tuple(found)
