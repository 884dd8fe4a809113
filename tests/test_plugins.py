"""Plug-ins: the example package, really installed, is listed and used; the conformance checks pass what conforms and
name what does not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gandiag import testing
from gandiag.errors import GandiagError, PluginError
from gandiag.features.extractors import EXTRACTORS
from gandiag.interfaces import MetricResult
from gandiag.metrics.registry import METRICS
from gandiag.record import Measurement
from gandiag.report.formats import FORMATS, GATE_FORMATS

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "tests" / "example_plugin"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the example."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source") / "example"
    (source / "gandiag_example").mkdir(parents=True)
    for name in ("pyproject.toml", "gandiag_example/__init__.py"):
        (source / name).write_text((EXAMPLE / name).read_text())
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        str(folder),
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def run(site: Path, *arguments: str, module: str = "gandiag") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{site}", "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], capture_output=True, text=True, env=env, check=False, timeout=300
    )


def test_an_installed_package_is_listed_with_its_origin(site: Path) -> None:
    done = run(site, "list", "--json")
    assert done.returncode == 0, done.stderr
    found = {
        kind: {row["name"]: row for row in rows if row["origin"] == "gandiag-example"}
        for kind, rows in json.loads(done.stdout).items()
    }
    assert {kind: set(rows) for kind, rows in found.items() if rows} == {
        "metrics": {"median_gap"},
        "features": {"corners"},
        "formats": {"one_line"},
        "gates": {"chat"},
        "remedies": {"smoothing"},
        "readers": {"plain_text"},
    }
    assert found["metrics"]["median_gap"]["title"].startswith("Distance between the medians")


def test_an_installed_package_is_used_like_what_is_built_in(site: Path, tmp_path: Path) -> None:
    record = tmp_path / "a.json"
    ring = [str(ROOT / "fixtures" / name) for name in ("ring_one_mode.safetensors", "ring.npz")]
    done = run(
        site, "audit", ring[0], "--real", ring[1], "-n", "300", "--metrics", "median_gap", "-o", str(record), "-q"
    )
    assert done.returncode == 1, done.stderr
    assert json.loads(record.read_text())["measurements"]["median_gap"]["value"] > 0.5
    policy = tmp_path / "p.toml"
    policy.write_text("[gate]\nmax-score = 1.1\n[gate.limits]\nmedian_gap = { max = 0.1 }\n")
    done = run(site, "gate", str(record), "--policy", str(policy), "-f", "chat")
    assert done.returncode == 1 and done.stdout == f"1 {record} ['passed', 'violated']\n", done.stderr
    score = json.loads(record.read_text())["score"]["value"]
    assert 0.8 < score < 0.95  # seven of eight modes are missing: 0.875
    shown = run(site, "report", str(record), "-f", "one_line").stdout
    assert shown.startswith(f"COLLAPSED Collapse score {score:.2f}")
    assert "did you mean one_line" in run(site, "report", str(record), "-f", "one_lin").stderr


def plain_text(folder: Path) -> Path:
    """A generator of two numbers, as the example's own kind of file."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    rows = [
        f"{name} {'x'.join(map(str, entry.shape))} {' '.join(map(str, entry.flatten().tolist()))}"
        for name, entry in net.state_dict().items()
    ]
    (folder / "g.txt").write_text("\n".join(["weights in plain text", *rows, ""]))
    return folder / "g.txt"


