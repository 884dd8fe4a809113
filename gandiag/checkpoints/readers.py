"""Reads a file of any supported type into nested dicts of checked tensors. Nothing in the file runs without `trust`.

`READERS` maps a file type to its reader; other types come from plug-ins (`plugin_readers.py`). Pickles are parsed by
`safe_pickle`; `torch.load` runs only under `trust`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn

from gandiag.checkpoints.file_type import (
    EXECUTABLE_KINDS,
    FileInfo,
    detect_file_type,
    format_sha256,
    list_zip_entries,
    trust_required_error,
    unsupported_file_error,
)
from gandiag.checkpoints.key_names import clean_text, first_line
from gandiag.checkpoints.plugin_readers import find_plugin_reader
from gandiag.checkpoints.safe_pickle.reader import PickleContents, parse_pickle
from gandiag.checkpoints.safe_pickle.tensors import build_tensor_tree
from gandiag.checkpoints.safetensors_header import read_header
from gandiag.checkpoints.tensor_checks import check_tensors, iter_tensors
from gandiag.checkpoints.torch_export import ExportedModule
from gandiag.errors import LoadError
from gandiag.registry import Registry
from gandiag.untrusted.files import MAX_COPIED_BYTES, hash_file, open_regular, read_bytes

if TYPE_CHECKING:
    from gandiag.checkpoints.architectures.base import RebuiltGenerator
    from gandiag.config import AuditConfig

READERS = Registry(
    "readers",
    {
        "torch-zip": "gandiag.checkpoints.readers:read_pickled",
        "torch-legacy": "gandiag.checkpoints.readers:read_pickled",
        "pickle": "gandiag.checkpoints.readers:read_pickled",
        "safetensors": "gandiag.checkpoints.readers:read_safetensors",
        "torchscript": "gandiag.checkpoints.readers:read_torchscript",
        "pt2": "gandiag.checkpoints.readers:read_exported",
        "numpy-weights": "gandiag.checkpoints.readers:read_numpy_weights",
        "onnx": "gandiag.checkpoints.onnx.program:read_onnx",
    },
)
_MAX_COMPRESSION = 50  # of an .npz: weights hardly shrink, unlike a bomb
_NO_SIZE_LIMIT = 1 << 62  # plug-in formats may compress their tensors


@dataclass(frozen=True, slots=True)
class FileContents:
    """Contents of a file.

    `tree`: nested containers of tensors and numbers, a `GeneratorProgram`, or (trusted) a module.

    `notes`: what the user should know. `keys_ordered`: keys are in registration order.
    """

    tree: Any
    loader: str
    sha256: str
    notes: tuple[str, ...] = ()
    keys_ordered: bool = True


@runtime_checkable
class GeneratorProgram(Protocol):
    """A generator whose whole computation is in the file, without code: an ONNX graph, a diffusers pipeline."""

    n_parameters: int

    def build_generator(self, config: AuditConfig, name: str, *, inspect_only: bool) -> RebuiltGenerator:
        """The generator under these settings. `inspect_only`: it will not be sampled, so nothing runs needlessly.

        LoadError if the program is not a generator.
        """
        ...


def read_checkpoint(path: str, *, trust: bool = False, compute_hash: bool = True) -> FileContents:
    """Read a file by the type its bytes show. LoadError if that would run code and `trust` is not given.

    Tensors are views of the file until copied. `compute_hash`: identify the file by its sha256, which reads all of it.
    """
    file_info = detect_file_type(path)
    sha256 = file_sha256(file_info) if compute_hash else ""
    if file_info.kind in EXECUTABLE_KINDS and not trust:
        raise trust_required_error(file_info, sha256)
    if (plugin := find_plugin_reader(file_info)) is not None:
        name, plugin_reader = plugin
        contents = FileContents(plugin_reader.read(file_info.path), name, sha256)
        check_tensors(contents.tree, _NO_SIZE_LIMIT)
        return contents
    if file_info.kind not in READERS:
        if file_info.kind not in EXECUTABLE_KINDS:
            raise unsupported_file_error(file_info)
        raise LoadError(
            f"{file_info.name} is {EXECUTABLE_KINDS[file_info.kind]}, which gandiag does not load",
            "audit its state dict instead",
        )
    reader: Callable[..., FileContents] = READERS.get(file_info.kind)
    contents = reader(file_info, trust=trust, sha256=sha256)
    check_tensors(contents.tree, file_info.size * (_MAX_COMPRESSION if file_info.kind == "numpy-weights" else 1))
    return contents


def file_sha256(file_info: FileInfo) -> str:
    """The file's sha256. Cost: one pass over it."""
    return hash_file(file_info.path)


