"""The benchmark: each job runs once, tables are correct, and a record finds its nearest baseline."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binom

from gandiag.errors import ConfigError
from gandiag.record import Record, Score
from gandiag.trainer.benchmark.jobs import BenchmarkJob, list_jobs, select_jobs_for_rank
from gandiag.trainer.benchmark.results import (
    NUM_REAL_DRAWS,
    RESULT_FILE,
    collect_results,
    format_json_by_entry,
    measure_real_coverage,
)
from gandiag.trainer.benchmark.runner import run_job, run_jobs
from gandiag.trainer.benchmark.statistics import (
    collapsed_fraction,
    count_mode_changes,
    estimate_mean,
    paired_differences,
    summarize_runs,
)
from gandiag.trainer.benchmark.tables import render_figure, render_markdown
from gandiag.trainer.toy_data import DATASETS, REAL_HIGH_QUALITY_FRACTION
from gandiag.trainer.train import NUM_COVERAGE_SAMPLES, train
from gandiag.verdict.judge import apply_policy
from gandiag.verdict.nearest_baseline import load_baselines, match_baseline

TINY = BenchmarkJob("tiny", "metz-appendix", "none", 0, 6, 1)


def make_run(arm: str, seed: int, variation: float) -> dict[str, Any]:
    counts = {
        "step": 10,
        "modes": 4 + seed,
        "of": 8,
        "good": 0.5,
        "variation": variation,
        "kl": None if arm == "none" and seed else variation,
    }
    snapshot = {
        "step": 10,
        "verdict": "collapsed",
        "score": {"value": variation},
        "profile": {"missing": variation, "skewed": 0.0},
        "coverage": counts,
    }
    snapshot["profile"] |= {"narrowed": 0.0, "duplicated": 0.0, "off_manifold": 0.5}  # type: ignore[operator]
    looks = {
        "step": list(range(10)),
        "variation": [0.9] * 9 + [variation],
        "modes": [1] * 10,
        "dominant": [0, 0, 1, 1, 1, 2, 2, 2, 2, 2],
    }
    about = {
        "study": "s",
        "recipe": "r",
        "dataset": "ring8",
        "arm": arm,
        "seed": seed,
        "steps": 10,
        "recipe_steps": 20,
        "shortened": True,
    }
    return {**about, "looks": looks, "snapshots": [{**snapshot, "step": 0}, snapshot]}


BENCHMARK = {
    "runs": [
        make_run("none", 0, 0.8),
        make_run("none", 1, 0.9),
        make_run("unrolled/10", 0, 0.1),
        make_run("unrolled/10", 1, 0.1),
    ]
}


def test_jobs_are_divided_without_gap_or_overlap() -> None:
    every = list_jobs()
    assert len({(job.study, job.arm, job.seed) for job in every}) == len(every)
    parts = [select_jobs_for_rank(every, {"RANK": str(rank), "WORLD_SIZE": "3"}) for rank in range(3)]
    assert sorted(map(repr, every)) == sorted(repr(job) for part in parts for job in part)
    assert (
        select_jobs_for_rank(every, {"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}) == every[1::2]
        and select_jobs_for_rank(every, {}) == every
    )
    with pytest.raises(ConfigError, match="RANK is '3'"):
        select_jobs_for_rank(every, {"RANK": "3", "WORLD_SIZE": "3"})
    with pytest.raises(ConfigError, match="no study called 'rng'") as caught:
        list_jobs("rng")
    assert "ring" in caught.value.hint


def test_every_job_has_a_configuration() -> None:
    for job in list_jobs():
        config = job.make_config()
        assert config.steps == job.steps and config.seed == job.seed
        assert job.shortened == (job.steps < config.recipe.steps)


@pytest.mark.slow
def test_a_job_runs_once_and_gives_the_same_result_in_any_process(tmp_path: Path) -> None:
    jobs = [TINY, replace(TINY, seed=1)]
    assert run_jobs(jobs, tmp_path / "two", 2) == []
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "two").rglob("*") if path.is_file()}
    assert run_jobs(jobs, tmp_path / "two", 2) == []
    assert before == {path: path.stat().st_mtime_ns for path in before}, "finished runs are left alone"
    assert run_job(TINY, tmp_path / "one") == "done"
    alone, pooled = (
        json.loads((TINY.run_folder(tmp_path / name) / RESULT_FILE).read_text()) for name in ("one", "two")
    )
    assert alone == pooled
    assert [run["seed"] for run in collect_results(jobs, tmp_path / "two")["runs"]] == [0, 1]
    assert alone["snapshots"][-1]["coverage"]["of"] == 8 and alone["shortened"] is True


@pytest.mark.slow
def test_a_killed_benchmark_resumes(tmp_path: Path) -> None:
    job = replace(TINY, steps=150, snapshots=15)
    code = (
        "from pathlib import Path; from gandiag.trainer.benchmark.runner import run_job; "
        f"from gandiag.trainer.benchmark.jobs import BenchmarkJob; run_job({job!r}, Path({str(tmp_path)!r}))"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    folder = job.run_folder(tmp_path)
    deadline = time.monotonic() + 60
    while not list((folder / "snapshots").glob("*-0000010*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert run_job(job, tmp_path) == "running elsewhere"
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert not (folder / RESULT_FILE).exists() and len(list((folder / "snapshots").iterdir())) >= 2
    whole = train(job.make_config(), tmp_path / "whole")
    pieces = train(job.make_config(), folder)
    assert whole.generator_file.read_bytes() == pieces.generator_file.read_bytes()


def test_json_has_a_line_for_each_run() -> None:
    text = format_json_by_entry(BENCHMARK)
    assert json.loads(text) == BENCHMARK and sum(line.startswith('  {"study"') for line in text.splitlines()) == len(
        BENCHMARK["runs"]
    )


def test_means_intervals_and_pairs() -> None:
    none, unrolled = summarize_runs(BENCHMARK)
    assert none["variation"]["value"] == pytest.approx(0.85) and none["kl"] == {
        "value": 0.8,
        "low": None,
        "high": None,
        "n": 1,
    }
    # Two values 0.8 and 0.9: standard error 0.05, Student's t with one degree of freedom 12.706.
    assert none["variation"]["low"] == pytest.approx(0.85 - 12.706 * 0.05, abs=1e-3)
    assert none["variation"]["high"] == 7 / 8, "no more than one mode of eight can show"
    assert unrolled["variation"] == pytest.approx({"value": 0.1, "low": 0.1, "high": 0.1, "n": 2})
    assert estimate_mean([1.0]) == {"value": 1.0, "low": None, "high": None, "n": 1}
    (against,) = paired_differences(BENCHMARK)
    assert against["arm"] == "unrolled/10" and against["seeds"] == [0, 1]
    assert against["variation"]["value"] == pytest.approx(-0.75) and against["variation"]["better"] == 2
    assert against["kl"]["value"] == pytest.approx(-0.7) and against["kl"]["n"] == 1, "one seed of none has no KL"
    assert against["modes"]["value"] == 0 and against["modes"]["better"] == 0, "as many modes are not more"
    assert (
        collapsed_fraction(BENCHMARK["runs"][2]) == pytest.approx(8 / 9)
        and count_mode_changes(BENCHMARK["runs"][0]) == 2
    )
    text = render_markdown(BENCHMARK)
    assert "| s | unrolled/10 | 10\\* of 20 | 2 |" in text and "arXiv:1611.02163" in text
    assert "| s | unrolled/10 | 2 | 0.0 [0.0, 0.0] | 0 of 2 | -0.75 [-0.88, -0.11] | 2 of 2 |" in text
    assert render_figure(BENCHMARK).startswith(b"\x89PNG")


def test_a_baseline_may_come_from_a_longer_study_but_not_from_another_recipe_or_step() -> None:
    short = make_run("minibatch", 0, 0.2) | {"study": "short"}
    longer = make_run("none", 0, 0.8) | {"steps": 20}
    elsewhere = make_run("none", 0, 0.5) | {"recipe": "other"}
    (found,) = paired_differences({"runs": [elsewhere, short, longer]})
    assert found["variation"]["value"] == pytest.approx(-0.6) and found["variation"]["n"] == 1
    assert paired_differences({"runs": [elsewhere, short, longer | {"snapshots": longer["snapshots"][:1]}]}) == []


def test_real_data_are_counted_like_a_run() -> None:
    found = measure_real_coverage(DATASETS.get("ring8")())
    # Total variation of N even draws over K: K/2 times the mean deviation of Bin(N, 1/K)/N.
    counts = binom(NUM_COVERAGE_SAMPLES, 1 / 8)
    expected = 4 * counts.expect(lambda x: abs(x / NUM_COVERAGE_SAMPLES - 1 / 8))
    deviation = 0.006  # of one draw, in 20,000 multinomial ones
    assert abs(found["variation"]["value"] - expected) < 4 * deviation / NUM_REAL_DRAWS**0.5
    assert (
        found["modes"]["value"] == 8
        and abs(found["good"]["value"] - REAL_HIGH_QUALITY_FRACTION)
        < 4
        * (REAL_HIGH_QUALITY_FRACTION * (1 - REAL_HIGH_QUALITY_FRACTION) / NUM_COVERAGE_SAMPLES / NUM_REAL_DRAWS) ** 0.5
    )


def record(missing: float, basis: str = "referenced") -> Record:
    factors = {"missing": missing, "skewed": 0.0, "narrowed": 0.0, "duplicated": 0.0, "off_manifold": 0.5}
    profile = {name: {"value": value, "low": value, "high": value} for name, value in factors.items()}
    return Record(
        "inconclusive", (), Score(missing, missing, missing, basis=basis), {"latent": None}, {}, profile=profile
    )  # type: ignore[arg-type]


def test_a_record_finds_its_nearest_baseline() -> None:
    found = match_baseline(record(0.12), BENCHMARK)
    assert found is not None and str(found) == "unrolled (K = 10), ring8, r, seed 0, step 10"
    assert found.distance == pytest.approx(0.02 * 2**0.5)
    assert str(match_baseline(record(0.95), BENCHMARK)).startswith("vanilla, ring8, r, seed 1")
    assert (
        match_baseline(record(0.1, basis="degeneracy"), BENCHMARK) is None
        and match_baseline(record(0.1), {"runs": []}) is None
    )


def test_the_shipped_benchmark_is_complete_and_an_audit_names_the_closest_run() -> None:
    runs = load_baselines()["runs"]
    known = {(job.study, job.arm, job.seed): job for job in list_jobs()}
    for entry in runs:
        job = known[entry["study"], entry["arm"], entry["seed"]]
        assert (entry["steps"], entry["recipe"]) == (job.steps, job.recipe), (
            "every row can be traced to a seed and a recipe"
        )
        assert entry["snapshots"][-1]["step"] == job.steps
    snapshot = runs[0]["snapshots"][-1]
    mine = record(0.0)
    profile = {name: {"value": value, "low": value, "high": value} for name, value in snapshot["profile"].items()}
    judged = apply_policy(replace(mine, score=replace(mine.score, value=snapshot["score"]["value"]), profile=profile))
    told = next(finding for finding in judged.findings if finding.rule == "GD601")
    assert told.level == "note" and "Closest baseline" in told.text and told.evidence["distance"] == 0
