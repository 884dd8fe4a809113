"""ReLU or LeakyReLU(0.01): so alike that ratios of mismatches do not tell them apart, but all channels together may.

Both are run on the same latents, so that only the slope makes a difference. A mismatch is taken for the variance of the
channels' deviations, and the log odds of one activation over the other are summed over all channels.
"""

from __future__ import annotations

import math
from dataclasses import replace

from gandiag.checkpoints.inference.candidate_networks import Assignment
from gandiag.checkpoints.inference.candidate_scorer import CandidateScorer
from gandiag.checkpoints.inference.search_state import OutOfBudget
from gandiag.checkpoints.inference.sequential import SequentialSpec
from gandiag.interfaces import Assumption

TWINS = {"relu": "leaky:0.01", "leaky:0.01": "relu"}
_DECISIVE_LOG_ODDS = 5.0
_OPEN_NOTE = "or {}, which the statistics do not tell from it"


def settle_twin(
    scorer: CandidateScorer, spec: SequentialSpec, assignment: Assignment, entry: Assumption
) -> tuple[Assignment, Assumption]:
    """The assignment with the likelier of the two where the odds decide; else a note that the other fits as well.

    `entry`: the assumption of the activation.
    """
    twin = TWINS.get(assignment.activation)
    if twin is None or entry.source != "batch-norm":
        return assignment, entry
    odds = _log_odds(scorer, spec, assignment, replace(assignment, activation=twin))
    if odds >= _DECISIVE_LOG_ODDS:
        return assignment, entry
    if odds <= -_DECISIVE_LOG_ODDS:
        note = f"the channels of all BatchNorm layers prefer it to {assignment.activation}"
        return replace(assignment, activation=twin), replace(entry, value=twin, note=note)
    return assignment, replace(entry, note=_OPEN_NOTE.format(twin))


def leaves_twin_open(entry: Assumption) -> bool:
    """Whether the activation's twin fits as well."""
    return entry.value in TWINS and entry.note == _OPEN_NOTE.format(TWINS[entry.value])


def _log_odds(scorer: CandidateScorer, spec: SequentialSpec, first: Assignment, second: Assignment) -> float:
    """Of the first assignment over the second one; 0 where they cannot be compared."""
    try:
        rows = [scorer.mismatch(assignment, scorer.n_batchnorms) for assignment in (first, second)]
    except OutOfBudget:
        return 0.0
    channels = [layer.shape[0] for layer in spec.weighted_layers if layer.kind == "norm"]
    total = 0.0
    for count, own, other in zip(channels, *rows, strict=False):
        if own == other or not 0 < min(own, other) <= max(own, other) < math.inf:
            continue
        total += 0.5 * count * (other - own) / min(own, other)
    return total
