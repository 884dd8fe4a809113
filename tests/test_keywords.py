"""The Python API's keywords: those of the config, with its types and defaults, and named in errors."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

import gandiag
from gandiag.config import AuditConfig
from gandiag.errors import GandiagError
from gandiag.keywords.errors import name_keywords
from gandiag.keywords.settings import AuditSettings, LoadSettings

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = {entry.name: entry for entry in dataclasses.fields(AuditConfig)}
TYPES = get_type_hints(AuditConfig)
OBJECTS_TOO = {"real", "holdout", "against"}  # parameters of audit() that take more than paths
RING = ROOT / "fixtures" / "ring_healthy.pt"


def test_the_keyword_types_are_those_of_the_config() -> None:
    assert get_type_hints(AuditSettings) == {name: kind for name, kind in TYPES.items() if name not in OBJECTS_TOO}
    groups = {name: SETTINGS[name].metadata["group"] for name in get_type_hints(LoadSettings)}
    assert set(groups) == {name for name in SETTINGS if SETTINGS[name].metadata["group"] != "audit"}


@pytest.mark.parametrize(("function", "keywords"), [(gandiag.audit, AuditSettings), (gandiag.load, LoadSettings)])
def test_signatures_show_every_setting_with_type_and_default(function: object, keywords: type) -> None:
    parameters = inspect.signature(function).parameters  # type: ignore[arg-type]
    assert all(part.kind is not part.VAR_KEYWORD for part in parameters.values())
    for name in get_type_hints(keywords):
        shown = parameters[name]
        assert (shown.default, shown.annotation) == (SETTINGS[name].default, TYPES[name]), name
        assert shown.kind is shown.KEYWORD_ONLY
        assert f"\n  {name}: " in (function.__doc__ or ""), f"help() does not explain {name}"
    assert "--" not in (function.__doc__ or "")


def test_keywords_that_are_not_given_leave_room_for_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANDIAG_CLASSES", "7")
    with pytest.raises(GandiagError, match="classes=7 contradicts"):
        gandiag.load(RING)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("--limit is 1.5", "limit is 1.5"),
        ("give it: --latent-dim N", "give it: latent_dim=N"),
        ("low then high: --output-range -1,1", "low then high: output_range=(-1, 1)"),
        ("give --classes 10 --condition index, or onehot", "give classes=10 condition='index', or onehot"),
        ("choose one: --key a.b.c", "choose one: key='a.b.c'"),
        ("trust its author: --trust", "trust its author: trust=True"),
        ("--latent-dim 77 contradicts the weights", "latent_dim=77 contradicts the weights"),
        ("leave --class out", "leave class_=… out"),
        ("Remove --latent-dim.", "Remove latent_dim=…."),
        ("write it as name=value: --init nz=100", "write it as name=value: init=('nz=100',)"),
        ("gandiag audit --run runs/a --dry-run", "gandiag audit --run runs/a --dry-run"),
        ("a-b--c -nn well-known --newest", "a-b--c -nn well-known --newest"),
    ],
)
def test_options_in_a_text_become_keywords(text: str, expected: str) -> None:
    assert name_keywords(text) == expected


def test_errors_from_python_name_keywords_and_those_of_the_command_name_options() -> None:
    with pytest.raises(GandiagError) as caught:
        gandiag.load(RING, latent_dim=77)
    assert "latent_dim=77 contradicts" in str(caught.value) and "--" not in str(caught.value)
    with pytest.raises(GandiagError, match="limit is 1") as caught:
        gandiag.audit(RING, limit=1.5)
    assert "--" not in str(caught.value)
    with pytest.raises(GandiagError, match="limit is 1"):
        gandiag.Monitor(real="photos/", limit=1.5)
    with pytest.raises(GandiagError, match="--limit is 1"):
        AuditConfig(limit=1.5)


def test_public_names_work_in_a_fresh_interpreter() -> None:
    script = "import gandiag; print(gandiag.errors.LoadError.__name__, gandiag.metrics.coverage.__name__)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["LoadError", "coverage"], done.stderr
