"""Commands and ranks that are ended from outside, a folder that cannot be written, a clock that was set back."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import records
import torch

from gandiag.features.cache import FeatureCache

ROOT = Path(__file__).resolve().parents[1]
FIXTURES = ROOT / "fixtures"
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}

# The command, held where the result is complete and its file is about to be put into place.
HELD = """
import os, sys, time
import gandiag.untrusted.files as files
def hold(source, target):
    print("held", flush=True)
    time.sleep(60)
files.os.replace = hold
from gandiag.cli.main import run_command_line
sys.exit(int(run_command_line(sys.argv[1:])))
"""
COMMANDS = {
    "audit": ("audit", "g.pt", "-n", "100", "-q", "-o", "out.json"),
    "losses": ("losses", "dcgan.txt", "-o", "out.json"),
    "report": ("report", "r.json", "-o", "out.json"),
    "run": ("audit", "--run", "run", "-n", "100", "-q", "-o", "out.json"),
    "shard": ("audit", "g.pt", "-n", "100", "-q", "--shard", "1/1", "-o", "out.json"),
    "merge": ("merge", "s.gandiag", "-q", "-o", "out.json"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "g.pt").write_bytes((FIXTURES / "ring_healthy.pt").read_bytes())
    (tmp_path / "dcgan.txt").write_bytes((FIXTURES / "logs" / "dcgan.txt").read_bytes())
    (tmp_path / "r.json").write_text(records.healthy().to_json())
    (tmp_path / "out.json").write_text("old")
    return tmp_path


@pytest.mark.parametrize(
    ("command", "number"),
    [
        *(pytest.param(name, signal.SIGKILL, marks=pytest.mark.slow) for name in ("audit", "run", "shard", "merge")),
        ("losses", signal.SIGKILL),
        ("losses", signal.SIGTERM),
        ("report", signal.SIGTERM),
    ],
)
def test_killed_while_it_writes(command: str, number: signal.Signals, folder: Path) -> None:
    """The old file is whole; the same command then does its work."""
    if command == "run":
        (folder / "run").mkdir()
        shutil.copy(folder / "g.pt", folder / "run" / "step-1.pt")
    if command == "merge":
        shard = [sys.executable, "-m", "gandiag", *COMMANDS["shard"][:-1], "s.gandiag"]
        subprocess.run(shard, cwd=folder, env=ENV, check=True)
    process = subprocess.Popen(
        [sys.executable, "-c", HELD, *COMMANDS[command]], cwd=folder, env=ENV, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == -number
    assert (folder / "out.json").read_text() == "old"
    if command != "audit":
        again = subprocess.run([sys.executable, "-m", "gandiag", *COMMANDS[command]], cwd=folder, env=ENV, check=False)
        assert again.returncode in (0, 1, 3) and (folder / "out.json").read_bytes() != b"old"


@pytest.mark.slow
def test_killed_while_it_measures(folder: Path) -> None:
    """kill -9 and SIGTERM: nothing was written, and the old file stays."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "gandiag", "audit", "g.pt", "-n", "20000", "-o", "out.json"],
            cwd=folder,
            env=ENV,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process, number in zip(processes, (signal.SIGKILL, signal.SIGTERM), strict=True):
        assert process.stderr is not None
        process.stderr.readline()  # the estimate: the run has started
        process.send_signal(number)
        process.communicate(timeout=60)
        assert process.returncode == -number
    assert sorted(path.name for path in folder.iterdir()) == ["dcgan.txt", "g.pt", "out.json", "r.json"]
    assert (folder / "out.json").read_text() == "old"


def test_a_folder_that_cannot_be_written(folder: Path) -> None:
    """/sys refuses even root."""
    target = Path("/sys/kernel/gandiag.json")
    if os.getuid():
        (folder / "closed").mkdir(mode=0o555)
        target = folder / "closed" / "out.json"
    elif not target.parent.is_dir():
        pytest.skip("there is no folder here that refuses root")
    for command in ("losses", "report"):
        line = [sys.executable, "-m", "gandiag", *COMMANDS[command][:-1], str(target)]
        done = subprocess.run(line, cwd=folder, env=ENV, capture_output=True, text=True, check=False)
        assert done.returncode == 2 and f"{target} cannot be written" in done.stderr, done.stderr
        assert not target.exists() and "bug" not in done.stderr


@pytest.mark.parametrize("seconds", [0, 4_000_000_000], ids=["1970", "2096"])
def test_files_of_another_time_are_used(seconds: int, tmp_path: Path) -> None:
    """A clock that was set back or forward: what is kept is found, and more can be kept."""
    cache = FeatureCache(tmp_path)
    cache.put("old", torch.ones(3, 2))
    (tmp_path / ".x.part").write_bytes(b"of another process")
    for path in tmp_path.iterdir():
        os.utime(path, (seconds, seconds))
    cache.put("new", torch.zeros(3, 2))
    first, second = cache.get("old", (3, 2)), cache.get("new", (3, 2))
    assert first is not None and torch.equal(first, torch.ones(3, 2))
    assert second is not None and torch.equal(second, torch.zeros(3, 2)) and not cache.notes
    assert (tmp_path / ".x.part").exists() == (seconds > 0)  # one of the future is nobody's yet


RANK = """
import os, sys, time
from datetime import timedelta
import torch
from gandiag.errors import OutputError
from gandiag.monitor import distributed
rank, fault = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group("gloo", init_method="file://" + os.path.abspath("store"), rank=rank, world_size=2)
distributed.DECISION_TIMEOUT = timedelta(seconds=2)
torch.distributed.barrier()
if rank == 0:
    time.sleep(30 if fault == "silent" else 0.2)
    os._exit(0)
try:
    distributed.broadcast_decision(False, torch.nn.Linear(1, 1))
except OutputError as error:
    print(error.message)
os._exit(0)
"""


@pytest.mark.parametrize("fault", ["ended", pytest.param("silent", marks=pytest.mark.slow)])
def test_a_rank_that_is_gone_is_one_sentence(fault: str, tmp_path: Path) -> None:
    """Within the timeout, which is set to two seconds here."""
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), fault],
            cwd=tmp_path,
            env=ENV,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        text, _ = ranks[1].communicate(timeout=60)
    finally:
        for process in ranks:
            process.kill()
            process.communicate()
    assert "another process of this training has ended, or did not answer" in text
    assert len(text.splitlines()) == 1
