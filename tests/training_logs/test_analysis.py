"""Each verdict on a run with exactly that problem, with its start; and the command on bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gandiag
from gandiag.catalogue import load_entries
from gandiag.errors import ExitCode, SourceError
from gandiag.record import Record
from gandiag.verdict.remedies import load_remedies
from gandiag.verdict.training_rules import EVENT_RULES

ROOT = Path(__file__).resolve().parents[2]
LOGS = ROOT / "fixtures" / "logs"
N = 1000


def red_noise(seed: int, phi: float = 0.8, n: int = N) -> np.ndarray:
    rng = np.random.default_rng(seed)
    series = rng.standard_normal(n)
    for i in range(1, n):
        series[i] = phi * series[i - 1] + np.sqrt(1 - phi**2) * series[i]
    return series


def make_healthy_run(seed: int = 0) -> dict[str, np.ndarray]:
    """A run with a warm-up, then noise around its equilibrium."""
    decay = np.exp(-np.arange(N) / 30)
    return {
        "generator": 1.5 + 2 * decay + 0.1 * red_noise(seed),
        "discriminator": 1.1 + decay + 0.1 * red_noise(seed + 100),
        "step": np.arange(N) * 10.0,
    }


def diagnose(**changed: Any) -> Any:
    return gandiag.losses({**make_healthy_run(), **changed})


def find_false_alarms(seeds: range) -> list[int]:
    """Seeds whose healthy run is called unstable; the others have settled, or show no instability."""
    result = {seed: gandiag.losses(make_healthy_run(seed)) for seed in seeds}
    calm = ("settled", "no_instability_found")
    assert all(run.exit_code == ExitCode.OK and not run.findings for run in result.values() if run.verdict in calm)
    assert sum(run.verdict == "settled" for run in result.values()) >= 0.75 * len(result)
    return [seed for seed, run in result.items() if run.verdict not in calm]


def test_a_healthy_run_has_settled() -> None:
    """Eight runs; a cycle fails a run only at p <= .01, so the one of p = .02 among them no longer does."""
    assert find_false_alarms(range(20, 28)) == []


@pytest.mark.slow
def test_healthy_runs_have_settled() -> None:
    """A hundred runs at a level of 1 to 2 %: seven alarms or more have a probability of 0.4 %."""
    assert len(find_false_alarms(range(100, 200))) < 7


def at_half(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return np.where(np.arange(N) < N // 2, before, after)


def test_nan_to_the_end_has_failed() -> None:
    result = diagnose(discriminator=at_half(make_healthy_run()["discriminator"], np.full(N, np.nan)))
    assert result.verdict == "failed" and result.document["events"][0]["step"] == 5000


def test_a_single_nan_is_a_note() -> None:
    loss = make_healthy_run()["discriminator"]
    loss[300] = np.nan
    result = diagnose(discriminator=loss)
    assert result.verdict == "settled" and "not finite" in " ".join(result.document["notes"])


def test_blow_up_has_failed() -> None:
    result = diagnose(generator=at_half(make_healthy_run()["generator"], np.full(N, 1e7)))
    assert result.verdict == "failed" and result.document["events"][0]["step"] == 5000


def test_a_pinned_discriminator_has_won() -> None:
    base = make_healthy_run()
    won = at_half(base["discriminator"], np.abs(0.002 * red_noise(5)))
    result = diagnose(discriminator=won, generator=at_half(base["generator"], 8 + red_noise(6)))
    event = result.document["events"][0]
    assert result.verdict == "discriminator_wins" and event["step"] == pytest.approx(5000, abs=200)
    assert any(entry["key"] == "gradient_penalty" for entry in result.findings[0].remedies)


def test_a_win_shows_in_the_scores() -> None:
    real, fake = (
        at_half(0.6 + 0.05 * red_noise(1), np.clip(0.995 + 0.002 * red_noise(1), 0, 1)),
        at_half(0.4 + 0.05 * red_noise(2), np.clip(0.004 + 0.002 * red_noise(2), 0, 1)),
    )
    assert diagnose(score_real=real, score_fake=fake).verdict == "discriminator_wins"
    fooled = at_half(0.5 + 0.05 * red_noise(2), np.clip(0.99 + 0.002 * red_noise(2), 0, 1))
    assert diagnose(score_fake=fooled, score_real=0.5 + 0.01 * red_noise(3)).verdict == "generator_wins"


def test_a_wasserstein_loss_has_no_level() -> None:
    """A critic's loss may rest near 0, from below, in a good run."""
    result = diagnose(discriminator=-0.005 + 0.003 * red_noise(3), generator=0.3 + 0.1 * red_noise(4))
    assert result.document["family"] == "unbounded" and result.verdict == "settled"


def test_a_runaway_level_diverges() -> None:
    """A critic's loss that grows exponentially."""
    grown = -np.exp(np.arange(N) / 150) + 0.1 * red_noise(7)
    assert diagnose(discriminator=grown).verdict == "diverging"


def test_bursts_in_both_losses_are_mode_hopping() -> None:
    base, rng = make_healthy_run(), np.random.default_rng(3)
    for start in np.sort(rng.choice(np.arange(150, 950, 20), 9, replace=False)):
        base["generator"][start : start + 6] += 2.5
        base["discriminator"][start : start + 6] -= 1.0
    assert gandiag.losses(base).verdict == "mode_hopping"


def test_single_outliers_are_not_bursts() -> None:
    base = make_healthy_run()
    base["generator"][::97] += 3
    assert "mode_hopping" not in {event["kind"] for event in gandiag.losses(base).document["events"]}


