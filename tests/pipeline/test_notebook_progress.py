"""The bar of a notebook: shown in a kernel alone, updated in place, and gone at the end, also after an error."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gandiag
from gandiag.errors import GandiagError
from gandiag.pipeline.engine import no_progress
from gandiag.pipeline.notebook_progress import show_notebook_progress


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a kernel's one output has shown, in order: the part of IPython that is used."""
    outputs: list[str] = []
    display_module = ModuleType("IPython.display")
    handle = SimpleNamespace(update=outputs.append)
    display_module.HTML = str  # type: ignore[attr-defined]
    display_module.display = lambda text, display_id: handle  # type: ignore[attr-defined]
    module = ModuleType("IPython")
    module.get_ipython = lambda: SimpleNamespace(kernel=object())  # type: ignore[attr-defined]
    module.display = display_module  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", module)
    monkeypatch.setitem(sys.modules, "IPython.display", display_module)
    return outputs


def test_an_audit_in_a_kernel_shows_a_bar_that_goes_away(shown: list[str]) -> None:
    rows = np.random.default_rng(0).normal(size=(300, 2))
    gandiag.audit(rows[:100], rows[100:], n=100)
    assert any("<progress" in text and "real" in text for text in shown) and shown[-1] == ""


def test_the_bar_goes_away_after_an_error(shown: list[str]) -> None:
    with pytest.raises(GandiagError):
        gandiag.audit("nowhere.pt")
    assert shown == [""]


def test_a_callback_of_ones_own_is_used_alone(shown: list[str]) -> None:
    def own(stage: str, done: int, total: int) -> None:
        raise AssertionError

    with show_notebook_progress(own) as progress:
        assert progress is own
    assert shown == []


@pytest.mark.parametrize("shell", [None, SimpleNamespace()])
def test_nothing_is_shown_elsewhere(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("IPython")
    module.get_ipython = lambda: shell  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", module)
    with show_notebook_progress(no_progress) as progress:
        assert progress is no_progress
