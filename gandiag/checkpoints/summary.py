"""Summarizes a file without loading it: type, contents as a tree with sizes, and the code it would run. Torch-free.

Only headers and pickles are read, no tensors: the time does not depend on the size of the weights.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from gandiag.checkpoints.file_type import EXECUTABLE_KINDS, FileInfo, detect_file_type
from gandiag.checkpoints.safe_pickle.budget import ParseBudget
from gandiag.checkpoints.safe_pickle.modules import parse_module, to_json_value
from gandiag.checkpoints.safe_pickle.nodes import (
    ArrayNode,
    DictNode,
    LazyTensor,
    ObjectNode,
    format_bytes,
    list_children,
)
from gandiag.checkpoints.safe_pickle.reader import PickleContents, parse_pickle
from gandiag.checkpoints.safetensors_header import read_header
from gandiag.errors import LoadError
from gandiag.untrusted.files import open_regular

KIND_NAMES = {
    "torch-zip": "torch.save, zip format",
    "torch-legacy": "torch.save, legacy format (before torch 1.6)",
    "pickle": "plain pickle",
    "safetensors": "safetensors",
    "onnx": "ONNX graph",
    "numpy-weights": "numpy arrays (.npz)",
    **EXECUTABLE_KINDS,
}
_MAX_ROWS, _MAX_ENTRIES = 2_000, 200  # rows in all, and of one container
_MAX_KEY = 200  # characters of a key that are shown
_MAX_DEPTH = 3
_CONTAINERS = (LazyTensor, dict, list, tuple, ObjectNode)


@dataclass(frozen=True, slots=True)
class SummaryRow:
    """One entry of a file: what it is, and how many tensors, values and bytes it holds."""

    path: str
    description: str
    n_tensors: int = 0
    numel: int = 0
    nbytes: int = 0


@dataclass(frozen=True, slots=True)
class FileSummary:
    """A file's type and contents.

    `code_actions`: what running it would do, one a line; `error`: why it cannot be read.
    """

    file_info: FileInfo
    kind_name: str
    rows: tuple[SummaryRow, ...] = ()
    code_actions: tuple[str, ...] = ()
    pickle_protocol: int | None = None
    error: LoadError | None = None


def summarize_file(path: str) -> FileSummary:
    """Summarize a file. LoadError only if there is no file; a problem inside becomes the summary's `error`."""
    info = detect_file_type(path)
    name = KIND_NAMES.get(info.kind, info.kind)
    try:
        if info.kind in ("torch-zip", "torch-legacy", "pickle"):
            contents = parse_pickle(info)
            contents.budget.begin_walk()
            rows = tuple(_list_rows(contents.tree, "", 0, contents.budget))[:_MAX_ROWS]
            return FileSummary(info, name, rows, _list_code_actions(contents), contents.protocol)
        if info.kind == "safetensors":
            return FileSummary(info, name, _summarize_safetensors(info))
        if info.kind == "onnx":
            return FileSummary(info, name, _summarize_onnx(info))
    except LoadError as error:
        return FileSummary(info, name, error=error)
    return FileSummary(info, name, code_actions=_list_programs(info) if info.kind in EXECUTABLE_KINDS else ())


def format_row_size(row: SummaryRow) -> str:
    """ "28 tensors, 3.6 M values, 13.7 MiB", or "" without tensors."""
    if not row.n_tensors:
        return ""
    count = f"{row.numel / 1e6:.1f} M" if row.numel >= 1e6 else f"{row.numel:,}"
    return f"{row.n_tensors} tensor{'s' if row.n_tensors > 1 else ''}, {count} values, {format_bytes(row.nbytes)}"


def _list_code_actions(contents: PickleContents) -> tuple[str, ...]:
    called = {call.partition("(")[0] for call in contents.calls}
    imported = [f"would import {name}" for name in contents.unsafe_globals if name not in called]
    return (*(f"would call {call}" for call in contents.calls), *contents.notes, *imported)


def _list_programs(info: FileInfo) -> tuple[str, ...]:
    """The programs inside an archive: their sources, if it holds any."""
    with open_regular(info.path) as stream, zipfile.ZipFile(stream) as archive:
        sources = [entry for entry in archive.namelist() if entry.endswith((".py", ".so")) or "/models/" in entry]
    more = f" and {len(sources) - 5} more" if len(sources) > 5 else ""
    listed = ", ".join(entry[:80] for entry in sources[:5]) + more
    return (f"is {EXECUTABLE_KINDS[info.kind]}: loading it runs {listed or 'what it holds'}",)


def _summarize_safetensors(info: FileInfo) -> tuple[SummaryRow, ...]:
    tensors, metadata = read_header(info.path)
    n_values = sum(tensor.numel() for tensor in tensors.values())
    nbytes = sum(tensor.nbytes for tensor in tensors.values())
    return (SummaryRow("", "tensors by name", len(tensors), n_values, nbytes), *_metadata_rows(metadata))