def read_pickled(file_info: FileInfo, *, trust: bool, sha256: str) -> FileContents:
    """torch.save files and plain pickles, parsed without executing them; with `trust`, unpickled if they need code."""
    contents = parse_pickle(file_info)
    if trust and contents.unsafe_globals:
        note = f"code from the file ran, by --trust: {_join_names(contents.unsafe_globals)}"
        return FileContents(_unpickle(file_info), f"{file_info.kind} (trusted)", sha256, (note,))
    tree = build_tensor_tree(contents)
    code = (*contents.unsafe_globals, *contents.notes)
    if not code:
        return FileContents(tree, file_info.kind, sha256)
    if not any(tensor.ndim >= 2 for _, tensor in iter_tensors(tree)):
        raise unsafe_pickle_error(file_info, contents, sha256)
    note = f"the file contains code that was not run: {_join_names(code)}"
    return FileContents(tree, file_info.kind, sha256, (note,))


def unsafe_pickle_error(file_info: FileInfo, contents: PickleContents, sha256: str) -> LoadError:
    """The error for a pickle without readable weights, with every alternative to running its code."""
    if any(name.startswith("dnnlib.tflib.") for name in contents.unsafe_globals):
        return LoadError(
            f"{file_info.name} is a TensorFlow StyleGAN file, whose networks only its own code can build",
            "convert it with legacy.py of NVlabs/stylegan2-ada-pytorch, or audit a folder of its samples",
        )
    return LoadError(
        f"{file_info.name} needs {_join_names(contents.unsafe_globals)} to be unpickled, which would run code; refused",
        "save the weights alone with torch.save(model.state_dict(), ...), and give --model pkg.mod:factory if they "
        "cannot be rebuilt; export the generator; or, if you made this file or trust its author: "
        f"--trust{format_sha256(sha256)}",
    )


def _unpickle(file_info: FileInfo) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about changed sources; the user has vouched for the file
        try:
            return torch.load(file_info.path, map_location="cpu", weights_only=False)
        except (ImportError, AttributeError) as error:
            raise LoadError(
                f"{file_info.name} needs code that is not importable here: {first_line(error)}",
                "run gandiag where that code is on PYTHONPATH",
            ) from None
        except Exception as error:
            raise LoadError(
                f"{file_info.name} cannot be unpickled: {first_line(error)}", "check that it loads with torch.load"
            ) from None


def read_safetensors(file_info: FileInfo, *, trust: bool, sha256: str) -> FileContents:
    """safetensors, whatever the file's suffix. The format sorts its keys."""
    from safetensors.torch import load, load_file

    read_header(file_info.path)
    try:
        if file_info.size <= MAX_COPIED_BYTES:  # as for pickles: a map of a file that is cut short ends the process
            tree = load(read_bytes(file_info.path, MAX_COPIED_BYTES))
        else:
            tree = load_file(file_info.path, device="cpu")
    except Exception as error:
        # SafetensorError, and ValueError or KeyError if the header is JSON but not a table of tensors.
        raise LoadError(
            f"{file_info.name} is a damaged safetensors file: {first_line(error)}",
            "copy it again and compare the sizes",
        ) from None
    return FileContents(tree, "safetensors", sha256, keys_ordered=False)


def read_numpy_weights(file_info: FileInfo, *, trust: bool, sha256: str) -> FileContents:
    """A network's arrays in an .npz file, under the names of a state dict; objects in it are refused."""
    entries = list_zip_entries(file_info.path)
    if sum(entry.file_size for entry in entries) > _MAX_COMPRESSION * file_info.size:
        raise LoadError(f"{file_info.name} claims far more than it stores: malformed or hostile", "do not use it")
    try:
        with open_regular(file_info.path) as stream, np.load(stream, allow_pickle=False) as arrays:
            tree = {name: torch.from_numpy(np.asarray(arrays[name])) for name in arrays.files}
    except Exception as error:
        # BadZipFile, ValueError for objects, TypeError for numbers that torch does not have …
        raise LoadError(
            f"{file_info.name} cannot be read as arrays: {first_line(error)}", "save it again with np.savez"
        ) from None
    return FileContents(tree, "numpy", sha256)


def read_torchscript(file_info: FileInfo, *, trust: bool, sha256: str) -> FileContents:
    """A TorchScript program; requires `trust`."""
    load = partial(torch.jit.load, file_info.path, map_location="cpu")
    return _load_program(file_info, sha256, trust, load)


def read_exported(file_info: FileInfo, *, trust: bool, sha256: str) -> FileContents:
    """A torch.export program; requires `trust`."""
    return _load_program(file_info, sha256, trust, lambda: ExportedModule(torch.export.load(file_info.path)))


def _load_program(file_info: FileInfo, sha256: str, trust: bool, load: Callable[[], nn.Module]) -> FileContents:
    if not trust:
        raise trust_required_error(file_info, sha256)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit announces its deprecation
        try:
            module = load()
        except Exception as error:
            raise LoadError(
                f"{file_info.name} cannot be loaded: {first_line(error)}",
                f"it may need another version of torch: this is {torch.__version__}",
            ) from None
    note = f"code from the file ran, by --trust: {EXECUTABLE_KINDS[file_info.kind]}"
    return FileContents(module, f"{file_info.kind} (trusted)", sha256, (note,))


def _join_names(names: tuple[str, ...]) -> str:
    """The first three names, printable and at most 80 characters each."""
    if not names:
        return "its objects"
    shown = ", ".join(clean_text(name)[:80] for name in names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")
