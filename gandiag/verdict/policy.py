"""The policy stored in a Record and the verdict it gives. Torch-free.

    referenced:   collapsed if low >= limit, healthy if high < limit, else inconclusive;
                  unrealistic instead of healthy where more than half of the samples are off the data manifold,
                  inconclusive instead of healthy where a loss of half would have been missed,
                  memorised instead of healthy where at least half of the samples are copies of real ones
    degeneracy:   collapsed if low >= limit, not_degenerate if high < limit, else inconclusive
    groups:       as referenced; collapsed also where single groups are shown to have collapsed

What could not be measured never passes: a missing number, a NaN, a doubtful loading, or readings of the file that
disagree give inconclusive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gandiag.config import DEFAULT_LIMIT, MAX_BATCHNORM_MISMATCH
from gandiag.errors import ExitCode
from gandiag.record import Record, Verdict
from gandiag.verdict.readings import compare_readings, get_readings
from gandiag.verdict.record_queries import is_memorised
from gandiag.verdict.score_verdict import compute_score_verdict

__all__ = ["Policy", "compute_score_verdict", "compute_verdict"]

# Measurements without which no verdict is given: if one failed, the record is inconclusive.
REQUIRED_MEASUREMENTS = ("score",)
MAX_OFF_MANIFOLD = 0.5  # share of samples off the manifold above which a generator is not called healthy


@dataclass(frozen=True, slots=True)
class Policy:
    """What a record is held against.

    `limit`: collapse score from which a generator counts as collapsed. `bn_mismatch`: disagreement with the
    checkpoint's BatchNorm statistics from which the loading is in doubt.
    """

    limit: float = DEFAULT_LIMIT
    bn_mismatch: float = MAX_BATCHNORM_MISMATCH


def compute_verdict(record: Record, policy: Policy) -> Verdict:
    """The verdict on a record under a policy."""
    if get_loading_mismatch(record, policy) or record.provenance.get("doubts"):
        return "inconclusive"
    if any(record.measurements[key].status == "error" for key in REQUIRED_MEASUREMENTS if key in record.measurements):
        return "inconclusive"
    verdict = compute_score_verdict(record.score, policy.limit)
    if verdict != "inconclusive" and compare_readings(record, verdict, policy.limit) in ("differ", "not_sampled"):
        return "inconclusive"
    if get_collapsed_groups(record):
        verdict = "inconclusive" if get_readings(record) else "collapsed"  # readings' groups are not compared
    if verdict == "healthy" and is_memorised(record):
        return "memorised"
    if verdict == "healthy" and is_off_manifold(record):
        return "unrealistic"
    if verdict == "healthy" and record.score.list_blind_spots():
        return "inconclusive"
    return "inconclusive" if verdict == "collapsed" and get_unresolved_assumptions(record) else verdict


def is_off_manifold(record: Record) -> bool:
    """Whether so many samples are unlike any real one that their variety says little about the data's modes."""
    return (record.score.off_manifold or 0.0) > MAX_OFF_MANIFOLD


def get_collapsed_groups(record: Record) -> list[Mapping[str, Any]]:
    """Groups that are shown to have collapsed, worst first, {group, ratio, low, high, q} each; see metrics."""
    entries = record.groups.get("collapsed") or ()
    return [entry for entry in entries if isinstance(entry, Mapping)]


def get_loading_mismatch(record: Record, policy: Policy) -> float | None:
    """The BatchNorm mismatch if it is too large to tell a loading error from collapse; else None."""
    mismatch = record.measurements.get("bn_mismatch")
    if mismatch is None or mismatch.value is None or mismatch.value < policy.bn_mismatch:
        return None
    return mismatch.value


def get_undecided_assumptions(record: Record) -> list[Mapping[str, Any]]:
    """Assumptions that the file leaves undecided, {what, value, source, …} each. A wrong one can look like collapse."""
    entries = record.subject.get("assumptions") or ()
    return [entry for entry in entries if isinstance(entry, Mapping) and entry.get("source") == "undecided"]


def get_unresolved_assumptions(record: Record) -> list[Mapping[str, Any]]:
    """Undecided assumptions whose other values no reading has tried."""
    tried = (get_readings(record) or {}).get("open") or {}
    return [entry for entry in get_undecided_assumptions(record) if entry.get("setting") not in tried]


def verdict_exit_code(record: Record) -> ExitCode:
    """The exit code of a verdict. A wrong latent scale alone is not collapse: 0, with an error-level finding."""
    return {
        "collapsed": ExitCode.COLLAPSED,
        "inconclusive": ExitCode.INSUFFICIENT,
        "healthy": ExitCode.OK,
        "memorised": ExitCode.INSUFFICIENT,
        "not_degenerate": ExitCode.OK,
        "unrealistic": ExitCode.INSUFFICIENT,
    }[record.verdict]
