"""From records to the trees that the rest of the loader reads: tensors as views of the file, modules as state dicts.

The tensors are views of a read-only memory map: nothing is read before it is used, and only the weights that are chosen are
copied. Each place of the tree is visited once; a file whose parts refer to each other without end is refused.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gandiag.checkpoints.safe_pickle.modules import ModuleNode, parse_module
from gandiag.checkpoints.safe_pickle.nodes import ITEMSIZE, DictNode, LazyTensor, ObjectNode, format_key
from gandiag.checkpoints.safe_pickle.reader import PickleContents
from gandiag.errors import LoadError

_DEPTH = 60


class StateDict(OrderedDict[Any, Any]):
    """A network's tensors by name. `_metadata`: its modules' names, as torch keeps them; `structure`: a pickled module's own account."""

    _metadata: Mapping[str, Any] | None = None
    structure: ModuleNode | None = None


@dataclass(frozen=True, slots=True, eq=False)
class OpaqueObject:
    """An object without weights in it, of which only plain attributes matter: training arguments, a configuration."""

    name: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    args: tuple[Any, ...] = ()


@dataclass(slots=True)
class _Walk:
    left: int
    above: set[int] = field(default_factory=set)


def build_tensor_tree(contents: PickleContents) -> Any:
    """Nested dicts and lists of tensors and numbers. LoadError for a tensor that is not what it claims to be."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that the file is not writable, and nobody writes
        return _tree(contents.tree, "", _Walk(20 * contents.steps + 10_000))


def _tree(node: Any, path: str, walk: _Walk) -> Any:
    walk.left -= 1
    if walk.left < 0:
        raise LoadError(
            "the parts of this file refer to each other without end: malformed or hostile", "do not load it"
        )
    if isinstance(node, LazyTensor):
        return make_tensor_view(node, path)
    if not isinstance(node, (dict, list, tuple, ObjectNode)):
        return node
    if id(node) in walk.above or len(walk.above) > _DEPTH:
        return OpaqueObject("a part that contains itself, or is too deep")
    walk.above.add(id(node))
    try:
        return _container(node, path, walk)
    finally:
        walk.above.discard(id(node))


def _container(node: Any, path: str, walk: _Walk) -> Any:
    if isinstance(node, ObjectNode):
        return _object(node, path, walk)
    if isinstance(node, dict):
        found = StateDict(
            (key if isinstance(key, (str, int)) else format_key(key), _tree(value, _join(path, key), walk))
            for key, value in node.items()
        )
        if isinstance(node, DictNode):
            if node.name == "argparse.Namespace":
                return OpaqueObject(node.name, dict(found))
            metadata = node.state.get("_metadata")
            found._metadata = metadata if isinstance(metadata, dict) else None
        return found
    made = [_tree(value, _join(path, index), walk) for index, value in enumerate(node)]
    return tuple(made) if isinstance(node, tuple) else made


def _object(node: ObjectNode, path: str, walk: _Walk) -> Any:
    module = parse_module(node)
    if module is not None:
        named = dict(module.named_tensors())
        walk.left -= len(named)
        found = StateDict((name, make_tensor_view(lazy, _join(path, name))) for name, lazy in named.items())
        found._metadata, found.structure = {name: None for name, _ in module.named_modules()}, module
        return found
    parts = {**node.attributes(), **{format_key(key): value for key, value in node.dict_items}}
    inside = StateDict((key, _tree(value, _join(path, key), walk)) for key, value in parts.items())
    weighty = any(isinstance(value, Tensor) or (isinstance(value, Mapping) and value) for value in inside.values())
    args = tuple(arg for arg in node.args if isinstance(arg, (int, float, str))) if isinstance(node.args, tuple) else ()
    return inside if weighty else OpaqueObject(node.full_name, dict(inside), args)


def _join(path: str, key: Any) -> str:
    return f"{path}.{format_key(key)}".strip(".")


def make_tensor_view(lazy: LazyTensor, path: str) -> Tensor:
    """A view of the file as a tensor. LoadError if the file does not hold what it claims."""
    problem = lazy.find_problem()
    if problem:
        raise LoadError(
            f'tensor "{path}" {problem}: malformed or hostile', "do not use this file; save the model again"
        )
    dtype: torch.dtype = getattr(torch, lazy.dtype)
    if lazy.numel() == 0:
        return torch.empty(lazy.shape, dtype=dtype)
    blob, item = lazy.storage.file_slice, ITEMSIZE[lazy.dtype]
    assert blob is not None  # problem() has looked
    span = 1 + sum((size - 1) * step for size, step in zip(lazy.shape, lazy.stride, strict=True))
    start = blob.offset + lazy.offset * item
    if start % item:  # older streams do not align their storages
        flat = torch.frombuffer(bytearray(blob.buffer[start : start + span * item]), dtype=dtype)
    else:
        flat = torch.frombuffer(blob.buffer, dtype=dtype, count=span, offset=start)
    return flat.as_strided(lazy.shape, lazy.stride)
