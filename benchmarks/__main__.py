"""Runs the script behind a speed or validity claim by name: `python -m benchmarks`, from the root of a checkout."""

from __future__ import annotations

import ast
import runpy
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIBRARIES = {
    "__main__",
    "kept_results",
    "sanity_checks",
    "sanity_criteria",
    "small_generators",
    "validity_auc",
    "validity_classes",
    "validity_cost",
    "validity_nulls",
    "validity_stability",
}
CHECKS = (
    ("ruff", "format", "--check", "."),
    ("ruff", "check", "."),
    ("mypy",),
    ("pytest", "-n", "2"),
)


def scripts() -> dict[str, Path]:
    """Command name -> file, for every script that is not a library of another."""
    return {path.stem.replace("_", "-"): path for path in sorted(HERE.glob("*.py")) if path.stem not in LIBRARIES}


def summary(path: Path) -> str:
    """The first line of a script's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]


def check() -> int:
    """Formatting, lint, types and tests: what CI runs. The first failure's exit code."""
    for command in CHECKS:
        print("$", *command, flush=True)
        code = subprocess.run([sys.executable, "-m", *command], cwd=HERE.parent, check=False).returncode
        if code:
            return code
    return 0


def main() -> int:
    known = scripts()
    name, *rest = sys.argv[1:] or [""]
    if name == "check":
        return check()
    if name not in known:
        print("usage: python -m benchmarks NAME [options]; NAME --help shows the options\n")
        print("  check                 formatting, lint, types and tests, as CI runs them")
        for key, path in known.items():
            print(f"  {key:20s}  {summary(path)}")
        return 0 if name in ("", "-h", "--help") else 2
    sys.argv = [f"python -m benchmarks {name}", *rest]
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    runpy.run_path(str(known[name]), run_name="__main__")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
