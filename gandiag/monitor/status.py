"""What a look means, given the ones before: fine, losing variety, collapsed, or not to be told.

collapsed   the score's interval lies above the limit; of a glance: half of the modes are starved, or the samples are one point
losing      clearly worse than the best look so far, and not collapsed yet: the early warning
unclear     the interval contains the limit
fine        none of it
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gandiag.interfaces import Estimate
from gandiag.monitor.real_statistics import QuickCheck

MonitorState = Literal["fine", "unclear", "losing", "collapsed"]
MAX_LOST_FRACTION = 0.5
MIN_VARIANCE_RATIO = 0.02  # of the real variance: one output, for every purpose
LOST_FRACTION_INCREASE = 0.1  # share of the data whose modes starve now and did not at the best look
SCORE_INCREASE = 0.05  # of the score, between the interval's lower end now and the best value so far


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One look at the generator. `score` is None where the budget allowed only a glance. `seconds`: what it cost."""

    step: int
    n: int
    state: MonitorState
    glance: QuickCheck
    score: Estimate | None = None
    seconds: float = 0.0

    @property
    def is_alarm(self) -> bool:
        return self.state in ("losing", "collapsed")

    def scalars(self, prefix: str = "gandiag/") -> dict[str, float]:
        """Flat numbers for a logger."""
        found = {
            "lost": self.glance.lost,
            "spread": self.glance.spread,
            "alarm": float(self.is_alarm),
            "collapsed": float(self.state == "collapsed"),
        }
        if self.score is not None:
            found |= {"score": self.score.value, "score_low": self.score.low, "score_high": self.score.high}
        return {prefix + name: value for name, value in found.items()}

    def __str__(self) -> str:
        """One line for a terminal."""
        told = (
            ""
            if self.score is None
            else f"score {self.score.value:.2f} [{self.score.low:.2f}, {self.score.high:.2f}], "
        )
        modes = f"{self.glance.modes - self.glance.starved} of {self.glance.modes} modes"
        return f"gandiag step {self.step:,}  {self.state.upper() if self.is_alarm else self.state}  {told}{modes}, spread {self.glance.spread:.2f}"


def evaluation_from_dict(fields: Mapping[str, Any]) -> Evaluation:
    """A Look from its fields, as `dataclasses.asdict` gives them."""
    score = fields["score"]
    return Evaluation(
        **{**fields, "glance": QuickCheck(**fields["glance"]), "score": None if score is None else Estimate(**score)}
    )


def infer_state(
    check: QuickCheck, score: Estimate | None, previous: Iterable[Evaluation], limit: float
) -> MonitorState:
    """The meaning of a glance, and of a score where there is one, after the looks `before`."""
    if score is not None and score.low >= limit:
        return "collapsed"
    if score is None and (check.lost >= MAX_LOST_FRACTION or check.spread < MIN_VARIANCE_RATIO):
        return "collapsed"
    if _worse(check, score, list(previous)):
        return "losing"
    return "unclear" if score is not None and not score.high < limit else "fine"


def _worse(glance: QuickCheck, score: Estimate | None, before: list[Evaluation]) -> bool:
    if before and glance.lost - min(look.glance.lost for look in before) >= LOST_FRACTION_INCREASE:
        return True
    values = [look.score.value for look in before if look.score is not None]
    return score is not None and bool(values) and score.low - min(values) > SCORE_INCREASE
