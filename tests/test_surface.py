"""Public names exist and are documented; entry points, registries and installed copies work."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from gandiag.cli.main import COMMANDS, cli

import gandiag
import gandiag.metrics
from gandiag.catalogue import find_entry, get_entry, load_entries
from gandiag.errors import ConfigError, PluginError
from gandiag.metrics.registry import METRICS
from gandiag.metrics.score.estimator import estimate_diversity_loss
from gandiag.registry import Registry

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("name", gandiag.__all__)
def test_public_names_resolve_and_are_documented(name: str) -> None:
    assert (getattr(gandiag, name).__doc__ or "").strip()


@pytest.mark.parametrize("name", gandiag.metrics.__all__)
def test_metrics_are_documented(name: str) -> None:
    text = inspect.getdoc(getattr(gandiag.metrics, name)) or ""
    assert len(text) > 60, f"{name} has too short a docstring"


def test_metrics_take_real_then_fake() -> None:
    real, fake = torch.randn(300, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(150, 4)
    assert gandiag.metrics.precision(real[:150], fake) == 1.0 and gandiag.metrics.recall(real[:150], fake) == 0.0
    assert estimate_diversity_loss(real, fake).score.value > 0.9


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="nope"):
        gandiag.nope  # noqa: B018
    with pytest.raises(AttributeError, match="nope"):
        gandiag.metrics.nope  # noqa: B018


def test_every_entry_of_the_catalogue_is_complete() -> None:
    for key, entry in load_entries().items():
        assert entry.title, key
        if re.fullmatch(r"GD\d{3}", key):
            assert entry.summary, key
        else:
            assert entry.formula and entry.better in ("higher", "lower", "neither"), key
    assert find_entry("frechet[imagenet]") is find_entry("frechet[pixels]") is not None
    with pytest.raises(ConfigError, match="recal"):
        get_entry("recal")
    assert get_entry("gd103").key == "GD103" and get_entry("Recall").key == "recall"
    assert get_entry("missing").key == "profile.missing" and get_entry("color").key == "aspects.color"


def test_registries_suggest_close_matches_and_reject_duplicates() -> None:
    with pytest.raises(PluginError) as caught:
        METRICS.get("neighbors")
    assert "neighbours" in caught.value.hint
    registry = Registry("things", {"a": "math:pi"})
    assert registry.get("a") == registry.get("math:pi") and list(registry) == ["a"]
    assert registry.origin("a") == "gandiag"
    with pytest.raises(PluginError, match="taken"):
        registry.register("a", 1)
    with pytest.raises(PluginError, match="cannot be imported"):
        registry.get("math:no_such_thing")


def test_the_checkout_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gandiag", "--version"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and done.stdout.strip() == f"gandiag {gandiag.__version__}"


@pytest.mark.slow
@pytest.mark.parametrize("how", [["."], ["-e", "."]], ids=["wheel", "editable"])
def test_an_installed_copy_runs_inside_and_outside_a_clone(how: list[str], tmp_path: Path) -> None:
    """Wheel and editable install, each in an environment of its own that also has this one's packages."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    subprocess.run([sys.executable, "-m", "venv", "--system-site-packages", str(tmp_path / "env")], check=True)
    python = tmp_path / "env" / "bin" / "python"
    site = Path(torch.__file__).parent.parent
    (next((tmp_path / "env" / "lib").glob("python*")) / "site-packages" / "parent.pth").write_text(str(site))
    subprocess.run([str(python), "-m", "pip", "install", "-q", "--no-deps", *how], cwd=clone, check=True)
    for folder in (clone, tmp_path):
        done = subprocess.run(
            [str(python), "-m", "gandiag", "audit", "--help"], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0 and "--real" in done.stdout, done.stderr


def test_load_can_be_called_after_its_package_was_imported() -> None:
    import gandiag.checkpoints.loader  # must not rebind the name `load`

    assert callable(gandiag.load) and gandiag.load(ROOT / "fixtures" / "ring_healthy.pt").sample(2).shape == (2, 2)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    result = CliRunner().invoke(cli, [command, "--help"])
    assert result.exit_code == 0 and result.exception is None and result.output.startswith("Usage:")
