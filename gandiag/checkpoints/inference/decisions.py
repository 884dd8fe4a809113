"""Decides a hyperparameter by its candidates' mismatch: the best value, and whether its margin is enough.

A value is settled where every candidate that gives other samples fits at least DECISIVE_RATIO times worse; else it is
marked "undecided", and no collapse verdict is issued. Uncommon candidates win only if they fit better; a default that
is preferred stands unless it is clearly worse. What no BatchNorm depends on (it comes after the last one) stays at its
default.
"""

from __future__ import annotations

from typing import Any

from gandiag.checkpoints.batchnorm.thresholds import (
    BAD_MISMATCH,
    DECISIVE_RATIO,
    DEFAULT_OVERRIDE_RATIO,
    GOOD_MISMATCH,
)
from gandiag.checkpoints.inference.candidate_networks import Assignment
from gandiag.checkpoints.inference.candidate_scorer import CandidateScorer
from gandiag.checkpoints.inference.hyperparameters import CandidateScores, Hyperparameter
from gandiag.errors import LoadError
from gandiag.interfaces import IMPOSSIBLE_MISMATCH, UNDECIDED, Assumption, AssumptionOutcome, BatchNormFit


def select_candidate(hyperparameter: Hyperparameter, scores: CandidateScores) -> Any:
    """The candidate that fits best.

    A preferred default stands unless another fits clearly better, or well and noticeably better.
    """
    best, default = min(scores, key=lambda value: scores[value][0]), hyperparameter.default
    mismatch = scores[best][0]
    ratio = DEFAULT_OVERRIDE_RATIO if mismatch < GOOD_MISMATCH else DECISIVE_RATIO
    if hyperparameter.prefer_default and scores[default][0] < ratio * mismatch:
        return default
    return best


def keeps_default(hyperparameter: Hyperparameter, scores: CandidateScores) -> bool:
    """Whether another candidate fits better than the preferred default, but not well enough."""
    if not scores or not hyperparameter.prefer_default:
        return False
    best = min(scores, key=lambda value: scores[value][0])
    if best == hyperparameter.default:
        return False
    return select_candidate(hyperparameter, scores) != best or scores[best][0] >= BAD_MISMATCH


def decide_hyperparameter(
    scorer: CandidateScorer, hyperparameter: Hyperparameter, assignment: Assignment, scores: CandidateScores
) -> tuple[Assignment, Assumption]:
    """The assignment with the decided value, and the assumption with its margin over the runner-up.

    LoadError where candidates that fit equally well give images of different sizes.
    """
    default = hyperparameter.default
    if not scores:
        return hyperparameter.assign(assignment, default), assume_value(hyperparameter, default, "default")
    best = select_candidate(hyperparameter, scores)
    mismatch, best_assignment = scores[best]
    if mismatch >= BAD_MISMATCH and hyperparameter.prefer_default:
        fit = make_fit(mismatch, outcome="none_fits")
        return hyperparameter.assign(assignment, default), assume_value(hyperparameter, default, UNDECIDED, fit)
    close = [value for value in scores if value != best and scores[value][0] < DECISIVE_RATIO * mismatch]
    equivalent = [
        value
        for value in close
        if hyperparameter.changes_output and scorer.same_outputs(best_assignment, scores[value][1])
    ]
    if default in equivalent:
        equivalent, best = [*equivalent, best], default
    others = sorted(
        (value for value in scores if value != best and value not in equivalent), key=lambda value: scores[value][0]
    )
    chosen = hyperparameter.assign(assignment, best)
    if not others:
        fit = make_fit(mismatch, outcome="same_outputs")
        return chosen, assume_value(hyperparameter, best, "batch-norm", fit)
    extra = hyperparameter.extra_candidates
    competing = [
        value
        for value in others
        if value in close and (best in extra or value not in extra or _both_leaky(best, value))
    ]
    # Neighboring dropout probabilities differ little, so a probability is compared with no dropout.
    runner_up = others[0] if hyperparameter.changes_output or best == default else default
    assumption = _assume_margin(hyperparameter, best, runner_up, mismatch, scores, runner_up in close, bool(competing))
    if assumption.undecided:
        _require_same_size(scorer, chosen, hyperparameter.assign(chosen, competing[0]), mismatch)
    return chosen, assumption


def _both_leaky(first: Any, second: Any) -> bool:
    """Whether two values are slopes of LeakyReLU: none of them is uncommon beside another."""
    return str(first).startswith("leaky") and str(second).startswith("leaky")


def _assume_margin(
    hyperparameter: Hyperparameter,
    value: Any,
    runner_up: Any,
    mismatch: float,
    scores: CandidateScores,
    is_close: bool,
    has_competitor: bool,
) -> Assumption:
    """The assumption of a value and its runner-up.

    `is_close`: the runner-up fits nearly as well; `has_competitor`: an eligible one does.
    """
    runner_up_text = hyperparameter.compare_text(runner_up, value)
    fit = make_fit(mismatch, runner_up_text, scores[runner_up][0])
    if not hyperparameter.changes_output:  # the file itself shows that there is a module
        return assume_value(hyperparameter, value, "metadata", fit, note="undecided" if is_close else "")
    if hyperparameter.prefer_default and value == hyperparameter.default:
        if is_close:
            fit = make_fit(mismatch, runner_up_text, scores[runner_up][0], outcome="default_kept")
        return assume_value(hyperparameter, value, "default" if is_close else "batch-norm", fit)
    return assume_value(hyperparameter, value, UNDECIDED if has_competitor else "batch-norm", fit)


def assume_value(
    hyperparameter: Hyperparameter, value: Any, source: str, fit: BatchNormFit | None = None, note: str = ""
) -> Assumption:
    """The assumption of a candidate value."""
    choice = hyperparameter.describe(value)
    note = "; ".join(part for part in (choice.note, note) if part)
    return Assumption(hyperparameter.setting, choice.value, source, layers=hyperparameter.layers, fit=fit, note=note)


def make_fit(
    mismatch: float,
    runner_up: str | None = None,
    runner_up_mismatch: float | None = None,
    outcome: AssumptionOutcome = "settled",
) -> BatchNormFit:
    """A BatchNormFit with finite numbers."""
    if runner_up_mismatch is not None:
        runner_up_mismatch = min(runner_up_mismatch, IMPOSSIBLE_MISMATCH)
    return BatchNormFit(min(mismatch, IMPOSSIBLE_MISMATCH), runner_up, runner_up_mismatch, outcome)


def _require_same_size(scorer: CandidateScorer, chosen: Assignment, competing: Assignment, mismatch: float) -> None:
    """LoadError where two assignments that fit about equally well give images of different sizes."""
    specs = [scorer.networks.get_spec(assignment.choices) for assignment in (chosen, competing)]
    shapes = [spec.output.shape for spec in specs if spec is not None]
    if len({*shapes}) < 2:
        return
    if mismatch >= BAD_MISMATCH:
        raise LoadError(
            f"no sequential network of these layers fits their BatchNorm statistics (mismatch {mismatch:.2f} at best; "
            f"the right one stays below {GOOD_MISMATCH:g}): layers may be skipped or concatenated",
            "give the code that builds it: --model pkg.mod:factory [--init k=v]; or, if it is sequential, its size: "
            f"--image-size {shapes[0][-1]}",
        )
    sizes = " and ".join(f"{shape[-2]} x {shape[-1]}" for shape in shapes)
    raise LoadError(
        f"the weights and their BatchNorm statistics leave the image size open: {sizes} fit about equally well",
        f"give the size: --image-size {shapes[0][-1]} or --image-size {shapes[1][-1]}",
    )
