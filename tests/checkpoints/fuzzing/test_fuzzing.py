"""Valid files with damage that fits no plan: whatever a file holds, it is read, or refused in a sentence, and soon.

    python tests/checkpoints/fuzzing/test_fuzzing.py --seconds 600 [--first N] [--keep DIR]    a longer hunt: prints what it finds, and keeps those files

A case is a number: it draws the seed, the damage and the flags.
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
from fuzz_damage import damaged, write
from fuzz_seeds import Seed, seeds
from gandiag.cli import console
from gandiag.cli.main import run_command_line

from gandiag.config import AuditConfig
from gandiag.errors import ExitCode, GandiagError
from gandiag.interfaces import SampleSource
from gandiag.pipeline.subject import open_subject

HANG = 5.0  # seconds of the processor
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
    """More than the time that a file may take; no handler of errors catches it."""


def case(number: int) -> tuple[str, Seed, dict[str, Any]]:
    """The name of the seed, its damaged files, and flags (mostly none)."""
    rng = np.random.default_rng(number)
    names = sorted(known_seeds())
    name = names[number % len(names)]
    seed = damaged(known_seeds()[name], rng)
    return name, seed, {**seed.flags, **(FLAGS[int(rng.integers(len(FLAGS)))] if rng.random() < 0.1 else {})}


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Hang after HANG seconds of the processor."""

    def stop(signum: int, frame: Any) -> None:
        raise Hang(f"more than {HANG:g} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, HANG)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def look(seed: Seed, flags: dict[str, Any], folder: Path) -> None:
    """As `inspect` and `audit` do it: the account of the file, then two samples. Whatever else than a GandiagError comes out, comes out here."""
    path = write(seed, folder)
    flags = {**flags, "spec": str(folder / flags["spec"])} if "spec" in flags else flags
    with watched(), contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = run_command_line(["inspect", str(path)])
    assert code in (ExitCode.OK, ExitCode.CANNOT_RUN)
    complaint = err.getvalue()
    assert (code == ExitCode.OK) == (complaint == "") and (out.getvalue() or complaint)
    if complaint:
        assert complaint.startswith("error: ") and "hint: " in complaint and "\x1b" not in complaint
    with watched():
        try:
            subject = open_subject(path, AuditConfig(**flags))
            list(subject.batches(SampleSource("plain", n=2), 2))
        except GandiagError as problem:
            assert problem.message and problem.hint and "\n" not in problem.message


def fatal(problem: BaseException) -> int:
    """In place of the command line's apology for a bug."""
    raise problem


def warm_up(folder: Path) -> None:
    """A seed of every kind that imports something at first use, as it is: that time counts for no file."""
    for name in {"fixture ddpm", "onnx plain", "mlp", "zip module", "safetensors", "zip of images"} & set(
        known_seeds()
    ):
        (folder / name).mkdir(parents=True)
        with contextlib.suppress(Hang):
            look(known_seeds()[name], {}, folder / name)


def hunt(first: int, seconds: float, folder: Path) -> int:
    """Cases from `first` on, until the time is over: how many were tried. A case that fails is named by its number."""
    end = time.monotonic() + seconds
    for number in itertools.count(first):
        if time.monotonic() > end:
            return number - first
        name, seed, flags = case(number)
        place = folder / str(number)
        place.mkdir()
        try:
            look(seed, flags, place)
        except BaseException as found:
            found.add_note(f"case {number}: {name}, damaged, {flags}")
            raise
    raise AssertionError("the numbers ended")


def test_twenty_seconds_of_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "print_bug_report", fatal)
    warm_up(tmp_path / "seeds")
    assert hunt(0, 20, tmp_path) > 0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--first", type=int, default=10_000)
    parser.add_argument("--keep", type=Path)
    asked = parser.parse_args()
    console.print_bug_report = fatal  # type: ignore[assignment]
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        warm_up(Path(folder))
    number, end, found = asked.first, time.monotonic() + asked.seconds, Counter[str]()
    slowest = (0.0, 0)
    while time.monotonic() < end:
        name, seed, flags = case(number)
        with tempfile.TemporaryDirectory() as folder:
            start = time.process_time()
            try:
                look(seed, flags, Path(folder))
            except BaseException as wrong:
                if isinstance(wrong, KeyboardInterrupt):
                    raise
                frames = traceback.extract_tb(wrong.__traceback__)[-4:]
                place = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
                text = f"{type(wrong).__name__}: {str(wrong)[:160]} | {place}"
                found[text] += 1
                if found[text] <= 2:
                    print(f"case {number} ({name}, {flags}): {text}", flush=True)
                    if asked.keep:
                        (asked.keep / str(number)).mkdir(parents=True, exist_ok=True)
                        write(seed, asked.keep / str(number))
            slowest = max(slowest, (time.process_time() - start, number))
        number += 1
        if number % 250 == 0:
            print(f"{number - asked.first:,} so far", flush=True)
    print(
        f"{number - asked.first:,} damaged files (cases {asked.first} to {number - 1}); {sum(found.values())} failed, in {len(found)} ways; "
        f"the slowest took {slowest[0]:.1f} s (case {slowest[1]})"
    )
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
