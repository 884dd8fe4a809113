"""Draws with a fixed style, whatever a `matplotlibrc` of the folder or of the user says.

matplotlib reads `matplotlibrc` of the working folder when it is imported: a stranger's could start LaTeX, or wait for
ever where it is a pipe.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Settings of windows and of the process, which no drawing here depends on.
_NOT_STYLE = ("backend", "interactive", "toolbar", "timezone", "webagg", "tk.", "docstring", "date.epoch", "figure.r")
_IMPORT_LOCK = threading.Lock()


def load_matplotlib() -> Any:
    """matplotlib, imported without a look at the working folder's `matplotlibrc`."""
    with _IMPORT_LOCK:
        if "matplotlib" in sys.modules or not os.path.lexists("matplotlibrc"):
            import matplotlib

            return matplotlib
        here = os.getcwd()
        os.chdir(Path(__file__).parent)
        try:
            import matplotlib
        finally:
            os.chdir(here)
        return matplotlib


@contextmanager
def plot_style(settings: Mapping[str, Any] | None = None) -> Iterator[None]:
    """matplotlib's own defaults with these settings, inside the context."""
    matplotlib = load_matplotlib()
    defaults = {
        name: value for name, value in dict.items(matplotlib.rcParamsDefault) if not name.startswith(_NOT_STYLE)
    }
    with matplotlib.rc_context({**defaults, **(settings or {})}):
        yield
