"""What is in a file, told without loading it: kind, contents as a tree with sizes, and the code it would run. Torch-free.

Only headers and pickles are read, no tensor; a file of many gigabytes takes as long as its list of contents.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from typing import Any

from gandiag.checkpoints.file_type import EXECUTABLE_KINDS, FileInfo, detect_file_type
from gandiag.checkpoints.safe_pickle.modules import parse_module, to_json_value
from gandiag.checkpoints.safe_pickle.nodes import (
    ITEMSIZE,
    ArrayNode,
    DictNode,
    LazyTensor,
    ObjectNode,
    format_bytes,
    list_children,
)
from gandiag.checkpoints.safe_pickle.reader import PickleContents, parse_pickle
from gandiag.errors import LoadError

KIND_NAMES = {
    "torch-zip": "torch.save, zip format",
    "torch-legacy": "torch.save, the format before torch 1.6",
    "pickle": "plain pickle",
    "safetensors": "safetensors",
    "onnx": "ONNX graph",
    **EXECUTABLE_KINDS,
}
_STEPS = 1_000_000
_CONTAINERS = (LazyTensor, dict, list, tuple, ObjectNode)
_DEPTH = 3
_SAFE_TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


@dataclass(frozen=True, slots=True)
class SummaryRow:
    """One place of the file. `what`: in words; `tensors` in it, with the `numbers` and `nbytes` that they have."""

    path: str
    description: str
    n_tensors: int = 0
    numel: int = 0
    nbytes: int = 0


@dataclass(frozen=True, slots=True)
class FileSummary:
    """A file at a glance. `code`: what running it would do, one a line; `problem`: why the contents cannot be told."""

    file_info: FileInfo
    kind_name: str
    rows: tuple[SummaryRow, ...] = ()
    code_actions: tuple[str, ...] = ()
    pickle_protocol: int | None = None
    error: LoadError | None = None


def summarize_file(path: str) -> FileSummary:
    """Look at a file. LoadError only where there is none; whatever is wrong inside is the survey's `problem`."""
    container = detect_file_type(path)
    kind = KIND_NAMES.get(container.kind, container.kind)
    try:
        if container.kind in ("torch-zip", "torch-legacy", "pickle"):
            found = parse_pickle(container)
            return FileSummary(container, kind, tuple(_rows(found.tree, "", 0, [_STEPS])), _code(found), found.protocol)
        if container.kind == "safetensors":
            return FileSummary(container, kind, _of_safetensors(container))
        if container.kind == "onnx":
            return FileSummary(container, kind, _of_onnx(container))
    except LoadError as problem:
        return FileSummary(container, kind, error=problem)
    return FileSummary(container, kind, code_actions=_program(container) if container.kind in EXECUTABLE_KINDS else ())


def _code(found: PickleContents) -> tuple[str, ...]:
    called = {call.partition("(")[0] for call in found.calls}
    named = [f"would import {name}" for name in found.unsafe_globals if name not in called]
    return (*(f"would call {call}" for call in found.calls), *found.notes, *named)


def _program(container: FileInfo) -> tuple[str, ...]:
    """The programs inside an archive: their sources, if it holds any."""
    with zipfile.ZipFile(container.path) as archive:
        sources = [entry for entry in archive.namelist() if entry.endswith((".py", ".so")) or "/models/" in entry]
    shown = ", ".join(entry[:80] for entry in sources[:5]) + (
        f" and {len(sources) - 5} more" if len(sources) > 5 else ""
    )
    return (f"is {EXECUTABLE_KINDS[container.kind]}: loading it runs {shown or 'what it holds'}",)


def _of_safetensors(container: FileInfo) -> tuple[SummaryRow, ...]:
    from safetensors import safe_open

    total, rows = [0, 0, 0], []
    try:
        with safe_open(container.path, framework="np") as file:
            for name in list(file.keys()):
                part = file.get_slice(name)
                shape, dtype = tuple(part.get_shape()), _SAFE_TYPES.get(part.get_dtype(), part.get_dtype().lower())
                numbers = _product(shape)
                total = [total[0] + 1, total[1] + numbers, total[2] + numbers * ITEMSIZE.get(dtype, 1)]
                rows.append(SummaryRow(name, f"{dtype} {shape}", 1, numbers, numbers * ITEMSIZE.get(dtype, 1)))
            about = file.metadata() or {}
    except (
        Exception
    ) as broken:  # SafetensorError, and ValueError or KeyError for a header that is JSON but no table of tensors
        what = f"{container.name} is a damaged safetensors file: {str(broken).splitlines()[0][:120]}"
        raise LoadError(what, "copy it again and compare the sizes") from None
    told = [SummaryRow(f"metadata.{key[:40]}", str(value)[:80]) for key, value in list(about.items())[:20]]
    return (SummaryRow("", "tensors by name", total[0], total[1], total[2]), *told)


