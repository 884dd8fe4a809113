"""`gandiag report` and the console, in real processes: streams, colors, terminals, verbosity, imports."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import records
from gandiag.cli import console
from gandiag.cli.progress import ProgressReporter, format_log_line

from gandiag.errors import GandiagError

ROOT = Path(__file__).resolve().parents[2]
# The command alone, with the error handling that main adds.
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


def run_on_terminal(*arguments: str, **extra: str) -> str:
    """What a terminal would show of both streams."""
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments], stdout=child, stderr=child, stdin=child, env=environ(**extra)
    )
    os.close(child)
    output = b""
    while True:
        try:
            chunk = os.read(parent, 65536)
        except OSError:  # how Linux reports that the other end has closed
            break
        if not chunk:
            break
        output += chunk
    os.close(parent)
    assert process.wait() == 0
    return output.decode()


@pytest.fixture
def audit(tmp_path: Path) -> str:
    path = tmp_path / "audit.json"
    records.collapsed().write(path)
    return str(path)


def test_text_goes_to_stdout_and_loads_nothing_heavy(audit: str) -> None:
    process = run(audit)
    assert process.returncode == 0
    assert process.stdout.startswith("COLLAPSED  runs/042/generator.pt\nCollapse score 0.48 [0.44, 0.52]: about half")
    assert process.stdout.endswith(f"record {audit}\n")
    assert process.stderr == "loaded:\n"


def test_brief_by_default_and_whole_on_request(audit: str) -> None:
    brief, whole, everything = (run(audit, *flags).stdout for flags in ((), ("-v",), ("-vv",)))
    assert len(brief.splitlines()) <= 25 and "The whole report: -v; as a page" in brief and "Measurements" not in brief
    assert "Measurements" in whole and "Seconds per stage" not in whole and "Seconds per stage" in everything


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
def test_a_terminal_gets_colors_unless_they_are_off(audit: str, extra: dict[str, str], colored: bool) -> None:
    output = run_on_terminal(audit, **extra)
    assert "COLLAPSED" in output
    assert ("\x1b[" in output) is colored


def test_json_is_one_document_and_reads_back(audit: str) -> None:
    assert json.loads(run(audit, "-f", "json").stdout) == json.loads(records.collapsed().to_json())


def test_the_suffix_chooses_the_format_and_only_the_page_draws(audit: str, tmp_path: Path) -> None:
    page, text = tmp_path / "report.html", tmp_path / "report.txt"
    process = run(audit, "-o", str(page))
    assert process.stdout == "" and f"wrote {page}" in process.stderr
    assert "matplotlib" in process.stderr and "torch" not in process.stderr
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    run(audit, "-o", str(text))
    assert text.read_text(encoding="utf-8").startswith("COLLAPSED")
    assert run(audit, "-f", "json", "-o", str(text)).returncode == 0
    assert json.loads(text.read_text(encoding="utf-8"))["verdict"] == "collapsed"


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["absent.json"], "absent.json cannot be read", "gandiag audit -o"),
        (["{audit}", "-o", "report.pdf"], "report.pdf: no report format is called .pdf", ".html"),
        (["{audit}", "-f", "htlm"], "no formats called 'htlm'", "did you mean html"),
        (["{audit}", "-o", "/nowhere/report.html"], "cannot be written", "another path"),
    ],
)
def test_errors_are_a_sentence_and_an_action(audit: str, arguments: list[str], message: str, hint: str) -> None:
    process = run(*(part.format(audit=audit) for part in arguments))
    assert process.returncode == 2 and process.stdout == ""
    assert (
        process.stderr.startswith("error: ")
        and message in process.stderr
        and "\nhint: " in process.stderr
        and hint in process.stderr
    )


def test_damaged_content_is_not_reported_as_a_bug(tmp_path: Path) -> None:
    path = tmp_path / "damaged.json"
    document = json.loads(records.collapsed().to_json())
    for change in ({"provenance": None}, {"modes": {"missed": [None]}}, {"subject": None}):
        path.write_text(json.dumps(document | change), encoding="utf-8")
        process = run(str(path))
        assert (
            process.returncode == 2
            and process.stderr.startswith("error: ")
            and "damaged" in process.stderr
            and "Traceback" not in process.stderr
        )


def test_a_closed_pipe_is_no_error(audit: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, audit], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ()
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 0
    assert b"Broken" not in errors and b"Traceback" not in errors


def test_characters_outside_the_encoding_are_replaced(audit: str) -> None:
    process = run(audit, PYTHONIOENCODING="ascii")
    assert process.returncode == 0
    assert process.stdout.startswith("COLLAPSED") and "?" in process.stdout and process.stdout.isascii()


@pytest.fixture
def reset_console() -> Iterator[None]:
    yield
    console.configure_output()


@pytest.mark.parametrize(
    ("level", "out", "err"),
    [
        (0, "result", "note warning: careful error: message hint:  action"),
        (1, "result", "warning: careful error: message hint:  action"),
        (2, "", ""),
    ],
)
def test_verbosity(reset_console: None, capsys: pytest.CaptureFixture[str], level: int, out: str, err: str) -> None:
    console.configure_output(quiet=level)
    console.print_result("result")
    console.print_info("note")
    console.print_warning("careful")
    console.print_error(GandiagError("message", "action"))
    captured = capsys.readouterr()
    joined = tuple(" ".join(text.split("\n")).strip() for text in (captured.out, captured.err))
    assert joined == (out, err)


def test_quiet_prints_the_verdict_line_only(reset_console: None, capsys: pytest.CaptureFixture[str]) -> None:
    for level, expected in ((1, "COLLAPSED  runs/042/generator.pt  score 0.48 [0.44, 0.52]\n"), (2, "")):
        console.configure_output(quiet=level, verbose=1)
        console.print_record(records.collapsed(), paths=("record a.json",))
        assert capsys.readouterr() == (expected, "")


def test_a_bug_is_one_line_and_a_traceback_only_with_debug(
    reset_console: None, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        raise ValueError("bad \x1b[31m thing")
    except ValueError as error:
        console.print_bug_report(error)
        short = capsys.readouterr().err
        console.configure_output(debug=True)
        console.print_bug_report(error)
        long = capsys.readouterr().err
    assert short.splitlines()[0] == "error: this is a bug in gandiag: ValueError: bad \\x1b[31m thing"
    assert "Traceback" not in short and "--debug" in short
    assert "Traceback" in long and "\x1b" not in long


def test_a_heartbeat_has_progress_and_time() -> None:
    assert format_log_line("sample", 4096, 10_000, 26.0) == "sample 4,096 / 10,000, 37 s left"
    assert format_log_line("sample", 0, 10_000, 3.0) == "sample 0 / 10,000, 3.0 s so far"
    assert format_log_line("real_pass", 7, 0, 61.0) == "real pass 7, 1 min 1 s so far"


def test_a_log_gets_heartbeats_even_without_news() -> None:
    log = io.StringIO()
    with ProgressReporter(stream=log, interval=0.02) as on_progress:
        on_progress("sample", 1, 4)
        deadline = time.monotonic() + 10
        while log.getvalue().count("\n") < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert log.getvalue().count("sample 1 / 4, ") >= 3
    assert "\x1b" not in log.getvalue() and "\r" not in log.getvalue()


def test_a_short_or_quiet_run_writes_nothing_to_a_log() -> None:
    log = io.StringIO()
    with ProgressReporter(stream=log) as on_progress:
        on_progress("sample", 1, 4)
    with ProgressReporter(stream=log, quiet=True, interval=0.001) as on_progress:
        on_progress("sample", 1, 4)
        time.sleep(0.02)
    assert log.getvalue() == ""


def test_a_terminal_gets_a_bar_with_the_time_left() -> None:
    script = """
import time
from gandiag.cli.progress import ProgressReporter
with ProgressReporter() as on_progress:
    for done in range(6):
        on_progress("sample", done, 5)
        time.sleep(0.1)
"""
    parent, child = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", script], stdout=child, stderr=child, stdin=child, env=environ())
    os.close(child)
    output = b""
    while True:
        try:
            output += os.read(parent, 65536)
        except OSError:
            break
    os.close(parent)
    assert process.wait() == 0
    assert b"sample" in output and b"5/5" in output and b"0:00:0" in output
