"""The release workflow: it parses, its parts fit together, and its lines are what a shell understands."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
yaml = pytest.importorskip("yaml")


@pytest.fixture(scope="module")
def workflow() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    return document


def steps(workflow: dict[str, Any], job: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = workflow["jobs"][job]["steps"]
    return found


def shell_lines(workflow: dict[str, Any]) -> str:
    return "\n".join(step["run"] for job in workflow["jobs"] for step in steps(workflow, job) if "run" in step)


def test_a_tag_starts_it_and_only_publishing_has_an_identity(workflow: dict[str, Any]) -> None:
    assert workflow[True] == {"push": {"tags": ["v*"]}}  # YAML reads the key `on` as true
    rights = {name: job["permissions"] for name, job in workflow["jobs"].items()}
    assert workflow["permissions"] == {} and rights == {"build": {"contents": "read"}, "publish": {"id-token": "write"}}
    publish = workflow["jobs"]["publish"]
    assert publish["needs"] == "build" and publish["environment"] == "pypi"
    assert all("run" not in step and "checkout" not in step["uses"] for step in publish["steps"])
    assert "secrets." not in str(workflow) and "password" not in str(workflow)


def test_what_is_published_is_what_was_built_and_checked(workflow: dict[str, Any]) -> None:
    lines = shell_lines(workflow)
    order = [lines.index(part) for part in ("-m build", "twine check", ".ci/run", "pip_audit", "cyclonedx_py")]
    assert order == sorted(order) and (ROOT / ".ci" / "run").exists()
    made = {step["with"]["name"]: step["with"] for step in steps(workflow, "build") if "upload" in step.get("uses", "")}
    taken = next(step["with"] for step in steps(workflow, "publish") if "download" in step["uses"])
    assert set(made) == {"dist", "sbom"} and made[taken["name"]]["path"] == taken["path"]
    assert all(entry["if-no-files-found"] == "error" for entry in made.values())


def test_the_lines_are_valid_shell(workflow: dict[str, Any]) -> None:
    done = subprocess.run(["bash", "-n"], input=shell_lines(workflow), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("is_right", [True, False])
def test_a_tag_of_another_version_stops_it(is_right: bool, workflow: dict[str, Any], tmp_path: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    step = next(step for step in steps(workflow, "build") if "tag" in step.get("name", ""))
    (tmp_path / "python").symlink_to(sys.executable)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    env["GITHUB_REF_NAME"] = f"v{version}" if is_right else "v999.0"
    done = subprocess.run(["bash", "-eo", "pipefail", "-c", step["run"]], cwd=ROOT, env=env, check=False)
    assert (done.returncode == 0) is is_right
