"""The house keeps its floors: imports point down, leaf modules only, and what is torch-free stays torch-free."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Layer of every module, by the first part of its path below gandiag/; imports point from higher to lower numbers.
FLOOR = {
    "errors": 0.0,
    "registry": 0.0,
    "interfaces": 0.0,
    "record": 0.0,
    "config": 0.0,
    "catalogue": 0.0,
    "protobuf": 0.0,
    "data": 0.0,
    "": 0.0,
    "checkpoints": 1.0,
    "sampling": 1.1,
    "features": 1.2,
    "stats": 1.3,
    "exhibits": 1.4,
    "verdict": 1.0,
    "report": 1.0,
    "training_logs": 1.0,
    "metrics": 2.0,
    "probes": 2.0,
    "pipeline": 3.0,
    "api": 4.0,
    "trainer": 5.1,
    "testing": 5.2,
    "monitor": 5.1,
    "integrations": 5.2,
    "_moved": 0.0,
    "cli": 6.0,
    "__main__": 7.0,
}
SAME_FLOOR_APART = {"verdict", "report", "training_logs", "checkpoints"}

TORCH_FREE = (
    "gandiag",
    "gandiag.errors",
    "gandiag.registry",
    "gandiag.interfaces",
    "gandiag.record",
    "gandiag.config",
    "gandiag.catalogue",
    "gandiag.verdict.judge",
    "gandiag.report.terminal",
    "gandiag.checkpoints.file_type",
    "gandiag.checkpoints.safe_pickle.reader",
    "gandiag.checkpoints.safe_pickle.modules",
    "gandiag.checkpoints.summary",
    "gandiag.cli.inspect",
    "gandiag.cli.main",
    "gandiag.cli.audit",
    "gandiag.cli.report",
    "gandiag.cli.explain",
    "gandiag.cli.train",
    "gandiag.cli.bank",
    "gandiag.verdict.nearest_baseline",
    "gandiag.checkpoints.metadata",
    "gandiag.training_logs.analysis",
    "gandiag.cli.losses",
    "gandiag.cli.gate",
    "gandiag.cli.compare",
    "gandiag.report.gate_junit",
    "gandiag.report.gate_github",
    "gandiag.report.markdown",
    "gandiag.verdict.compare",
    "gandiag.cli.selftest",
    "gandiag.report.selftest",
)


def sources() -> list[Path]:
    return sorted([*(ROOT / "gandiag").rglob("*.py"), *(ROOT / "cli").rglob("*.py")])


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = ("gandiag", *parts) if parts[0] == "cli" else parts
    return ".".join(parts).removesuffix(".__init__")


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def runtime_imports(tree: ast.Module, module: str, is_package: bool) -> set[str]:
    """Modules of ours that are imported anywhere at run time, inside functions too; TYPE_CHECKING blocks do not count."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = [ast.Pass()]
    found: set[str] = set()
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                stem = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*stem, *([base] if base else [])])
            found |= {f"{base}.{alias.name}" for alias in node.names} | {base}
    return {name for name in found if name.split(".")[0] == "gandiag"}


MODULES = {dotted(path): path for path in sources()}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_down(module: str) -> None:
    path = MODULES[module]
    here = room(module)
    for target in sorted(
        runtime_imports(ast.parse(path.read_text()), module, path.name == "__init__.py") & set(MODULES)
    ):
        there = room(target)
        if there == here or target == "gandiag":
            continue
        assert FLOOR[there] <= FLOOR[here], (
            f"{module} [{FLOOR[here]}] imports {target} [{FLOOR[there]}] from a higher floor"
        )
        assert FLOOR[there] < FLOOR[here] or here not in SAME_FLOOR_APART or here == "report", (
            f"{module} imports its neighbour {target}"
        )


@pytest.mark.parametrize("module", sorted(MODULES))
def test_packages_hand_nothing_on(module: str) -> None:
    """Names come from leaf modules: nobody inside imports a name from a package's __init__."""
    path = MODULES[module]
    packages = {name for name, file in MODULES.items() if file.name == "__init__.py" and name != "gandiag"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and not node.level and node.module in packages:
            for alias in node.names:
                assert f"{node.module}.{alias.name}" in MODULES, (
                    f"{module} takes {alias.name} from the package {node.module}"
                )


@pytest.mark.parametrize("module", TORCH_FREE)
def test_torch_free(module: str) -> None:
    code = f"import sys, {module}; bad = {{'torch', 'matplotlib', 'sklearn', 'scipy'}} & set(sys.modules); sys.exit(f'{{bad}}' if bad else 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


def test_nothing_prints_below_the_command_line() -> None:
    for name, path in MODULES.items():
        if room(name) == "cli":
            continue
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"], name


def test_pickles_are_never_loaded_by_accident() -> None:
    """Every torch.load says weights_only; False only in the file that --trust leads to."""
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "pickle.load", "pickle.loads"):
                said = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert ast.unparse(node.func) == "torch.load" and "weights_only" in said, f"{name}: {ast.unparse(node)}"
