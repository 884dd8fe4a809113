"""A training as it goes: time left, modes covered and the losses as a sparkline, on a terminal; a line every 30 s in a log."""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Self, TextIO

from gandiag.report import words

from . import console
from .progress import HEARTBEAT

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from gandiag.reference.train import Moment

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 24  # losses in the sparkline


class Live:
    """A watcher for `gandiag.reference.train.train`, and a context manager."""

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None, every: float = HEARTBEAT) -> None:
        self.stream = sys.stderr if stream is None else stream
        self.quiet = quiet
        self.every = every
        self._bar: Bar | None = None
        self._task: Any = None
        self._losses: deque[float] = deque(maxlen=WIDTH)
        self._first: tuple[int, float] | None = None
        self._told = time.monotonic()

    def __enter__(self) -> Self:
        if not self.quiet and self.stream.isatty():
            self._bar = _bar(self.stream)
            self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, moment: Moment) -> None:
        """Show a moment of the training."""
        self._losses.extend(loss_g for _, loss_g in moment.losses[-1:])
        now = time.monotonic()
        self._first = self._first or (moment.step, now)
        if self._bar is not None:
            if self._task is None:
                self._task = self._bar.add_task("train", total=moment.steps, told="")
            self._bar.update(self._task, completed=moment.step, told=told(moment, list(self._losses)))
        elif not self.quiet and now - self._told >= self.every:
            self._told = now
            self.stream.write(f"train {moment.step:,} / {moment.steps:,}, {self._left(moment, now)}{told(moment, [])}\n")
            self.stream.flush()

    def _left(self, moment: Moment, now: float) -> str:
        step, then = self._first or (0, now)
        if moment.step == step:
            return ""
        return f"{words.duration((now - then) * (moment.steps - moment.step) / (moment.step - step))} left, "


def told(moment: Moment, losses: list[float]) -> str:
    """"modes 7 of 8, loss D 1.37 G 0.71 ▁▂▃"."""
    modes = "" if moment.coverage is None else f"modes {moment.coverage.modes} of {moment.coverage.of}, "
    if not moment.losses:
        return modes.rstrip(", ")
    loss_d, loss_g = moment.losses[-1]
    return f"{modes}loss D {loss_d:.3f} G {loss_g:.3f} {sparkline(losses)}".rstrip()


def sparkline(values: list[float]) -> str:
    """Values as bars between their lowest and highest."""
    if not values:
        return ""
    low, high = min(values), max(values)
    return "".join(BARS[min(len(BARS) - 1, int(len(BARS) * (value - low) / ((high - low) or 1.0)))] for value in values)


def _bar(stream: TextIO) -> Bar:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    page = Console(file=stream, no_color=not console.colored(stream), markup=False, emoji=False, highlight=False)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=16), MofNCompleteColumn(), TimeRemainingColumn(),
               TextColumn("{task.fields[told]}", markup=False))  # fmt: skip
    return Progress(*columns, console=page, transient=True)
