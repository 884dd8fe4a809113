"""Layering: imports point to lower layers, names come from leaf modules, torch-free modules stay torch-free."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Layer of every module, by the first part of its path below gandiag/. Imports across packages point to a lower layer;
# the modules of layer 0 may import each other.
LAYERS = {
    "": 0,
    "_moved": 0,
    "catalogue": 0,
    "config": 0,
    "data": 0,
    "errors": 0,
    "interfaces": 0,
    "keywords": 0,
    "protobuf": 0,
    "record": 0,
    "registry": 0,
    "untrusted": 0,
    "checkpoints": 1,
    "verdict": 1,
    "sampling": 2,
    "report": 2,
    "training_logs": 2,
    "features": 3,
    "stats": 3,
    "exhibits": 4,
    "metrics": 5,
    "probes": 5,
    "pipeline": 6,
    "api": 7,
    "monitor": 8,
    "trainer": 8,
    "integrations": 9,
    "testing": 9,
    "cli": 10,
    "__main__": 11,
}

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


def source_files() -> list[Path]:
    return sorted([*(ROOT / "gandiag").rglob("*.py"), *(ROOT / "cli").rglob("*.py")])


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = ("gandiag", *parts) if parts[0] == "cli" else parts
    return ".".join(parts).removesuffix(".__init__")


def package_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


@cache
def parse_module(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text())


def runtime_imports(module: str) -> set[str]:
    """Own modules imported anywhere at run time, inside functions too; TYPE_CHECKING blocks are ignored."""
    ignored: set[ast.AST] = set()
    for node in ast.walk(parse_module(module)):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            ignored |= {inner for statement in node.body for inner in ast.walk(statement)}
    imported: set[str] = set()
    for node in ast.walk(parse_module(module)):
        if node in ignored:
            continue
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = resolve_relative(module, node)
            imported |= {f"{base}.{alias.name}" for alias in node.names} | {base}
    return {name for name in imported if name.split(".")[0] == "gandiag"}


def resolve_relative(module: str, node: ast.ImportFrom) -> str:
    """The absolute name of what `from … import` imports from."""
    if not node.level:
        return node.module or ""
    n_up = node.level - (MODULES[module].name == "__init__.py")
    parents = module.split(".")[: len(module.split(".")) - n_up]
    return ".".join([*parents, *([node.module] if node.module else [])])


MODULES = {module_name(path): path for path in source_files()}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_down(module: str) -> None:
    here = package_of(module)
    for target in sorted(runtime_imports(module) & set(MODULES)):
        there = package_of(target)
        if there == here or target == "gandiag":
            continue
        assert LAYERS[there] < LAYERS[here] or LAYERS[there] == LAYERS[here] == 0, (
            f"{module} (layer {LAYERS[here]}) imports {target} (layer {LAYERS[there]})"
        )


@pytest.mark.parametrize("module", sorted(MODULES))
def test_packages_reexport_nothing(module: str) -> None:
    """Inside the package, names are imported from leaf modules, never from a package's __init__."""
    packages = {name for name, file in MODULES.items() if file.name == "__init__.py" and name != "gandiag"}
    for node in ast.walk(parse_module(module)):
        if isinstance(node, ast.ImportFrom) and not node.level and node.module in packages:
            for alias in node.names:
                assert f"{node.module}.{alias.name}" in MODULES, (
                    f"{module} imports {alias.name} from the package {node.module}"
                )


@pytest.mark.parametrize("module", TORCH_FREE)
def test_torch_free(module: str) -> None:
    heavy = {"torch", "matplotlib", "sklearn", "scipy"}
    code = f"import sys, {module}; loaded = {heavy!r} & set(sys.modules); sys.exit(f'{{loaded}}' if loaded else 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


def test_nothing_prints_below_the_command_line() -> None:
    for name in MODULES:
        if package_of(name) == "cli":
            continue
        calls = [node for node in ast.walk(parse_module(name)) if isinstance(node, ast.Call)]
        assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"], name


def test_pickles_are_never_loaded_by_accident() -> None:
    """Every torch.load passes weights_only, and nothing calls pickle directly."""
    for name in MODULES:
        for node in ast.walk(parse_module(name)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "pickle.load", "pickle.loads"):
                keywords = {keyword.arg for keyword in node.keywords}
                assert ast.unparse(node.func) == "torch.load" and "weights_only" in keywords, (
                    f"{name}: {ast.unparse(node)}"
                )


# Modules that may open files themselves, with the calls that do: own files, standard streams, streams already open.
_OPENING = (
    "open",
    "read_text",
    "read_bytes",
    "memmap",
    "mmap",
    "fromfile",
    "loadtxt",
    "genfromtxt",
    "TarFile",
    "h5open",
)
_STREAM_CALLS = ("ZipFile(stream)", "Image.open(stream,", "torch.load(stream,", "np.load(stream")
_OWN_CALLS = {
    "gandiag.untrusted.files": ("os.open(", "mmap.mmap(", "scratch.open("),
    "gandiag.checkpoints.onnx.child": ("open('/proc/self/statm'",),
    "gandiag.cli.main": ("open(os.devnull", "os.open(os.devnull"),
    "gandiag.cli.terminal_io": ("os.open(os.devnull",),
    "gandiag.cli.gate": ("open(path, 'a'",),  # the job summary of GitHub
    "gandiag.catalogue": ("file.read_text(",),  # package data
    "gandiag.verdict.nearest_baseline": ("file.read_text(",),
    "gandiag.features.imagenet": ("path.read_bytes(",),  # the weights of an installed package
    "gandiag.trainer.run_folder": ("os.open(", "scratch.open(", "file.open('a'"),
    "gandiag.testing.checkpoint_checks": ("Path(path).read_bytes(",),
    "gandiag.checkpoints.safe_pickle.opcodes": ("machine.read_bytes(",),
    "gandiag.sampling.arrays": ("stored.open(",),  # members of archives
    "gandiag.sampling.npy_files": ("archive.open(",),
    "gandiag.sampling.image_folders": ("self._zip.open(", "files.open(", "self.files.open(", "self._files.open("),
    "gandiag.sampling.audio_files": ("files.open(", "self.files.open("),
    "gandiag.sampling.tar_files": ("tarfile.open(fileobj=_BoundedReader(",),  # a stream of the one opener
    "gandiag.trainer.train": ("self.folder.open(",),
    "gandiag.training_logs.text_encoding": ("copy.open(",),  # a copy in a temporary folder
}


def test_files_are_opened_in_one_place() -> None:
    """`untrusted.files` refuses pipes, devices and files without end, so nothing else opens a file by its name."""
    for name in MODULES:
        imported = {
            alias.name
            for node in ast.walk(parse_module(name))
            if isinstance(node, ast.ImportFrom) and node.module == "gandiag.untrusted.files"
            for alias in node.names
        }
        for node in ast.walk(parse_module(name)):
            if not isinstance(node, ast.Call):
                continue
            text = ast.unparse(node)
            function = ast.unparse(node.func)
            opens = function.rsplit(".", 1)[-1] in _OPENING or function in ("zipfile.ZipFile", "np.load", "torch.load")
            if not opens or function in imported or "files('gandiag.data')" in function:
                continue
            own = _OWN_CALLS.get(name, ())
            is_trusted = function == "torch.load" and (
                "weights_only=False" in text or name.startswith("gandiag.features.")
            )
            assert (
                text.startswith(own)
                or any(call in text for call in _STREAM_CALLS)
                or is_trusted
                or (name == "gandiag.untrusted.files" and function in ("read_bytes", "read_text"))
            ), f"{name}: {text[:100]}"
