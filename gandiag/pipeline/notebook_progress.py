"""Shows how far an audit is in a notebook: one line with a bar, updated in place and gone at the end."""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from gandiag.pipeline.engine import ProgressCallback, no_progress

_MIN_SECONDS = 0.2  # between two updates


class DisplayHandle(Protocol):
    """What IPython's display() returns: an output that can be replaced."""

    def update(self, shown: Any) -> None: ...


class NotebookBar:
    """A callback `(stage, done, total)` that updates one output of a notebook, a few times a second."""

    def __init__(self, handle: DisplayHandle, make_html: Any) -> None:
        self._handle, self._make_html = handle, make_html
        self._shown = ("", 0.0)  # stage and time of the last update

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage == self._shown[0] and now - self._shown[1] < _MIN_SECONDS and done < total:
            return
        self._shown = (stage, now)
        count = f"{done:,} / {total:,}" if total else ""
        value = f' value="{done}" max="{total}"' if total else ""
        self._handle.update(self._make_html(f"<progress{value}></progress> {html.escape(stage)} {count}"))

    def clear(self) -> None:
        self._handle.update(self._make_html(""))


@contextmanager
def show_notebook_progress(progress: ProgressCallback) -> Iterator[ProgressCallback]:
    """The callback that was given; in a notebook, where none was, a bar."""
    handle = _open_output() if progress is no_progress else None
    if handle is None:
        yield progress
        return
    from IPython.display import HTML

    bar = NotebookBar(handle, HTML)
    try:
        yield bar
    finally:
        bar.clear()


def _open_output() -> DisplayHandle | None:
    """An output of the running notebook; None elsewhere, also in IPython's terminal. Never imports IPython itself."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is None or not hasattr(shell, "kernel"):
        return None
    from IPython.display import HTML, display

    handle: DisplayHandle | None = display(HTML(""), display_id=True)
    return handle
