"""A training as it goes: time left, modes covered and the losses as a sparkline, on a terminal; a line every 30 s in a log."""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Self, TextIO

from gandiag.report import formatting

from . import console
from .progress import LOG_INTERVAL

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from gandiag.trainer.train import TrainingStatus

BLOCK_CHARACTERS = "▁▂▃▄▅▆▇█"
SPARKLINE_WIDTH = 24  # losses in the sparkline


class TrainingProgress:
    """A watcher for `gandiag.trainer.train.train`, and a context manager."""

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None, interval: float = LOG_INTERVAL) -> None:
        self.stream = sys.stderr if stream is None else stream
        self.quiet = quiet
        self.interval = interval
        self._bar: Bar | None = None
        self._task: Any = None
        self._losses: deque[float] = deque(maxlen=SPARKLINE_WIDTH)
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

    def __call__(self, status: TrainingStatus) -> None:
        """Show a moment of the training."""
        self._losses.extend(loss_g for _, loss_g in status.losses[-1:])
        now = time.monotonic()
        self._first = self._first or (status.step, now)
        if self._bar is not None:
            if self._task is None:
                self._task = self._bar.add_task("train", total=status.total_steps, told="")
            self._bar.update(self._task, completed=status.step, told=format_training_status(status, list(self._losses)))
        elif not self.quiet and now - self._told >= self.interval:
            self._told = now
            self.stream.write(
                f"train {status.step:,} / {status.total_steps:,}, {self._left(status, now)}{format_training_status(status, [])}\n"
            )
            self.stream.flush()

    def _left(self, moment: TrainingStatus, now: float) -> str:
        step, then = self._first or (0, now)
        if moment.step == step:
            return ""
        return f"{formatting.format_duration((now - then) * (moment.total_steps - moment.step) / (moment.step - step))} left, "


def format_training_status(status: TrainingStatus, losses: list[float]) -> str:
    """ "modes 7 of 8, loss D 1.37 G 0.71 ▁▂▃"."""
    modes = "" if status.coverage is None else f"modes {status.coverage.modes} of {status.coverage.of}, "
    if not status.losses:
        return modes.rstrip(", ")
    loss_d, loss_g = status.losses[-1]
    return f"{modes}loss D {loss_d:.3f} G {loss_g:.3f} {draw_minmax_sparkline(losses)}".rstrip()


def draw_minmax_sparkline(values: list[float]) -> str:
    """Values as bars between their lowest and highest."""
    if not values:
        return ""
    low, high = min(values), max(values)
    return "".join(
        BLOCK_CHARACTERS[
            min(len(BLOCK_CHARACTERS) - 1, int(len(BLOCK_CHARACTERS) * (value - low) / ((high - low) or 1.0)))
        ]
        for value in values
    )


def _bar(stream: TextIO) -> Bar:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    page = Console(file=stream, no_color=not console.supports_color(stream), markup=False, emoji=False, highlight=False)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[told]}", markup=False),
    )
    return Progress(*columns, console=page, transient=True)
