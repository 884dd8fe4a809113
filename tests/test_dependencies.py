"""What pyproject.toml declares is what the code imports: nothing missing, nothing left over."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Distributions whose import has another name.
IMPORT_NAMES = {
    "huggingface-hub": "huggingface_hub",
    "markdown-it-py": "markdown_it",
    "pillow": "PIL",
    "pytest-xdist": "xdist",
    "pytorch-ignite": "ignite",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
}
# Used where they are installed, and never required.
USED_IF_INSTALLED = {"charset_normalizer", "pytorch_lightning", "IPython"}
TESTED_IF_INSTALLED = {"accelerate", "mkdocs", "mlflow", "polars", "setuptools", "tensorboard"}
# Extras for people who work on gandiag.
DEVELOPMENT_EXTRAS = ("test", "dev")
RUN_AS_COMMANDS = {"ruff", "mypy", "xdist"}
LOCAL = {"gandiag", "cli", "benchmarks"}


def import_name(requirement: str) -> str:
    """ "scikit-learn>=1.5" -> sklearn."""
    name = re.split(r"[\s<>=!~\[;]", requirement, maxsplit=1)[0].lower().replace("_", "-")
    return IMPORT_NAMES.get(name, name.replace("-", "_"))


def declared(*extras: str) -> set[str]:
    """Import names of the base requirements, or of extras."""
    optional = PROJECT["optional-dependencies"]
    rows = [row for extra in extras for row in optional[extra]] if extras else PROJECT["dependencies"]
    return {import_name(row) for row in rows}


@cache
def imported_packages(*folders: str) -> dict[str, str]:
    """Third-party package -> one file that imports it, anywhere in the file, optional imports included."""
    found: dict[str, str] = {}
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    names = [node.module]
                if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "importorskip":
                    names = [str(part.value) for part in node.args[:1] if isinstance(part, ast.Constant)]
                for name in {name.split(".")[0] for name in names} - sys.stdlib_module_names - LOCAL:
                    found.setdefault(name, str(path.relative_to(ROOT)))
    return found


def runtime_extras() -> list[str]:
    return [extra for extra in PROJECT["optional-dependencies"] if extra not in DEVELOPMENT_EXTRAS]


def test_every_import_is_declared() -> None:
    imported = imported_packages("gandiag", "cli")
    allowed = declared() | declared(*runtime_extras()) | USED_IF_INSTALLED | {"pytest"}  # which loads the plug-in
    missing = {name: path for name, path in imported.items() if name not in allowed}
    assert not missing, f"imported, and declared nowhere in pyproject.toml: {missing}"


def test_every_declared_package_is_imported() -> None:
    unused = (declared() | declared(*runtime_extras())) - set(imported_packages("gandiag", "cli"))
    assert not unused, f"declared in pyproject.toml, and imported nowhere: {unused}"


@pytest.mark.parametrize("extra", runtime_extras())
def test_what_an_extra_brings_is_not_required_anyway(extra: str) -> None:
    assert not declared(extra) & declared()


def test_the_tests_import_what_the_test_extra_brings() -> None:
    helpers = [
        *(ROOT / "tests").rglob("*.py"),
        *(ROOT / "docs").glob("*.py"),
        *(ROOT / "benchmarks").rglob("*.py"),
        *(ROOT / "fixtures").rglob("*.py"),
    ]
    local = {path.stem for path in helpers} | {path.name for path in (ROOT / "tests").rglob("*") if path.is_dir()}
    imported = set(imported_packages("tests")) - local
    available = declared() | declared("test")
    missing = imported - available - declared(*runtime_extras()) - TESTED_IF_INSTALLED
    assert not missing, f"imported by tests, and not in the extra test: {missing}"
    unused = declared("test") - imported - declared(*runtime_extras()) - RUN_AS_COMMANDS
    assert not unused, f"in the extra test, and not imported by tests: {unused}"


def test_every_package_is_in_the_wheel() -> None:
    """A checkout finds packages that a wheel would lack: each must be listed."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = set(document["tool"]["setuptools"]["packages"])
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "gandiag").rglob("*.py")}
    assert found | {"gandiag.cli"} == listed
