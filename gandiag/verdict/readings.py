"""Whether the other networks that a file may hold share the verdict. Torch-free.

Where neither weights nor statistics settle a setting, the audit samples every reading that makes other samples and
scores it (`subject.readings`). One network read wrongly looks exactly like a collapsed one, so a verdict stands only
where all readings agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from gandiag.record import Record, Score, Verdict
from gandiag.verdict.score_verdict import compute_score_verdict

ReadingsState = Literal["settled", "agree", "differ", "not_sampled"]


def get_readings(record: Record) -> Mapping[str, Any] | None:
    """What the file leaves open, with the scores of the readings; None where every reading makes the same samples."""
    readings = record.subject.get("readings")
    return readings if isinstance(readings, Mapping) and readings.get("distinct") else None


def reading_verdict(reading: Mapping[str, Any], limit: float) -> Verdict:
    """The verdict on one reading."""
    if reading.get("doubtful"):
        return "inconclusive"
    basis: Literal["referenced", "degeneracy"] = "degeneracy" if reading.get("basis") == "degeneracy" else "referenced"
    score = Score(reading.get("value"), reading.get("low"), reading.get("high"), basis=basis)
    return compute_score_verdict(score, limit)


def find_disagreement(record: Record, verdict: Verdict, limit: float) -> Mapping[str, Any] | None:
    """The first reading with another verdict; None if all that were scored agree."""
    readings = get_readings(record) or {}
    return next((entry for entry in readings.get("scored", ()) if reading_verdict(entry, limit) != verdict), None)


def compare_readings(record: Record, verdict: Verdict, limit: float) -> ReadingsState:
    """Whether all readings share this verdict: "settled" without others, "not_sampled" if some were left out."""
    readings = get_readings(record)
    if readings is None:
        return "settled"
    if find_disagreement(record, verdict, limit) is not None:
        return "differ"
    return "not_sampled" if readings.get("left") else "agree"
