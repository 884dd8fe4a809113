"""Nodes of a safely read pickle: names not imported, objects not built, tensors not read. Torch-free.

GlobalRef    a class or function that the pickle names
ObjectNode   an object not built: class, arguments, state and items
DictNode     a dict subclass (OrderedDict, defaultdict, Namespace …) with its state
FileSlice    a byte range of the file; Storage, LazyTensor and ArrayNode say how to interpret it
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

ITEMSIZE = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
    "complex64": 8,
    "complex128": 16,
    "uint16": 2,
    "uint32": 4,
    "uint64": 8,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
}
_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")


class CorruptPickleError(Exception):
    """The stream is not a pickle, or ends early."""


@dataclass(frozen=True, slots=True)
class GlobalRef:
    """A class or function by name; never imported."""

    module: str
    name: str

    @property
    def full_name(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class ObjectNode:
    """An object that was not built.

    `states`: arguments of BUILD; `list_items`, `dict_items`: what was appended or set.
    """

    cls: Any
    args: Any = ()
    kwargs: Any = None
    states: list[Any] = field(default_factory=list)
    list_items: list[Any] = field(default_factory=list)
    dict_items: list[tuple[Any, Any]] = field(default_factory=list)

    @property
    def full_name(self) -> str:
        """Dotted name of the class or function, or of the callable that returned it."""
        owner = self.cls
        for _ in range(8):
            if isinstance(owner, GlobalRef):
                return owner.full_name
            owner = getattr(owner, "cls", None)
        return "an unnamed callable"

    def attributes(self) -> dict[str, Any]:
        """Contents of its `__dict__` by the default rules of BUILD; empty for other kinds of state."""
        merged: dict[str, Any] = {}
        for state in self.states:
            parts = state if isinstance(state, tuple) and len(state) == 2 else (state,)
            for part in parts:
                if isinstance(part, dict):
                    merged |= {key: value for key, value in part.items() if isinstance(key, str)}
        return merged


class DictNode(dict[Any, Any]):
    """An instance of a dict subclass. `name`: the class; `state`: attributes, such as a state dict's `_metadata`."""

    __slots__ = ("name", "state")

    def __init__(self, entries: Any = (), *, name: str = "") -> None:
        super().__init__(entries)
        self.name = name
        self.state: dict[str, Any] = {}

    __hash__ = object.__hash__  # type: ignore[assignment]


@dataclass(frozen=True, slots=True, eq=False)
class FileSlice:
    """`length` bytes of `buffer` (a memory map, or bytes) starting at `offset`."""

    buffer: Any
    offset: int
    length: int

    def read(self) -> bytes:
        return bytes(self.buffer[self.offset : self.offset + self.length])


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """A flat array of numbers. `file_slice` None: declared but not stored. `nbytes`: as declared."""

    file_slice: FileSlice | None
    dtype: str
    nbytes: int
    device: str = "cpu"


@dataclass(frozen=True, slots=True, eq=False)
class LazyTensor:
    """A tensor not read yet: a strided view of a storage.

    `unsupported_reason`: why it is not dense ("is sparse, not dense").
    """

    storage: Storage
    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int = 0
    unsupported_reason: str = ""

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.numel() * ITEMSIZE.get(self.dtype, 1)

    def find_problem(self) -> str:
        """Why the tensor cannot be read, or "": a kilobyte of file can declare terabytes."""
        if self.unsupported_reason:
            return self.unsupported_reason
        if self.storage.file_slice is None:
            return f"claims {format_bytes(self.nbytes)} but stores none"
        itemsize, stored = ITEMSIZE.get(self.dtype, 0), self.storage.file_slice.length
        if not itemsize:
            return f"has dtype {self.dtype[:40]}, which gandiag does not read"
        if self.storage.nbytes > stored or self.nbytes > stored:
            return f"claims {format_bytes(max(self.storage.nbytes, self.nbytes))} but stores {format_bytes(stored)}"
        if self.numel():
            last = self.offset + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))
            if (last + 1) * itemsize > stored:
                return f"reaches beyond the {format_bytes(stored)} stored for it"
        return ""


@dataclass(slots=True, eq=False)
class ArrayNode:
    """A numpy array not read. `data`: bytes or a FileSlice; None until the pickle's BUILD gives it."""

    dtype: str  # numpy's typestr: "<f4"
    shape: tuple[int, ...]
    data: Any = None
    fortran_order: bool = False

    def set_state(self, state: Any) -> None:
        """Apply numpy's state: (version, shape, dtype, fortran, data), or (version, byte order, …) of a dtype."""
        if not isinstance(state, tuple) or len(state) < 5:
            return
        if isinstance(state[1], tuple) and isinstance(state[2], ArrayNode):
            if len(state[1]) > 64 or not all(type(size) is int and 0 <= size < 2**62 for size in state[1]):
                raise CorruptPickleError("an invalid shape")
            self.dtype, self.data, self.fortran_order = state[2].dtype, state[4], bool(state[3])
            self.shape = state[1]
        elif state[1] == ">":
            self.dtype = ">" + self.dtype.lstrip("<")


def list_children(node: Any) -> list[tuple[str, Any]]:
    """Name and value of everything directly inside a node."""
    if isinstance(node, dict):
        return [(format_key(key), value) for key, value in node.items()]
    if isinstance(node, (list, tuple)):
        return [(str(index), value) for index, value in enumerate(node)]
    if not isinstance(node, ObjectNode):
        return []
    args = node.args if isinstance(node.args, tuple) else ()
    states = [
        (format_key(key), value)
        for state in node.states
        for key, value in (state.items() if isinstance(state, dict) else [("state", state)])
    ]
    return [
        *((f"({index})", value) for index, value in enumerate(args)),
        *states,
        *((str(index), value) for index, value in enumerate(node.list_items)),
        *((format_key(key), value) for key, value in node.dict_items),
    ]


def format_key(key: Any) -> str:
    """A key as text; objects are shown by their class."""
    if isinstance(key, (str, float, bool)) or (isinstance(key, int) and abs(key) < 10**18):
        return str(key)
    return key.full_name if isinstance(key, (GlobalRef, ObjectNode)) else type(key).__name__


def format_bytes(count: int) -> str:
    """A size in human-readable form: 4 bytes, 26.0 MiB, 3.6 TiB."""
    if count < 1024:
        return f"{count} bytes"
    if count.bit_length() >= 1000:
        return "more than can be counted"
    power = min(5, (count.bit_length() - 1) // 10)
    return f"{count / 1024**power:.1f} {_UNITS[power - 1]}"
