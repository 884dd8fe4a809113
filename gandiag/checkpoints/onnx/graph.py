"""What an ONNX file says of itself: inputs, outputs, operators, and where its numbers lie. Torch-free; nothing in it is run.

The protobuf is walked field by field (onnx.proto3, IR 3 to 13), and numbers are skipped over, so that gigabytes cost no time.
Refused here, before any runtime sees the file: numbers outside the file's own folder or behind links, tensors that claim more
than they store, operators that only a library of somebody's own could run.
"""

from __future__ import annotations

import math
import mmap
import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from gandiag.errors import LoadError
from gandiag.protobuf import decode_integers, decode_text, iter_fields, require_message

_ITEM = {
    1: 4,
    2: 1,
    3: 1,
    4: 2,
    5: 2,
    6: 4,
    7: 8,
    9: 1,
    10: 2,
    11: 8,
    12: 4,
    13: 8,
    14: 8,
    15: 16,
    16: 2,
    17: 1,
    18: 1,
    19: 1,
    20: 1,
}
DTYPE_NAMES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    8: "string",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    16: "bfloat16",
}
_BUILT_IN = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
_DEPTH = 32
_THROUGH = (
    "Identity",
    "Cast",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Transpose",
)  # what may stand behind the last activation


@dataclass(frozen=True, slots=True)
class ValueInfo:
    """An input or output. `dims`: sizes, or names of those that are open ("" without one)."""

    name: str
    dtype: str
    dims: tuple[int | str, ...]


@dataclass(slots=True)
class OnnxGraph:
    """A file at a glance. `made_by`: node behind each name; `sizes`: shapes of stored tensors; `beside`: files that hold numbers."""

    inputs: list[ValueInfo] = field(default_factory=list)
    outputs: list[ValueInfo] = field(default_factory=list)
    operator_counts: Counter[str] = field(default_factory=Counter)
    nodes: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = field(
        default_factory=list
    )  # (operator, inputs, outputs) of the main graph
    tensor_shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    external_files: set[str] = field(default_factory=set)
    producer: str = ""
    opset: int = 0
    n_tensors: int = 0
    numel: int = 0
    nbytes: int = 0

    def find_last_operator(self, output: str) -> str:
        """The operator that decides the values of an output: reshaping and casting are looked through."""
        made = {name: (operator, given) for operator, given, results in self.nodes for name in results}
        for _ in range(len(made) + 1):
            operator, given = made.get(output, ("", ()))
            if operator not in _THROUGH or not given:
                return operator
            output = given[0]
        return ""

    def infer_num_classes(self, label_name: str) -> int | None:
        """How many classes an integer input chooses among: the rows of the table that it is an index into."""
        names = {label_name}
        for operator, given, results in self.nodes:
            if operator in _THROUGH and given and given[0] in names:
                names.update(results)
            elif operator == "Gather" and len(given) > 1 and given[1] in names and self.tensor_shapes.get(given[0]):
                return self.tensor_shapes[given[0]][0]
        return None


def read_onnx_graph(path: Path) -> OnnxGraph:
    """The graph of a file. LoadError where it is damaged, or would read what is not its own."""
    graph, used, local = OnnxGraph(), set[str](), set[str]()
    with path.open("rb") as stream:
        whole = mmap.mmap(
            stream.fileno(), 0, access=mmap.ACCESS_READ
        )  # closed with its last slice: an error's frames may hold one
        try:
            _model(memoryview(whole), graph, used, local)
        except (ValueError, IndexError, UnicodeDecodeError, RecursionError) as wrong:
            raise LoadError(
                f"{path.name} is a damaged ONNX file: {str(wrong)[:80]}",
                "export it again, or copy it again and compare the sizes",
            ) from None
    strange = sorted(used - local - set(_BUILT_IN))
    if strange:
        what = f"{path.name} uses operators of somebody's own ({', '.join(map(_shown, strange[:3]))}), which only their library could run"
        raise LoadError(what, "export it with standard operators, or audit its state dict or a folder of its samples")
    for name in sorted(graph.external_files):
        _demand_beside(path, name)
    return graph


def _demand_beside(path: Path, name: str) -> None:
    """Numbers kept in another file: a plain file of that name in the same folder, and nothing else."""
    hint = "export it into one file: torch.onnx.export(..., external_data=False)"
    if not name or name in (".", "..") or any(character in name for character in "/\\:\0"):
        raise LoadError(
            f"{path.name} wants to read {_shown(name)!r}, which is outside its folder: malformed or hostile", hint
        )
    try:
        mode = os.lstat(path.parent / name).st_mode
    except OSError:
        raise LoadError(
            f"{path.name} keeps its numbers in {_shown(name)!r}, which is not beside it",
            f"copy {_shown(name)} into the same folder",
        ) from None
    if not stat.S_ISREG(mode):
        raise LoadError(f"{path.name} keeps its numbers in {_shown(name)!r}, which is a link or no file: refused", hint)


def _shown(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text[:80])


# the messages


