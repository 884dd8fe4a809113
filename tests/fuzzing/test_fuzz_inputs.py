"""Random damage to logs, records, configuration and images: every command ends with a result or one clear sentence.

    python tests/fuzzing/test_fuzz_inputs.py TARGET --seconds 600 [--first N] [--keep DIR]

runs longer, prints failures and keeps their files. For checkpoints see tests/checkpoints/fuzzing.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "helpers"), str(HERE.parent / "checkpoints" / "fuzzing")]

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from fuzz_inputs import TARGETS, Case  # noqa: E402
from gandiag.cli import console  # noqa: E402
from gandiag.cli.main import run_command_line  # noqa: E402

MAX_SECONDS = 10.0  # of processor time
MAX_GROWTH = 1 << 20  # of memory, in KiB


class Hang(BaseException):
    """A case took too long. Not an Exception, so no error handler catches it."""


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    def stop(signum: int, frame: Any) -> None:
        raise Hang(f"more than {MAX_SECONDS:g} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def raise_bug(error: BaseException) -> int:
    """Replaces the command line's bug report."""
    raise error


def run(argv: list[str], folder: Path) -> tuple[int, str, str]:
    """Exit code, output and errors of a command in a folder."""
    before, kept = os.getcwd(), console.print_bug_report
    os.chdir(folder)
    console.print_bug_report = raise_bug  # type: ignore[assignment]
    try:
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            code = int(run_command_line(argv))
    finally:
        os.chdir(before)
        console.print_bug_report = kept
    return code, out.getvalue(), err.getvalue()


def write(case: Case, folder: Path) -> None:
    for name, content in case.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for name, target in case.links.items():
        with contextlib.suppress(OSError):
            (folder / name).symlink_to(target)


def check(case: Case, folder: Path) -> None:
    """Run a case. Raises where it crashes, hangs, takes a gigabyte or speaks unclearly."""
    write(case, folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with time_limit():
        code, out, err = run(case.argv, folder)
    assert code in (0, 1, 2, 3), f"exit code {code}"
    assert "\x1b" not in out + err and "Traceback" not in err, "escapes or a traceback"
    assert code != 2 or "error: " in err or "ERROR" in out or '"error"' in out, f"no sentence: {err[:200]} {out[:200]}"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < MAX_GROWTH, f"{grown >> 10} MiB"


def make_case(target: str, number: int) -> Case:
    return TARGETS[target](np.random.default_rng([number, len(target)]))


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_a_few_cases(target: str, tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / str(number)).mkdir()
        check(make_case(target, number), tmp_path / str(number))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--first", type=int, default=10_000)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    number, end, failures, slowest = options.first, time.monotonic() + options.seconds, Counter[str](), (0.0, 0)
    while time.monotonic() < end:
        case, start = make_case(options.target, number), time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            try:
                check(case, Path(folder))
            except (Exception, Hang) as error:
                frames = traceback.extract_tb(error.__traceback__)[-4:]
                place = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
                text = f"{type(error).__name__}: {str(error)[:160]} | {place}"
                failures[text] += 1
                if failures[text] <= 2:
                    print(f"case {number} {case.argv}: {text}", flush=True)
                    if options.keep:
                        write(case, options.keep / f"{options.target}-{number}")
        slowest = max(slowest, (time.process_time() - start, number))
        number += 1
    print(
        f"{options.target}: {number - options.first:,} cases from {options.first}; {sum(failures.values())} failed, in "
        f"{len(failures)} ways; the slowest took {slowest[0]:.1f} s (case {slowest[1]})"
    )
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
