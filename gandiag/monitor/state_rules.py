"""The state of the generator at one evaluation, given the earlier ones.

collapsed   the audit's verdict on these samples is collapse, after the warm-up
losing      clearly worse than the best evaluation since the samples first passed for real, or much worse than the
            best one if they never did: the early warning
learning    the verdict is collapse, but the warm-up lasts: this is how training begins
fine        the audit's verdict is healthy; by a quick check alone: it was at the last judgment, and few modes are lost
unclear     none of these

The warm-up lasts until step `after`, and until the loss of variety is no longer that of a beginner. Either holds:

    variety that is lost now was there when an earlier evaluation found samples that pass for real
    an earlier evaluation found samples that pass for real, and variety has not grown since the last evaluation
    variety had clearly risen, or was seen at N_SUSTAINED evaluations, and has clearly fallen since, whether or not the
    samples ever passed for real
"""

from __future__ import annotations

from collections.abc import Sequence

from gandiag.interfaces import Estimate
from gandiag.monitor.judgment import Judgment
from gandiag.monitor.real_statistics import QuickCheck
from gandiag.monitor.status import Evaluation, MonitorState

LOST_FRACTION_INCREASE = 0.1  # share of the data in modes lost since the best evaluation
BEGINNERS_LOST_INCREASE = 0.3  # the same while no samples have passed for real yet
MIN_CHANGE = 0.2  # between the intervals of two scores: a gain, or a loss, that is not the back and forth of a beginner
N_SUSTAINED = 3  # evaluations from which variety is no first guess of a network that has just been initialized
SCORE_CHANGE = 0.05  # a loss: from the best value so far to the lower bound now; a gain: between values of two looks


def infer_state(
    check: QuickCheck,
    judgment: Judgment | None,
    previous: Sequence[Evaluation],
    *,
    is_early: bool = False,
) -> MonitorState:
    """The state that a quick check shows, and a judgment if there is one, after the previous evaluations.

    `is_early`: before the step from which collapse may be reported.
    """
    earlier = [entry.judgment for entry in previous if entry.judgment is not None]
    if judgment is not None and judgment.verdict == "collapsed":
        return "learning" if is_early or is_warming_up(judgment.score, earlier) else "collapsed"
    if not is_early and _is_worse(check, judgment, previous):
        return "losing"
    if judgment is None and check.lost >= LOST_FRACTION_INCREASE:
        return "unclear"
    latest = judgment or (earlier[-1] if earlier else None)
    return "fine" if latest is not None and latest.verdict == "healthy" else "unclear"


def is_warming_up(score: Estimate, earlier: Sequence[Judgment]) -> bool:
    """Whether a loss of variety may be that of a generator that has not learned the data yet."""
    learned = [judgment.score for judgment in earlier if judgment.is_realistic]
    if any(entry.high < score.low for entry in learned) or _follows_gain(score, [entry.score for entry in earlier]):
        return False
    return not learned or score.value < earlier[-1].score.value - SCORE_CHANGE


def _follows_gain(score: Estimate, earlier: Sequence[Estimate]) -> bool:
    """Whether there was more variety, by MIN_CHANGE: gained from less before, or seen at several evaluations."""
    worst, n_better = 0.0, 0  # lower bound of the worst score before each evaluation; evaluations with more variety
    for entry in earlier:
        n_better += entry.high <= score.low - MIN_CHANGE
        if entry.high <= min(worst, score.low) - MIN_CHANGE:
            return True
        worst = max(worst, entry.low)
    return n_better >= N_SUSTAINED


def _is_worse(check: QuickCheck, judgment: Judgment | None, previous: Sequence[Evaluation]) -> bool:
    """Whether clearly more is lost than at the best evaluation since the samples first passed for real.

    Before they do, more must be lost: a beginner throws modes about.
    """
    learned = next(
        (i for i, entry in enumerate(previous) if entry.judgment is not None and entry.judgment.is_realistic), None
    )
    since = previous[learned or 0 :]
    increase = BEGINNERS_LOST_INCREASE if learned is None else LOST_FRACTION_INCREASE
    if since and check.lost - min(entry.quick_check.lost for entry in since) >= increase:
        return True
    values = [entry.score.value for entry in since if entry.score is not None and learned is not None]
    return judgment is not None and bool(values) and judgment.score.low - min(values) > SCORE_CHANGE


def is_confirmed(evaluations: Sequence[Evaluation], looks: int) -> bool:
    """Whether the last `looks` evaluations that were judged have all found collapse."""
    judged = [entry for entry in evaluations if entry.judgment is not None][-looks:]
    return len(judged) == looks and all(entry.state == "collapsed" for entry in judged)
