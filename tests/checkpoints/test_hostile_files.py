"""The hostile corpus: no code, process or network access, under a gigabyte and five seconds, and one clear message."""

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

# One process inspects and loads every file; Python's audit events show what was accessed. Times are CPU seconds.
WATCH_SCRIPT = """
import json, re, sys, time, warnings
from pathlib import Path
warnings.simplefilter("ignore")
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.checkpoints.loader import load_generator
from gandiag.checkpoints.summary import summarize_file
import gandiag.checkpoints.readers, gandiag.checkpoints.architectures.registry, safetensors.torch
FORBIDDEN = ("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "subprocess.", "socket.",
             "pickle.find_class", "ctypes.dlopen", "shutil.", "os.remove", "os.rename", "os.symlink", "os.mkdir")
events = []
def watch(event, args):
    if event.startswith(FORBIDDEN) or (event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")):
        events.append(f"{event} {str(args)[:80]}")
sys.addaudithook(watch)
results = {}
for name, path in json.load(sys.stdin).items():
    events.clear()
    start, problem, notes, summary_error = time.process_time(), None, [], None
    try:
        summary_error = summarize_file(path).error
        if summary_error is not None: summary_error = summary_error.message
    except LoadError as error:
        summary_error = error.message
    inspected = list(events)
    try:
        notes = list(load_generator(path, AuditConfig()).notes)
    except LoadError as error:
        problem = [error.message, error.hint]
    results[name] = {"seconds": time.process_time() - start, "problem": problem, "notes": notes, "events": list(events),
                     "inspected": inspected,
                     "summary_error": summary_error}
status = Path("/proc/self/status")  # ru_maxrss may be that of the parent before exec
results["memory"] = int(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1]) * 1024 if status.exists() else 0
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], Path]:
    folder = tmp_path_factory.mktemp("hostile")
    return hostile.make(folder / "files", folder / "MARKER"), folder / "MARKER"


@pytest.fixture(scope="module")
def results(corpus: tuple[dict[str, Path], Path]) -> dict[str, Any]:
    paths = {name: str(path) for name, path in corpus[0].items()}
    done = subprocess.run(
        [sys.executable, "-c", WATCH_SCRIPT],
        input=json.dumps(paths),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    by_name: dict[str, Any] = json.loads(done.stdout)
    return by_name


@pytest.mark.parametrize("name", sorted(hostile.CORPUS))
def test_nothing_in_a_file_is_run(name: str, results: dict[str, Any], corpus: tuple[dict[str, Path], Path]) -> None:
    result = results[name]
    assert result["inspected"] == [] and not corpus[1].exists()
    own = [event for event in result["events"] if "onnx/child.py" in event or "-I" in event]
    assert result["events"] == [] or (name.startswith("onnx") and own)  # a graph runs in a process of its own
    assert result["seconds"] < 5
    if name in hostile.BESIDE:
        assert result["problem"] is None and "code that was not run" in " ".join(result["notes"]), result
    else:
        assert result["problem"] is not None, result
        message, hint = result["problem"]
        assert message and hint and "\n" not in message and "Traceback" not in message


def test_memory_stays_below_a_gigabyte(results: dict[str, Any]) -> None:
    if not results["memory"]:
        pytest.skip("this system does not report the peak memory of a process")
    assert 2**27 < results["memory"] < 2**30


def test_the_attacks_are_real(corpus: tuple[dict[str, Path], Path], tmp_path: Path) -> None:
    """Python's own unpickler runs the code of one of them, so the corpus proves something."""
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
def test_inspect_exits_with_2_or_0(
    name: str, corpus: tuple[dict[str, Path], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    from gandiag.cli.main import run_command_line

    from gandiag.errors import ExitCode

    code = run_command_line(["inspect", str(corpus[0][name])])
    output = capsys.readouterr()
    assert code == (ExitCode.OK if name in hostile.BESIDE else ExitCode.CANNOT_RUN)
    assert "Traceback" not in output.err and "bug" not in output.err
    assert ("note: the file contains code that was not run" in output.out) == (name in hostile.BESIDE)
