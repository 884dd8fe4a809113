"""Checks for plug-ins that read checkpoints; each raises a PluginError that names the broken rule.

check_loader(rebuild, "g.pth")  a rebuild(weights, config)                 entry point gandiag.loaders
check_reader(READER, "g.xyz")   a Reader of another file format            entry point gandiag.readers
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gandiag.checkpoints.architectures.base import RebuiltGenerator
from gandiag.checkpoints.inference.layer_list import ArchitectureMismatch
from gandiag.checkpoints.inference.sequential import SequentialSpec, build_sequential_generator
from gandiag.checkpoints.module_adapter import call_generator
from gandiag.checkpoints.plugin_readers import HEADER_BYTES, Reader
from gandiag.checkpoints.readers import read_checkpoint
from gandiag.checkpoints.state_dict import Weights, cast_to_float32, find_generator_weights
from gandiag.checkpoints.tensor_checks import check_tensors, iter_tensors
from gandiag.config import AuditConfig
from gandiag.errors import LoadError
from gandiag.testing.plugin_checks import require

MAX_SAMPLE_ERROR = 1e-4
OTHER_HEADERS = (b"PK\x03\x04" + bytes(60), b"\x80\x02}q\x00.", b"<html><body>", b"", bytes(HEADER_BYTES))


def check_loader(
    rebuild: Callable[..., Any],
    path: str,
    *,
    z: Tensor | None = None,
    labels: Tensor | None = None,
    samples: Tensor | None = None,
) -> None:
    """Check a family of checkpoints: it takes this file's weights, rejects others, and reproduces samples to 1e-4.

    z (B, *latent), labels (B,) and samples (B, *output) come from the family's own code; without them only the contract
    is checked.
    """
    weights = cast_to_float32(find_generator_weights(read_checkpoint(path).tree))
    rebuilt = rebuild(weights, AuditConfig())
    require(
        isinstance(rebuilt, (RebuiltGenerator, SequentialSpec)),
        f"rebuild returned a {type(rebuilt).__name__}",
        "return a RebuiltGenerator, or a SequentialSpec for a sequential network",
    )
    _check_rejection(rebuild, dict(list(weights.tensors.items())[1:]), "a tensor missing")
    _check_rejection(rebuild, {**weights.tensors, "gandiag.unexpected": torch.zeros(3, 3)}, "an unexpected tensor")
    module = (
        rebuilt.module
        if isinstance(rebuilt, RebuiltGenerator)
        else build_sequential_generator(rebuilt, rebuilt.default_activation, 1e-5)
    )
    is_frozen = not module.training and not any(parameter.requires_grad for parameter in module.parameters())
    require(is_frozen, "the network is in training mode", "end with architectures.base.load_strict")
    if isinstance(rebuilt, RebuiltGenerator) and z is not None and samples is not None:
        conditioning = rebuilt.condition, rebuilt.classes
        output = call_generator(module, z.reshape(len(z), *rebuilt.latent.shape), labels, conditioning)
        error = float((output - samples.reshape(output.shape)).abs().max())
        is_equal = error <= MAX_SAMPLE_ERROR
        require(is_equal, f"the samples differ from the given ones by up to {error:.2g}", "compare layer by layer")


def _check_rejection(rebuild: Callable[..., Any], tensors: dict[str, Tensor], defect: str) -> None:
    try:
        rebuild(Weights(tensors), AuditConfig())
    except ArchitectureMismatch:
        return
    require(
        False,
        f"rebuild accepts weights with {defect}",
        "raise ArchitectureMismatch unless every key is used (see architectures.base.load_strict)",
    )


def check_reader(reader: Any, path: str) -> None:
    """Check the reader of a file format.

    It must take this file, leave other formats alone, and give the same tensors twice.
    Damaged files (truncated, or with a byte changed) must raise LoadError or be read; no other exception is allowed.
    """
    require(
        isinstance(reader, Reader),
        f"it is a {type(reader).__name__} without takes() or read()",
        "see gandiag.checkpoints.plugin_readers.Reader",
    )
    content = Path(path).read_bytes()
    takes_file = bool(reader.takes(content[:HEADER_BYTES], Path(path)))
    require(takes_file, f"it does not take {Path(path).name}", "decide by the first bytes")
    for header in OTHER_HEADERS:
        require(
            not reader.takes(header, Path("other.pt")),
            f"it takes a file that begins with {header[:6]!r}",
            "look for the format's own first bytes",
        )
    first, second = (list(iter_tensors(reader.read(Path(path)))) for _ in range(2))
    require(any(tensor.ndim >= 2 for _, tensor in first), "it returned no weights", "return tensors by name")
    check_tensors(dict(first), 1 << 62)
    is_repeatable = [name for name, _ in first] == [name for name, _ in second] and all(
        torch.equal(a, b) for (_, a), (_, b) in zip(first, second, strict=True)
    )
    require(is_repeatable, "it returns different tensors the second time", "depend on the file alone")
    _check_damaged_files(reader, content, Path(path).name)


def _check_damaged_files(reader: Reader, content: bytes, name: str) -> None:
    damaged_contents = (
        content[: len(content) // 2],
        content[:HEADER_BYTES],
        content[:-1] + bytes([content[-1] ^ 0xFF]),
        content[:40] + b"\xff" + content[41:],
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        for damaged in damaged_contents:
            path.write_bytes(damaged)
            try:
                reader.read(path)
            except LoadError:
                continue
            except Exception as error:
                require(
                    False,
                    f"a damaged file raises {type(error).__name__}: {error}",
                    "raise LoadError with a sentence and a hint",
                )
