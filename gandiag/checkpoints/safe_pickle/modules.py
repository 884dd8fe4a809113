"""Pickled `nn.Module`s as trees: class, tensors, settings and children of every module. Torch-free.

A pickled module is an object whose attributes hold `_parameters`, `_buffers` and `_modules`; its forward() is not in
the file. NVIDIA's persistent objects keep the same attributes beside their source text, which is treated as data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from gandiag.checkpoints.safe_pickle.budget import ParseBudget
from gandiag.checkpoints.safe_pickle.nodes import LazyTensor, ObjectNode

_MAX_DEPTH = 40
_MAX_NAME = 500  # characters: names are joined, once for each of a module's descendants
_PERSISTENT_CLASS = "_reconstruct_persistent_obj"


@dataclass(frozen=True, slots=True, eq=False)
class ModuleNode:
    """One module. `cls`: dotted class name; `settings`: plain attributes (stride, eps, z_dim …).

    `source_hash`: sha256 of the source text that the module carries, "" without one.
    """

    cls: str
    tensors: Mapping[str, LazyTensor]
    children: Mapping[str, ModuleNode]
    settings: Mapping[str, Any] = field(default_factory=dict)
    source_hash: str = ""

    @property
    def layer_type(self) -> str:
        """The class name without its module if it is one of torch's own layers, else ""."""
        return self.cls.rsplit(".", 1)[-1] if self.cls.startswith("torch.nn.modules.") else ""

    def named_tensors(self, prefix: str = "") -> Iterator[tuple[str, LazyTensor]]:
        """Names and tensors as state_dict() would give them."""
        yield from ((prefix + name, tensor) for name, tensor in self.tensors.items())
        for name, child in self.children.items():
            yield from child.named_tensors(f"{prefix}{name}.")

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, ModuleNode]]:
        """This module and all below it, with their dotted names."""
        yield prefix, self
        for name, child in self.children.items():
            yield from child.named_modules(f"{prefix}.{name}".lstrip("."))


def parse_module(record: Any, budget: ParseBudget, depth: int = 0) -> ModuleNode | None:
    """The module that a node describes, or None. Children deeper than 40 levels are dropped, shared ones repeated.

    LoadError where there are more of these than the budget allows.
    """
    if not isinstance(record, ObjectNode) or depth > _MAX_DEPTH:
        return None
    budget.use_walk(1 + sum(len(state) for state in record.states if isinstance(state, (dict, tuple))))
    cls, attributes, source_hash = record.full_name, record.attributes(), ""
    if cls.endswith(_PERSISTENT_CLASS) and record.args and isinstance(record.args[0], dict):
        cls, attributes, source_hash = _parse_persistent(record.args[0])
    parameters, buffers, modules = (attributes.get(name) for name in ("_parameters", "_buffers", "_modules"))
    if not isinstance(parameters, dict) or not isinstance(modules, dict):
        return None
    budget.use_walk(len(parameters) + len(modules) + (len(buffers) if isinstance(buffers, dict) else 0))
    entries = {**parameters, **_persistent_buffers(buffers, attributes.get("_non_persistent_buffers_set"))}
    tensors = {name: entry for name, entry in entries.items() if _is_name(name) and isinstance(entry, LazyTensor)}
    children = {
        name: child
        for name, entry in modules.items()
        if _is_name(name) and (child := parse_module(entry, budget, depth + 1)) is not None
    }
    settings = {
        name: entry
        for name, entry in attributes.items()
        if isinstance(name, str) and (not name.startswith("_") or name in ("_init_args", "_init_kwargs"))
    }  # keys of a pickled dict may be anything
    return ModuleNode(cls, tensors, children, settings, source_hash)


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and len(name) <= _MAX_NAME


def _persistent_buffers(buffers: Any, excluded: Any) -> dict[Any, Any]:
    """Buffers that belong in the state dict. torch keeps the names of the others in a set."""
    if not isinstance(buffers, dict):
        return {}
    excluded = excluded if isinstance(excluded, set) else set()
    return {name: entry for name, entry in buffers.items() if name not in excluded}


def _parse_persistent(meta: Mapping[Any, Any]) -> tuple[str, dict[str, Any], str]:
    """NVIDIA's {type, version, module_src, class_name, state} -> class, attributes, sha256 of the source text."""
    state, text = meta.get("state"), meta.get("module_src")
    source_hash, name = _hash_text(text) if isinstance(text, str) else "", meta.get("class_name")
    return name[:80] if isinstance(name, str) else "", state if isinstance(state, dict) else {}, source_hash


@lru_cache(maxsize=64)
def _hash_text(text: str) -> str:
    """The sha256 of a source text, which every layer may repeat."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def to_json_value(value: Any, depth: int = 0) -> Any:
    """A setting as JSON data: numbers, text, and short lists and dictionaries of them; None for anything else."""
    if isinstance(value, str):
        return value[:200]
    if isinstance(value, bool) or value is None or (isinstance(value, (int, float)) and abs(value) < 1e18):
        return value
    if depth < 3 and isinstance(value, (list, tuple)) and len(value) <= 64:
        return [to_json_value(entry, depth + 1) for entry in value]
    if depth < 3 and isinstance(value, dict) and len(value) <= 64:
        return {
            (key if isinstance(key, str) else f"{key:d}")[:80]: to_json_value(entry, depth + 1)
            for key, entry in value.items()
            if isinstance(key, str) or (isinstance(key, int) and abs(key) < 10**18)
        }
    return None
