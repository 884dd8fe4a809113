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

from gandiag.errors import LoadError
from gandiag.load.added import reader_for
from gandiag.load.checks import check_tensors, tensors_in
from gandiag.load.containers import RUNS_CODE, Container, named, needs_trust, refusal, sniff
from gandiag.load.exported import Exported
from gandiag.load.inert import Reading, read_pickle
from gandiag.load.materialise import materialise
from gandiag.registry import Registry

READERS = Registry("readers", {
    "torch-zip": "gandiag.load.read:read_pickled",
    "torch-legacy": "gandiag.load.read:read_pickled",
    "pickle": "gandiag.load.read:read_pickled",
    "safetensors": "gandiag.load.read:read_safetensors",
    "torchscript": "gandiag.load.read:read_torchscript",
    "pt2": "gandiag.load.read:read_exported",
    "onnx": "gandiag.load.onnx_program:read_onnx",
})


@dataclass(frozen=True, slots=True)
class Content:
    """What a file held. `tree`: nested containers of tensors and numbers, or (trusted) a module. `notes`: for the reader."""

    tree: Any
    loader: str
    sha256: str
    notes: tuple[str, ...] = ()
    ordered: bool = True  # keys in the order of registration


def read(path: str, *, trust: bool = False, hashed: bool = True) -> Content:
    """Read a file by what its bytes say. LoadError if that needs code to run and `trust` is not given.

    Tensors are views of the file until they are copied. `hashed`: name the file by its sha256, which reads all of it.
    """
    container = sniff(path)
    sha256 = digest(container) if hashed else ""
    if container.kind in RUNS_CODE and not trust:
        raise needs_trust(container, sha256)
    if (added := reader_for(container)) is not None:
        content = Content(added[1].read(container.path), added[0], sha256)
        check_tensors(content.tree, 1 << 62)  # how it packs them is its own affair
        return content
    if container.kind not in READERS:
        raise refusal(container) if container.kind not in RUNS_CODE else LoadError(
            f"{container.name} is {RUNS_CODE[container.kind]}, which gandiag does not load", "audit its state dict instead")
    reader: Callable[..., Content] = READERS.get(container.kind)
    content = reader(container, trust=trust, sha256=sha256)
    check_tensors(content.tree, container.size)
    return content


def digest(container: Container) -> str:
    """The file's sha256. Cost: one pass over it."""
    with container.path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_pickled(container: Container, *, trust: bool, sha256: str) -> Content:
    """torch.save files and plain pickles, by the inert reader; with `trust`, files that need code are unpickled."""
    found = read_pickle(container)
    if trust and found.foreign:
        return Content(_unpickle(container), f"{container.kind} (trusted)", sha256, (f"code from the file ran, by --trust: {_few(found.foreign)}",))
    tree = materialise(found)
    code = (*found.foreign, *found.notes)
    if not code:
        return Content(tree, container.kind, sha256)
    if not any(tensor.ndim >= 2 for _, tensor in tensors_in(tree)):
        raise pickled_code(container, found, sha256)
    return Content(tree, container.kind, sha256, (f"the file contains code that was not run: {_few(code)}",))


def pickled_code(container: Container, found: Reading, sha256: str) -> LoadError:
    """The refusal of a file that holds no weights beside its code, with every way around."""
    if any(name.startswith("dnnlib.tflib.") for name in found.foreign):
        what = f"{container.name} is a TensorFlow StyleGAN file, whose networks only its own code can build"
        return LoadError(what, "convert it with legacy.py of NVlabs/stylegan2-ada-pytorch, or audit a folder of its samples")
    return LoadError(
        f"{container.name} needs {_few(found.foreign)} to be unpickled, which would run code; refused",
        "save the weights alone, torch.save(model.state_dict(), ...), and give --model pkg.mod:factory where they cannot be rebuilt; "
        f"export the generator; or, if you made this file or trust its author: --trust{named(sha256)}",
    )


def _unpickle(container: Container) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pickled modules warn about changed sources; the user has vouched for the file
        try:
            return torch.load(container.path, map_location="cpu", weights_only=False)
        except (ImportError, AttributeError) as missing:
            what = f"{container.name} needs code that is not importable here: {_first_line(missing)}"
            raise LoadError(what, "run gandiag where that code is on PYTHONPATH") from None
        except Exception as broken:
            raise LoadError(f"{container.name} cannot be unpickled: {_first_line(broken)}", "check that it loads with torch.load") from None


def read_safetensors(container: Container, *, trust: bool, sha256: str) -> Content:
    """safetensors, whatever the file is called. The format sorts its keys."""
    from safetensors.torch import load_file

    try:
        tree = load_file(container.path, device="cpu")
    except Exception as broken:
        # SafetensorError, and ValueError or KeyError for headers that are JSON but no table of tensors.
        raise LoadError(f"{container.name} is a damaged safetensors file: {_first_line(broken)}", "copy it again and compare the sizes") from None
    return Content(tree, "safetensors", sha256, ordered=False)


def read_torchscript(container: Container, *, trust: bool, sha256: str) -> Content:
    """A TorchScript program; only ever reached with `trust`."""
    return _program(container, sha256, trust, lambda: torch.jit.load(container.path, map_location="cpu"))  # type: ignore[no-untyped-call]


def read_exported(container: Container, *, trust: bool, sha256: str) -> Content:
    """A torch.export program; only ever reached with `trust`."""
    return _program(container, sha256, trust, lambda: Exported(torch.export.load(container.path)))


def _program(container: Container, sha256: str, trust: bool, load: Callable[[], nn.Module]) -> Content:
    if not trust:
        raise needs_trust(container, sha256)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit announces its deprecation
        try:
            module = load()
        except Exception as broken:
            raise LoadError(f"{container.name} cannot be loaded: {_first_line(broken)}", "check that it loads with this version of torch") from None
    return Content(module, f"{container.kind} (trusted)", sha256, (f"code from the file ran, by --trust: {RUNS_CODE[container.kind]}",))


def _few(names: tuple[str, ...]) -> str:
    shown = ", ".join("".join(c if c.isprintable() else "?" for c in name)[:80] for name in names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "") if names else "its objects"


def _first_line(problem: Exception) -> str:
    text = str(problem).strip().splitlines()
    return text[0][:160] if text else type(problem).__name__
