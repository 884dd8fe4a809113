"""The exit codes that a shell and CI see, one real process per row of a table.

0 no collapse found · 1 collapse, or a policy violated · 2 could not run · 3 evidence insufficient · 130 interrupted
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest
import records

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "fixtures"
RING, ONE, REAL = (FIXTURES / name for name in ("ring_healthy.pt", "ring_one_mode.safetensors", "ring.npz"))
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "PYTHON": sys.executable}
# A command with a bug, run through the entry point of all commands.
CRASH = """
import sys
import gandiag.cli.gate as gate
from gandiag.cli.main import entry
gate.is_record_file = lambda path: 1 / 0
sys.argv[1:] = ["gate", "healthy.json"]
entry()
"""


@cache
def record_texts() -> dict[str, str]:
    return {name: make_record().to_json() for name, make_record in records.ALL.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a record of every verdict, a text file and a crashing command."""
    for name, text in record_texts().items():
        (tmp_path / f"{name}.json").write_text(text)
    (tmp_path / "text.pt").write_text("no model\n")
    (tmp_path / "crash.py").write_text(CRASH)
    return tmp_path


G = '"$PYTHON" -m gandiag'
TABLE = [
    # audit
    (f"{G} audit {RING} --real {REAL} -n 500 -q", 0, ""),
    (f"{G} audit {ONE} --real {REAL} -n 400 -q", 1, ""),
    (f"{G} audit {RING} --real {REAL} -n 60 -q", 3, ""),
    (f"{G} audit text.pt", 2, "text file"),
    (f"{G} audit missing.pt", 2, "does not exist"),
    # gate and compare
    (f"{G} gate healthy.json", 0, ""),
    (f"{G} gate collapsed.json", 1, ""),
    (f"{G} gate inconclusive.json", 3, ""),
    (f"{G} gate degeneracy.json", 3, ""),
    (f"{G} gate degeneracy.json --allow degeneracy", 0, ""),
    (f"{G} gate healthy.json inconclusive.json", 3, ""),
    (f"{G} gate collapsed.json inconclusive.json healthy.json", 1, ""),
    (f"{G} gate collapsed.json missing.json inconclusive.json", 2, ""),
    (f"{G} gate text.pt healthy.json", 2, ""),
    (f"{G} compare healthy.json collapsed.json", 1, ""),
    (f"{G} compare collapsed.json healthy.json", 0, ""),
    (f"{G} compare healthy.json degeneracy.json", 2, "against real data"),
    # usage
    (f"{G}", 2, "Usage"),
    (f"{G} --help", 0, ""),
    (f"{G} --version", 0, ""),
    (f"{G} gaet healthy.json", 2, "did you mean gate"),
    (f"{G} gate", 2, "RECORD"),
    (f"{G} gate healthy.json --polcy x", 2, "--policy"),
    (f"{G} report collapsed.json", 0, ""),
    (f"{G} explain GD103", 0, ""),
    (f"{G} explain GD999", 2, "GD999"),
    # crash, full disk, closed pipes
    ('"$PYTHON" crash.py', 2, "this is a bug in gandiag: ZeroDivisionError"),
    (f"{G} report collapsed.json > /dev/full", 2, "No space left"),
    (f"{G} gate healthy.json > /dev/full", 2, "No space left"),
    (f"{G} gate collapsed.json -f json > /dev/full", 2, "No space left"),
    (f"{G} --help > /dev/full", 2, "No space left"),
    (f"{G} gate collapsed.json 2> /dev/full", 1, ""),
    # Through a link, so that a bug replaces the link and not the machine's device.
    (f"ln -s /dev/full full; {G} gate collapsed.json -o full", 2, "full cannot be written: No space left"),
    (f"{G} gate collapsed.json -o /dev/stdout | grep -q must", 0, ""),
    (f"{G} gate collapsed.json > /dev/full 2> /dev/full", 2, ""),
    (f"{G} gate collapsed.json | true; exit ${{PIPESTATUS[0]}}", 1, ""),
    (f"{G} report collapsed.json -v | head -n 1 > head.txt; exit ${{PIPESTATUS[0]}}", 0, ""),
    (f"{G} gate collapsed.json >&-", 1, ""),
    (f"{G} gate collapsed.json 2>&-", 1, ""),
]


@pytest.mark.parametrize(
    ("line", "code", "message"),
    TABLE,
    ids=[line.replace(G, "gandiag").replace(str(FIXTURES), "fixtures") for line, _, _ in TABLE],
)
def test_exit_code(line: str, code: int, message: str, folder: Path) -> None:
    if "/dev/full" in line and not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, env=ENV, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == code, (done.stdout[-500:], done.stderr[-500:])
    assert message in done.stderr and "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    assert "full" not in line or "bug" not in done.stderr
    assert code != 2 or done.stdout == "" or " gate " in line  # a gate lists the subjects that could not be judged


@pytest.mark.parametrize(
    "line", [f"audit {RING} --real {REAL} -n 3000", f"gate {RING} --real {REAL} -n 3000"], ids=["audit", "gate"]
)
def test_ctrl_c_is_130_and_one_line(line: str, folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "gandiag", *line.split()],
        cwd=folder,
        env=ENV,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    process.stderr.readline()  # the estimate: the run has started
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert out == "" and "interrupted" in err and "Traceback" not in err


def test_ctrl_c_during_imports_is_130_too(folder: Path) -> None:
    """Before any command runs, while the interpreter is importing."""
    for delay in (0.15, 0.25, 0.4):
        command = [sys.executable, "-m", "gandiag", "audit", str(RING)]
        process = subprocess.Popen(
            command, cwd=folder, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
        # For a signal before Python's first line the shell itself returns 130.
        assert process.returncode in (130, -signal.SIGINT), err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["missing.pt"], "missing.pt does not exist"),
        ([str(RING), "--real", "nowhere"], "nowhere cannot be read"),
        (["pointer.pt"], "Git LFS pointer"),
    ],
    ids=["checkpoint", "real data", "failed download"],
)
def test_cheap_failures_come_before_torch_is_imported(arguments: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "pointer.pt").write_bytes(b"version https://git-lfs.github.com/spec/v1\nsize 3\n")
    code = (
        "import sys; from gandiag.cli.main import run_command_line; "
        f"print(int(run_command_line({['audit', *arguments]!r})), 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=ENV, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["2", "False"] and message in done.stderr, done.stderr
