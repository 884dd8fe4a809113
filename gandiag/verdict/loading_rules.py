"""GD401 and GD402: how far the loaded network can be trusted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gandiag.config import assumption_options
from gandiag.record import Record
from gandiag.verdict.policy import Policy, compute_score_verdict, get_loading_mismatch, get_undecided_assumptions
from gandiag.verdict.rule_base import Diagnosis, rule


@rule("GD401")
def find_loading_mismatch(record: Record, policy: Policy) -> Diagnosis | None:
    """The network may be rebuilt incorrectly, which looks exactly like collapse."""
    mismatch = get_loading_mismatch(record, policy)
    if mismatch is None:
        return _find_undecided_settings(record, policy)
    text = (
        "Cannot tell a loading error from collapse: the BatchNorm inputs of the rebuilt network disagree with the "
        f"statistics stored in the checkpoint (mismatch {mismatch:.2g}; a correct rebuild stays below 0.15). "
        "Check --activation, --bn-eps, --prior and --image-size, or load your own code with --model."
    )
    return Diagnosis("error", text, {"bn_mismatch": mismatch})


def _find_undecided_settings(record: Record, policy: Policy) -> Diagnosis | None:
    """Settings that neither the weights nor the BatchNorm statistics determine."""
    entries = get_undecided_assumptions(record)
    if not entries:
        return None
    options = ", ".join(dict.fromkeys(option for entry in entries for option in _options(entry)))
    guesses = "; ".join(_guess(entry) for entry in entries)
    decides_verdict = (
        record.verdict == "inconclusive" and compute_score_verdict(record.score, policy.limit) == "collapsed"
    )
    lead = "Cannot tell a loading error from collapse" if decides_verdict else "Part of the network is a guess"
    text = f"{lead}: neither the weights nor the BatchNorm statistics determine {guesses}."
    text += f" Set {options} as in the training code." if options else ""
    evidence = {entry["what"]: entry.get("value") for entry in entries}
    return Diagnosis("error" if decides_verdict else "warning", text, evidence)


def _guess(entry: Mapping[str, Any]) -> str:
    """The setting and the value taken. Records before 0.2 hold both only as text, with details in parentheses."""
    if "setting" in entry:
        return f"{entry['label']}: {entry['data']}"
    return ": ".join(str(entry.get(key)).split(" (")[0] for key in ("what", "value"))


def _options(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """The options that set it. Records before 0.2 name them in the text."""
    if "setting" in entry:
        return assumption_options(str(entry["setting"]))
    return tuple(re.findall(r"--[a-z-]+", str(entry.get("what"))))


@rule("GD402")
def find_embedded_code(record: Record, policy: Policy) -> Diagnosis | None:
    """The file holds code beside its weights."""
    notes = record.subject.get("notes") or ()
    if not notes:
        return None
    return Diagnosis("note", " ".join(f"{note.removesuffix('.')}." for note in notes))
