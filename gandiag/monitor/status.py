"""One evaluation of the generator: what was seen, the state, one line of text, and plain data for a state dict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from gandiag.interfaces import Estimate
from gandiag.monitor.judgment import Judgment
from gandiag.monitor.real_statistics import QuickCheck

MonitorState = Literal["fine", "unclear", "learning", "losing", "collapsed"]
_QUICK_CHECK_KEY = "glance"  # in the state dicts of monitors
_NESTED_KEYS = (_QUICK_CHECK_KEY, "score", "judgment")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluation of the generator with `n` samples.

    `judgment` is None if the budget allowed only the quick check. `seconds`: what it cost.
    """

    step: int
    n: int
    state: MonitorState
    quick_check: QuickCheck
    judgment: Judgment | None = None
    seconds: float = 0.0

    @property
    def score(self) -> Estimate | None:
        """The collapse score with its interval; None if the budget allowed only the quick check."""
        return None if self.judgment is None else self.judgment.score

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
        check, parts = self.quick_check, []
        if self.score is not None:
            parts.append(f"score {self.score.value:.2f} [{self.score.low:.2f}, {self.score.high:.2f}]")
        if check.modes > 1:
            parts.append(f"{check.modes - check.starved} of {check.modes} modes")
        parts.append(f"spread {check.spread:.2f}")
        if self.state == "unclear" and self.judgment is not None and self.judgment.doubts:
            parts.append("too unlike the data to tell")
        state = self.state.upper() if self.is_alarm else self.state
        return f"gandiag step {self.step:,}  {state}  {', '.join(parts)}"


def evaluation_to_dict(evaluation: Evaluation) -> dict[str, Any]:
    """The fields of an Evaluation as plain data, for a state dict."""
    fields = asdict(evaluation)
    return {_QUICK_CHECK_KEY if name == "quick_check" else name: value for name, value in fields.items()}


def evaluation_from_dict(fields: Mapping[str, Any]) -> Evaluation:
    """The Evaluation that `evaluation_to_dict` wrote."""
    kept = {name: value for name, value in fields.items() if name not in _NESTED_KEYS}
    judgment = fields.get("judgment")
    return Evaluation(
        **kept,
        quick_check=QuickCheck(**fields[_QUICK_CHECK_KEY]),
        judgment=None if judgment is None else _judgment_from_dict(judgment),
    )


def _judgment_from_dict(fields: Mapping[str, Any]) -> Judgment:
    return Judgment(**{**fields, "score": Estimate(**fields["score"]), "doubts": tuple(fields["doubts"])})
