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

from gandiag.contracts import Estimate
from gandiag.monitor.reference import Glance

State = Literal["fine", "unclear", "losing", "collapsed"]
HALF = 0.5
POINT = 0.02  # of the real variance: one output, for every purpose
LOSS = 0.1  # share of the data whose modes starve now and did not at the best look
RISE = 0.05  # of the score, between the interval's lower end now and the best value so far


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the generator. `score` is None where the budget allowed only a glance. `seconds`: what it cost."""

    step: int
    n: int
    state: State
    glance: Glance
    score: Estimate | None = None
    seconds: float = 0.0

    @property
    def alarming(self) -> bool:
        return self.state in ("losing", "collapsed")

    def scalars(self, prefix: str = "gandiag/") -> dict[str, float]:
        """Flat numbers for a logger."""
        found = {"lost": self.glance.lost, "spread": self.glance.spread, "alarm": float(self.alarming), "collapsed": float(self.state == "collapsed")}
        if self.score is not None:
            found |= {"score": self.score.value, "score_low": self.score.low, "score_high": self.score.high}
        return {prefix + name: value for name, value in found.items()}

    def __str__(self) -> str:
        """One line for a terminal."""
        told = "" if self.score is None else f"score {self.score.value:.2f} [{self.score.low:.2f}, {self.score.high:.2f}], "
        modes = f"{self.glance.modes - self.glance.starved} of {self.glance.modes} modes"
        return f"gandiag step {self.step:,}  {self.state.upper() if self.alarming else self.state}  {told}{modes}, spread {self.glance.spread:.2f}"


def restored(plain: Mapping[str, Any]) -> Look:
    """A Look from its fields, as `dataclasses.asdict` gives them."""
    score = plain["score"]
    return Look(**{**plain, "glance": Glance(**plain["glance"]), "score": None if score is None else Estimate(**score)})


def state_of(glance: Glance, score: Estimate | None, before: Iterable[Look], limit: float) -> State:
    """The meaning of a glance, and of a score where there is one, after the looks `before`."""
    if score is not None and score.low >= limit:
        return "collapsed"
    if score is None and (glance.lost >= HALF or glance.spread < POINT):
        return "collapsed"
    if _worse(glance, score, list(before)):
        return "losing"
    return "unclear" if score is not None and not score.high < limit else "fine"


def _worse(glance: Glance, score: Estimate | None, before: list[Look]) -> bool:
    if before and glance.lost - min(look.glance.lost for look in before) >= LOSS:
        return True
    values = [look.score.value for look in before if look.score is not None]
    return score is not None and bool(values) and score.low - min(values) > RISE
