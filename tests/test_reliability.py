"""The fault table of docs/reliability.md: in every row, one sentence and the right exit code, and nothing is lost."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import records

from gandiag.errors import RecordError
from gandiag.trainer.run_folder import RunFolder, lock_folder
from gandiag.untrusted.files import make_own_folders, open_regular, write_file

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
RECORD = records.healthy().to_json()


def run(
    *arguments: str,
    cwd: Path,
    env: dict[str, str | None] | None = None,
    flags: tuple[str, ...] = (),
    limit: Callable[[], None] | None = None,
) -> subprocess.CompletedProcess[str]:
    changed = {**os.environ, **(env or {})}
    return subprocess.run(
        [sys.executable, *flags, "-m", "gandiag", *arguments],
        cwd=cwd,
        env={name: value for name, value in changed.items() if value is not None},
        capture_output=True,
        text=True,
        errors="surrogateescape",
        preexec_fn=limit,
        timeout=120,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "a folder with blanks"
    place.mkdir()
    (place / "a record.json").write_text(RECORD)
    return place


@pytest.mark.parametrize(
    ("env", "flags"),
    [
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}, ()),
        ({"HOME": None, "XDG_CACHE_HOME": None, "GANDIAG_CACHE": None}, ()),
        ({"HOME": "/nonexistent"}, ()),
        ({}, ("-O",)),
        ({}, ("-W", "error")),
        ({"TZ": "Mars/Olympus"}, ()),
    ],
    ids=["C locale", "no HOME", "HOME does not exist", "-O", "-W error", "no such time zone"],
)
def test_the_environment_does_not_matter(env: dict[str, str | None], flags: tuple[str, ...], folder: Path) -> None:
    done = run("report", "a record.json", cwd=folder, env=env, flags=flags)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert "HEALTHY" in done.stdout.upper()


def test_a_removed_working_folder(folder: Path, tmp_path: Path) -> None:
    code = (
        f"import os, shutil, sys; shutil.rmtree({str(folder)!r})\n"
        "from gandiag.cli.main import run_command_line\n"
        f"sys.exit(int(run_command_line(['gate', {str(tmp_path / 'r.json')!r}])))"
    )
    (tmp_path / "r.json").write_text(RECORD)
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "working folder does not exist" in done.stderr, done.stderr


def test_a_limit_on_the_address_space(folder: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))

    done = run("audit", "x.pt", cwd=folder, limit=limit)
    assert done.returncode == 2 and "the address space is limited to 1.0 GiB" in done.stderr


def test_a_limit_on_the_size_of_files_leaves_the_old_one(folder: Path) -> None:
    (folder / "page.html").write_text("old")

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    done = run("report", "a record.json", "-o", "page.html", cwd=folder, limit=limit)
    assert done.returncode == 2 and "cannot be written" in done.stderr, done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["a record.json", "page.html"]
    assert (folder / "page.html").read_text() == "old"


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 2.0])
def test_interrupted_at_any_moment(delay: float, folder: Path) -> None:
    """Once and, shortly after, twice: no traceback, and the code of an interrupt unless it was done before."""
    shutil.copy(FIXTURES / "ring_healthy.pt", folder / "g.pt")
    process = subprocess.Popen(
        [sys.executable, "-m", "gandiag", "audit", "g.pt", "-n", "200", "-q"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(0.05 + delay)  # after Python's own start, in which it cannot be caught
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    _, stderr = process.communicate(timeout=60)
    is_early = "Traceback" in stderr and (
        "/cli/" not in stderr or "import signal" in stderr
    )  # before the handler is set
    if not is_early:
        assert process.returncode in (130, -signal.SIGINT) and "Traceback" not in stderr, stderr


def test_two_trainings_do_not_share_a_folder(tmp_path: Path) -> None:
    with lock_folder(tmp_path, ".lock") as first, lock_folder(tmp_path, ".lock") as second:
        assert first and not second
    with lock_folder(tmp_path, ".lock") as again:
        assert again


def test_a_header_that_the_full_disk_cut_is_written_again(tmp_path: Path) -> None:
    run_folder = RunFolder(tmp_path)
    for damaged in ("", "step,lo", "step,loss\n1,0.5\n2,0."):
        (tmp_path / "log.csv").write_text(damaged)
        run_folder.truncate_table("log.csv", 1)
        run_folder.append_rows("log.csv", ["step", "loss"], [[2, 0.25]])
        rows = (tmp_path / "log.csv").read_text().splitlines()
        assert rows[0] == "step,loss" and rows[-1] == "2,0.25" and len(rows) == 2 + ("1,0.5" in damaged)


def test_a_link_out_of_the_folder_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    place = tmp_path / "place"
    place.mkdir()
    (place / "out").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="link to another folder"):
        write_file(place / "out", b"new")
    write_file(place / "out", b"new", follow_links=False)
    assert (tmp_path / "victim").read_text() == "mine" and (place / "out").read_bytes() == b"new"


def test_a_file_that_becomes_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    start = time.monotonic()
    with pytest.raises(OSError, match="it is a pipe"):
        open_regular(tmp_path / "pipe")
    assert time.monotonic() - start < 1


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    code = (
        "import multiprocessing, os, time\n"
        "from gandiag.trainer.benchmark.runner import _follow_parent\n"
        "def work(parent):\n"
        "    _follow_parent(parent)\n"
        "    open('started', 'w').close()\n"
        "    time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    child = multiprocessing.get_context('fork').Process(target=work, args=(os.getpid(),))\n"
        "    child.start()\n"
        "    print(child.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    deadline = time.monotonic() + 60
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    status = Path(f"/proc/{child}/stat")
    while status.exists() and " Z " not in status.read_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not status.exists() or " Z " in status.read_text()


def test_nothing_beside_is_imported_by_python_m(folder: Path) -> None:
    """Python puts the working folder on the path of `python -m`; it goes before anything else is imported."""
    for name in ("click", "signal", "rich", "torch", "numpy", "gzip"):
        (folder / f"{name}.py").write_text(f"open({str(folder / 'MARKER')!r}, 'w')")
    done = run("gate", "a record.json", cwd=folder, env={"PYTHONPATH": str(FIXTURES.parent)})
    assert done.returncode == 0, done.stderr
    assert not (folder / "MARKER").exists()


def test_a_run_does_not_write_through_links(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "snapshots").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RecordError, match="link"):
        RunFolder(tmp_path / "run").open({"seed": 1})
    (tmp_path / "bank").mkdir()
    (tmp_path / "bank" / "study").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="link"):
        make_own_folders(tmp_path / "bank", tmp_path / "bank" / "study" / "seed-1")
    make_own_folders(tmp_path / "new", tmp_path / "new" / "a" / "b")
    assert (tmp_path / "new" / "a" / "b").is_dir() and not list((tmp_path / "elsewhere").iterdir())


def test_snapshots_of_other_names_are_left_alone(tmp_path: Path) -> None:
    run_folder = RunFolder(tmp_path)
    run_folder.create()
    run_folder.save_snapshot(7, b"x")
    for name in ("x", "\u00b2", "-1", "9" * 5000):
        with contextlib.suppress(OSError):
            (tmp_path / "snapshots" / f"step-{name}.safetensors").write_bytes(b"")
    assert list(run_folder.list_snapshots()) == [7]
