"""The recipes for CI, run: every shell line of the action, of the three recipes and of the hook, as those systems would
run it.

The one line that is not run is `pip install`: the checkout stands in for what it would install.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import records

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "fixtures"
yaml = pytest.importorskip("yaml")


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A repository with a collapsed generator, its data and a policy, and `gandiag` and `pip` on the path."""
    shutil.copy(FIXTURES / "ring_one_mode.safetensors", tmp_path / "generator.pt")
    (tmp_path / "data").mkdir()
    shutil.copy(FIXTURES / "ring.npz", tmp_path / "data.npz")
    (tmp_path / "gandiag.toml").write_text("[audit]\nn = 400\n\n[gate]\nmax-score = 0.2\n")
    (tmp_path / "bin").mkdir()
    for name, line in {
        "gandiag": f'exec "{sys.executable}" -m gandiag "$@"',
        "pip": "exit 0",
        "python3": f'exec "{sys.executable}" "$@"',
    }.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def shell(script: str, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """As CI runs it: bash, stopping at the first failure."""
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environ}
    return subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def healed(lines: list[str]) -> str:
    """The recipe's lines; its image folder is an array here."""
    return "\n".join(lines).replace("--real data/", "--real data.npz")


@cache
def recipe(name: str) -> Any:
    return yaml.safe_load((ROOT / "docs" / "ci" / name).read_text())


def test_the_github_recipe_fails_on_a_collapsed_generator_and_says_why(job: Path) -> None:
    steps = [step["run"] for step in recipe("github.yml")["jobs"]["gate"]["steps"] if "run" in step]
    done = shell(healed(steps), job, GITHUB_STEP_SUMMARY=str(job / "summary.md"))
    assert done.returncode == 1, done.stderr
    assert "::error file=gandiag.toml,line=5,title=audit.gandiag.json%3A score::score is" in done.stdout
    assert "GD101" in (job / "summary.md").read_text() and (job / "report.html").is_file()


@pytest.mark.slow
def test_the_gitlab_recipe_leaves_a_junit_report(job: Path) -> None:
    done = shell(healed(recipe("gitlab.yml")["gandiag"]["script"]), job)
    assert done.returncode == 1, done.stderr
    report = recipe("gitlab.yml")["gandiag"]["artifacts"]["reports"]["junit"]
    assert ET.parse(job / report).getroot().get("failures") == "1"


@pytest.mark.slow
def test_the_jenkins_recipe_tells_thin_evidence_from_a_violation(job: Path) -> None:
    lines = re.findall(
        r"sh(?:\(returnStatus: true, script:)? '([^']*)'", (ROOT / "docs" / "ci" / "Jenkinsfile").read_text()
    )
    assert len(lines) == 3
    assert shell(healed(lines), job).returncode == 1
    for name, code, errors in (("inconclusive", 3, "1"), ("healthy", 0, "0")):
        records.ALL[name]().write(job / "audit.gandiag.json")
        assert shell(lines[-1], job).returncode == code and ET.parse(job / "gate.xml").getroot().get("errors") == errors


def action(job: Path, **inputs: str) -> subprocess.CompletedProcess[str]:
    """The steps of action.yml with these inputs, each as GitHub's runner would start it."""
    document = yaml.safe_load((ROOT / "action.yml").read_text())
    values = {name: entry.get("default", "") for name, entry in document["inputs"].items()} | inputs
    output = job / "output"
    done: subprocess.CompletedProcess[str] | None = None
    for step in document["runs"]["steps"]:
        assert step["shell"] == "bash" and "${{" not in step["run"], "an input inside a script would be run"
        if "pip install" in step["run"] and values["install"] in ("records", "checkpoints"):
            continue
        environ = {
            name: re.sub(r"\$\{\{ inputs\.(\w+) \}\}", lambda found: values[found[1]], text)
            for name, text in step["env"].items()
        }
        done = shell(
            step["run"], job, GITHUB_OUTPUT=str(output), GITHUB_STEP_SUMMARY=str(job / "summary.md"), **environ
        )
        if done.returncode:
            break
    assert done is not None
    return done


def test_the_action_keeps_the_exit_code_and_runs_nothing_of_its_inputs(job: Path) -> None:
    records.healthy().write(job / "a.json")
    records.collapsed().write(job / "b c.json")
    done = action(job, subjects="a.json")
    assert done.returncode == 0 and (job / "output").read_text() == "code=0\n", done.stderr
    done = action(job, subjects="*.json", args="--max-score 0.3", policy="gandiag.toml")
    assert done.returncode == 1 and (job / "output").read_text().endswith("code=1\n") and "b c.json" in done.stdout
    assert action(job, subjects="a.json; touch owned $(touch owned)").returncode == 2 and not (job / "owned").exists()
    assert action(job, subjects="a.json", install="all").returncode == 2


def test_the_hook_judges_the_records_that_are_committed(job: Path) -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert {"id", "name", "entry", "language", "files"} <= hook.keys()
    records.healthy().write(job / "audit.gandiag.json")
    names = [path.name for path in job.iterdir() if re.search(hook["files"], path.name)]
    assert names == ["audit.gandiag.json"]
    assert shell(f"{hook['entry']} {' '.join(names)}", job).returncode == 0
    records.collapsed().write(job / "audit.gandiag.json")
    assert shell(f"{hook['entry']} {' '.join(names)}", job).returncode == 1


def test_the_hook_in_the_real_pre_commit(job: Path) -> None:
    if shutil.which("pre-commit") is None:
        pytest.skip("pre-commit is not installed")
    hooks = job / "hooks"
    hooks.mkdir()
    shutil.copy(ROOT / ".pre-commit-hooks.yaml", hooks)
    git = "git -c user.name=x -c user.email=x@example.org"
    records.collapsed().write(job / "audit.gandiag.json")
    hook_commit = f"cd hooks && git init -q && git add . && {git} commit -qm hooks && cd .."
    made = f"{hook_commit} && git init -q && git add audit.gandiag.json"
    assert shell(made, job).returncode == 0
    done = shell("pre-commit try-repo ./hooks gandiag-gate --all-files", job, PRE_COMMIT_HOME=str(job / "cache"))
    assert done.returncode == 1 and "COLLAPSED" in done.stdout and "must be below" in done.stdout, (
        done.stdout + done.stderr
    )
