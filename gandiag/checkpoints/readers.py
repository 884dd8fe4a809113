"""From a container to plain data: nested dicts of checked tensors. Nothing in the file runs without `trust`.

`READERS` maps a container's kind to its reader; other kinds come from plug-ins (`added`).
Pickles are read inertly (`inert.py`); `torch.load` runs only under `trust`.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gandiag.checkpoints.file_type import (
    EXECUTABLE_KINDS,
    FileInfo,
    detect_file_type,
    format_sha256,
    trust_required_error,
    unsupported_file_error,
)
from gandiag.checkpoints.plugin_readers import find_plugin_reader
from gandiag.checkpoints.safe_pickle.reader import PickleContents, parse_pickle
from gandiag.checkpoints.safe_pickle.tensors import build_tensor_tree
from gandiag.checkpoints.tensor_checks import check_tensors, iter_tensors
from gandiag.checkpoints.torch_export import ExportedModule
from gandiag.errors import LoadError
from gandiag.registry import Registry

READERS = Registry(
    "readers",
    {
        "torch-zip": "gandiag.checkpoints.readers:read_pickled",
        "torch-legacy": "gandiag.checkpoints.readers:read_pickled",
        "pickle": "gandiag.checkpoints.readers:read_pickled",
        "safetensors": "gandiag.checkpoints.readers:read_safetensors",
        "torchscript": "gandiag.checkpoints.readers:read_torchscript",
        "pt2": "gandiag.checkpoints.readers:read_exported",
        "onnx": "gandiag.checkpoints.onnx.program:read_onnx",
    },
)


@dataclass(frozen=True, slots=True)
class FileContents:
    """What a file held. `tree`: nested containers of tensors and numbers, or (trusted) a module. `notes`: for the reader."""

    tree: Any
    loader: str
    sha256: str
    notes: tuple[str, ...] = ()
    keys_ordered: bool = True  # keys in the order of registration


def read_checkpoint(path: str, *, trust: bool = False, compute_hash: bool = True) -> FileContents:
    """Read a file by what its bytes say. LoadError if that needs code to run and `trust` is not given.

    Tensors are views of the file until they are copied. `hashed`: name the file by its sha256, which reads all of it.
    """
    container = detect_file_type(path)
    sha256 = file_sha256(container) if compute_hash else ""
    if container.kind in EXECUTABLE_KINDS and not trust:
        raise trust_required_error(container, sha256)
    if (added := find_plugin_reader(container)) is not None:
        content = FileContents(added[1].read(container.path), added[0], sha256)
        check_tensors(content.tree, 1 << 62)  # how it packs them is its own affair
        return content
    if container.kind not in READERS:
        raise (
            unsupported_file_error(container)
            if container.kind not in EXECUTABLE_KINDS
            else LoadError(
                f"{container.name} is {EXECUTABLE_KINDS[container.kind]}, which gandiag does not load",
                "audit its state dict instead",
            )
        )
    reader: Callable[..., FileContents] = READERS.get(container.kind)
    content = reader(container, trust=trust, sha256=sha256)
    check_tensors(content.tree, container.size)
    return content


def file_sha256(file_info: FileInfo) -> str:
    """The file's sha256. Cost: one pass over it."""
    with file_info.path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_pickled(file_info: FileInfo, *, trust: bool, sha256: str) -> FileContents:
    """torch.save files and plain pickles, by the inert reader; with `trust`, files that need code are unpickled."""
    found = parse_pickle(file_info)
    if trust and found.unsafe_globals:
        return FileContents(
            _unpickle(file_info),
            f"{file_info.kind} (trusted)",
            sha256,
            (f"code from the file ran, by --trust: {_few(found.unsafe_globals)}",),
        )
    tree = build_tensor_tree(found)
    code = (*found.unsafe_globals, *found.notes)
    if not code:
        return FileContents(tree, file_info.kind, sha256)
    if not any(tensor.ndim >= 2 for _, tensor in iter_tensors(tree)):
        raise unsafe_pickle_error(file_info, found, sha256)
    return FileContents(tree, file_info.kind, sha256, (f"the file contains code that was not run: {_few(code)}",))


def unsafe_pickle_error(file_info: FileInfo, contents: PickleContents, sha256: str) -> LoadError:
    """The refusal of a file that holds no weights beside its code, with every way around."""
    if any(name.startswith("dnnlib.tflib.") for name in contents.unsafe_globals):
        what = f"{file_info.name} is a TensorFlow StyleGAN file, whose networks only its own code can build"
        return LoadError(
            what, "convert it with legacy.py of NVlabs/stylegan2-ada-pytorch, or audit a folder of its samples"
        )
    return LoadError(
        f"{file_info.name} needs {_few(contents.unsafe_globals)} to be unpickled, which would run code; refused",
        "save the weights alone, torch.save(model.state_dict(), ...), and give --model pkg.mod:factory where they cannot be rebuilt; "
        f"export the generator; or, if you made this file or trust its author: --trust{format_sha256(sha256)}",
    )


def _unpickle(container: FileInfo) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pickled modules warn about changed sources; the user has vouched for the file
        try:
            return torch.load(container.path, map_location="cpu", weights_only=False)
        except (ImportError, AttributeError) as missing:
            what = f"{container.name} needs code that is not importable here: {_first_line(missing)}"
            raise LoadError(what, "run gandiag where that code is on PYTHONPATH") from None
        except Exception as broken:
            raise LoadError(
                f"{container.name} cannot be unpickled: {_first_line(broken)}", "check that it loads with torch.load"
            ) from None


def read_safetensors(file_info: FileInfo, *, trust: bool, sha256: str) -> FileContents:
    """safetensors, whatever the file is called. The format sorts its keys."""
    from safetensors.torch import load_file

    try:
        tree = load_file(file_info.path, device="cpu")
    except Exception as broken:
        # SafetensorError, and ValueError or KeyError for headers that are JSON but no table of tensors.
        raise LoadError(
            f"{file_info.name} is a damaged safetensors file: {_first_line(broken)}",
            "copy it again and compare the sizes",
        ) from None
    return FileContents(tree, "safetensors", sha256, keys_ordered=False)


def read_torchscript(file_info: FileInfo, *, trust: bool, sha256: str) -> FileContents:
    """A TorchScript program; only ever reached with `trust`."""
    return _program(file_info, sha256, trust, lambda: torch.jit.load(file_info.path, map_location="cpu"))  # type: ignore[no-untyped-call]


def read_exported(file_info: FileInfo, *, trust: bool, sha256: str) -> FileContents:
    """A torch.export program; only ever reached with `trust`."""
    return _program(file_info, sha256, trust, lambda: ExportedModule(torch.export.load(file_info.path)))


def _program(container: FileInfo, sha256: str, trust: bool, load: Callable[[], nn.Module]) -> FileContents:
    if not trust:
        raise trust_required_error(container, sha256)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit announces its deprecation
        try:
            module = load()
        except Exception as broken:
            raise LoadError(
                f"{container.name} cannot be loaded: {_first_line(broken)}",
                "check that it loads with this version of torch",
            ) from None
    return FileContents(
        module,
        f"{container.kind} (trusted)",
        sha256,
        (f"code from the file ran, by --trust: {EXECUTABLE_KINDS[container.kind]}",),
    )


def _few(names: tuple[str, ...]) -> str:
    shown = ", ".join("".join(c if c.isprintable() else "?" for c in name)[:80] for name in names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "") if names else "its objects"


def _first_line(problem: Exception) -> str:
    text = str(problem).strip().splitlines()
    return text[0][:160] if text else type(problem).__name__
