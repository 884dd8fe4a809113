"""Random damage to valid files: every file is either loaded or refused with one sentence, within seconds.

    python tests/checkpoints/fuzzing/test_fuzzing.py --seconds 600 [--first N] [--keep DIR]

runs longer, prints failures and keeps their files. A case is a number that determines the seed, the damage and the
flags.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzz_damage import damage, write
from fuzz_seeds import Seed, seeds
from gandiag.cli import console
from gandiag.cli.main import run_command_line

from gandiag.config import AuditConfig
from gandiag.errors import ExitCode, GandiagError
from gandiag.interfaces import SampleSource
from gandiag.pipeline.subject import open_subject

MAX_SECONDS = 5.0  # of CPU time
FLAGS: tuple[dict[str, Any], ...] = (
    {"latent_dim": 5},
    {"classes": 3},
    {"weights": "raw"},
    {"key": "g_ema"},
    {"key": "0"},
    {"output_range": (0.0, 1.0)},
    {"image_size": 16},
    {"channels": 3},
    {"psi": 0.5},
    {"noise": "random"},
    {"bn_eps": 0.8},
    {"activation": "leaky:0.2"},
    {"prior": "uniform"},
    {"strict": True},
    {"condition": "onehot", "classes": 3},
)
known_seeds = cache(seeds)


class Hang(BaseException):
    """A file took too long. Not an Exception, so no error handler catches it."""


def make_case(number: int) -> tuple[str, Seed, dict[str, Any]]:
    """The seed's name, its damaged files, and flags (mostly none)."""
    rng = np.random.default_rng(number)
    names = sorted(known_seeds())
    name = names[number % len(names)]
    seed = damage(known_seeds()[name], rng)
    return name, seed, {**seed.flags, **(FLAGS[int(rng.integers(len(FLAGS)))] if rng.random() < 0.1 else {})}


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    """Raise Hang after MAX_SECONDS of CPU time."""

    def stop(signum: int, frame: Any) -> None:
        raise Hang(f"more than {MAX_SECONDS:g} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def load(seed: Seed, flags: dict[str, Any], folder: Path) -> None:
    """Inspect the file and draw two samples, as `inspect` and `audit` do. Raises anything but a GandiagError."""
    path = write(seed, folder)
    flags = {**flags, "spec": str(folder / flags["spec"])} if "spec" in flags else flags
    with (
        time_limit(),
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        code = run_command_line(["inspect", str(path)])
    assert code in (ExitCode.OK, ExitCode.CANNOT_RUN)
    errors = err.getvalue()
    assert (code == ExitCode.OK) == (errors == "") and (out.getvalue() or errors)
    if errors:
        assert errors.startswith("error: ") and "hint: " in errors and "\x1b" not in errors
    with time_limit():
        try:
            subject = open_subject(path, AuditConfig(**flags))
            list(subject.batches(SampleSource("plain", n=2), 2))
        except GandiagError as error:
            assert error.message and error.hint and "\n" not in error.message


def raise_bug(error: BaseException) -> int:
    """Replaces the command line's bug report."""
    raise error


def warm_up(folder: Path) -> None:
    """Load undamaged seeds of every kind that imports a library at first use, so that its time is not counted."""
    for name in {"fixture ddpm", "onnx plain", "mlp", "zip module", "safetensors", "zip of images"} & set(
        known_seeds()
    ):
        (folder / name).mkdir(parents=True)
        with contextlib.suppress(Hang):
            load(known_seeds()[name], {}, folder / name)


def run_cases(first: int, seconds: float, folder: Path) -> int:
    """Run cases from `first` on until the time is over; returns how many.

    The exception of a failing case names its number.
    """
    end = time.monotonic() + seconds
    for number in itertools.count(first):
        if time.monotonic() > end:
            return number - first
        name, seed, flags = make_case(number)
        case_folder = folder / str(number)
        case_folder.mkdir()
        try:
            load(seed, flags, case_folder)
        except BaseException as error:
            error.add_note(f"case {number}: {name}, damaged, {flags}")
            raise
    raise AssertionError("the numbers ended")


@pytest.mark.slow
def test_twenty_seconds_of_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "print_bug_report", raise_bug)
    warm_up(tmp_path / "seeds")
    assert run_cases(0, 20, tmp_path) > 0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--first", type=int, default=10_000)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    here = Path(__file__).resolve().parent  # the folders that pytest finds modules of seeds in
    sys.path[:0] = [str(here.parents[1] / "helpers")]
    sys.path[:0] = [str(here.parent / name) for name in ("", "architectures", "inference")]
    console.print_bug_report = raise_bug  # type: ignore[assignment]
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        warm_up(Path(folder))
    number, end, failures = options.first, time.monotonic() + options.seconds, Counter[str]()
    slowest = (0.0, 0)
    while time.monotonic() < end:
        name, seed, flags = make_case(number)
        with tempfile.TemporaryDirectory() as folder:
            start = time.process_time()
            try:
                load(seed, flags, Path(folder))
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                frames = traceback.extract_tb(error.__traceback__)[-4:]
                place = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
                text = f"{type(error).__name__}: {str(error)[:160]} | {place}"
                failures[text] += 1
                if failures[text] <= 2:
                    print(f"case {number} ({name}, {flags}): {text}", flush=True)
                    if options.keep:
                        (options.keep / str(number)).mkdir(parents=True, exist_ok=True)
                        write(seed, options.keep / str(number))
            slowest = max(slowest, (time.process_time() - start, number))
        number += 1
        if number % 250 == 0:
            print(f"{number - options.first:,} so far", flush=True)
    print(
        f"{number - options.first:,} damaged files (cases {options.first} to {number - 1}); "
        f"{sum(failures.values())} failed, in {len(failures)} ways; "
        f"the slowest took {slowest[0]:.1f} s (case {slowest[1]})"
    )
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
