"""The examples run as they are: every script, every cell of the notebook, and the documentation as a site."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import records
import yaml

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_notebook_runs_from_top_to_bottom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    cells = json.loads((EXAMPLES / "quickstart.ipynb").read_text(encoding="utf-8"))["cells"]
    names: dict[str, Any] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            assert not cell["outputs"]
            exec(compile("".join(cell["source"]), "quickstart.ipynb", "exec"), names)
    assert names["record"].verdict == "collapsed" and names["other"].score.value < 0.15
    assert names["change"].direction == "better"


def test_a_checkpoint_is_audited_and_gated_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    record = load("audit_checkpoint").main(
        str(ROOT / "fixtures" / "ring_one_mode.safetensors"), str(ROOT / "fixtures" / "ring.npz"), n=200
    )
    assert record.verdict == "collapsed" and "<!doctype html>" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert load("gate_in_ci").main("audit.json") == 1
    for name in ("healthy", "collapsed"):
        (tmp_path / f"{name}.json").write_text(records.ALL[name]().to_json())
    assert load("compare_checkpoints").main("healthy.json", "collapsed.json") > 0
    assert "worse" in capsys.readouterr().out


def test_groups_and_the_monitor() -> None:
    record = load("groups").main()
    assert record.verdict == "collapsed" and record.groups["within"]["value"] < 0.3
    assert load("watch_training").main(steps=200).evaluations


def test_every_page_of_the_documentation_is_in_the_site() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    listed = {path for entry in settings["nav"] for path in entry.values()}
    assert listed == {path.name for path in (ROOT / "docs").glob("*.md")}


@pytest.mark.slow
def test_the_site_is_built(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "-q", "-f", str(ROOT / "mkdocs.yml"), "-d", str(tmp_path)]
    subprocess.run(command, check=True, cwd=ROOT)
    assert (tmp_path / "index.html").exists() and (tmp_path / "gate.html").exists()
