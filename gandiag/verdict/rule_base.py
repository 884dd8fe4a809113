"""A rule: the code and the kind of one finding, and the function that looks for it in a record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gandiag.record import Finding, Record
from gandiag.verdict.policy import Policy

FindingLevel = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What a rule found: its severity, the sentence for the user and the numbers behind it. The rule adds its code."""

    level: FindingLevel
    text: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


DiagnoseFunction = Callable[[Record, Policy], Diagnosis | None]


@dataclass(frozen=True, slots=True)
class Rule:
    """Callable: rule(record, policy) -> Finding, or None where the rule does not apply.

    `kind`: the kind of collapse that the finding adds to the record; "" for none.
    """

    code: str
    diagnose: DiagnoseFunction
    kind: str = ""

    def __call__(self, record: Record, policy: Policy) -> Finding | None:
        diagnosis = self.diagnose(record, policy)
        if diagnosis is None:
            return None
        return Finding(self.code, diagnosis.level, diagnosis.text, diagnosis.evidence)


def rule(code: str, *, kind: str = "") -> Callable[[DiagnoseFunction], Rule]:
    """Decorator: make a Rule of a function (record, policy) -> Diagnosis | None."""
    return lambda diagnose: Rule(code, diagnose, kind)
