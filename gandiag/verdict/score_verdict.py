"""The verdict of a score's interval against a limit. Torch-free."""

from __future__ import annotations

from gandiag.record import Score, Verdict


def compute_score_verdict(score: Score, limit: float) -> Verdict:
    """The verdict of an interval against a limit. A missing or NaN bound never passes."""
    if score.low is None or score.high is None or not score.low <= score.high:
        return "inconclusive"
    if score.low >= limit:
        return "collapsed"
    if not score.high < limit:
        return "inconclusive"
    return "not_degenerate" if score.basis == "degeneracy" else "healthy"