def _summarize_onnx(info: FileInfo) -> tuple[SummaryRow, ...]:
    from gandiag.checkpoints.onnx.parser import read_onnx_graph

    graph = read_onnx_graph(info.path)
    counts = graph.operator_counts
    producer = f", written by {graph.producer}" if graph.producer else ""
    description = f"graph of {sum(counts.values())} operators, opset {graph.opset}{producer}"
    operators = ", ".join(f"{count} {name}" for name, count in counts.most_common(8))
    values = [*(("input", value) for value in graph.inputs), *(("output", value) for value in graph.outputs)]
    return (
        SummaryRow("", description, graph.n_tensors, graph.numel, graph.nbytes),
        SummaryRow("operators", operators + (", …" if len(counts) > 8 else "")),
        *(
            SummaryRow(f"{role} {value.name}", f"{value.dtype} ({', '.join(str(size) or '?' for size in value.dims)})")
            for role, value in values
        ),
        *_metadata_rows(graph.metadata),
        *(SummaryRow(f"external file {name}", "weights of this graph") for name in sorted(graph.external_files)),
    )


def _metadata_rows(metadata: Mapping[str, str]) -> list[SummaryRow]:
    return [SummaryRow(f"metadata.{key[:40]}", str(value)[:80]) for key, value in list(metadata.items())[:20]]


# pickles


def _list_rows(node: Any, path: str, depth: int, budget: ParseBudget) -> list[SummaryRow]:
    """Rows for the tree below a node. A network is one row, whatever it holds."""
    budget.use_walk(1, path)
    module = parse_module(node, budget)
    if module is not None:
        return [_sum_tensors(node, path, f"module {module.cls}{_format_settings(module.settings)}", budget)]
    if isinstance(node, LazyTensor):
        return [SummaryRow(path, f"tensor {node.dtype} {node.shape}", 1, node.numel(), node.nbytes)]
    budget.use_walk(len(node) if isinstance(node, (dict, list, tuple)) else 0)
    unit = _describe_unit(node)
    children: list[tuple[str, Any]] = []
    if isinstance(node, dict):
        children = list_children(node)
    elif isinstance(node, ObjectNode):
        children = list(node.attributes().items())
    if unit or depth >= _MAX_DEPTH or not children:
        return [_sum_tensors(node, path, unit or _describe_value(node), budget)]
    shown = [(entry, f"{path}.{key[:_MAX_KEY]}".strip(".")) for key, entry in children[:_MAX_ENTRIES]]
    rows = [row for entry, name in shown for row in _list_rows(entry, name, depth + 1, budget)]
    return [SummaryRow(path, _describe_value(node)), *rows] if path or isinstance(node, ObjectNode) else rows


def _describe_unit(node: Any) -> str:
    """Containers shown as one row: a state dict, an optimizer's state, a list of tensors, arguments; else ""."""
    if isinstance(node, dict) and node:
        if "param_groups" in node:
            return "optimizer state"
        values = node.values()
        if any(isinstance(value, LazyTensor) for value in values) and all(
            isinstance(value, (LazyTensor, int, float)) for value in values
        ):
            return "state dict"
        if isinstance(node, DictNode) and node.name == "argparse.Namespace":
            return f"arguments{_format_settings(node)}"
    if isinstance(node, (list, tuple)) and node and all(isinstance(entry, LazyTensor) for entry in node):
        return f"list of {len(node)} unnamed tensors"
    return ""


def _sum_tensors(node: Any, path: str, description: str, budget: ParseBudget) -> SummaryRow:
    """One row with the tensors anywhere below a node."""
    pending, n_tensors, n_values, nbytes = [node], 0, 0, 0
    while pending:
        entry = pending.pop()
        if isinstance(entry, LazyTensor):
            n_tensors, n_values, nbytes = n_tensors + 1, n_values + entry.numel(), nbytes + entry.nbytes
            continue
        children = [child for _, child in list_children(entry)]
        budget.use_walk(1 + len(children))
        pending += [child for child in children if isinstance(child, _CONTAINERS)]
    return SummaryRow(path, description, n_tensors, n_values, nbytes)


def _format_settings(settings: Mapping[Any, Any]) -> str:
    """The first few plain attributes of an object, in parentheses."""
    shown = [
        f"{key[:60]}={to_json_value(value)!r}"
        for key, value in islice(settings.items(), 1_000)
        if isinstance(key, str) and isinstance(value, (int, float, str, bool)) and key != "training"
    ]
    return f" ({', '.join(entry[:60] for entry in shown[:8])}{', …' if len(shown) > 8 else ''})" if shown else ""


def _describe_value(node: Any) -> str:
    if isinstance(node, (dict, list, tuple, set, frozenset)):
        return f"{'dict' if isinstance(node, dict) else type(node).__name__} of {len(node)}"
    if isinstance(node, ObjectNode):
        return f"object {node.full_name}, not built"
    if isinstance(node, ArrayNode):
        return f"array {node.dtype} {node.shape}"
    if isinstance(node, str):
        return repr(node[:80])[:80]
    if isinstance(node, (bool, float)) or node is None or (isinstance(node, int) and abs(node) < 10**18):
        return repr(node)[:80]
    return type(node).__name__
