"""Live display of a training run: time left, mode coverage and losses on a terminal, or a line every 30 s in a log."""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Self, TextIO

from gandiag.report import formatting
from gandiag.report.sparkline import draw_minmax_sparkline

from .progress import LOG_INTERVAL
from .terminal_io import make_live_console

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from gandiag.trainer.train import TrainingStatus

SPARKLINE_WIDTH = 24  # losses in the sparkline


class TrainingProgress:
    """A status callback for `gandiag.trainer.train.train`, and a context manager."""

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None, interval: float = LOG_INTERVAL) -> None:
        self.stream = sys.stderr if stream is None else stream
        self.quiet = quiet
        self.interval = interval
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._losses: deque[float] = deque(maxlen=SPARKLINE_WIDTH)
        self._start: tuple[int, float] | None = None  # first reported step, and when
        self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        if not self.quiet and self.stream.isatty():
            self._bar = _make_bar(self.stream)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, status: TrainingStatus) -> None:
        """Show the status, on the bar at once or as a line when the interval has passed."""
        self._losses.extend(loss_g for _, loss_g in status.losses[-1:])
        now = time.monotonic()
        self._start = self._start or (status.step, now)
        if self._bar is not None:
            if self._task is None:
                self._task = self._bar.add_task("train", total=status.total_steps, status="")
            text = format_training_status(status, list(self._losses))
            self._bar.update(self._task, completed=status.step, status=text)
        elif not self.quiet and now - self._last_line >= self.interval:
            self._last_line = now
            text = self._format_time_left(status, now) + format_training_status(status, [])
            self.stream.write(f"train {status.step:,} / {status.total_steps:,}, {text}\n")
            self.stream.flush()

    def _format_time_left(self, status: TrainingStatus, now: float) -> str:
        first_step, start = self._start or (0, now)
        if status.step == first_step:
            return ""
        seconds = (now - start) * (status.total_steps - status.step) / (status.step - first_step)
        return f"{formatting.format_duration(seconds)} left, "


def format_training_status(status: TrainingStatus, losses: list[float]) -> str:
    """Return text such as "modes 7 of 8, loss D 1.37 G 0.71 ▁▂▃"."""
    modes = "" if status.coverage is None else f"modes {status.coverage.modes} of {status.coverage.of}, "
    if not status.losses:
        return modes.rstrip(", ")
    loss_d, loss_g = status.losses[-1]
    return f"{modes}loss D {loss_d:.3f} G {loss_g:.3f} {draw_minmax_sparkline(losses)}".rstrip()


def _make_bar(stream: TextIO) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}", markup=False),
    )
    return Progress(*columns, console=make_live_console(stream), transient=True)
