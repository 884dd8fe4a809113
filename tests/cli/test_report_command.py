"""`gandiag report` and the console, in real processes: streams, colors, terminals, quietness, and what is not imported."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest
import records
from gandiag.cli import console
from gandiag.cli.progress import ProgressReporter, format_log_line

from gandiag.errors import GandiagError

ROOT = Path(__file__).resolve().parents[2]
# The command alone, inside the boundary that main draws around it.
COMMAND = """
import sys
from gandiag.cli import console
from gandiag.cli.report import report_command
from gandiag.errors import GandiagError
try:
    report_command.main(sys.argv[1:], standalone_mode=False)
except GandiagError as problem:
    console.print_error(problem)
    raise SystemExit(2)
finally:
    loaded = {"torch", "matplotlib", "jinja2", "numpy"} & set(sys.modules)
    print("loaded:", *sorted(loaded), file=sys.stderr)
"""


def environ(**extra: str) -> dict[str, str]:
    plain = {
        key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")
    }
    return plain | {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"} | extra


def run(*arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments],
        capture_output=True,
        text=True,
        env=environ(**extra),
        encoding="utf-8",
    )


def on_terminal(*arguments: str, **extra: str) -> str:
    """What a terminal would show; both streams go there."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments], stdout=theirs, stderr=theirs, stdin=theirs, env=environ(**extra)
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # how Linux says that the other side has closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert process.wait() == 0
    return shown.decode()


@pytest.fixture
def audit(tmp_path: Path) -> str:
    path = tmp_path / "audit.json"
    records.collapsed().write(path)
    return str(path)


def test_text_goes_to_stdout_and_loads_nothing_heavy(audit: str) -> None:
    done = run(audit)
    assert done.returncode == 0
    assert done.stdout.startswith("COLLAPSED  runs/042/generator.pt\n0.48 [0.44, 0.52]: about half")
    assert done.stdout.endswith(f"record {audit}\n")
    assert done.stderr == "loaded:\n"


