"""Groups without a reference: equal outputs are named, although nothing is judged."""

from __future__ import annotations

from dataclasses import replace

from gandiag.record import Record, Score
from gandiag.verdict.judge import apply_policy

GROUPS = {
    "basis": "between",
    "within": {"value": 0.6, "low": 0.2, "high": 0.9},
    "floor": {"low": 0.95, "high": 1.0},
    "count": 3,
    "rows": [
        {"group": "prompt_5", "n": 12, "ratio": 0.0005},
        {"group": "prompt_1", "n": 12, "ratio": 0.7},
        {"group": "prompt_2", "n": 12, "ratio": 0.8},
    ],
}


def test_a_group_of_equal_outputs_is_named() -> None:
    record = Record(
        verdict="inconclusive",
        kinds=(),
        score=Score(None, None, None, basis="groups", n_fake=36),
        subject={},
        measurements={},
        groups=GROUPS,
    )
    (finding,) = (entry for entry in apply_policy(record).findings if entry.rule == "GD113")
    assert finding.level == "warning" and finding.text.startswith(
        "All outputs are the same in 1 of 3 groups: prompt_5."
    )
    lively = replace(record, groups={**GROUPS, "rows": GROUPS["rows"][1:]})  # type: ignore[index]
    (finding,) = (entry for entry in apply_policy(lively).findings if entry.rule == "GD113")
    assert finding.level == "note" and "are the same" not in finding.text
