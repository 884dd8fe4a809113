"""The policy embedded in a Record, and the verdict that it gives. Torch-free.

    referenced:   collapsed if low >= limit, healthy if high < limit, else inconclusive
    degeneracy:   collapsed if low >= limit, not_degenerate if high < limit, else inconclusive

"Could not measure" is never "passed": a missing number, a NaN or a doubt about the loading gives inconclusive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gandiag.errors import ExitCode
from gandiag.record import Record, Score, Verdict

# A rebuilt network whose batch-norm inputs are this far from the stored statistics may be a loading error (mean over layers
# of |difference of means| / sigma + |log variance ratio|; correct rebuilds stay below .15, wrong ones measured .2 to 2).
MAX_BN_MISMATCH = 0.5

# The statuses of these measurements are part of the verdict: if one failed, nothing can be called healthy.
REQUIRED_MEASUREMENTS = ("score",)


@dataclass(frozen=True, slots=True)
class Policy:
    """What a record is judged by. `limit`: collapse score. `bn_mismatch`: disagreement with the checkpoint's statistics, from which on loading is in doubt."""

    limit: float = 0.15
    bn_mismatch: float = MAX_BN_MISMATCH


def compute_verdict(record: Record, policy: Policy) -> Verdict:
    """The verdict of the record's facts under a policy."""
    if get_loading_mismatch(record, policy) or record.provenance.get("doubts"):
        return "inconclusive"
    if any(record.measurements[key].status == "error" for key in REQUIRED_MEASUREMENTS if key in record.measurements):
        return "inconclusive"
    verdict = compute_score_verdict(record.score, policy.limit)
    return "inconclusive" if verdict == "collapsed" and get_undecided_assumptions(record) else verdict


def compute_score_verdict(score: Score, limit: float) -> Verdict:
    """The verdict of an interval against a limit. Comparisons are written so that a missing or NaN bound never passes."""
    if score.low is None or score.high is None or not score.low <= score.high:
        return "inconclusive"
    if score.low >= limit:
        return "collapsed"
    if not score.high < limit:
        return "inconclusive"
    return "healthy" if score.basis == "referenced" else "not_degenerate"


def get_loading_mismatch(record: Record, policy: Policy) -> float | None:
    """The batch-norm mismatch, if it is too large to tell a loading error from collapse; else None."""
    mismatch = record.measurements.get("bn_mismatch")
    if mismatch is None or mismatch.value is None or mismatch.value < policy.bn_mismatch:
        return None
    return mismatch.value


def get_undecided_assumptions(record: Record) -> list[Mapping[str, Any]]:
    """What the file leaves open and its statistics do not decide: {what, value, source} of each. A wrong guess can look like collapse."""
    entries = record.subject.get("assumptions") or ()
    return [entry for entry in entries if isinstance(entry, Mapping) and entry.get("source") == "undecided"]


def verdict_exit_code(record: Record) -> ExitCode:
    """The shell's view of a verdict. A wrong latent scale alone is no collapse: 0, with an error-level finding."""
    return {
        "collapsed": ExitCode.COLLAPSED,
        "inconclusive": ExitCode.INSUFFICIENT,
        "healthy": ExitCode.OK,
        "not_degenerate": ExitCode.OK,
    }[record.verdict]
