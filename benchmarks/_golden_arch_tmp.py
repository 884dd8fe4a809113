"""Freezes what gandiag reports for every fixture, and compares two such freezes: do the numbers stand after a
refactoring?

    python -m benchmarks golden freeze before/      audits, loss verdicts, inspections and loading specs of all fixtures
    python -m benchmarks golden freeze after/
    python -m benchmarks golden compare before/ after/

Numbers, keys, verdicts, kinds and rule codes must agree bit for bit on one machine; sentences may change. Exit code 1
if they differ. Takes about five minutes on two cores; `--only TEXT` restricts it to the cases whose name contains TEXT.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
FIXTURES = Path("fixtures")  # relative, so that records do not depend on where the checkout lies

# Strings that are data, not wording: compared like numbers.
EXACT = {
    "verdict",
    "kinds",
    "kind",
    "rule",
    "level",
    "status",
    "unit",
    "better",
    "schema",
    "basis",
    "prior",
    "axis",
    "format",
    "loader",
    "container",
    "condition",
    "sha256",
}
IGNORED = {"seconds", "versions", "generated", "time", "device_name", "threads"}
REAL = str(FIXTURES / "real.npz")
MODELS = ("collapsed.pt", "healthy.pt", "mode_dropping.pt", "scale_mismatched.pt", "training_state.pt")
RINGS = ("ring_healthy.pt", "ring_one_mode.safetensors")
FAMILIES = (
    "biggan",
    "ctgan.pt",
    "ddpm",
    "lightweight",
    "lightweight.safetensors",
    "lightweight_attention",
    "mimicry_cgan.pth",
    "mimicry_infomax.pth",
    "mimicry_sagan.pth",
    "mimicry_sngan.pth",
    "stylegan2",
    "torchgan_dcgan.model",
)


def cases() -> Iterator[tuple[str, list[str]]]:
    """Name and command line of every case; {spec} is replaced by a file to write."""
    for name in MODELS:
        yield f"audit-{name}", ["audit", str(FIXTURES / name), "--real", REAL, "-n", "300", "--json"]
        yield f"audit-alone-{name}", ["audit", str(FIXTURES / name), "-n", "200", "--json"]
    for name in RINGS:
        yield (
            f"audit-{name}",
            ["audit", str(FIXTURES / name), "--real", str(FIXTURES / "ring.npz"), "-n", "500", "--json"],
        )
    yield "audit-samples", ["audit", REAL, "--real", REAL, "-n", "300", "--json"]
    yield "audit-folders", ["audit", str(FIXTURES / "real_by_class"), "--json"]
    for name in FAMILIES:
        yield f"audit-{name}", ["audit", str(FIXTURES / "families" / name), "-n", "24", "--json"]
    for path in [
        *(FIXTURES / name for name in (*MODELS, *RINGS)),
        *(FIXTURES / "families" / name for name in FAMILIES),
    ]:
        yield f"inspect-{path.name}", ["inspect", str(path), "--json"]
        yield f"spec-{path.name}", ["audit", str(path), "--spec", "{spec}", "--dry-run"]
    for path in sorted((ROOT / FIXTURES / "logs").iterdir()):
        if path.suffix not in (".py", ".pyc") and path.name != "__pycache__":
            yield f"losses-{path.name}", ["losses", str(path.relative_to(ROOT)), "--json"]


def freeze(folder: Path, only: str) -> None:
    """Run every case and write its document, its exit code and its spec as one JSON file each."""
    from gandiag.cli.main import run_command_line as run

    os.chdir(ROOT)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["GANDIAG_CACHE"] = str(Path(scratch) / "cache")
        for name, argv in cases():
            if only not in name:
                continue
            spec = Path(scratch) / f"{name}.json"
            out = io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
                code = run([part.format(spec=spec) for part in argv])
            text = out.getvalue()
            document = json.loads(text) if text.startswith("{") else None
            settings = json.loads(spec.read_text()) if spec.exists() else None
            (folder / f"{name}.json").write_text(
                json.dumps({"exit": int(code), "document": document, "spec": settings}, indent=1)
            )
            print(name, int(code), flush=True)


def differences(before: Any, after: Any, where: str = "", exact: bool = False) -> Iterator[str]:
    """Where two documents differ in more than wording; keys that only `after` has are new and allowed inside
    assumptions.
    """
    if isinstance(before, dict) and isinstance(after, dict):
        for key in before.keys() | after.keys():
            if key in IGNORED:
                continue
            place = f"{where}.{key}"
            if key not in after:
                yield f"{place} is gone"
            elif key not in before:
                if ".assumptions" not in where:
                    yield f"{place} is new"
            else:
                yield from differences(
                    before[key], after[key], place, exact or key in EXACT or where.startswith(".spec")
                )
    elif isinstance(before, list) and isinstance(after, list):
        if len(before) != len(after):
            yield f"{where} has {len(after)} entries, not {len(before)}"
        for place, (one, other) in enumerate(zip(before, after, strict=False)):
            yield from differences(one, other, f"{where}[{place}]", exact)
    elif isinstance(before, str) and isinstance(after, str):
        embedded = len(before) > 200 and " " not in before  # an image in base64
        if (exact or embedded) and before != after:
            yield f"{where}: {before[:60]!r} -> {after[:60]!r}"
    elif before != after or type(before) is not type(after):
        yield f"{where}: {before!r} -> {after!r}"


def compare(before: Path, after: Path, only: str) -> int:
    """Print every difference; the number of cases that differ."""
    changed = 0
    names = [path.name for path in sorted(before.glob("*.json")) if only in path.name]
    for name in names:
        if not (after / name).exists():
            print(f"{name}: missing")
            changed += 1
            continue
        found = list(differences(json.loads((before / name).read_text()), json.loads((after / name).read_text())))
        changed += bool(found)
        for line in found[:8]:
            print(f"{name}{line}")
    print(f"{len(names)} cases, {changed} changed")
    return changed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("freeze", "compare"))
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    if given.action == "freeze":
        freeze(given.folders[0].resolve(), given.only)
    elif compare(*given.folders[:2], given.only):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