def _model(view: memoryview, graph: OnnxGraph, used: set[str], local: set[str]) -> None:
    for number, value in iter_fields(view):
        if number == 7:
            _graph(require_message(value), graph, used, 0)
        elif number == 8:
            parts = dict(iter_fields(require_message(value)))
            if not bytes(require_message(parts.get(1, memoryview(b"")))) and isinstance(parts.get(2), int):
                graph.opset = int(parts[2])
        elif number == 2:
            graph.producer = _shown(decode_text(value))
        elif number == 14:
            pair = dict(iter_fields(require_message(value)))
            graph.metadata[_shown(decode_text(pair.get(1, memoryview(b""))))] = _shown(
                decode_text(pair.get(2, memoryview(b"")))
            )
        elif number == 20:
            raise ValueError("it holds a training program")
        elif number == 25:
            _function(require_message(value), graph, used, local)


def _function(view: memoryview, graph: OnnxGraph, used: set[str], local: set[str]) -> None:
    for number, value in iter_fields(view):
        if number == 10:
            local.add(decode_text(value))
        elif number == 7:
            _node(require_message(value), graph, used, 1)


def _graph(view: memoryview, graph: OnnxGraph, used: set[str], depth: int) -> None:
    if depth > _DEPTH:
        raise ValueError("its graphs are nested too deep")
    stored: set[str] = set()
    inputs: list[ValueInfo] = []
    for number, value in iter_fields(view):
        if number == 1:
            _node(require_message(value), graph, used, depth)
        elif number == 5:
            stored.add(_tensor(require_message(value), graph))
        elif number == 15:
            _sparse(require_message(value), graph)
        elif number == 11:
            inputs.append(_value(require_message(value)))
        elif number == 12 and depth == 0:
            graph.outputs.append(_value(require_message(value)))
    if depth == 0:
        graph.inputs = [entry for entry in inputs if entry.name not in stored]


def _node(view: memoryview, graph: OnnxGraph, used: set[str], depth: int) -> None:
    given, results, operator = [], [], ""
    for number, value in iter_fields(view):
        if number == 1:
            given.append(decode_text(value))
        elif number == 2:
            results.append(decode_text(value))
        elif number == 4:
            operator = decode_text(value)
        elif number == 5:
            _attribute(require_message(value), graph, used, depth)
        elif number == 7:
            used.add(decode_text(value))
    graph.operator_counts[_shown(operator)] += 1
    if depth == 0:
        graph.nodes.append((operator, tuple(given), tuple(results)))


def _attribute(view: memoryview, graph: OnnxGraph, used: set[str], depth: int) -> None:
    for number, value in iter_fields(view):
        if number in (5, 10):
            _tensor(require_message(value), graph)
        elif number in (6, 11):
            _graph(require_message(value), graph, used, depth + 1)
        elif number in (22, 23):
            _sparse(require_message(value), graph)


def _sparse(view: memoryview, graph: OnnxGraph) -> None:
    for number, value in iter_fields(view):
        if number in (1, 2):
            _tensor(require_message(value), graph)


def _tensor(view: memoryview, graph: OnnxGraph) -> str:
    """Counts a stored tensor; its name. ValueError where it claims more than it stores."""
    dims: list[int] = []
    kind, name, raw = 0, "", -1
    for number, value in iter_fields(view):
        if number == 1:
            dims += decode_integers(value)
        elif number == 2:
            kind = int(value) if isinstance(value, int) else 0
        elif number == 8:
            name = decode_text(value)
        elif number == 9:
            raw = len(require_message(value))
        elif number == 13:
            pair = dict(iter_fields(require_message(value)))
            if decode_text(pair.get(1, memoryview(b""))) == "location":
                graph.external_files.add(decode_text(pair.get(2, memoryview(b""))))
    count = math.prod(dims)
    nbytes = count * _ITEM.get(kind, 1)
    if raw >= 0 and kind in _ITEM and kind not in (17, 18, 19, 20) and raw != nbytes:
        raise ValueError(f"tensor {_shown(name)!r} claims {nbytes} bytes and stores {raw}")
    graph.n_tensors, graph.numel, graph.nbytes = graph.n_tensors + 1, graph.numel + count, graph.nbytes + nbytes
    graph.tensor_shapes[name] = tuple(dims)
    return name


def _value(view: memoryview) -> ValueInfo:
    name, dtype, dims = "", "", []
    for number, value in iter_fields(view):
        if number == 1:
            name = decode_text(value)
        elif number == 2:
            for part, inner in iter_fields(require_message(value)):
                for what, entry in iter_fields(require_message(inner)) if part == 1 else ():
                    if what == 1:
                        dtype = DTYPE_NAMES.get(int(entry) if isinstance(entry, int) else 0, "unknown")
                    elif what == 2:
                        dims = [
                            _dim(require_message(dim)) for tag, dim in iter_fields(require_message(entry)) if tag == 1
                        ]
    return ValueInfo(name, dtype, tuple(dims))


def _dim(view: memoryview) -> int | str:
    found: int | str = ""
    for number, value in iter_fields(view):
        found = (
            int(value)
            if number == 1 and isinstance(value, int)
            else _shown(decode_text(value))
            if number == 2
            else found
        )
    return found
