"""Networks among the records of a pickle: what every module is, with its tensors, settings and children. Torch-free.

A pickled `nn.Module` is an object whose attributes hold `_parameters`, `_buffers` and `_modules`; its forward() is not in the
file. NVIDIA's persistent objects keep the same attributes beside their own source text, which is data to us.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gandiag.checkpoints.safe_pickle.calls import is_data_global
from gandiag.checkpoints.safe_pickle.nodes import LazyTensor, ObjectNode

_DEPTH = 40
_PERSISTENT = "_reconstruct_persistent_obj"


@dataclass(frozen=True, slots=True, eq=False)
class ModuleNode:
    """One module. `cls`: dotted class name; `settings`: its plain attributes (stride, eps, z_dim …); `source`: sha256 of a text it carries."""

    cls: str
    tensors: Mapping[str, LazyTensor]
    children: Mapping[str, ModuleNode]
    settings: Mapping[str, Any] = field(default_factory=dict)
    source_hash: str = ""

    @property
    def layer_type(self) -> str:
        """The class alone, where it is one of torch's own layers; else ""."""
        return self.cls.rsplit(".", 1)[-1] if self.cls.startswith("torch.nn.modules.") else ""

    def named_tensors(self, prefix: str = "") -> Iterator[tuple[str, LazyTensor]]:
        """Names and tensors as state_dict() would give them."""
        yield from ((prefix + name, tensor) for name, tensor in self.tensors.items())
        for name, child in self.children.items():
            yield from child.named_tensors(f"{prefix}{name}.")

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, ModuleNode]]:
        yield prefix, self
        for name, child in self.children.items():
            yield from child.named_modules(f"{prefix}.{name}".lstrip("."))


def parse_module(record: Any, depth: int = 0) -> ModuleNode | None:
    """The module that a record describes, or None. Children beyond a depth of 40 are left out, shared ones are repeated."""
    if not isinstance(record, ObjectNode) or depth > _DEPTH:
        return None
    cls, attributes, source = record.full_name, record.attributes(), ""
    if cls.endswith(_PERSISTENT) and record.args and isinstance(record.args[0], dict):
        cls, attributes, source = _persistent(record.args[0])
    parameters, buffers, inside = (attributes.get(name) for name in ("_parameters", "_buffers", "_modules"))
    if not isinstance(parameters, dict) or not isinstance(inside, dict):
        return None
    buffers = buffers if isinstance(buffers, dict) else {}
    left_out = attributes.get("_non_persistent_buffers_set")
    kept = {name: entry for name, entry in buffers.items() if not (isinstance(left_out, set) and name in left_out)}
    tensors = {
        name: entry
        for name, entry in {**parameters, **kept}.items()
        if isinstance(name, str) and isinstance(entry, LazyTensor)
    }
    children = {
        name: child
        for name, entry in inside.items()
        if isinstance(name, str) and (child := parse_module(entry, depth + 1)) is not None
    }
    said = {
        name: entry for name, entry in attributes.items() if isinstance(name, str)
    }  # a pickle's keys may be anything
    settings = {
        name: entry
        for name, entry in said.items()
        if not name.startswith("_") or name in ("_init_args", "_init_kwargs")
    }
    return ModuleNode(cls, tensors, children, settings, source)


def _persistent(meta: Mapping[Any, Any]) -> tuple[str, dict[str, Any], str]:
    """NVIDIA's {type, version, module_src, class_name, state}: the class, its attributes, and the hash of the text."""
    state, text = meta.get("state"), meta.get("module_src")
    source = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest() if isinstance(text, str) else ""
    return str(meta.get("class_name"))[:80], state if isinstance(state, dict) else {}, source


def to_json_value(value: Any, depth: int = 0) -> Any:
    """A setting as JSON could hold it: numbers, text, and short lists and dictionaries of them; None for anything else."""
    if isinstance(value, (bool, str)) or value is None or (isinstance(value, (int, float)) and abs(value) < 1e18):
        return value[:200] if isinstance(value, str) else value
    if depth < 3 and isinstance(value, (list, tuple)) and len(value) <= 64:
        return [to_json_value(entry, depth + 1) for entry in value]
    if depth < 3 and isinstance(value, dict) and len(value) <= 64:
        return {
            str(key)[:80]: to_json_value(entry, depth + 1)
            for key, entry in value.items()
            if isinstance(key, (str, int))
        }
    return None


def list_external_classes(node: ModuleNode) -> list[str]:
    """Classes in a network whose code is not in the file, each once."""
    return list(dict.fromkeys(part.cls for _, part in node.named_modules() if not is_data_global(part.cls)))
