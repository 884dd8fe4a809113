"""Sentences that newcomers stumbled over: no contradiction with the number beside them, no advice out of proportion."""

from __future__ import annotations

import dataclasses

import pytest
import records

from gandiag.record import Measurement
from gandiag.report.formatting import describe_score
from gandiag.report.gate_text import render_gate_text
from gandiag.report.measurement_view import split_measurements
from gandiag.verdict.evidence_rules import describe_needed_samples, find_blind_spots
from gandiag.verdict.fidelity_rules import find_off_distribution_samples
from gandiag.verdict.gate import gate
from gandiag.verdict.judge import apply_policy
from gandiag.verdict.policy import Policy


def test_needed_samples_are_in_proportion() -> None:
    """ "About 34,600 samples would decide" is no advice to somebody with 300."""
    near = dataclasses.replace(records.inconclusive().score, value=0.149, low=0.0, high=0.4, limit=0.15, n_fake=300)
    far = dataclasses.replace(near, value=0.08, high=0.19)
    texts = [describe_needed_samples(dataclasses.replace(records.inconclusive(), score=score)) for score in (near, far)]
    assert texts[0].startswith("It is so close to the limit") and texts[1].startswith("About ")
    assert all("twice as many real ones" in text for text in texts)


@pytest.mark.parametrize("value", [0.13, 0.12, 0.15])
def test_a_compared_subset_grows_before_more_is_generated(value: float) -> None:
    """With 500 of 50,000 samples compared, the next step is to compare more of them."""
    score = dataclasses.replace(
        records.inconclusive().score, value=value, low=0.05, high=0.21, limit=0.15, n_fake=500, n_drawn=50_000
    )
    text = describe_needed_samples(dataclasses.replace(records.inconclusive(), score=score))
    assert "500 of the 50,000" in text and "--neighbours-max" in text and "(-n" not in text and "generate" not in text
    more = describe_needed_samples(
        dataclasses.replace(records.inconclusive(), score=dataclasses.replace(score, n_drawn=600))
    )
    assert "--neighbours-max" in more and "generate about" in more


def test_a_missed_loss_in_a_subset_asks_for_a_larger_one() -> None:
    injected = ({"kind": "continuum", "loss": 0.5, "score": 0.0},)
    score = dataclasses.replace(records.healthy().score, injected=injected, n_fake=500, n_drawn=2_000)
    diagnosis = find_blind_spots(dataclasses.replace(records.healthy(), score=score), Policy())
    assert diagnosis is not None and "--neighbours-max to 1000" in diagnosis.text


@pytest.mark.parametrize(("precision", "says"), [(0.62, True), (0.1, False)])
def test_low_fidelity_says_why_precision_is_higher(precision: float, says: bool) -> None:
    share = {"value": 0.88, "low": 0.84, "high": 0.91}
    record = dataclasses.replace(
        records.healthy(),
        profile={"off_manifold": share},
        measurements={"precision": Measurement(precision, precision, precision, 0.9, "", "higher", 100)},
    )
    diagnosis = find_off_distribution_samples(record, Policy())
    assert diagnosis is not None and ("Precision is" in diagnosis.text) is says
    assert "off the data manifold, and" not in diagnosis.text


@pytest.mark.parametrize(
    ("value", "text"), [(1.0, "all of the variety"), (0.98, "nearly all of the"), (0.5, "at least half")]
)
def test_repeats_without_real_data_are_worded_naturally(value: float, text: str) -> None:
    score = dataclasses.replace(records.degeneracy().score, value=value, low=value, high=value)
    record = dataclasses.replace(records.degeneracy(), verdict="collapsed", score=score)
    sentence = describe_score(record)
    assert text in sentence and "at least all" not in sentence and "at least nearly" not in sentence


def test_one_mode_is_singular() -> None:
    rows = [Measurement(value, value, value, 8.0, "modes", "higher", 100) for value in (1, 2)]
    record = dataclasses.replace(
        records.healthy(), measurements=dict(zip(("modes_covered", "modes_found"), rows, strict=True))
    )
    shown = {row.key: row.unit for part in split_measurements(record) for row in part}
    assert shown == {"modes_covered": "mode", "modes_found": "modes"}


def test_a_reason_is_printed_once() -> None:
    """The sentence below an unclear check was printed again as a finding."""
    record = apply_policy(records.inconclusive())
    text = " ".join(render_gate_text([gate(record)]).split())
    reasons = [check.reason for check in gate(record).checks if check.reason]
    assert reasons and all(text.count(" ".join(reason.split())) == 1 for reason in reasons)


def test_a_finding_that_must_be_absent_is_found_or_not() -> None:
    record = apply_policy(records.wrong_scale())
    line = next(line for line in render_gate_text([gate(record)]).splitlines() if "GD201" in line)
    assert line.split() == ["violated", "GD201", "found", "must", "be", "absent", "always"]
