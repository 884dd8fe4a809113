"""The entry point of the command: Ctrl-C ends it with one line, from its first moment to its last."""

from __future__ import annotations

import os
import signal
import sys


def entry() -> None:
    """Run the command line and exit with its code."""
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:  # while modules are imported, no line of ours could catch it
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from .main import forget_working_folder, run_command_line

    if ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        forget_working_folder()
        code = int(run_command_line())
    except KeyboardInterrupt:  # the second one, while the first was handled
        code = 130
    sys.exit(code) if code != 130 else _end_now()


def _end_now() -> None:
    """Exit without waiting for threads: whoever interrupts wants no more."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, KeyboardInterrupt):
            continue
    os._exit(130)
