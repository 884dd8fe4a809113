"""Rejects tensors larger than their storage before anything is computed: a kilobyte of file can declare terabytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gandiag.checkpoints.safe_pickle.nodes import format_bytes
from gandiag.errors import LoadError

_MAX_DEPTH = 12


def check_tensors(tree: Any, file_size: int) -> None:
    """LoadError for a tensor that is not dense, not on the CPU, or larger than what the file stores for it.

    Stride-0 tensors, meta tensors and sparse layouts load without error, then fail or exhaust memory at first use.
    """
    for name, tensor in iter_tensors(tree):
        problem = _find_problem(tensor, file_size)
        if problem:
            raise LoadError(
                f'tensor "{name}" {problem}: malformed or hostile', "do not use this file; save the model again"
            )


def iter_tensors(tree: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a nested structure with its dotted path."""
    if isinstance(tree, Tensor):
        yield path, tree
    elif isinstance(tree, nn.Module):
        for name, tensor in tree.state_dict().items():
            if isinstance(tensor, Tensor):
                yield f"{path}.{name}".strip("."), tensor
    elif depth < _MAX_DEPTH and isinstance(tree, (Mapping, list, tuple)):
        for key, entry in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
            yield from iter_tensors(entry, f"{path}.{key}".strip("."), depth + 1)


def _find_problem(tensor: Tensor, file_size: int) -> str:
    if tensor.layout != torch.strided:
        return f"is {tensor.layout}, not dense"
    claimed = tensor.numel() * tensor.element_size()
    if tensor.device.type == "meta":
        return f"claims {format_bytes(claimed)} but stores none"
    if tensor.device.type != "cpu" or tensor.is_quantized or tensor.is_nested:
        return "is quantized, nested or not on the CPU"
    stored = tensor.untyped_storage().nbytes()
    if claimed > stored:
        return f"claims {format_bytes(claimed)} but stores {format_bytes(stored)}"
    if claimed > file_size:
        return f"claims {format_bytes(claimed)} in a file of {format_bytes(file_size)}"
    return ""
