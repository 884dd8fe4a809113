"""GD401 to GD403: how far the loaded network can be trusted, and whether it was trained at all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gandiag.config import assumption_options
from gandiag.record import Record
from gandiag.verdict.policy import Policy, compute_score_verdict, get_loading_mismatch, get_unresolved_assumptions
from gandiag.verdict.readings import compare_readings, find_disagreement, get_readings, reading_verdict
from gandiag.verdict.record_queries import format_list, format_percent
from gandiag.verdict.rule_base import Diagnosis, rule


@rule("GD401")
def find_loading_mismatch(record: Record, policy: Policy) -> Diagnosis | None:
    """The network may be rebuilt incorrectly, which looks exactly like collapse."""
    mismatch = get_loading_mismatch(record, policy)
    if mismatch is None:
        return _find_open_readings(record, policy) or _find_undecided_settings(record, policy)
    text = (
        "Cannot tell a loading error from collapse: the BatchNorm inputs of the rebuilt network disagree with the "
        f"statistics stored in the checkpoint (mismatch {mismatch:.2g}; a correct rebuild stays below 0.15). "
        "Check --activation, --bn-eps, --prior and --image-size, or load your own code with --model."
    )
    return Diagnosis("error", text, {"bn_mismatch": mismatch})


def _find_open_readings(record: Record, policy: Policy) -> Diagnosis | None:
    """Settings that the file leaves open, and whether the verdict depends on them."""
    readings = get_readings(record)
    if readings is None:
        return None
    labels = {name: name.replace("_", " ") for name in readings["open"]}
    options = [option for name in labels for option in assumption_options(name)]
    opened = f"The file leaves open {format_list(list(labels.values()))}, and no BatchNorm tells"
    action = f"Give {', '.join(options)} as in the training code, or its code with --model."
    own = compute_score_verdict(record.score, policy.limit)
    state = compare_readings(record, own, policy.limit)
    evidence = {f"open: {labels[name]}": value for name, value in readings["open"].items()}
    if own == "inconclusive":
        return Diagnosis(
            "warning", f"{opened}: {readings['distinct']} other readings make other samples. {action}", evidence
        )
    if state == "agree":
        text = f"{opened}; all {readings['distinct']} readings that make other samples give {_VERDICT_TEXT[own]} too."
        return Diagnosis("note", text, evidence)
    if state == "not_sampled":
        text = f"{opened}; {readings['left']} of {readings['distinct']} readings were not sampled. {action}"
        return Diagnosis("error", text, evidence)
    other = find_disagreement(record, own, policy.limit) or {}
    text = (
        f"{opened}, and the verdict depends on it: {_VERDICT_TEXT[own]} as {_settings_text(readings['open'])}, "
        f"{_VERDICT_TEXT[reading_verdict(other, policy.limit)]} as {_settings_text(other['settings'])}. {action}"
    )
    nearest = readings.get("nearest")
    if nearest and record.score.basis == "referenced":
        text += f" Mean and spread of the real data favor {_settings_text(nearest)}, which is a hint, not a proof."
    return Diagnosis("error", text, evidence)


_VERDICT_TEXT = {
    "collapsed": "collapsed",
    "healthy": "healthy",
    "not_degenerate": "not degenerate",
    "inconclusive": "inconclusive",
}


def _settings_text(settings: Mapping[str, Any]) -> str:
    return ", ".join(str(value) for value in settings.values())


def _find_undecided_settings(record: Record, policy: Policy) -> Diagnosis | None:
    """Settings that neither the weights nor the BatchNorm statistics determine."""
    entries = get_unresolved_assumptions(record)
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


# Outputs that vary by less than this share of the range, and stay within this share of its middle, were hardly trained.
_MAX_SPREAD, _MAX_SIZE = 0.03, 0.35
_MAX_VECTOR_SPREAD = 0.01  # of the outputs' size, for vectors


@rule("GD403")
def find_untrained_network(record: Record, policy: Policy) -> Diagnosis | None:
    """Collapsed by its samples, and hardly trained by its outputs or its BatchNorm statistics."""
    if compute_score_verdict(record.score, policy.limit) != "collapsed":
        return None
    entries = [entry for entry in record.subject.get("assumptions") or () if isinstance(entry, Mapping)]
    if any(entry.get("setting") == "batchnorm_statistics" for entry in entries):
        text = "The BatchNorm statistics were never updated: the network is untrained. It did not collapse in training."
        return Diagnosis("warning", text)
    variation = record.subject.get("variation") or {}
    spread, size = (float(variation.get(name) or 0.0) for name in ("spread", "size"))
    half_range = float(variation.get("half_range") or 0.0)
    is_small = spread < _MAX_SPREAD * half_range and size < _MAX_SIZE * half_range
    if not size or not (is_small if half_range else spread < _MAX_VECTOR_SPREAD * size):
        return None
    share = format_percent(spread / (half_range or size))
    of_what = "their range about its middle" if half_range else "their size"
    text = f"The outputs vary by {share} of {of_what}: the network is untrained, or collapsed from the start."
    return Diagnosis("warning", text, {"spread": spread, "size": size})
