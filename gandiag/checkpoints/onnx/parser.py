"""Parses an ONNX graph without running it: inputs, outputs, operators, and where its tensors are stored. Torch-free.

The protobuf is walked field by field (onnx.proto3, IR 3 to 13) and tensor data are skipped, so gigabytes cost no
time. Refused here, before any runtime sees the file: tensors stored outside the file's own folder or behind links,
tensors that claim more than they store, and operators that only a third-party library could run.
"""

from __future__ import annotations

import math
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from gandiag.checkpoints.key_names import clean_text
from gandiag.checkpoints.onnx.graph import OnnxGraph, ValueInfo
from gandiag.errors import LoadError
from gandiag.protobuf import decode_integers, decode_text, iter_fields, require_message
from gandiag.untrusted.files import map_regular

_ITEMSIZE = {  # data type -> bytes
    **dict.fromkeys((2, 3, 9, 17, 18, 19, 20), 1),
    **dict.fromkeys((4, 5, 10, 16), 2),
    **dict.fromkeys((1, 6, 12), 4),
    **dict.fromkeys((7, 11, 13, 14), 8),
    15: 16,
}
_FLOAT8_TYPES = (17, 18, 19, 20)  # exporters store them in other sizes
_DTYPE_NAMES = {
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
_BUILT_IN_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
_MAX_DEPTH = 32
_MAX_NODES, _MAX_VALUES = 300_000, 10_000  # operators; inputs, outputs, metadata and external files
_MAX_DIMS = 64


def read_onnx_graph(path: Path) -> OnnxGraph:
    """Parse a file's graph. LoadError if it is damaged, or would read other files than its own."""
    parser = _Parser()
    mapped = map_regular(path)  # closed with its last slice: an error's traceback may hold one
    try:
        parser.parse_model(memoryview(mapped))
    except (ValueError, IndexError, UnicodeDecodeError, RecursionError) as error:
        raise LoadError(
            f"{path.name} is a damaged ONNX file: {str(error)[:80]}",
            "export it again, or copy it again and compare the sizes",
        ) from None
    custom = sorted(parser.used_domains - parser.local_domains - set(_BUILT_IN_DOMAINS))
    if custom:
        raise LoadError(
            f"{path.name} uses custom operators ({', '.join(map(_shorten, custom[:3]))}), which need their own library",
            "export it with standard operators, or audit its state dict or a folder of its samples",
        )
    for name in sorted(parser.graph.external_files):
        _check_external_file(path, name)
    return parser.graph


def _check_external_file(path: Path, name: str) -> None:
    """LoadError unless external tensors are in a regular file in the same folder."""
    hint = "export it into one file: torch.onnx.export(..., external_data=False)"
    shown = _shorten(name)
    if not name or name in (".", "..") or any(character in name for character in "/\\:\0"):
        raise LoadError(f"{path.name} wants to read {shown!r}, which is outside its folder: malformed or hostile", hint)
    try:
        mode = os.lstat(path.parent / name).st_mode
    except OSError:
        raise LoadError(
            f"{path.name} stores its weights in {shown!r}, which is not in its folder",
            f"copy {shown} into the same folder",
        ) from None
    if not stat.S_ISREG(mode):
        raise LoadError(f"{path.name} stores its weights in {shown!r}, which is a link or not a file: refused", hint)


def _shorten(text: str) -> str:
    return clean_text(text[:80])


@dataclass(slots=True)
class _Parser:
    """Walks the messages of a model. Field numbers are those of onnx.proto3."""

    graph: OnnxGraph = field(default_factory=OnnxGraph)
    used_domains: set[str] = field(default_factory=set)
    local_domains: set[str] = field(default_factory=set)  # of functions defined in the file
    n_nodes: int = 0
    n_values: int = 0

    def parse_model(self, view: memoryview) -> None:
        for number, value in iter_fields(view):
            if number == 7:
                self._parse_graph(require_message(value), 0)
            elif number == 8:
                domain_and_version = dict(iter_fields(require_message(value)))
                domain, version = domain_and_version.get(1, memoryview(b"")), domain_and_version.get(2)
                if not bytes(require_message(domain)) and isinstance(version, int):
                    self.graph.opset = int(version)
            elif number == 2:
                self.graph.producer = _shorten(decode_text(value))
            elif number == 14:
                self._count_value()
                key, entry = _parse_pair(value)
                self.graph.metadata[_shorten(key)] = _shorten(entry)
            elif number == 20:
                raise ValueError("it holds a training program")
            elif number == 25:
                self._parse_function(require_message(value))

    def _count_value(self) -> None:
        self.n_values += 1
        if self.n_values > _MAX_VALUES:
            raise ValueError(f"it has more than {_MAX_VALUES:,} inputs, outputs, metadata and external files")

    def _parse_function(self, view: memoryview) -> None:
        for number, value in iter_fields(view):
            if number == 10:
                self.local_domains.add(decode_text(value))
            elif number == 7:
                self._parse_node(require_message(value), 1)

    def _parse_graph(self, view: memoryview, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise ValueError("its graphs are nested too deep")
        stored: set[str] = set()
        inputs: list[ValueInfo] = []
        for number, value in iter_fields(view):
            if number == 1:
                self._parse_node(require_message(value), depth)
            elif number == 5:
                stored.add(self._parse_tensor(require_message(value)))
            elif number == 15:
                self._parse_sparse_tensor(require_message(value))
            elif number == 11:
                self._count_value()
                inputs.append(_parse_value_info(require_message(value)))
            elif number == 12 and depth == 0:
                self._count_value()
                self.graph.outputs.append(_parse_value_info(require_message(value)))
        if depth == 0:
            self.graph.inputs = [entry for entry in inputs if entry.name not in stored]

    def _parse_node(self, view: memoryview, depth: int) -> None:
        inputs, outputs, operator = [], [], ""
        for number, value in iter_fields(view):
            if number == 1:
                inputs.append(decode_text(value))
            elif number == 2:
                outputs.append(decode_text(value))
            elif number == 4:
                operator = decode_text(value)
            elif number == 5:
                self._parse_attribute(require_message(value), depth)
            elif number == 7:
                self.used_domains.add(decode_text(value))
        self.n_nodes += 1
        if self.n_nodes > _MAX_NODES:
            raise ValueError(f"it has more than {_MAX_NODES:,} operators")
        self.graph.operator_counts[_shorten(operator)] += 1
        if depth == 0:
            self.graph.nodes.append((operator, tuple(inputs), tuple(outputs)))

    def _parse_attribute(self, view: memoryview, depth: int) -> None:
        for number, value in iter_fields(view):
            if number in (5, 10):
                self._parse_tensor(require_message(value))
            elif number in (6, 11):
                self._parse_graph(require_message(value), depth + 1)
            elif number in (22, 23):
                self._parse_sparse_tensor(require_message(value))

    def _parse_sparse_tensor(self, view: memoryview) -> None:
        for number, value in iter_fields(view):
            if number in (1, 2):
                self._parse_tensor(require_message(value))

    def _parse_tensor(self, view: memoryview) -> str:
        """Count a stored tensor and return its name. ValueError if it claims more than it stores."""
        dims: list[int] = []
        dtype, name, stored = 0, "", -1
        for number, value in iter_fields(view):
            if number == 1:
                dims += decode_integers(value)
                if len(dims) > _MAX_DIMS:
                    raise ValueError(f"a tensor has more than {_MAX_DIMS} dimensions")
            elif number == 2:
                dtype = int(value) if isinstance(value, int) else 0
            elif number == 8:
                name = decode_text(value)
            elif number == 9:
                stored = len(require_message(value))
            elif number == 13:
                self._count_value()
                key, location = _parse_pair(value)
                if key == "location":
                    self.graph.external_files.add(location)
        count = math.prod(dims)
        if count >= 1 << 62:
            raise ValueError(f"tensor {_shorten(name)!r} claims more values than can be counted")
        nbytes = count * _ITEMSIZE.get(dtype, 1)
        if stored >= 0 and dtype in _ITEMSIZE and dtype not in _FLOAT8_TYPES and stored != nbytes:
            raise ValueError(f"tensor {_shorten(name)!r} should hold {nbytes} bytes but holds {stored}")
        self.graph.n_tensors += 1
        self.graph.numel += count
        self.graph.nbytes += nbytes
        self.graph.tensor_shapes[name] = tuple(dims)
        return name


def _parse_pair(value: int | memoryview) -> tuple[str, str]:
    """Key and value of a StringStringEntryProto."""
    fields = dict(iter_fields(require_message(value)))
    empty = memoryview(b"")
    return decode_text(fields.get(1, empty)), decode_text(fields.get(2, empty))


def _parse_value_info(view: memoryview) -> ValueInfo:
    name, dtype = "", ""
    dims: tuple[int | str, ...] = ()
    for number, value in iter_fields(view):
        if number == 1:
            name = decode_text(value)
        elif number == 2:
            for kind, content in iter_fields(require_message(value)):
                if kind == 1:  # a tensor
                    dtype, dims = _parse_tensor_type(require_message(content), dtype, dims)
    return ValueInfo(name, dtype, dims)


def _parse_tensor_type(view: memoryview, dtype: str, dims: tuple[int | str, ...]) -> tuple[str, tuple[int | str, ...]]:
    """(dtype, dims); those given stay where the message has none."""
    for number, value in iter_fields(view):
        if number == 1:
            dtype = _DTYPE_NAMES.get(int(value) if isinstance(value, int) else 0, "unknown")
        elif number == 2:
            dims = tuple(
                _parse_dim(require_message(dim)) for tag, dim in iter_fields(require_message(value)) if tag == 1
            )
    return dtype, dims


def _parse_dim(view: memoryview) -> int | str:
    dim: int | str = ""
    for number, value in iter_fields(view):
        if number == 1 and isinstance(value, int):
            dim = int(value)
        elif number == 2:
            dim = _shorten(decode_text(value))
    return dim