def test_another_kind_of_file_is_read_by_the_plug_in_and_by_nothing_else(site: Path, tmp_path: Path) -> None:
    path = plain_text(tmp_path)
    done = run(site, "inspect", str(path), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["problem"] is None and '"mlp"' in done.stdout
    without = run(tmp_path, "inspect", str(path))
    assert without.returncode == 2 and "text file" in without.stdout + without.stderr


def test_the_example_keeps_every_contract(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(site))
    import gandiag_example as example

    (metric,) = testing.check_metric(example.MedianGap)
    assert metric.key == "median_gap"
    assert testing.check_features(example.corners).dim == 12
    testing.check_format(example.one_line)
    testing.check_gate_format(example.chat)
    testing.check_model(example.tiny)
    testing.check_remedy(example.SMOOTHING)
    testing.check_reader(example.PLAIN_TEXT, str(plain_text(tmp_path)))
    with pytest.raises(PluginError, match="takes a file that begins with"):
        greedy = type("Greedy", (), {"takes": lambda *_: True, "read": example.PLAIN_TEXT.read})()
        testing.check_reader(greedy, str(tmp_path / "g.txt"))


def test_what_is_built_in_keeps_them_too() -> None:
    for name in ("neighbours", "frechet", "kid", "vendi", "pairwise", "duplicates"):
        testing.check_metric(METRICS.get(name))
    for name in ("pixels", "color", "texture", "layout"):
        testing.check_features(EXTRACTORS.get(name), name=name)
    for name in ("text", "json", "markdown"):
        testing.check_format(FORMATS.get(name))
    for name in ("text", "junit", "github", "markdown"):
        testing.check_gate_format(GATE_FORMATS.get(name))


class Broken:
    """A metric with one thing wrong at a time."""

    def __init__(self, wrong: str) -> None:
        self.wrong, self.key, self.calls = wrong, "broken", 0

    def needs(self) -> Any:
        return [] if self.wrong == "needs" else {}

    def measure(self, results: Any) -> Any:
        self.calls += 1
        whole = Measurement(0.5, 0.4, 0.6, better="lower")
        found = {
            "nan": replace(whole, value=float("nan")),
            "order": replace(whole, low=0.7),
            "reason": replace(whole, value=None, status="error"),
            "better": replace(whole, better="up"),
            "twice": replace(whole, value=0.5 + self.calls / 100),
        }
        return 3 if self.wrong == "outcome" else MetricResult({"x": found.get(self.wrong, whole)})


@pytest.mark.parametrize("wrong", ["needs", "outcome", "nan", "order", "reason", "better", "twice"])
def test_a_metric_that_does_not_conform_is_told_why(wrong: str) -> None:
    testing.check_metric(lambda ask: [Broken("nothing")])
    with pytest.raises(PluginError, match="breaks its contract") as caught:
        testing.check_metric(lambda ask: [Broken(wrong)])
    assert caught.value.hint


class Pixels:
    name, dim, fingerprint = "x", 768, "x:1"

    def __init__(self, wrong: str) -> None:
        self.wrong, self.calls = wrong, 0
        self.dim = 5 if wrong == "dim" else 768
        self.fingerprint = "" if wrong == "fingerprint" else "x:1"

    def __call__(self, samples: Any, output: Any) -> Any:
        self.calls += 1
        flat = samples.flatten(1)
        if self.wrong == "input":
            samples += 1
        if self.wrong == "batch":
            return flat - flat.mean(0)
        wrong = {"double": flat.double(), "nan": flat / 0 * 0, "twice": flat + self.calls}
        return wrong.get(self.wrong, flat)


@pytest.mark.parametrize("wrong", ["dim", "fingerprint", "input", "batch", "double", "nan", "twice"])
def test_features_that_do_not_conform_are_told_why(wrong: str) -> None:
    testing.check_features(lambda request: Pixels("nothing"))
    with pytest.raises(PluginError, match="breaks its contract"):
        testing.check_features(lambda request: Pixels(wrong))


def test_formats_and_models_that_do_not_conform_are_told_why() -> None:
    for render in (lambda record: None, lambda record: "", lambda record: str(record.subject.get("path")) + "\x1b[31m"):
        with pytest.raises(PluginError):
            testing.check_format(render)
    with pytest.raises(PluginError, match="look alike"):
        testing.check_gate_format(lambda gated: "all is well")
    with pytest.raises(PluginError, match="Module"):
        testing.check_model(lambda: 3)
    with pytest.raises(PluginError, match="another network"):
        testing.check_model(lambda: nn.Linear(4, 1 + int(torch.randint(1_000_000, ()))))
    with pytest.raises(GandiagError, match="latent size"):
        testing.check_model(nn.ReLU)
    with pytest.raises(PluginError, match="Remedy"):
        testing.check_remedy("more data")
    with pytest.raises(AttributeError, match="no_such"):
        testing.no_such  # noqa: B018


def test_a_list_of_nothing_known_names_the_kinds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gandiag.cli.main import run_command_line as command

    assert command(["list", "metric"]) == 2 and "did you mean metrics" in capsys.readouterr().err
    assert command(["list", "rules"]) == 0
    out = capsys.readouterr().out
    assert "GD103" in out and "recall" not in out
    assert command(["list", "measurements"]) == 0 and "recall" in capsys.readouterr().out
