"""The gate: limits against intervals, and policies in TOML with their lines. Runs without torch."""

from __future__ import annotations

import dataclasses
import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import records

import gandiag
from gandiag.errors import ConfigError, ExitCode, RecordError, VerdictError
from gandiag.record import Measurement, Record, Score
from gandiag.verdict.gate import GateResult, gate
from gandiag.verdict.gate_policy import find_policy, parse_policy, read_policy
from gandiag.verdict.limits import Limit, RecordValue, check_limit, get_record_value, list_limit_keys

NAN = math.nan


@cache
def load_record(name: str) -> Record:
    """Cached, because drawing the exhibits takes longest."""
    return records.ALL[name]()


@pytest.mark.parametrize(
    ("value", "low", "high", "state"),
    [
        (0.1, 0.05, 0.15, "passed"),
        (0.1, 0.05, 0.2, "passed"),  # an interval that ends at the limit lies within it
        (0.3, 0.25, 0.35, "violated"),
        (0.18, 0.1, 0.25, "inconclusive"),
        (0.3, None, None, "violated"),  # a fact has no interval
        (0.2, None, None, "passed"),
        (None, None, None, "unmeasured"),
        (NAN, NAN, NAN, "inconclusive"),
        (0.1, NAN, 0.15, "inconclusive"),
        (0.1, 0.05, NAN, "inconclusive"),
        (math.inf, math.inf, math.inf, "violated"),
    ],
)
def test_states_of_a_limit(value: Any, low: Any, high: Any, state: str) -> None:
    assert check_limit(Limit("x", max=0.2), RecordValue(value, low, high)).state == state
    mirrored = [None if part is None else 1 - part for part in (value, high, low)]
    expected = check_limit(Limit("x", min=0.8), RecordValue(*mirrored)).state
    assert expected == state or value == 0.2  # 1 - 0.2 rounds


def test_both_bounds_must_be_kept() -> None:
    limit = Limit("x", min=0.2, max=0.6)
    expected = {0.1: "violated", 0.2: "inconclusive", 0.4: "passed", 0.6: "inconclusive", 0.7: "violated"}
    assert {
        value: check_limit(limit, RecordValue(value, value - 0.05, value + 0.05)).state for value in expected
    } == expected


def test_every_kind_of_number_can_be_limited() -> None:
    record = load_record("collapsed")
    assert get_record_value(record, "score").bounds() == (0.44, 0.52)
    assert get_record_value(record, "profile.missing").value == 0.41
    assert get_record_value(record, "aspects.color").value == 0.46
    assert get_record_value(record, "classes.disc_bright").value == 0.04
    assert get_record_value(record, "classes.*").value == 0.97
    assert get_record_value(record, "modes.missed").value == len(record.modes["missed"])
    assert get_record_value(record, "frechet[imagenet]").high == 43.9
    assert get_record_value(record, "fid").value is None and "Inception" in get_record_value(record, "fid").reason
    assert (
        get_record_value(record, "profile.nope").value is None
        and "missing" in get_record_value(record, "profile.nope").reason
    )
    for key in list_limit_keys(record):
        assert get_record_value(record, key) is not None
    with pytest.raises(ConfigError, match="recal'") as caught:
        get_record_value(record, "recal")
    assert "recall" in caught.value.hint


VERDICTS = {
    "healthy": 0,
    "collapsed": 1,
    "complete": 1,
    "inconclusive": 3,
    "degeneracy": 3,
    "bare": 3,
    "wrong_scale": 1,  # an error-level finding fails, although the verdict is healthy
}


@pytest.mark.parametrize("name", VERDICTS)
def test_without_a_policy_the_verdict_decides(name: str) -> None:
    assert gandiag.gate(load_record(name)).code == VERDICTS[name]


def test_insufficient_evidence_passes_only_if_allowed() -> None:
    assert gate(load_record("inconclusive"), {"allow": ["inconclusive"]}).code == 0
    assert gate(load_record("degeneracy"), {"allow": ["inconclusive"]}).code == 3
    assert gate(load_record("degeneracy"), {"allow": ["degeneracy"]}).code == 0
    assert gate(load_record("collapsed"), {"allow": ["inconclusive", "degeneracy", "unmeasured"]}).code == 1
    assert gate(load_record("healthy"), {"limits": {"fid": {"max": 30}}}).code == 3
    assert gate(load_record("healthy"), {"limits": {"fid": {"max": 30}}, "allow": ["unmeasured"]}).code == 0


