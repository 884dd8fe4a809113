"""What is in a file, told without loading it: kind, contents as a tree with sizes, and the code it would run. Torch-free.

Only headers and pickles are read, no tensor; a file of many gigabytes takes as long as its list of contents.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from typing import Any

from gandiag.errors import LoadError
from gandiag.load.containers import RUNS_CODE, Container, sniff
from gandiag.load.inert import Reading, read_pickle
from gandiag.load.inert_modules import module_of, plain
from gandiag.load.inert_records import ITEMSIZE, Array, Lazy, Made, Table, children, readable

KINDS = {
    "torch-zip": "torch.save, zip format", "torch-legacy": "torch.save, the format before torch 1.6", "pickle": "plain pickle", "safetensors": "safetensors",
    "onnx": "ONNX graph", **RUNS_CODE,
}
_STEPS = 1_000_000
_CONTAINERS = (Lazy, dict, list, tuple, Made)
_DEPTH = 3
_SAFE_TYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
               "U8": "uint8", "BOOL": "bool"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One place of the file. `what`: in words; `tensors` in it, with the `numbers` and `nbytes` that they have."""

    path: str
    what: str
    tensors: int = 0
    numbers: int = 0
    nbytes: int = 0


@dataclass(frozen=True, slots=True)
class Survey:
    """A file at a glance. `code`: what running it would do, one a line; `problem`: why the contents cannot be told."""

    container: Container
    kind: str
    rows: tuple[Row, ...] = ()
    code: tuple[str, ...] = ()
    protocol: int | None = None
    problem: LoadError | None = None


def survey(path: str) -> Survey:
    """Look at a file. LoadError only where there is none; whatever is wrong inside is the survey's `problem`."""
    container = sniff(path)
    kind = KINDS.get(container.kind, container.kind)
    try:
        if container.kind in ("torch-zip", "torch-legacy", "pickle"):
            found = read_pickle(container)
            return Survey(container, kind, tuple(_rows(found.tree, "", 0, [_STEPS])), _code(found), found.protocol)
        if container.kind == "safetensors":
            return Survey(container, kind, _of_safetensors(container))
        if container.kind == "onnx":
            return Survey(container, kind, _of_onnx(container))
    except LoadError as problem:
        return Survey(container, kind, problem=problem)
    return Survey(container, kind, code=_program(container) if container.kind in RUNS_CODE else ())


def _code(found: Reading) -> tuple[str, ...]:
    called = {call.partition("(")[0] for call in found.calls}
    named = [f"would import {name}" for name in found.foreign if name not in called]
    return (*(f"would call {call}" for call in found.calls), *found.notes, *named)


def _program(container: Container) -> tuple[str, ...]:
    """The programs inside an archive: their sources, if it holds any."""
    with zipfile.ZipFile(container.path) as archive:
        sources = [entry for entry in archive.namelist() if entry.endswith((".py", ".so")) or "/models/" in entry]
    shown = ", ".join(entry[:80] for entry in sources[:5]) + (f" and {len(sources) - 5} more" if len(sources) > 5 else "")
    return (f"is {RUNS_CODE[container.kind]}: loading it runs {shown or 'what it holds'}",)


def _of_safetensors(container: Container) -> tuple[Row, ...]:
    from safetensors import safe_open

    total, rows = [0, 0, 0], []
    try:
        with safe_open(container.path, framework="np") as file:
            for name in list(file.keys()):
                part = file.get_slice(name)
                shape, dtype = tuple(part.get_shape()), _SAFE_TYPES.get(part.get_dtype(), part.get_dtype().lower())
                numbers = _product(shape)
                total = [total[0] + 1, total[1] + numbers, total[2] + numbers * ITEMSIZE.get(dtype, 1)]
                rows.append(Row(name, f"{dtype} {shape}", 1, numbers, numbers * ITEMSIZE.get(dtype, 1)))
            about = file.metadata() or {}
    except Exception as broken:  # SafetensorError, and ValueError or KeyError for a header that is JSON but no table of tensors
        what = f"{container.name} is a damaged safetensors file: {str(broken).splitlines()[0][:120]}"
        raise LoadError(what, "copy it again and compare the sizes") from None
    told = [Row(f"metadata.{key[:40]}", str(value)[:80]) for key, value in list(about.items())[:20]]
    return (Row("", "tensors by name", total[0], total[1], total[2]), *told)


