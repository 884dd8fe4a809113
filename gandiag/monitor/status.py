"""The state of the generator at one evaluation, given the earlier ones.

collapsed   the score's interval lies above the limit; by a quick check alone: half of the modes are lost, or the
            samples are a single point
losing      clearly worse than the best evaluation so far, but not collapsed: the early warning
unclear     the score's interval contains the limit
fine        none of these
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from gandiag.interfaces import Estimate
from gandiag.monitor.real_statistics import QuickCheck

MonitorState = Literal["fine", "unclear", "losing", "collapsed"]
MAX_LOST_FRACTION = 0.5
MIN_VARIANCE_RATIO = 0.02  # of the real variance; below, all outputs count as one
LOST_FRACTION_INCREASE = 0.1  # share of the data in modes lost since the best evaluation
SCORE_INCREASE = 0.05  # from the best value so far to the lower bound now
_QUICK_CHECK_KEY = "glance"  # in the state dicts of monitors


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluation of the generator with `n` samples.

    `score` is None if the budget allowed only the quick check. `seconds`: what it cost.
    """

    step: int
    n: int
    state: MonitorState
    quick_check: QuickCheck
    score: Estimate | None = None
    seconds: float = 0.0

    @property
    def is_alarm(self) -> bool:
        """Whether the generator is losing diversity or has collapsed."""
        return self.state in ("losing", "collapsed")

    def scalars(self, prefix: str = "gandiag/") -> dict[str, float]:
        """Flat numbers for a logger."""
        values = {
            "lost": self.quick_check.lost,
            "spread": self.quick_check.spread,
            "alarm": float(self.is_alarm),
            "collapsed": float(self.state == "collapsed"),
        }
        if self.score is not None:
            values |= {"score": self.score.value, "score_low": self.score.low, "score_high": self.score.high}
        return {prefix + name: value for name, value in values.items()}

    def __str__(self) -> str:
        """One line for a terminal."""
        check, score = self.quick_check, ""
        if self.score is not None:
            score = f"score {self.score.value:.2f} [{self.score.low:.2f}, {self.score.high:.2f}], "
        state = self.state.upper() if self.is_alarm else self.state
        modes = f"{check.modes - check.starved} of {check.modes} modes"
        return f"gandiag step {self.step:,}  {state}  {score}{modes}, spread {check.spread:.2f}"


def evaluation_to_dict(evaluation: Evaluation) -> dict[str, Any]:
    """The fields of an Evaluation as plain data, for a state dict."""
    fields = asdict(evaluation)
    return {_QUICK_CHECK_KEY if name == "quick_check" else name: value for name, value in fields.items()}


def evaluation_from_dict(fields: Mapping[str, Any]) -> Evaluation:
    """The Evaluation that `evaluation_to_dict` wrote."""
    kept = {name: value for name, value in fields.items() if name not in (_QUICK_CHECK_KEY, "score")}
    score = fields["score"]
    return Evaluation(
        **kept,
        quick_check=QuickCheck(**fields[_QUICK_CHECK_KEY]),
        score=None if score is None else Estimate(**score),
    )


def infer_state(
    check: QuickCheck, score: Estimate | None, previous: Iterable[Evaluation], limit: float
) -> MonitorState:
    """The state that a quick check shows, and a score if there is one, after the previous evaluations."""
    if score is not None and score.low >= limit:
        return "collapsed"
    if score is None and (check.lost >= MAX_LOST_FRACTION or check.spread < MIN_VARIANCE_RATIO):
        return "collapsed"
    if _is_worse(check, score, list(previous)):
        return "losing"
    return "unclear" if score is not None and not score.high < limit else "fine"


def _is_worse(check: QuickCheck, score: Estimate | None, previous: list[Evaluation]) -> bool:
    """Whether clearly more is lost than at the best evaluation so far."""
    if previous and check.lost - min(entry.quick_check.lost for entry in previous) >= LOST_FRACTION_INCREASE:
        return True
    values = [entry.score.value for entry in previous if entry.score is not None]
    return score is not None and bool(values) and score.low - min(values) > SCORE_INCREASE
