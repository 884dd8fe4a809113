"""The self-test: its rows, the detection rule, the text page, the command."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gandiag.report.selftest import format_short_fraction, format_short_number, render_self_test
from gandiag.testing.competing_metrics import (
    OTHER_METRICS,
    SIMILARITY_KEY,
    TABLE_METRICS,
    compute_metrics,
    metric_direction,
    pairwise_similarity,
)
from gandiag.testing.selftest import QUICK_CASES, SelfTestConfig, quick_config, run_selftest
from gandiag.testing.selftest_rows import is_detected, roc_auc
from gandiag.testing.toy_mixtures import Corruption, make_mixture, standard_mixture, validity_cases

ROOT = Path(__file__).resolve().parents[2]
FEW_CASES = tuple(
    case for case in validity_cases() if case.name in ("clean", "modes kept 0.5", "junk 20 %", "half + junk 20 %")
)


@pytest.fixture(scope="module")
def document() -> dict:
    return run_selftest(SelfTestConfig(dims=(8, 16), seeds=(3,), n=600, replicates=5, cases=FEW_CASES, n_threads=1))


def test_every_case_appears_once() -> None:
    names = [case.name for case in validity_cases()]
    assert len(names) == len(set(names)) and set(QUICK_CASES) <= set(names)
    injections = [case.corruption for case in validity_cases()]
    assert all(injections.count(injection) == 1 for injection in injections)
    for dim in (2, 64):
        mixture = standard_mixture(dim)
        for case in validity_cases():
            lost = case.corruption.true_loss(mixture)
            assert (lost == 0) == (case.group in ("clean", "control")), case


def test_document_has_rows_nulls_and_a_summary(document: dict) -> None:
    assert document["schema"] == "gandiag.selftest/1" and json.loads(json.dumps(document, allow_nan=False)) == document
    assert [row["name"] for row in document["rows"]] == 2 * ["real against real", *(case.name for case in FEW_CASES)]
    for row in document["rows"]:
        assert row["score"]["low"] <= row["score"]["value"] <= row["score"]["high"]
        assert set(row["metrics"]) == set(TABLE_METRICS) and row["ok"] == (abs(row["error"]) <= row["tolerance"])
    assert document["ok"] and document["off"] == []
    assert document["summary"]["score"] == {"found": 4, "of": 4, "alarms": 0, "of_none": 6, "auc": 1.0}
    nulls = [row for row in document["rows"] if row["group"] == "null"]
    assert all(sum(row["verdicts"].values()) == document["nulls"] for row in nulls)


@pytest.mark.slow
def test_result_depends_on_the_seed_but_not_on_threads() -> None:
    def without_time(result: dict) -> dict:
        return {**result, "seconds": 0}

    config = SelfTestConfig(dims=(8,), seeds=(3,), n=300, replicates=3, cases=FEW_CASES[:2], n_threads=2)
    again = run_selftest(config)
    assert without_time(again) == without_time(run_selftest(replace(config, n_threads=1)))
    other = run_selftest(replace(config, seeds=(4,)))
    assert other["rows"][2]["score"] != again["rows"][2]["score"]


def test_wrong_score_fails_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """The self-test can fail: compared with a loss that is not there, the row is off."""
    monkeypatch.setattr(Corruption, "true_loss", lambda self, mixture: 0.9 if self.mode_fraction < 1 else 0.0)
    result = run_selftest(SelfTestConfig(dims=(16,), n=500, replicates=5, cases=FEW_CASES[:2], n_threads=1))
    assert not result["ok"] and result["off"] == ["modes kept 0.5 in 16-D"]
    assert render_self_test(result).startswith("FAILED  1 of 3 rows are off: modes kept 0.5 in 16-D")


def test_progress_counts_to_the_end_after_the_estimated_duration() -> None:
    calls: list[object] = []
    config = SelfTestConfig(dims=(2,), n=200, replicates=2, cases=FEW_CASES[:1], n_threads=1)
    run_selftest(config, lambda stage, done, total: calls.append((done, total)), calls.append)
    assert str(calls[0]).startswith(f"{config.n_runs} comparisons, about ") and calls[-1] == (
        config.n_runs,
        config.n_runs,
    )


def test_detection_is_one_sided_with_the_stated_level() -> None:
    """9 normals, the last against the others: beyond the t bound in .5 % of 5,000 cases, standard error .001."""
    draws = torch.randn(5_000, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist()
    detected = sum(is_detected(row[8], row[:8], "lower") for row in draws) / len(draws)
    assert detected == pytest.approx(0.005, abs=0.003)
    assert (
        is_detected(9, [0, 1, 2], "lower") is False
        and is_detected(99, [0, 1, 2], "lower")
        and not is_detected(99, [0, 1, 2], "higher")
        and is_detected(-99, [0, 1, 2], "neither")
    )


def test_roc_auc_equals_that_of_sklearn() -> None:
    from sklearn.metrics import roc_auc_score

    values = torch.randint(0, 9, (60,), generator=torch.Generator().manual_seed(1)).double().tolist()
    expected = roc_auc_score([1] * 25 + [0] * 35, values)
    assert roc_auc(values[:25], values[25:], "lower") == pytest.approx(expected)
    assert roc_auc(values[:25], values[25:], "higher") == pytest.approx(1 - expected)
    assert roc_auc(values[:25], values[25:], "neither") == pytest.approx(max(expected, 1 - expected))


def test_similarity_has_its_closed_forms() -> None:
    real = torch.zeros(4, 3)
    assert pairwise_similarity(real, torch.tensor([[1.0, 0, 0]]).repeat(5, 1)) == pytest.approx(1)
    assert pairwise_similarity(real, torch.eye(3)) == 0
    assert pairwise_similarity(real, torch.tensor([[1.0, 0, 0], [-1, 0, 0]])) == -1
    assert pairwise_similarity(real, torch.tensor([[1.0, 0, 0], [3, 0, 0]])) == pytest.approx(0.6)  # 2·3 / (1 + 9)
    assert pairwise_similarity(real + 5, torch.tensor([[6.0, 5, 5], [8, 5, 5]])) == pytest.approx(0.6)


def test_competing_metrics_equal_the_plain_functions_and_have_directions() -> None:
    import gandiag.metrics as metrics

    mixture = make_mixture(8, 6)
    real, fake = mixture.sample(200, seed=1), Corruption(mode_fraction=0.5).sample(mixture, 200, seed=2)
    result = compute_metrics(real, fake)
    assert tuple(result) == OTHER_METRICS and all(math.isfinite(value) for value in result.values())
    for key in ("recall", "coverage", "precision", "density", "ndb", "kid", "near_duplicates"):
        assert result[key] == getattr(metrics, key)(real, fake), key
    assert result["frechet"] == metrics.frechet_distance(real, fake) and result["vendi_2"] == pytest.approx(
        metrics.vendi_score(real, fake, 2.0)
    )
    assert result["pairwise_distance"] == metrics.pairwise_distance(real, fake)[1]
    assert compute_metrics(real, fake, ("ndb",)) == {"ndb": result["ndb"]}
    assert {key: metric_direction(key) for key in TABLE_METRICS} == {
        "frechet": "lower",
        "recall": "higher",
        "coverage": "higher",
        "ndb": "lower",
        "vendi_1": "higher",
        "pairwise_distance": "higher",
        SIMILARITY_KEY: "lower",
    }


def test_page_fits_and_is_complete_without_color(document: dict) -> None:
    text = render_self_test(document)
    assert text.startswith("PASSED  all 10 rows") and text.endswith("\n") and "\x1b" not in text and "…" not in text
    assert max(map(len, text.split("\n"))) <= 100
    for word in ("seed 3", "real against real", "half + junk 20 %", "MS-SSIM", "gandiag's score", "16 dimensions"):
        assert word in text, word
    colored = render_self_test(document, color=True)
    assert "\x1b[" in colored
    import re

    assert "\n".join(line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", colored).split("\n")) == text


NUMBERS = {
    0.0: ".00",
    0.434: ".43",
    0.999: "1.0",
    2.46: "2.5",
    17.4: "17",
    585.2: "585",
    16_700: "17k",
    -0.001: ".00",
    -0.3: "-.3",
}


@pytest.mark.parametrize(("value", "text"), NUMBERS.items())
def test_numbers_take_three_characters(value: float, text: str) -> None:
    assert format_short_number(value) == text and len(text) <= 3


def test_fractions_take_three_characters() -> None:
    assert [format_short_fraction(value) for value in (0.0, 0.5, 0.996, 1.0)] == [".00", ".50", "1.0", "1.0"]


def gandiag(*arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-m", "gandiag", "selftest", *arguments],
        capture_output=True,
        text=True,
        env=env,
        check=False,
        timeout=120,
    )


@pytest.mark.slow
def test_command_prints_one_document_and_exits_by_its_result() -> None:
    done = gandiag("--quick", "--dims", "8", "-n", "500", "--json", "--first-seed", "2")
    document = json.loads(done.stdout)
    assert done.returncode == (0 if document["ok"] else 1), done.stderr
    assert len(document["off"]) <= 1, document["off"]  # with so few samples one row of 14 may be off by chance
    assert document["seeds"] == [2] and document["dims"] == [8] and document["n"] == 500
    assert "comparisons, about" in done.stderr


IMPOSSIBLE = {
    "--dims 2,x": "'x'",
    "--dims ,": "no dimension",
    "--dims 1": "'1'",
    "-n 50": "50",
    "--seeds 0": "0",
    "--sed 1": "--seed",
}


@pytest.mark.parametrize(("arguments", "word"), IMPOSSIBLE.items())
def test_invalid_settings_are_refused_before_the_run(arguments: str, word: str) -> None:
    done = gandiag(*arguments.split())
    assert done.returncode == 2 and word in done.stderr and not done.stdout


def test_quick_config_is_a_subset() -> None:
    assert (
        {case.name for case in quick_config().cases} == set(QUICK_CASES)
        and set(quick_config().dims) <= set(SelfTestConfig().dims)
        and quick_config().n_runs < SelfTestConfig().n_runs / 3
    )


@pytest.mark.slow
def test_full_table_passes_on_fresh_seeds() -> None:
    result = run_selftest(SelfTestConfig(seeds=(101, 102)))
    assert result["ok"], result["off"]
    assert result["mean_absolute_error"] < 0.03 and result["summary"]["score"]["auc"] > 0.99
    assert all(result["summary"]["score"]["auc"] >= detected["auc"] for detected in result["summary"].values())