def _of_onnx(container: Container) -> tuple[Row, ...]:
    from gandiag.load.onnx_graph import read_graph

    graph = read_graph(container.path)
    common = ", ".join(f"{count} {name}" for name, count in graph.operators.most_common(8))
    values = [(f"{way} {value.name}", value) for way, group in (("input", graph.inputs), ("output", graph.outputs)) for value in group]
    return (
        Row("", f"graph of {sum(graph.operators.values())} operators, opset {graph.opset}" + (f", written by {graph.producer}" if graph.producer else ""),
            graph.tensors, graph.numbers, graph.nbytes),
        Row("operators", common + (", …" if len(graph.operators) > 8 else "")),
        *(Row(name, f"{value.dtype} ({', '.join(str(size) or '?' for size in value.dims)})") for name, value in values),
        *(Row(f"metadata.{key[:40]}", entry) for key, entry in list(graph.metadata.items())[:20]),
        *(Row(f"beside: {name}", "numbers of this graph") for name in sorted(graph.beside)),
    )  # fmt: skip


def _product(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


# pickles

def _rows(node: Any, path: str, depth: int, budget: list[int]) -> list[Row]:
    """The tree below a node, as deep as it says something: a network is one row, whatever it holds."""
    module = module_of(node)
    if module is not None:
        return [_summed(node, path, f"module {module.cls}{_settings(module.settings)}", budget)]
    if isinstance(node, Lazy):
        return [Row(path, f"tensor {node.dtype} {node.shape}", 1, node.numel(), node.nbytes)]
    kind = _kind(node)
    below = children(node) if isinstance(node, dict) else list(node.attributes().items()) if isinstance(node, Made) else []
    if kind or depth >= _DEPTH or not below:
        return [_summed(node, path, kind or _value(node), budget)]
    inside = [row for key, entry in below[:200] for row in _rows(entry, f"{path}.{key}".strip("."), depth + 1, budget)]
    return [Row(path, _value(node)), *inside] if path or isinstance(node, Made) else inside


def _kind(node: Any) -> str:
    """Containers that are one thing: a state dict, an optimizer's state, a list of tensors, arguments."""
    if isinstance(node, dict) and node:
        if "param_groups" in node:
            return "optimizer state"
        if any(isinstance(entry, Lazy) for entry in node.values()) and all(isinstance(entry, (Lazy, int, float)) for entry in node.values()):
            return "state dict"
        if isinstance(node, Table) and node.name == "argparse.Namespace":
            return f"arguments{_settings(node)}"
    if isinstance(node, (list, tuple)) and node and all(isinstance(entry, Lazy) for entry in node):
        return f"list of {len(node)} tensors without names"
    return ""


def _summed(node: Any, path: str, what: str, budget: list[int]) -> Row:
    """The tensors in a part of the file; its places are visited as long as the budget lasts."""
    waiting, count, numbers, nbytes = [node], 0, 0, 0
    while waiting and budget[0] > 0:
        entry = waiting.pop()
        if isinstance(entry, Lazy):
            count, numbers, nbytes = count + 1, numbers + entry.numel(), nbytes + entry.nbytes
            continue
        below = [child for _, child in children(entry)]
        budget[0] -= 1 + len(below)
        waiting += [child for child in below if isinstance(child, _CONTAINERS)]
    return Row(path, what, count, numbers, nbytes)


def _settings(settings: Any) -> str:
    """The plain attributes of an object, a few of them."""
    shown = [f"{key}={plain(value)!r}" for key, value in settings.items() if isinstance(value, (int, float, str, bool)) and key != "training"]
    return f" ({', '.join(entry[:60] for entry in shown[:8])}{', …' if len(shown) > 8 else ''})" if shown else ""


def _value(node: Any) -> str:
    if isinstance(node, (dict, list, tuple, set, frozenset)):
        return f"{'dict' if isinstance(node, dict) else type(node).__name__} of {len(node)}"
    if isinstance(node, Made):
        return f"object {node.name}, not built"
    if isinstance(node, Array):
        return f"array {node.dtype} {node.shape}"
    if isinstance(node, (bool, float, str)) or node is None or (isinstance(node, int) and abs(node) < 10**18):
        return repr(node)[:80]
    return f"{type(node).__name__}"


def size(row: Row) -> str:
    """"28 tensors, 3.6 M numbers, 13.7 MiB", or nothing."""
    if not row.tensors:
        return ""
    count = f"{row.numbers / 1e6:.1f} M" if row.numbers >= 1e6 else f"{row.numbers:,}"
    return f"{row.tensors} tensor{'s' if row.tensors > 1 else ''}, {count} numbers, {readable(row.nbytes)}"
