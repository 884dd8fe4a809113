"""Shows progress on stderr: a bar with the time left on a terminal, a heartbeat line in a log."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Self, TextIO

from gandiag.report import formatting

from .terminal_io import make_live_console

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

LOG_INTERVAL = 30.0  # seconds


class ProgressReporter:
    """A callback `on_progress(stage, done, total)` that shows how far a run is; a context manager.

    On a terminal: one bar per stage, with the time left. Elsewhere: "sample 4,096 / 10,000, 38 s left" every `interval`
    seconds, even without news, so that a log shows that the run is alive. `quiet`: nothing.
    """

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None, interval: float = LOG_INTERVAL) -> None:
        self.stream = sys.stderr if stream is None else stream
        self.quiet = quiet
        self.interval = interval
        self._bar: Bar | None = None
        self._tasks: dict[str, TaskID] = {}
        self._stage: tuple[str, int, int, float] | None = None
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if not self.quiet and self.stream.isatty():
            self._bar = _make_bar(self.stream)
            self._bar.start()
        elif not self.quiet:
            self._thread = threading.Thread(target=self._write_heartbeats, name="gandiag-heartbeat", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stopped.set()
        if self._bar is not None:
            self._bar.stop()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Report that `stage` has finished `done` of `total` units; 0 if the total is unknown."""
        with self._lock:
            started = self._stage[3] if self._stage is not None and self._stage[0] == stage else time.monotonic()
            self._stage = (stage, done, total, started)
        if self._bar is not None:
            if stage not in self._tasks:
                self._tasks[stage] = self._bar.add_task(formatting.key_to_text(stage), total=total or None)
            self._bar.update(self._tasks[stage], completed=done, total=total or None)

    def _write_heartbeats(self) -> None:
        while not self._stopped.wait(self.interval):
            with self._lock:
                stage = self._stage
            if stage is not None:
                self.stream.write(format_log_line(*stage[:3], time.monotonic() - stage[3]) + "\n")
                self.stream.flush()


def format_log_line(stage: str, done: int, total: int, seconds: float) -> str:
    """One line for a log: "sample 4,096 / 10,000, 38 s left"."""
    count = f"{formatting.key_to_text(stage)} {done:,}" + (f" / {total:,}" if total else "")
    if total and 0 < done < total:
        return f"{count}, {formatting.format_duration(seconds * (total - done) / done)} left"
    return f"{count}, {formatting.format_duration(seconds)} so far"


def _make_bar(stream: TextIO) -> Bar:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=make_live_console(stream), transient=True)
