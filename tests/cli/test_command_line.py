"""The command in real processes: exit codes, streams, and an error message with an action for every invalid input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from gandiag.cli.main import run_command_line

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "fixtures"
RING, ONE, REAL = (str(FIXTURES / name) for name in ("ring_healthy.pt", "ring_one_mode.safetensors", "ring.npz"))


def gandiag(*arguments: str, cwd: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NO_COLOR": "1", **environ}
    return subprocess.run(
        [sys.executable, "-m", "gandiag", *arguments],
        capture_output=True,
        text=True,
        env=env,
        cwd=cwd,
        check=False,
        timeout=300,
    )


@pytest.mark.parametrize(
    ("arguments", "code", "verdict"),
    [
        ((RING, "--real", REAL, "-n", "1000"), 0, "healthy"),
        ((ONE, "--real", REAL, "-n", "500"), 1, "collapsed"),
        ((ONE, "--real", REAL, "-n", "500", "--exit-zero"), 0, "collapsed"),
        ((RING, "--real", REAL, "-n", "60"), 3, "inconclusive"),
        ((RING, "-n", "300"), 0, "not_degenerate"),
    ],
)
def test_exit_codes_and_one_json_document(arguments: tuple[str, ...], code: int, verdict: str) -> None:
    process = gandiag("audit", *arguments, "--json")
    assert process.returncode == code, process.stderr
    document = json.loads(process.stdout)
    assert document["verdict"] == verdict and document["schema"] == "gandiag.audit/1"
    assert document["subject"]["path"] == arguments[0] and len(document["subject"]["sha256"]) == 64


def test_the_record_and_the_page_are_written_and_the_report_shows_the_same(tmp_path: Path) -> None:
    record, page = tmp_path / "audit.json", tmp_path / "report.html"
    process = gandiag("audit", ONE, "--real", REAL, "-n", "400", "-o", str(record), "--html", str(page))
    assert process.returncode == 1, process.stderr
    assert process.stdout.startswith("COLLAPSED") and process.stdout.rstrip().splitlines()[-1].strip().endswith(
        str(page)
    )
    assert page.read_text().lower().startswith("<!doctype html>")
    again = gandiag("report", str(record))
    assert again.returncode == 0 and again.stdout.splitlines()[:8] == process.stdout.splitlines()[:8]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["audit.json", "report.html"]


def make_files(folder: Path) -> dict[str, str]:
    """Inputs that cannot be audited."""
    (folder / "empty").mkdir()
    (folder / "text.pt").write_text("hello, this is not a model\n" * 10)
    (folder / "none.pt").write_bytes(b"")
    (folder / "lfs.pt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 117073189\n")
    (folder / "page.pt").write_text("<!DOCTYPE html><html><body>Sign in</body></html>")
    torch.save({"exp_avg": torch.zeros(3)}, folder / "other.pt")
    np.savez(folder / "two.npz", a=np.zeros((5, 2), np.float32), b=np.zeros((6, 2), np.float32))
    np.save(folder / "three.npy", np.zeros((500, 3), np.float32))
    return {
        name: str(folder / name)
        for name in (
            "empty",
            "text.pt",
            "none.pt",
            "lfs.pt",
            "page.pt",
            "other.pt",
            "two.npz",
            "three.npy",
            "missing.pt",
        )
    }


CASES = [
    ("{missing.pt}", "does not exist"),
    ("{empty}", "no images"),
    ("{text.pt}", "text file"),
    ("{none.pt}", "0 bytes"),
    ("{lfs.pt}", "Git LFS pointer"),
    ("{page.pt}", "web page"),
    ("{other.pt}", "other.pt"),
    ("{two.npz}", "--npz-key"),
    ("RING --real {missing.pt}", "cannot be read"),
    ("RING --real {empty}", "no images"),
    ("RING --real {three.npy}", "shape (2,)"),
    ("RING --latent-dim 77", "contradicts the weights"),
    ("RING --class 3", "no classes"),
    ("RING --features nope", "nope"),
    ("RING --features imagenet", "need images"),
    ("RING --metrics nope", "nope"),
    ("RING --device cuda", "cuda"),
    ("RING --budget fast", "fast"),
    ("RING --bugdet quick", "--budget"),
    ("RING -o {empty}", "is a folder"),
    ("RING -o /no/such/folder/a.json", "cannot be written"),
    ("RING --html /proc/a.html", "cannot be written"),
]


@pytest.mark.parametrize(("line", "text"), CASES, ids=[line for line, _ in CASES])
def test_invalid_input_exits_2_with_one_sentence_and_an_action(line: str, text: str, tmp_path: Path) -> None:
    if "cuda" in line and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    paths = make_files(tmp_path)
    arguments = [
        word.format(**{}) if "{" not in word else paths[word.strip("{}")] for word in line.replace("RING", RING).split()
    ]
    before = sorted(entry.name for entry in tmp_path.iterdir())
    process = gandiag("audit", *arguments)
    assert process.returncode == 2, (process.stdout, process.stderr)
    assert process.stdout == "" and "Traceback" not in process.stderr and text in process.stderr
    assert "error" in process.stderr.lower() and len(process.stderr.strip().splitlines()) <= 6
    assert sorted(entry.name for entry in tmp_path.iterdir()) == before


def test_mistyped_commands() -> None:
    assert gandiag("audti").returncode == 2 and "did you mean audit" in gandiag("audti").stderr
    assert gandiag("--version").stdout.startswith("gandiag ")
    assert gandiag("audit").returncode == 2


def test_explain_shows_remedies_of_a_rule_and_the_formula_of_a_metric() -> None:
    rule, metric, unknown = (
        gandiag("explain", "GD103"),
        gandiag("explain", "frechet[imagenet]"),
        gandiag("explain", "recal"),
    )
    assert rule.returncode == 0 and "Unrolled discriminator" in rule.stdout and "cost" in rule.stdout
    assert metric.returncode == 0 and "lower" in metric.stdout and max(map(len, metric.stdout.splitlines())) <= 80
    assert unknown.returncode == 2 and "recall" in unknown.stderr


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    record = tmp_path / "audit.json"
    command = [sys.executable, "-m", "gandiag", "audit", RING, "--real", REAL, "-n", "2000", "-o", str(record)]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert process.stderr is not None
    first_line = process.stderr.readline()  # the time estimate: the run has started
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, (first_line, err)
    assert "interrupted" in err and "Traceback" not in err and out == "" and not list(tmp_path.iterdir())


def test_settings_are_shown_with_their_source(tmp_path: Path) -> None:
    (tmp_path / "gandiag.toml").write_text("[audit]\nlimit = 0.2\n")
    process = gandiag("audit", "x.pt", "--show-config", "--seed", "4", cwd=tmp_path, GANDIAG_BUDGET="quick")
    rows = {line.split()[0]: line for line in process.stdout.splitlines()}
    assert (
        process.returncode == 0
        and "flag" in rows["seed"]
        and "GANDIAG_BUDGET" in rows["budget"]
        and "gandiag.toml" in rows["limit"]
    )
    assert rows["seed"].endswith("default: 0") and rows["limit"].endswith("default: 0.15")
    assert rows["prior"].split(maxsplit=1)[1].startswith("(inferred, else normal)") and "default:" not in rows["prior"]


@pytest.mark.parametrize(
    ("alias", "setting", "shown"),
    [
        ("--num-samples 7", "n", "7"),
        ("--latent-scales 1,2", "scales", "1.0,2.0"),
        ("--no-images", "exhibits", "False"),
        ("--images", "exhibits", "True"),
        ("--model-arg a=1", "init", "a=1"),
        ("--no-assumptions", "strict", "True"),
        ("--loading-spec a.json", "spec", "a.json"),
        ("--latent-scale 2", "scale", "2.0"),
        ("--truncation-psi 0.7", "psi", "0.7"),
        ("--noise-mode random", "noise", "random"),
        ("--label-position plus", "class-place", "plus"),
        ("--batchnorm batch", "bn", "batch"),
        ("--batchnorm-eps 0.8", "bn-eps", "0.8"),
    ],
)
def test_standard_spellings_of_options_are_accepted_but_not_shown(
    alias: str, setting: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command_line(["audit", *alias.split(), "--show-config"]) == 0
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert rows[setting][:3] == [shown, "flag", "default:"]
    assert run_command_line(["audit", "--help"]) == 0
    assert f" {alias.split()[0]} " not in capsys.readouterr().out


def test_a_dry_run_prints_the_plan() -> None:
    process = gandiag("audit", RING, "--real", REAL, "--dry-run")
    assert (
        process.returncode == 0
        and "identity" in process.stdout
        and "precision" not in process.stderr
        and "4,000" in process.stdout
    )


def test_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m gandiag --help | head -n 1"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, env=env, check=False
    )
    assert "Traceback" not in process.stderr and "Usage" in process.stdout


@pytest.mark.parametrize(("model", "n_notes"), [("absent_module:make", 1), ("absent.py:make", 0)])
def test_model_says_once_that_it_searches_the_working_folder(
    model: str, n_notes: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file.py is named already, so that nothing is searched."""
    assert run_command_line(["audit", "--dry-run", RING, "--model", model]) == 2
    output = capsys.readouterr()
    assert output.err.count("from this folder too") == n_notes and output.out == ""
    assert n_notes == 0 or output.err.index("--model imports absent_module") < output.err.index("error:")


def test_trust_from_the_environment_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GANDIAG_TRUST", "1")
    for command in ("audit", "gate", "inspect"):
        assert run_command_line([command, RING]) == 2
        assert "GANDIAG_TRUST would trust every file" in capsys.readouterr().err
