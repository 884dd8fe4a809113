"""Every command meets every kind of hostile input: nothing runs, nothing hangs, one clear sentence and exit code 2.

One process runs all its cases, with audit events watched; Python's own, so that what C code does is not seen.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "fixtures"))

import hostile_cases  # noqa: E402

KINDS = sorted({kind for kind, _ in hostile_cases.CASES})
FAST_KINDS = (
    "groups",
    "logs and notebooks",
    "policies",
    "records",
    "safetensors",
    "saved tensors",
    "toml",
)  # take seconds
SLOW_KINDS = tuple(kind for kind in KINDS if kind not in FAST_KINDS)
MAX_GROWTH_MIB = 1024  # libraries that a case is the first to import among it
WATCH_SCRIPT = """
import contextlib, io, json, os, resource, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
import hostile_cases
from gandiag.cli.main import run_command_line
kinds, out = json.loads(sys.argv[1]), Path(sys.argv[2])
marker, cache = out / "MARKER", os.environ["GANDIAG_CACHE"]
WATCHED = ("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "subprocess.Popen", "socket.",
           "pickle.find")
events, watching, here = [], False, ""
def is_inside(name):
    return isinstance(name, str) and (not os.path.isabs(name) or name.startswith(here)) and name.endswith(".py")
def watch(event, args):
    if not watching:
        return
    if event.startswith(WATCHED) and "onnx/child.py" not in str(args) and "/sbin/ldconfig" not in str(args):
        events.append(f"{event} {str(args)[:100]}")
    source = args[1] if event == "compile" else getattr(args[0], "co_filename", None) if event == "exec" else None
    if is_inside(source):
        events.append(f"{event} {str(args)[:100]}")
    if event == "open" and isinstance(args[0], str) and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        path = os.path.realpath(args[0])
        if not path.startswith((here, cache, "/dev/null")):
            events.append(f"writes {path[:100]}")
sys.addaudithook(watch)
def processor_seconds():
    parts = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in parts)
def resident(name):
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # not Linux: the peak of the process so far
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return next(int(line.split()[1]) for line in lines if line.startswith(name))
def reset_peak():
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
def content_size(folder):
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
results = {}
for number, (kind, name, case) in enumerate(hostile_cases.iterate()):
    if kind not in kinds:
        continue
    folder = out / str(number)
    argv, here = hostile_cases.make_case(case, folder, marker), os.path.realpath(folder)
    os.chdir(folder)
    text, size = io.StringIO(), content_size(folder)
    reset_peak()
    memory, start, watching = resident("VmRSS"), processor_seconds(), True
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        try:
            code = int(run_command_line(argv))
        except BaseException as error:
            code = repr(error)
    watching = False
    results[f"{kind}: {name}"] = {"code": code, "text": text.getvalue()[-1200:],
                     "seconds": processor_seconds() - start, "megabytes": size / 2**20,
                     "grown": (resident("VmHWM") - memory) / 2**10, "events": list(events),
                     "ran": marker.exists() or (folder / "MARKER").exists()}
    events.clear()
    os.chdir("/")
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def fast_results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run_cases(FAST_KINDS, tmp_path_factory.mktemp("hostile"))


@pytest.mark.parametrize("kind", FAST_KINDS)
def test_documents(kind: str, fast_results: dict[str, Any]) -> None:
    check_cases(kind, fast_results)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SLOW_KINDS)
def test_files(kind: str, tmp_path: Path) -> None:
    check_cases(kind, run_cases((kind,), tmp_path))


def run_cases(kinds: tuple[str, ...], folder: Path) -> dict[str, Any]:
    """Run the cases of these kinds in one process: "kind: name" -> what was seen."""
    done = subprocess.run(
        [sys.executable, "-c", WATCH_SCRIPT, json.dumps(kinds), str(folder)],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT / "fixtures"),
            "GANDIAG_CACHE": str(folder / "cache"),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    results: dict[str, Any] = json.loads(done.stdout)
    return results


def check_cases(kind: str, results: dict[str, Any]) -> None:
    names = [name for group, name in hostile_cases.CASES if group == kind]
    assert names
    for name in names:
        result = results[f"{kind}: {name}"]
        assert result["code"] in hostile_cases.CASES[kind, name].codes, (kind, name, result)
        assert not result["events"] and not result["ran"], (kind, name, result)
        assert "bug in gandiag" not in result["text"] and "Traceback" not in result["text"], (kind, name, result)
        assert result["code"] != 2 or "error: " in result["text"] or "ERROR" in result["text"], (kind, name, result)
        assert result["seconds"] < max(10, 5 * result["megabytes"]), (kind, name, result)
        assert result["grown"] < MAX_GROWTH_MIB, (kind, name, result)


def test_the_corpus_is_large_enough() -> None:
    counts = {kind: sum(group == kind for group, _ in hostile_cases.CASES) for kind in KINDS}
    assert min(counts.values()) >= 20 and sum(counts.values()) >= 250, counts


def test_the_attacks_are_real(tmp_path: Path) -> None:
    """Python's own unpickler runs the code of one of them, so that the corpus proves something."""
    case = hostile_cases.CASES["pickles", "stack global joined"]
    hostile_cases.make_case(case, tmp_path, tmp_path / "MARKER")
    code = "import pickle; pickle.load(open('x.pkl', 'rb'))"
    subprocess.run([sys.executable, "-c", code], check=False, timeout=60, cwd=tmp_path)
    assert (tmp_path / "MARKER").exists()
