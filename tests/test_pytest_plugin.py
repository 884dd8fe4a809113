"""The pytest plug-in in a real pytest: failures, attached reports, and no cost where it is not used."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import records

from gandiag.errors import ConfigError
from gandiag.integrations.pytest_plugin import CollapsedError, assert_not_collapsed

ROOT = Path(__file__).resolve().parent.parent
SUITE = f"""
import pytest
from gandiag.integrations.pytest_plugin import assert_not_collapsed as plain

FIXTURES = {str(ROOT / "fixtures")!r}

def test_collapsed(assert_not_collapsed):
    assert_not_collapsed(f"{{FIXTURES}}/ring_one_mode.safetensors", real=f"{{FIXTURES}}/ring.npz", n=400)

def test_healthy(assert_not_collapsed):
    record = assert_not_collapsed(f"{{FIXTURES}}/ring_healthy.pt", real=f"{{FIXTURES}}/ring.npz", n=800, max_score=0.2)
    assert record.verdict == "healthy"

def test_without_real_data():
    plain(f"{{FIXTURES}}/ring_healthy.pt", n=300)
"""


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }  # installed, it would be loaded twice
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "gandiag.integrations.pytest_plugin",
        "-p",
        "no:cacheprovider",
        *arguments,
    ]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=300)


def test_a_collapsed_generator_fails_its_test_with_the_report_attached(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(SUITE)
    process = run_pytest(tmp_path, "--gandiag-reports", "pages", "--junit-xml", "out.xml")
    assert process.returncode == 1 and "1 failed, 2 passed" in process.stdout, process.stdout[-3000:]
    assert (
        "must be below 0.15" in process.stdout
        and "Captured gandiag call" in process.stdout
        and "COLLAPSED  " in process.stdout
        and "GD101" in process.stdout
    )
    assert "The whole report:" in process.stdout and "Measurements" not in process.stdout
    assert "integrations/pytest_plugin.py" not in process.stdout, "frames of the plug-in are shown"
    (page,) = (tmp_path / "pages").iterdir()
    assert (
        page.name == "test_it.py_test_collapsed.html"
        and page.read_text().lower().startswith("<!doctype html>")
        and str(page.name) in process.stdout
    )
    scores = {
        case.get("name"): float(found.get("value"))
        for case in ET.parse(tmp_path / "out.xml").iter("testcase")
        for found in case.iter("property")
    }
    assert scores["test_collapsed"] > 0.5 > scores["test_healthy"] and set(scores) == {"test_collapsed", "test_healthy"}


def test_loading_the_plugin_imports_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import sys\ndef test(): assert not {'torch', 'numpy', 'jinja2', 'gandiag.api'} & set(sys.modules)\n"
    )
    process = run_pytest(tmp_path)
    assert process.returncode == 0, process.stdout


def test_records_are_judged_as_they_are(tmp_path: Path) -> None:
    records.healthy().write(tmp_path / "a.json")
    assert assert_not_collapsed(tmp_path / "a.json", real="x").verdict == "healthy"
    assert assert_not_collapsed(records.degeneracy()).verdict == "not_degenerate"
    with pytest.raises(CollapsedError, match="no real data"):
        assert_not_collapsed(records.degeneracy(), real="photos/")
    with pytest.raises(CollapsedError, match="GD103") as caught:
        assert_not_collapsed(records.collapsed())
    assert caught.value.record is not None and caught.value.record.verdict == "collapsed"
    assert assert_not_collapsed(records.collapsed(), max_score=0.6).verdict == "healthy"
    with pytest.raises(CollapsedError, match="recall"):
        assert_not_collapsed(records.collapsed(), max_score=0.6, policy={"limits": {"recall": {"min": 0.6}}})
    with pytest.raises(CollapsedError, match="unclear"):
        assert_not_collapsed(records.inconclusive())
    with pytest.raises(ConfigError, match="max-score"):
        assert_not_collapsed(records.healthy(), max_score=float("nan"))
