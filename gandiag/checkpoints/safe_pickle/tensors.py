"""Turns nodes into what the loader works with: tensors as views of the file, pickled modules as state dicts.

Tensors are views of a read-only memory map: nothing is read before it is used, and only the chosen weights are copied.
The walk over the tree has a step budget; a file whose parts refer to each other without end is refused.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gandiag.checkpoints.file_type import are_weight_names
from gandiag.checkpoints.safe_pickle.budget import ParseBudget
from gandiag.checkpoints.safe_pickle.modules import ModuleNode, parse_module
from gandiag.checkpoints.safe_pickle.nodes import ITEMSIZE, ArrayNode, DictNode, LazyTensor, ObjectNode, format_key
from gandiag.checkpoints.safe_pickle.reader import PickleContents
from gandiag.errors import LoadError

_MAX_DEPTH = 60
_WEIGHTS = (LazyTensor, Tensor, dict, ObjectNode)  # what makes a dict one of weights, or one that holds them


class StateDict(OrderedDict[Any, Any]):
    """A network's tensors by name.

    `_metadata`: module names, as torch keeps them; `structure`: a pickled module's own tree.
    """

    _metadata: Mapping[str, Any] | None = None
    structure: ModuleNode | None = None


@dataclass(frozen=True, slots=True, eq=False)
class OpaqueObject:
    """An object without weights, of which only plain attributes are kept: training arguments, a configuration."""

    name: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    args: tuple[Any, ...] = ()


@dataclass(slots=True)
class _Walk:
    """The file's budget, the ids of the nodes above the present one, and copies of what is not aligned."""

    budget: ParseBudget
    ancestors: set[int] = field(default_factory=set)
    copies: dict[tuple[int, int, int, str], Tensor] = field(default_factory=dict)


def build_tensor_tree(contents: PickleContents) -> Any:
    """Nested dicts and lists of tensors and numbers. LoadError for a tensor that is not what it claims to be."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that the buffer is not writable; it is only read
        contents.budget.begin_walk()
        return _build(contents.tree, "", _Walk(contents.budget))


def _build(node: Any, path: str, walk: _Walk) -> Any:
    walk.budget.use_walk(1, path)
    if isinstance(node, LazyTensor):
        return _view_tensor(node, path, walk)
    if not isinstance(node, (dict, list, tuple, ObjectNode)):
        return node
    if id(node) in walk.ancestors or len(walk.ancestors) > _MAX_DEPTH:
        return OpaqueObject("a part that contains itself, or is too deep")
    walk.ancestors.add(id(node))
    try:
        return _build_container(node, path, walk)
    finally:
        walk.ancestors.discard(id(node))


def _build_container(node: Any, path: str, walk: _Walk) -> Any:
    if isinstance(node, ObjectNode):
        return _build_object(node, path, walk)
    if isinstance(node, dict):
        if any(isinstance(value, ArrayNode) for value in node.values()) and are_weight_names(map(format_key, node)):
            node = type(node)(node) if not isinstance(node, DictNode) else node
            for key, value in list(node.items()):
                node[key] = make_array_tensor(value, _join(path, key)) if isinstance(value, ArrayNode) else value
        if type(node) is dict and not any(isinstance(value, _WEIGHTS) for value in node.values()):
            return {
                key if isinstance(key, (str, int)) else format_key(key): _build(value, _join(path, key), walk)
                for key, value in node.items()
            }
        entries = StateDict(
            (key if isinstance(key, (str, int)) else format_key(key), _build(value, _join(path, key), walk))
            for key, value in node.items()
        )
        if isinstance(node, DictNode):
            if node.name == "argparse.Namespace":
                return OpaqueObject(node.name, dict(entries))
            metadata = node.state.get("_metadata")
            entries._metadata = metadata if isinstance(metadata, dict) else None
        return entries
    values = [_build(value, _join(path, index), walk) for index, value in enumerate(node)]
    return tuple(values) if isinstance(node, tuple) else values


def _build_object(node: ObjectNode, path: str, walk: _Walk) -> StateDict | OpaqueObject:
    module = parse_module(node, walk.budget)
    if module is not None:
        lazy_tensors = dict(module.named_tensors())
        walk.budget.use_walk(len(lazy_tensors))
        state = StateDict((name, _view_tensor(lazy, _join(path, name), walk)) for name, lazy in lazy_tensors.items())
        state._metadata, state.structure = {name: None for name, _ in module.named_modules()}, module
        return state
    walk.budget.use_walk(sum(len(state) for state in node.states if isinstance(state, (dict, tuple))))
    parts = {**node.attributes(), **{format_key(key): value for key, value in node.dict_items}}
    entries = StateDict((key, _build(value, _join(path, key), walk)) for key, value in parts.items())
    if any(isinstance(value, Tensor) or (isinstance(value, Mapping) and value) for value in entries.values()):
        return entries
    args = tuple(arg for arg in node.args if isinstance(arg, (int, float, str))) if isinstance(node.args, tuple) else ()
    return OpaqueObject(node.full_name, dict(entries), args)


def _join(path: str, key: Any) -> str:
    return f"{path}.{format_key(key)}".strip(".")


def make_array_tensor(array: ArrayNode, path: str) -> Tensor:
    """A numpy array as a tensor. LoadError if it is not plain numbers, or does not hold what it claims."""
    data = array.data if isinstance(array.data, (bytes, bytearray)) else getattr(array.data, "buffer", None)
    try:
        dtype = np.dtype(array.dtype)
        if dtype.kind not in "fiub" or data is None:
            raise ValueError
        start = getattr(array.data, "offset", 0)
        count = 1
        for size in array.shape:
            count *= size
        if min(array.shape, default=1) < 0 or start + count * dtype.itemsize > len(data):
            raise ValueError
        flat = np.frombuffer(data, dtype, count, start).astype(dtype.newbyteorder("="))
        values = flat.reshape(array.shape, order="F" if array.fortran_order else "C")
    except (ValueError, TypeError, OverflowError):
        raise LoadError(
            f'array "{path}" does not hold what it claims: malformed or hostile',
            "do not use this file; save the model again",
        ) from None
    return torch.from_numpy(np.ascontiguousarray(values).reshape(array.shape))


def _view_tensor(lazy: LazyTensor, path: str, walk: _Walk) -> Tensor:
    """A view of the file as a tensor. LoadError if the file does not hold what it claims."""
    problem = lazy.find_problem()
    if problem:
        raise LoadError(
            f'tensor "{path}" {problem}: malformed or hostile', "do not use this file; save the model again"
        )
    dtype: torch.dtype = getattr(torch, lazy.dtype)
    if lazy.numel() == 0:
        return torch.empty(lazy.shape, dtype=dtype)
    walk.budget.use_copies(lazy.nbytes)
    stored, itemsize = lazy.storage.file_slice, ITEMSIZE[lazy.dtype]
    assert stored is not None  # find_problem() has checked
    span = 1 + sum((size - 1) * step for size, step in zip(lazy.shape, lazy.stride, strict=True))
    start = stored.offset + lazy.offset * itemsize
    if start % itemsize:  # older streams do not align their storages
        place = (id(stored.buffer), start, span, lazy.dtype)
        if place not in walk.copies:
            walk.budget.use_copies(span * itemsize)
            content = bytearray(stored.buffer[start : start + span * itemsize])
            walk.copies[place] = torch.frombuffer(content, dtype=dtype)
        flat = walk.copies[place]
    else:
        flat = torch.frombuffer(stored.buffer, dtype=dtype, count=span, offset=start)
    return flat.as_strided(lazy.shape, lazy.stride)
