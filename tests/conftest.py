"""One torch thread per process: two spinning threads on two busy cores can be a hundred times slower than one."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import signal

import pytest
import torch

torch.set_num_threads(1)
if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # started in the background: what the tests start would not hear Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test reads the settings or the cache of the person who runs it."""
    for name in [
        name for name in os.environ if name.startswith("GANDIAG_") and name != "GANDIAG_FAMILY_LIBS"
    ]:  # that one is the slow tests' own
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.getbasetemp() / "config"))
    monkeypatch.setenv("GANDIAG_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
