"""The hostile corpus: no code, no process, no network, under a gigabyte, under five seconds, and a sentence that says why."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "fixtures"))

import hostile  # noqa: E402

# One process looks at every file, as `audit` and `inspect` would; Python's own audit events tell what was touched.
# Seconds are of the processor: how busy the machine is says nothing about a file.
WATCH = """
import json, re, sys, time, warnings
from pathlib import Path
warnings.simplefilter("ignore")
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.checkpoints.loader import load_generator
from gandiag.checkpoints.summary import summarize_file
import gandiag.checkpoints.readers, gandiag.checkpoints.architectures.registry, safetensors.torch
FORBIDDEN = ("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "subprocess.", "socket.", "pickle.find_class", "ctypes.dlopen",
             "shutil.", "os.remove", "os.rename", "os.symlink", "os.mkdir")
events = []
def watch(event, args):
    if event.startswith(FORBIDDEN) or (event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")):
        events.append(f"{event} {str(args)[:80]}")
sys.addaudithook(watch)
found = {}
for name, path in json.load(sys.stdin).items():
    events.clear()
    start, problem, notes, looked = time.process_time(), None, [], None
    try:
        looked = summarize_file(path).error
        if looked is not None: looked = looked.message
    except LoadError as wrong:
        looked = wrong.message
    try:
        notes = list(load_generator(path, AuditConfig()).notes)
    except LoadError as wrong:
        problem = [wrong.message, wrong.hint]
    found[name] = {"seconds": time.process_time() - start, "problem": problem, "notes": notes, "events": list(events), "looked": looked}
status = Path("/proc/self/status")  # ru_maxrss would be that of the parent before exec, where it was the greater
found["memory"] = int(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1]) * 1024 if status.exists() else 0
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], Path]:
    folder = tmp_path_factory.mktemp("hostile")
    return hostile.make(folder / "files", folder / "MARKER"), folder / "MARKER"


@pytest.fixture(scope="module")
def seen(corpus: tuple[dict[str, Path], Path]) -> dict[str, Any]:
    paths = {name: str(path) for name, path in corpus[0].items()}
    done = subprocess.run(
        [sys.executable, "-c", WATCH],
        input=json.dumps(paths),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", sorted(hostile.CORPUS))
def test_nothing_in_it_happens(name: str, seen: dict[str, Any], corpus: tuple[dict[str, Path], Path]) -> None:
    found = seen[name]
    assert found["events"] == [] and not corpus[1].exists()
    assert found["seconds"] < 5
    if name in hostile.BESIDE:
        assert found["problem"] is None and "code that was not run" in " ".join(found["notes"]), found
    else:
        assert found["problem"] is not None, found
        what, hint = found["problem"]
        assert what and hint and "\n" not in what and "Traceback" not in what


def test_all_of_them_fit_into_a_gigabyte(seen: dict[str, Any]) -> None:
    if not seen["memory"]:
        pytest.skip("this system does not tell the peak of a process")
    assert 2**27 < seen["memory"] < 2**30


def test_the_attacks_are_real(corpus: tuple[dict[str, Path], Path], tmp_path: Path) -> None:
    """Python's own unpickler, given one of them, does what it says: the corpus proves something."""
    marker = tmp_path / "ran"
    path = hostile.system_plain(tmp_path, marker)
    subprocess.run(
        [sys.executable, "-c", f"import pickle; pickle.load(open({str(path)!r}, 'rb'))"],
        check=False,
        timeout=60,
        cwd=tmp_path,
    )
    assert marker.exists()


@pytest.mark.parametrize("name", ["system_beside", "embedded_source", "laughter"])
def test_the_command_line_ends_with_2_or_audits(
    name: str, corpus: tuple[dict[str, Path], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    from gandiag.cli.main import run_command_line

    from gandiag.errors import ExitCode

    code = run_command_line(["inspect", str(corpus[0][name])])
    said = capsys.readouterr()
    assert code == (ExitCode.OK if name in hostile.BESIDE else ExitCode.CANNOT_RUN)
    assert "Traceback" not in said.err and "bug" not in said.err
    assert ("note: the file contains code that was not run" in said.out) == (name in hostile.BESIDE)