@pytest.mark.parametrize("field", ["value", "low", "high"])
def test_missing_and_nan_numbers_never_pass(field: str) -> None:
    for missing in (NAN, None):
        record = dataclasses.replace(
            load_record("healthy"), score=dataclasses.replace(load_record("healthy").score, **{field: missing})
        )
        result = gate(record)
        assert result.code == (0 if field == "value" else 3), field
        measurements = {
            **record.measurements,
            "recall": Measurement(**{"value": 0.8, "low": 0.8, "high": 0.8, field: missing}),
        }
        limited = gate(
            dataclasses.replace(load_record("healthy"), measurements=measurements), {"limits": {"recall": {"min": 0.6}}}
        )
        assert limited.code == (
            0 if (missing is None and field != "value") or (field == "value" and missing is not None) else 3
        ), (field, missing)


def test_the_limit_of_the_policy_replaces_the_records() -> None:
    record = load_record("collapsed")  # 0.48 [0.44, 0.52]
    assert [gate(record, {"max-score": limit}).code for limit in (0.3, 0.44, 0.48, 0.52, 0.6)] == [1, 1, 3, 3, 0]
    result = gate(record, {"max-score": 0.6})
    assert result.record is not None and result.record.verdict == "healthy" and result.record.policy["limit"] == 0.6


def test_a_doubtful_loading_violates_no_limit() -> None:
    record = dataclasses.replace(
        load_record("collapsed"), measurements={"bn_mismatch": Measurement(1.2), "recall": Measurement(0.1, 0.05, 0.15)}
    )
    result = gate(record, {"limits": {"recall": {"min": 0.6}}})
    assert (
        result.code == 3
        and all(check.state == "inconclusive" for check in result.checks)
        and "loading" in result.checks[0].reason.lower()
    )


def test_forbidden_findings_fail() -> None:
    assert (
        gate(load_record("collapsed"), {"max-score": 0.9, "forbid": ["GD103"]}).code == 0
    )  # nothing is found below the limit
    latent = {
        "dim": 4,
        "prior": "normal",
        "scale": 1.0,
        "trained_scale": {"value": 0.02, "low": 0.018, "high": 0.025, "source": "x"},
    }
    record = dataclasses.replace(load_record("healthy"), subject={**load_record("healthy").subject, "latent": latent})
    assert gate(record, {"forbid": ["GD201"]}).code == 1
    alone = gate(record)  # an error fails by itself
    assert alone.code == 1 and [check.key for check in alone.failures()] == ["GD201"]
    assert "Wrong latent scale" in alone.failures()[0].reason
    assert gate(record, {"allow": ["GD201"]}).code == 0 and gate(record, {"allow": ["GD109"]}).code == 1


POLICY = """
# a policy
[audit]
seed = 3

[gate]
max-score = 0.6
allow = ["unmeasured"]

[gate.limits]
recall = { min = 0.6 }
profile.missing = { max = 0.1 }
"frechet[imagenet]" = { max = 30 }
classes."*" = { max = 0.3 }

[gate.limits.near_duplicates]
max = 0.5
"""


def test_the_failing_line_of_the_policy_is_named(tmp_path: Path) -> None:
    path = tmp_path / "gandiag.toml"
    path.write_text(POLICY)
    result = gate(load_record("collapsed"), path)
    lines = {check.key: int(check.where.rpartition(":")[2]) for check in result.checks}
    text = POLICY.splitlines()
    expected = {
        "score": "max-score",
        "recall": "recall",
        "profile.missing": "profile.missing",
        "frechet[imagenet]": '"frechet',
        "classes.*": "classes.",
    }
    assert {key: text[lines[key] - 1].startswith(start) for key, start in expected.items()} == dict.fromkeys(
        expected, True
    )
    assert text[lines["near_duplicates"] - 1] == "[gate.limits.near_duplicates]"
    states = {check.key: check.state for check in result.checks}
    bad = ("recall", "profile.missing", "frechet[imagenet]", "classes.*")
    assert states == {"score": "passed", "near_duplicates": "passed", **dict.fromkeys(bad, "violated")}
    assert [check.state for check in result.failures()] == ["violated"] * 4 and result.code == 1


