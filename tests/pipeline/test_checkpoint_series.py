"""gandiag audit --run: every checkpoint once, lined up with the log."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gandiag.config import resolve_config
from gandiag.errors import SourceError
from gandiag.pipeline.checkpoint_series import audit_series, describe_series, find_checkpoints, find_score_jumps
from gandiag.record import Record, Score

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "fixtures"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two snapshots of a ring generator and the log of a training."""
    place = tmp_path / "run"
    place.mkdir()
    for step in (100, 300):
        shutil.copy(FIXTURES / "ring_healthy.pt", place / f"netG_step_{step}.pt")
        (place / f"netD_step_{step}.pt").write_bytes(b"a discriminator is not looked at")
    shutil.copy(FIXTURES / "logs" / "dcgan.txt", place / "train.log")
    return place


def test_checkpoints_in_order_without_the_discriminator(folder: Path) -> None:
    shutil.copy(FIXTURES / "ring_healthy.pt", folder / "netG_step_1000.pt")
    (folder / "state.pt").write_bytes(b"")
    assert [(step, path.name) for step, path in find_checkpoints(folder)] == [
        (step, f"netG_step_{step}.pt") for step in (100, 300, 1000)
    ]


def test_what_is_audited_is_kept_until_something_changes(folder: Path) -> None:
    said: list[str] = []
    resolved = resolve_config({"n": 200})
    first = audit_series(folder, resolved, on_message=said.append)
    assert (
        [step for step, _ in first.points] == [100, 300]
        and first.log is not None
        and first.log["verdict"] == "oscillating"
    )
    assert [line for line in said if line.startswith("auditing")] == [
        "auditing netG_step_100.pt",
        "auditing netG_step_300.pt",
    ]
    said.clear()
    again = audit_series(folder, resolved, on_message=said.append)
    assert not said and [record.to_json() for _, record in again.points] == [
        record.to_json() for _, record in first.points
    ]
    (folder / "gandiag-audits" / "netG_step_300.json").write_text("cut sho")  # a pass that was killed
    audit_series(folder, resolved, on_message=said.append)
    assert [line for line in said if line.startswith("auditing")] == ["auditing netG_step_300.pt"]
    said.clear()
    audit_series(folder, resolve_config({"n": 210}), on_message=said.append)
    assert len([line for line in said if line.startswith("auditing")]) == 2


def scored(low: float, value: float, high: float) -> Record:
    return Record("inconclusive", (), Score(value, low, high), {}, {})


def test_a_bracket_names_the_event_before_it() -> None:
    points = [
        (1400.0, scored(0.0, 0.05, 0.1)),
        (1600.0, scored(0.0, 0.06, 0.12)),
        (1800.0, scored(0.5, 0.6, 0.7)),
        (2000.0, scored(0.55, 0.65, 0.75)),
    ]
    log = {
        "unit": "steps",
        "events": [
            {"step": 1400, "kind": "discriminator_wins", "evidence": ""},
            {"step": 1900, "kind": "failed", "evidence": ""},
        ],
    }
    (found,) = find_score_jumps(points, log)
    assert (found["from"], found["to"]) == (1600, 1800)
    assert (
        "variety fell between 1,600 and 1,800" in found["text"]
        and "200 steps after D began to win (at 1,400)" in found["text"]
    )
    assert find_score_jumps(points, None)[0]["event"] is None
    overlapping = [(0.0, scored(0.0, 0.1, 0.5)), (1.0, scored(0.4, 0.6, 0.8))]
    assert find_score_jumps(overlapping, log) == ()


def test_no_run_is_a_sentence(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(SourceError):
            audit_series(place, resolve_config({}))


def test_the_command(folder: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "gandiag", "audit"]
    page = folder.parent / "run.html"
    asked = [*command, "--run", str(folder), "-n", "200"]
    dry = subprocess.run([*asked, "--dry-run"], capture_output=True, text=True, env=environ, check=False)
    assert dry.returncode == 0 and "2 of them to audit" in dry.stdout and "all of them about" in dry.stdout, dry.stderr
    assert not (folder / "gandiag-audits").exists()
    done = subprocess.run(
        [*asked, "--json", "--html", str(page)], capture_output=True, text=True, env=environ, check=False
    )
    assert done.returncode == 0, done.stderr
    drawn = page.read_text()
    assert (
        "<svg" in drawn
        and "netG_step" not in drawn
        and "<script" not in drawn
        and "http://" not in drawn
        and "Oscillating" in drawn
    )
    assert describe_series(folder, resolve_config({"n": 200})).count("audited already") == 2
    document = json.loads(done.stdout)
    assert document["schema"] == "gandiag.run/1" and set(document) >= {"log", "points", "brackets"}
    assert [point["step"] for point in document["points"]] == [100, 300]
    both = subprocess.run(
        [*command, "ring.pt", "--run", str(folder)], capture_output=True, text=True, env=environ, check=False
    )
    assert both.returncode == 2 and "--run" in both.stderr
    none = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    assert none.returncode == 2 and "nothing to audit" in none.stderr