@pytest.mark.parametrize(
    ("extra", "colored"),
    [
        ({}, False),
        ({"FORCE_COLOR": "1"}, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ({"FORCE_COLOR": ""}, False),
    ],
)
def test_a_pipe_gets_colors_only_when_forced(audit: str, extra: dict[str, str], colored: bool) -> None:
    assert ("\x1b[" in run(audit, **extra).stdout) is colored


@pytest.mark.parametrize(("extra", "colored"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_a_terminal_gets_colors_unless_it_may_not(audit: str, extra: dict[str, str], colored: bool) -> None:
    shown = on_terminal(audit, **extra)
    assert "COLLAPSED" in shown
    assert ("\x1b[" in shown) is colored


def test_json_is_one_document_and_comes_back(audit: str) -> None:
    assert json.loads(run(audit, "-f", "json").stdout) == json.loads(records.collapsed().to_json())


def test_the_suffix_chooses_the_format_and_only_the_page_draws(audit: str, tmp_path: Path) -> None:
    page, text = tmp_path / "report.html", tmp_path / "report.txt"
    done = run(audit, "-o", str(page))
    assert done.stdout == "" and f"wrote {page}" in done.stderr
    assert "matplotlib" in done.stderr and "torch" not in done.stderr
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    run(audit, "-o", str(text))
    assert text.read_text(encoding="utf-8").startswith("COLLAPSED")
    assert run(audit, "-f", "json", "-o", str(text)).returncode == 0
    assert json.loads(text.read_text(encoding="utf-8"))["verdict"] == "collapsed"


@pytest.mark.parametrize(
    ("arguments", "what", "hint"),
    [
        (["absent.json"], "absent.json cannot be read", "gandiag audit -o"),
        (["{audit}", "-f", "htlm"], "no formats called 'htlm'", "did you mean html"),
        (["{audit}", "-o", "/nowhere/report.html"], "cannot be written", "another path"),
    ],
)
def test_errors_are_a_sentence_and_an_action(audit: str, arguments: list[str], what: str, hint: str) -> None:
    done = run(*(part.format(audit=audit) for part in arguments))
    assert done.returncode == 2 and done.stdout == ""
    assert (
        done.stderr.startswith("error: ") and what in done.stderr and "\nhint: " in done.stderr and hint in done.stderr
    )


def test_damaged_content_is_no_bug_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "damaged.json"
    whole = json.loads(records.collapsed().to_json())
    for wrong in (whole | {"provenance": None}, whole | {"modes": {"missed": [None]}}, whole | {"subject": None}):
        path.write_text(json.dumps(wrong), encoding="utf-8")
        done = run(str(path))
        assert (
            done.returncode == 2
            and done.stderr.startswith("error: ")
            and "damaged" in done.stderr
            and "Traceback" not in done.stderr
        )


def test_a_reader_that_leaves_is_no_error(audit: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, audit], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ()
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    problems = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 0
    assert b"Broken" not in problems and b"Traceback" not in problems


def test_a_stream_that_lacks_characters_gets_replacements(audit: str) -> None:
    done = run(audit, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert done.stdout.startswith("COLLAPSED") and "?" in done.stdout and done.stdout.isascii()


@pytest.fixture
def quiet() -> object:
    yield console.configure_output
    console.configure_output()


@pytest.mark.parametrize(
    ("level", "out", "err"),
    [
        (0, "result", "note warning: careful error: what hint:  do"),
        (1, "result", "warning: careful error: what hint:  do"),
        (2, "", ""),
    ],
)
def test_quietness(quiet: object, capsys: pytest.CaptureFixture[str], level: int, out: str, err: str) -> None:
    console.configure_output(quiet=level)
    console.print_result("result")
    console.print_info("note")
    console.print_verbose("detail")
    console.print_warning("careful")
    console.print_error(GandiagError("what", "do"))
    got = capsys.readouterr()
    assert (" ".join(got.out.split("\n")).strip(), " ".join(got.err.split("\n")).strip()) == (out, err)


def test_a_bug_is_one_line_and_a_traceback_only_with_debug(quiet: object, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise ValueError("bad \x1b[31m thing")
    except ValueError as bug:
        console.print_bug_report(bug)
        short = capsys.readouterr().err
        console.configure_output(debug=True)
        console.print_bug_report(bug)
        long = capsys.readouterr().err
    assert short.splitlines()[0] == "error: this is a bug in gandiag: ValueError: bad \\x1b[31m thing"
    assert "Traceback" not in short and "--debug" in short
    assert "Traceback" in long and "\x1b" not in long


def test_a_heartbeat_says_how_far_and_how_long() -> None:
    assert format_log_line("sample", 4096, 10_000, 26.0) == "sample 4,096 / 10,000, 37 s left"
    assert format_log_line("sample", 0, 10_000, 3.0) == "sample 0 / 10,000, 3.0 s so far"
    assert format_log_line("real_pass", 7, 0, 61.0) == "real pass 7, 1 min 1 s so far"


def test_a_log_hears_a_heartbeat_even_while_nothing_is_reported() -> None:
    log = io.StringIO()
    with ProgressReporter(stream=log, interval=0.02) as on_progress:
        on_progress("sample", 1, 4)
        until = time.monotonic() + 10
        while log.getvalue().count("\n") < 3 and time.monotonic() < until:
            time.sleep(0.01)
    assert log.getvalue().count("sample 1 / 4, ") >= 3
    assert "\x1b" not in log.getvalue() and "\r" not in log.getvalue()


def test_a_short_run_leaves_nothing_in_a_log_and_a_quiet_one_never_does() -> None:
    log = io.StringIO()
    with ProgressReporter(stream=log) as on_progress:
        on_progress("sample", 1, 4)
    with ProgressReporter(stream=log, quiet=True, interval=0.001) as on_progress:
        on_progress("sample", 1, 4)
        time.sleep(0.02)
    assert log.getvalue() == ""


def test_a_terminal_sees_a_bar_with_the_time_left() -> None:
    script = """
import time
from gandiag.cli.progress import ProgressReporter
with ProgressReporter() as on_progress:
    for done in range(6):
        on_progress("sample", done, 5)
        time.sleep(0.1)
"""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=theirs, stderr=theirs, stdin=theirs, env=environ()
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 65536)
        except OSError:
            break
    os.close(ours)
    assert process.wait() == 0
    assert b"sample" in shown and b"5/5" in shown and b"0:00:0" in shown
