"""gandiag audit --run: every checkpoint is audited once and related to the log."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from gandiag.cli.main import run_command_line

from gandiag.config import resolve_config
from gandiag.errors import ExitCode, RecordError, SourceError
from gandiag.pipeline.checkpoint_series import audit_series, describe_series, find_checkpoints, find_score_jumps
from gandiag.pipeline.record_store import RecordStore
from gandiag.record import Record, Score

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder with two snapshots of a ring generator and a training log, and a cache without records."""
    monkeypatch.setenv("GANDIAG_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "run"
    place.mkdir()
    state = torch.load(FIXTURES / "ring_healthy.pt", weights_only=True)
    for step in (100, 300):
        torch.save(state, place / f"netG_step_{step}.pt")  # two files of different bytes
        (place / f"netD_step_{step}.pt").write_bytes(b"a discriminator is not read")
    shutil.copy(FIXTURES / "logs" / "dcgan.txt", place / "train.log")
    return place


def test_checkpoints_in_order_without_the_discriminator(folder: Path) -> None:
    shutil.copy(FIXTURES / "ring_healthy.pt", folder / "netG_step_1000.pt")
    (folder / "state.pt").write_bytes(b"")
    assert [(step, path.name) for step, path in find_checkpoints(folder)] == [
        (step, f"netG_step_{step}.pt") for step in (100, 300, 1000)
    ]


def test_records_are_reused_until_something_changes(folder: Path) -> None:
    messages: list[str] = []
    resolved = resolve_config({"n": 120})
    first = audit_series(folder, resolved, on_message=messages.append)
    assert [step for step, _ in first.points] == [100, 300]
    assert first.log is not None and first.log["verdict"] == "oscillating"
    assert messages == ["auditing netG_step_100.pt", "auditing netG_step_300.pt"]
    messages.clear()
    again = audit_series(folder, resolved, on_message=messages.append)
    assert not messages
    assert [record.to_json() for _, record in again.points] == [record.to_json() for _, record in first.points]
    (folder / "gandiag-audits" / "netG_step_300.json").write_text('{"trunca')  # a pass that was killed
    audit_series(folder, resolved, on_message=messages.append)
    assert not messages
    assert Record.read(folder / "gandiag-audits" / "netG_step_300.json") == again.points[1][1]
    audit_series(folder, resolve_config({"n": 100}), on_message=messages.append)
    assert len(messages) == 2


def test_what_lies_in_the_folder_is_not_believed(folder: Path, tmp_path: Path) -> None:
    """Neither a forged record nor a link: the one is replaced, the other is not followed."""
    first = audit_series(folder, resolve_config({"n": 100}))
    kept = folder / "gandiag-audits" / "netG_step_100.json"
    truth = kept.read_text()
    kept.write_text(truth.replace('"verdict": "', '"verdict": "healthy", "x": "'))
    victim = tmp_path / "victim"
    victim.write_text("mine")
    other = folder / "gandiag-audits" / "netG_step_300.json"
    other.unlink()
    other.symlink_to(victim)
    again = audit_series(folder, resolve_config({"n": 100}))
    assert again.exit_codes == first.exit_codes and kept.read_text() == truth
    assert victim.read_text() == "mine" and not other.is_symlink()
    shutil.rmtree(folder / "gandiag-audits")
    (folder / "gandiag-audits").symlink_to(tmp_path)
    with pytest.raises(RecordError, match="it is a link"):
        audit_series(folder, resolve_config({"n": 100}))


def test_other_data_under_the_same_path_is_audited_again(folder: Path, tmp_path: Path) -> None:
    messages: list[str] = []
    data = tmp_path / "real.npy"
    for shift in (0.0, 0.0, 3.0):
        np.save(data, np.random.default_rng(0).normal(shift, 1, (300, 2)).astype(np.float32))
        audit_series(folder, resolve_config({"n": 100, "real": str(data)}), on_message=messages.append)
    assert len(messages) == 4


def test_held_out_rows_count_by_content(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "holdout.csv"
    keys = []
    for text in ("a\n1\n", "a\n2\n"):
        data.write_text(text)
        keys.append(RecordStore(resolve_config({"holdout": str(data)}))._describe_shared()["files"])
    assert keys[0] != keys[1]


def test_a_dry_run_writes_nothing(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(tmp_path.rglob("*"))
    for subject in (["--run", str(folder)], [str(folder / "netG_step_100.pt")]):
        arguments = ["audit", *subject, "--dry-run", "--spec", str(tmp_path / "new.json")]
        assert run_command_line(arguments) == ExitCode.OK, capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def record_with_score(low: float, value: float, high: float) -> Record:
    return Record("inconclusive", (), Score(value, low, high), {}, {})


def test_a_score_jump_names_the_event_before_it() -> None:
    points = [
        (1400.0, record_with_score(0.0, 0.05, 0.1)),
        (1600.0, record_with_score(0.0, 0.06, 0.12)),
        (1800.0, record_with_score(0.5, 0.6, 0.7)),
        (2000.0, record_with_score(0.55, 0.65, 0.75)),
    ]
    log = {
        "unit": "steps",
        "events": [
            {"step": 1400, "kind": "discriminator_wins", "evidence": ""},
            {"step": 1900, "kind": "failed", "evidence": ""},
        ],
    }
    (jump,) = find_score_jumps(points, log)
    assert (jump["from"], jump["to"]) == (1600, 1800)
    assert "diversity dropped between 1,600 and 1,800" in jump["text"]
    assert "200 steps after D started to dominate (at 1,400)" in jump["text"]
    assert find_score_jumps(points, None)[0]["event"] is None
    overlapping = [(0.0, record_with_score(0.0, 0.1, 0.5)), (1.0, record_with_score(0.4, 0.6, 0.8))]
    assert find_score_jumps(overlapping, log) == ()


def test_folders_without_checkpoints_are_source_errors(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(SourceError):
            audit_series(place, resolve_config({}))


def test_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = folder.parent / "run.html"
    arguments = ["audit", "--run", str(folder), "-n", "120"]
    assert run_command_line([*arguments, "--dry-run"]) == ExitCode.OK
    plan = capsys.readouterr().out
    assert "2 checkpoints in" in plan and "2 to audit" in plan and "all: about" in plan
    assert not (folder / "gandiag-audits").exists()
    assert run_command_line([*arguments, "--json", "--html", str(page)]) == ExitCode.OK
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "gandiag.run/1" and set(document) >= {"log", "points", "brackets"}
    assert [point["step"] for point in document["points"]] == [100, 300]
    html = page.read_text()
    assert "<svg" in html and "Oscillating" in html
    assert not any(text in html for text in ("netG_step", "<script", "http://"))
    assert describe_series(folder, resolve_config({"n": 120})).count("already audited") == 2


def test_the_command_takes_either_a_file_or_a_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["audit", "ring.pt", "--run", str(folder)]) == ExitCode.CANNOT_RUN
    assert "--run" in capsys.readouterr().err
    assert run_command_line(["audit"]) == ExitCode.CANNOT_RUN
    assert "nothing to audit" in capsys.readouterr().err


def test_samples_of_each_checkpoint_by_group(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 8)
    centers = 5 * generator.standard_normal((40, 1, 4))

    def save(path: Path, width: float) -> None:
        points = (centers + width * generator.standard_normal((40, 8, 4))).reshape(-1, 4)
        np.savez(path, points=points, group=groups)

    save(tmp_path / "base.npz", 1.0)
    run = tmp_path / "run"
    run.mkdir()
    for step, width in ((100, 1.0), (200, 1.0), (300, 0.3)):
        save(run / f"step_{step}.npz", width)
    shutil.copy(run / "step_300.npz", run / "step_400.npz")
    arguments = ["audit", "--run", str(run), "--group-by", "group", "--against", str(tmp_path / "base.npz")]
    assert run_command_line([*arguments, "--html", str(tmp_path / "run.html")]) == ExitCode.COLLAPSED
    shown = capsys.readouterr().out
    assert "Keep 200, the latest healthy one" in shown and "300 and 400 give bit-identical outputs" in shown
    assert "Keep 200" in (tmp_path / "run.html").read_text()
    assert run_command_line([*arguments, "-q"]) == ExitCode.COLLAPSED
    quiet = capsys.readouterr().out
    assert quiet.startswith("Keep 200, the latest healthy one") and quiet.count("\n") == 1
    again = audit_series(run, resolve_config({"group_by": "group", "against": str(tmp_path / "base.npz")}))
    assert json.loads(again.to_json())["advice"]["latest_healthy"] == 200
    messages: list[str] = []
    audit_series(
        run, resolve_config({"group_by": "group", "against": str(tmp_path / "base.npz")}), on_message=messages.append
    )
    assert not messages  # the records are reused


def test_folders_of_samples_count_where_there_are_no_weights(tmp_path: Path) -> None:
    for step in (10, 2):
        (tmp_path / f"step_{step}").mkdir()
        (tmp_path / f"step_{step}" / "a_1.png").write_bytes(b"")
    (tmp_path / "notes_1").mkdir()
    assert [step for step, _ in find_checkpoints(tmp_path)] == [2, 10]
    shutil.copy(FIXTURES / "ring_healthy.pt", tmp_path / "netG_5.pt")
    assert [path.name for _, path in find_checkpoints(tmp_path)] == ["netG_5.pt"]
    assert len(find_checkpoints(tmp_path, prefers_samples=True)) == 2
