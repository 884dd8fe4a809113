"""Records are gated, compared, reported and explained, and logs read, where torch is not installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import records

SCRIPT = """
import json, sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "sklearn"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NoTorch())
from gandiag.cli.main import run_command_line

codes = {" ".join(command[:3]): int(run_command_line(command)) for command in json.loads(sys.argv[1])}
print("CODES " + json.dumps(codes))
"""


def test_the_record_half_needs_no_torch(tmp_path: Path) -> None:
    for name in ("healthy", "collapsed"):
        (tmp_path / f"{name}.json").write_text(records.ALL[name]().to_json())
    healthy, collapsed = (str(tmp_path / f"{name}.json") for name in ("healthy", "collapsed"))
    log = str(Path(__file__).parents[2] / "fixtures" / "logs" / "dcgan.txt")
    expected = {
        ("gate", healthy): 0,
        ("gate", collapsed): 1,
        ("compare", healthy, collapsed): 1,
        ("report", healthy): 0,
        ("report", "-o", str(tmp_path / "a.html"), collapsed): 0,
        ("report", "-o", str(tmp_path / "a.md"), collapsed): 0,
        ("losses", log, "-q"): 1,
        ("explain", "GD103"): 0,
        ("explain", "recall"): 0,
        ("list", "rules"): 0,
        ("audit", healthy): 2,
    }
    commands = [list(command) for command in expected]
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(commands)], capture_output=True, text=True, check=False
    )
    line = next((line for line in process.stdout.splitlines() if line.startswith("CODES ")), None)
    assert line is not None, process.stderr
    codes = json.loads(line.removeprefix("CODES "))
    assert codes == {" ".join(command[:3]): code for command, code in expected.items()}, process.stderr
    assert "<!doctype html>" in (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "torch is not installed" in process.stderr and "a bug" not in process.stderr