def test_a_policy_is_found_in_gandiag_toml_or_pyproject(tmp_path: Path) -> None:
    assert find_policy(tmp_path).source == ""
    (tmp_path / "pyproject.toml").write_text("[tool.gandiag.gate]\nmax-score = 0.3\nbaseline = 'old.json'\n")
    result = find_policy(tmp_path)
    assert (
        result.max_score == 0.3
        and result.baseline == str(tmp_path / "old.json")
        and result.lines["max-score"].endswith("pyproject.toml:2")
    )
    (tmp_path / "gandiag.toml").write_text("[audit]\nseed = 1\n")
    assert find_policy(tmp_path).max_score == 0.3
    (tmp_path / "gandiag.toml").write_text("[gate]\nmax-score = 0.1\n")
    assert find_policy(tmp_path).max_score == 0.1


@pytest.mark.parametrize("path", ["\\u0000", "loop", "../old.json"])
def test_a_baseline_that_cannot_be_followed_is_refused(tmp_path: Path, path: str) -> None:
    """A zero byte in a project's baseline was called a bug in gandiag."""
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "gandiag.toml").write_text(f'[gate]\nbaseline = "{path}"\n')
    with pytest.raises(ConfigError, match="outside this folder"):
        find_policy(tmp_path)


BAD = [
    ("[gate]\nmax_score = 0.2", "max-score"),
    ("[gate]\nmax-score = '0.2'", "number"),
    ("[gate]\nmax-score = nan", "number"),
    ("[gate]\nmax-score = -1", "at least 0"),
    ("[gate]\nmax-score = true", "number"),
    ("[gate]\nallow = 'all'", "list"),
    ("[gate]\nallow = ['everything']", "choose from"),
    ("[gate.limits]\nrecall = 0.6", "{ min = 0.6 }"),
    ("[gate.limits]\nrecall = { mni = 0.6 }", "min"),
    ("[gate.limits]\nrecall = {}", "{ max = 0.2 }"),
    ("[gates]\nx = 1", "[gate]"),
    ("[gate", "correct"),
    ("gate = 3", "[gate]"),
    ("[gate]\nlimits = 7", "{ max = 0.2 }"),
    ("[gate]\nbaseline = 7", "text"),
    ("[gate]\nforbid = [7]", "text"),
]


@pytest.mark.parametrize(("text", "hint"), BAD, ids=[text for text, _ in BAD])
def test_an_invalid_policy_is_an_error_with_a_hint(text: str, hint: str, tmp_path: Path) -> None:
    path = tmp_path / "gandiag.toml"
    path.write_text(text + "\n")
    with pytest.raises(ConfigError) as caught:
        read_policy(path)
    assert hint in caught.value.hint and ("\n" not in caught.value.message)


def test_a_limit_on_an_unknown_number_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text("[gate.limits]\nscore = { max = 0.9 }\nrecal = { min = 0.6 }\n")
    with pytest.raises(ConfigError, match=r"p\.toml:3: .*recal"):
        gate(load_record("healthy"), path)


def test_results_can_be_raised_and_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    load_record("collapsed").write(path)
    result = gandiag.gate(path)
    assert isinstance(result, GateResult) and result.code is ExitCode.COLLAPSED and not result.passed
    with pytest.raises(VerdictError, match=r"score must be below 0\.15") as caught:
        result.raise_for_code()
    assert isinstance(caught.value.record, Record)
    gandiag.gate(load_record("healthy")).raise_for_code()
    with pytest.raises(RecordError, match="schema"):
        (tmp_path / "b.json").write_text("{}")
        gandiag.gate(tmp_path / "b.json")


def test_a_table_is_a_policy_too() -> None:
    policy = parse_policy({"max-score": 0.3, "limits": {"recall": {"min": 0.5, "max-regress": 0.1}}})
    assert policy.limits == (Limit("recall", 0.5, None, 0.1, "the policy"),) and policy.max_score == 0.3
    record = dataclasses.replace(load_record("healthy"), score=Score(0.2, 0.18, 0.22))
    assert gate(record, policy).code == 0