def test_the_start_of_an_oscillation_is_found() -> None:
    t = np.arange(N)
    one, other = (np.where(t < 500, 0, 0.5 * turn(2 * np.pi * t / 25)) for turn in (np.sin, np.cos))
    result = diagnose(
        generator=make_healthy_run()["generator"] + one, discriminator=make_healthy_run()["discriminator"] + other
    )
    line = result.document["oscillation"]
    assert (
        result.verdict == "oscillating"
        and line["period"] == pytest.approx(250, rel=0.02)
        and line["start"] == pytest.approx(5000, abs=1000)
    )
    assert line["coherence"] > 0.8 and abs(abs(line["phase"]) - 90) < 15


@pytest.mark.parametrize(
    "series",
    [
        {"generator": np.ones(200)},
        {"generator": np.arange(10.0), "discriminator": np.arange(10.0)},
        {"generator": red_noise(1)},
    ],
)
def test_too_little_is_inconclusive(series: dict[str, np.ndarray]) -> None:
    result = gandiag.losses(series)
    assert result.verdict == "inconclusive" and result.exit_code == ExitCode.INSUFFICIENT and result.document["doubts"]


@pytest.mark.parametrize(
    "source", [{"loss": [1, 2]}, {"generator": [[1.0]]}, {"generator": ["a"]}, {"generator": [1.0], "step": [1, 2]}, {}]
)
def test_invalid_series_raise(source: Any) -> None:
    with pytest.raises(SourceError):
        gandiag.losses(source)


def test_every_finding_is_explained_and_has_advice() -> None:
    for code, _ in EVENT_RULES.values():
        assert code in load_entries() and load_remedies()["advice"][code]


def test_an_audit_with_a_log_carries_it_and_keeps_its_verdict() -> None:
    ring = str(ROOT / "fixtures" / "ring_healthy.pt")
    record = gandiag.audit(ring, n=300, exhibits=False, log=str(LOGS / "dcgan.txt"))
    assert (
        record.verdict == "not_degenerate"
        and record.training is not None
        and record.training["verdict"] == "oscillating"
    )
    assert [finding.level for finding in record.findings if finding.rule == "GD706"] == ["warning"]
    assert Record.from_json(record.to_json()).to_json() == record.to_json()


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-m", "gandiag", "losses", *arguments],
        capture_output=True,
        text=True,
        env=environ,
        cwd=cwd,
        check=False,
    )


def test_the_command_from_scrollback_to_verdict(tmp_path: Path) -> None:
    page = tmp_path / "losses.html"
    process = run(str(LOGS / "dcgan.txt"), "--html", str(page))
    assert (
        process.returncode == 1
        and process.stdout.startswith("OSCILLATING")
        and "period 24" in process.stdout
        and "try 1" in process.stdout
    )
    assert process.stdout.rstrip().endswith(str(page)) and max(map(len, process.stdout.split("\n")[:-2])) <= 80
    text = page.read_text()
    assert (
        text.count("<svg") >= 5
        and "Oscillation over time" in text
        and "<script" not in text
        and "http://" not in text
        and "Oscillating" in text
    )
    document = json.loads(run(str(LOGS / "dcgan.txt"), "--json").stdout)
    assert document["schema"] == "gandiag.losses/1" and document["columns"]["generator"] == "Loss_G"
    assert set(document["oscillation"]) >= {"p_value", "period", "amplitude", "coherence", "phase", "start"}
    assert set(document["read"]) >= {"format", "rows", "skipped"}


@pytest.mark.parametrize(
    ("name", "content", "code", "message"),
    [
        ("other.csv", "step,accuracy\n" + "1,0.5\n" * 50, 2, "no loss columns"),
        ("one.csv", "loss\n" + "0.5\n" * 50, 2, "no"),
        ("junk.bin", "\x00\x01\x02\x03" * 500, 2, "binary"),
        ("ten.csv", "step,g_loss,d_loss\n" + "".join(f"{i},0.{i},1.{i}\n" for i in range(10)), 3, "too few"),
        ("flat.csv", "step,g_loss,d_loss\n" + "".join(f"{i},0.5,0.7\n" for i in range(100)), 3, "constant"),
        (
            "two.csv",
            "step,g_loss,d_loss\n" + "".join(f"{i},0.{i % 9},0.{i % 7}\n" for i in range(100)) * 2,
            1,  # each run repeats a cycle of nine rows
            "2 runs",
        ),
        (
            "mixed.csv",
            "step,g_loss,d_loss\n" + "".join(f"{i * 37 % 100},0.{i % 9},0.{i % 7}\n" for i in range(100)),
            3,
            "mixed",
        ),
        (
            "nan.csv",
            "step,g_loss,d_loss\n" + "".join(f"{i},nan,nan\n" for i in range(100)),
            3,
            "row of 100 has a finite loss",
        ),
    ],
)
def test_bad_logs_give_an_error_message(tmp_path: Path, name: str, content: str, code: int, message: str) -> None:
    (tmp_path / name).write_text(content)
    process = run(name, cwd=tmp_path)
    assert process.returncode == code, process.stdout + process.stderr
    assert message in " ".join((process.stdout + process.stderr).split()) and "Traceback" not in process.stderr
    assert code != 2 or "hint:" in process.stderr


def test_a_truncated_event_file_shows_what_could_be_read(tmp_path: Path) -> None:
    whole = (LOGS / "events.out.tfevents.fixture").read_bytes()
    for share, code, message in ((0.6, (0, 1, 3), "ends within a record"), (0.002, (2,), "hint:")):
        (tmp_path / "events.out.tfevents.cut").write_bytes(whole[: int(share * len(whole))])
        process = run("events.out.tfevents.cut", cwd=tmp_path)
        assert process.returncode in code and message in " ".join((process.stdout + process.stderr).split()), (
            process.stdout + process.stderr
        )
        assert "Traceback" not in process.stderr