def _of_onnx(container: FileInfo) -> tuple[SummaryRow, ...]:
    from gandiag.checkpoints.onnx.graph import read_onnx_graph

    graph = read_onnx_graph(container.path)
    common = ", ".join(f"{count} {name}" for name, count in graph.operator_counts.most_common(8))
    values = [
        (f"{way} {value.name}", value)
        for way, group in (("input", graph.inputs), ("output", graph.outputs))
        for value in group
    ]
    return (
        SummaryRow(
            "",
            f"graph of {sum(graph.operator_counts.values())} operators, opset {graph.opset}"
            + (f", written by {graph.producer}" if graph.producer else ""),
            graph.n_tensors,
            graph.numel,
            graph.nbytes,
        ),
        SummaryRow("operators", common + (", …" if len(graph.operator_counts) > 8 else "")),
        *(
            SummaryRow(name, f"{value.dtype} ({', '.join(str(size) or '?' for size in value.dims)})")
            for name, value in values
        ),
        *(SummaryRow(f"metadata.{key[:40]}", entry) for key, entry in list(graph.metadata.items())[:20]),
        *(SummaryRow(f"beside: {name}", "numbers of this graph") for name in sorted(graph.external_files)),
    )


def _product(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


# pickles


def _rows(node: Any, path: str, depth: int, budget: list[int]) -> list[SummaryRow]:
    """The tree below a node, as deep as it says something: a network is one row, whatever it holds."""
    module = parse_module(node)
    if module is not None:
        return [_summed(node, path, f"module {module.cls}{_settings(module.settings)}", budget)]
    if isinstance(node, LazyTensor):
        return [SummaryRow(path, f"tensor {node.dtype} {node.shape}", 1, node.numel(), node.nbytes)]
    kind = _kind(node)
    below = (
        list_children(node)
        if isinstance(node, dict)
        else list(node.attributes().items())
        if isinstance(node, ObjectNode)
        else []
    )
    if kind or depth >= _DEPTH or not below:
        return [_summed(node, path, kind or _value(node), budget)]
    inside = [row for key, entry in below[:200] for row in _rows(entry, f"{path}.{key}".strip("."), depth + 1, budget)]
    return [SummaryRow(path, _value(node)), *inside] if path or isinstance(node, ObjectNode) else inside


def _kind(node: Any) -> str:
    """Containers that are one thing: a state dict, an optimizer's state, a list of tensors, arguments."""
    if isinstance(node, dict) and node:
        if "param_groups" in node:
            return "optimizer state"
        if any(isinstance(entry, LazyTensor) for entry in node.values()) and all(
            isinstance(entry, (LazyTensor, int, float)) for entry in node.values()
        ):
            return "state dict"
        if isinstance(node, DictNode) and node.name == "argparse.Namespace":
            return f"arguments{_settings(node)}"
    if isinstance(node, (list, tuple)) and node and all(isinstance(entry, LazyTensor) for entry in node):
        return f"list of {len(node)} tensors without names"
    return ""


def _summed(node: Any, path: str, what: str, budget: list[int]) -> SummaryRow:
    """The tensors in a part of the file; its places are visited as long as the budget lasts."""
    waiting, count, numbers, nbytes = [node], 0, 0, 0
    while waiting and budget[0] > 0:
        entry = waiting.pop()
        if isinstance(entry, LazyTensor):
            count, numbers, nbytes = count + 1, numbers + entry.numel(), nbytes + entry.nbytes
            continue
        below = [child for _, child in list_children(entry)]
        budget[0] -= 1 + len(below)
        waiting += [child for child in below if isinstance(child, _CONTAINERS)]
    return SummaryRow(path, what, count, numbers, nbytes)


def _settings(settings: Any) -> str:
    """The plain attributes of an object, a few of them."""
    shown = [
        f"{key}={to_json_value(value)!r}"
        for key, value in settings.items()
        if isinstance(value, (int, float, str, bool)) and key != "training"
    ]
    return f" ({', '.join(entry[:60] for entry in shown[:8])}{', …' if len(shown) > 8 else ''})" if shown else ""


def _value(node: Any) -> str:
    if isinstance(node, (dict, list, tuple, set, frozenset)):
        return f"{'dict' if isinstance(node, dict) else type(node).__name__} of {len(node)}"
    if isinstance(node, ObjectNode):
        return f"object {node.full_name}, not built"
    if isinstance(node, ArrayNode):
        return f"array {node.dtype} {node.shape}"
    if isinstance(node, (bool, float, str)) or node is None or (isinstance(node, int) and abs(node) < 10**18):
        return repr(node)[:80]
    return f"{type(node).__name__}"


def format_row_size(row: SummaryRow) -> str:
    """ "28 tensors, 3.6 M numbers, 13.7 MiB", or nothing."""
    if not row.n_tensors:
        return ""
    count = f"{row.numel / 1e6:.1f} M" if row.numel >= 1e6 else f"{row.numel:,}"
    return f"{row.n_tensors} tensor{'s' if row.n_tensors > 1 else ''}, {count} numbers, {format_bytes(row.nbytes)}"
