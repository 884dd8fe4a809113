"""Import paths documented before 0.2 still answer, with a warning, and `gandiag.load` stays the function."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gandiag._moved import _MOVED

ROOT = Path(__file__).resolve().parent.parent
OLD_NAMES = [(module, name, new, renamed) for module, (new, names) in _MOVED.items() for name, renamed in names.items()]


@pytest.mark.parametrize("module, name, new, renamed", OLD_NAMES, ids=[f"{row[0]}.{row[1]}" for row in OLD_NAMES])
def test_an_old_name_is_the_new_object_and_warns(module: str, name: str, new: str, renamed: str) -> None:
    code = (
        "import importlib, warnings\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        f"    old = importlib.import_module({module!r})\n"
        f"assert getattr(old, {name!r}) is getattr(importlib.import_module({new!r}), {renamed!r})\n"
        f"assert [entry.category for entry in caught if {new!r} in str(entry.message)] == [DeprecationWarning]\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_load_can_still_be_called_after_an_old_import() -> None:
    code = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "import gandiag\n"
        "import gandiag.load.rebuild.noise\n"
        "assert gandiag.load('fixtures/ring_healthy.pt').sample(3).shape == (3, 2)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
