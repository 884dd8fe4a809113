"""What an inert reading is made of: names that were not imported, objects that were not built, tensors that were not read. Torch-free.

Name     a class or function that the pickle names
Made     what a call would have returned: who, with which arguments, state and items
Table    a dictionary of a class that is only a dictionary (OrderedDict, defaultdict, Namespace …), with its state
Blob     bytes of the file, by place; Storage, Lazy and Array say how to read them
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from gandiag.errors import LoadError

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


class CorruptPickleError(Exception):
    """The stream is no pickle, or ends early."""


@dataclass(frozen=True, slots=True)
class GlobalRef:
    """A global, looked up as a whole and never imported."""

    module: str
    name: str

    @property
    def full_name(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class ObjectNode:
    """An object that was not built. `states`: what BUILD would have given it; `entries`, `items`: what was appended or set."""

    cls: Any
    args: Any = ()
    kwargs: Any = None
    states: list[Any] = field(default_factory=list)
    list_items: list[Any] = field(default_factory=list)
    dict_items: list[tuple[Any, Any]] = field(default_factory=list)

    @property
    def full_name(self) -> str:
        """Dotted name of the class or function, or of what made it."""
        owner = self.cls
        for _ in range(8):
            if isinstance(owner, GlobalRef):
                return owner.full_name
            owner = getattr(owner, "cls", None)
        return "an unnamed callable"

    def attributes(self) -> dict[str, Any]:
        """What its `__dict__` would hold, by the default rules of BUILD; empty for states of another form."""
        found: dict[str, Any] = {}
        for state in self.states:
            parts = state if isinstance(state, tuple) and len(state) == 2 else (state,)
            for part in parts:
                if isinstance(part, dict):
                    found |= {key: value for key, value in part.items() if isinstance(key, str)}
        return found


class DictNode(dict[Any, Any]):
    """A dictionary that came as a class of its own. `name`: the class; `state`: attributes, such as a state dict's `_metadata`."""

    __slots__ = ("name", "state")

    def __init__(self, entries: Any = (), *, name: str = "") -> None:
        super().__init__(entries)
        self.name = name
        self.state: dict[str, Any] = {}

    __hash__ = object.__hash__  # type: ignore[assignment]


@dataclass(frozen=True, slots=True, eq=False)
class FileSlice:
    """`length` bytes of `buffer` (a memory map, or bytes) from `offset` on."""

    buffer: Any
    offset: int
    length: int

    def read(self) -> bytes:
        return bytes(self.buffer[self.offset : self.offset + self.length])


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """Numbers one after another. `blob` None: declared and not stored. `size`: bytes declared."""

    file_slice: FileSlice | None
    dtype: str
    nbytes: int
    device: str = "cpu"


@dataclass(frozen=True, slots=True, eq=False)
class LazyTensor:
    """A tensor that was not read: a view of a storage. `odd`: why it is no plain tensor ("is sparse_coo, not dense")."""

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
        """Why it cannot be read, or "": a kilobyte of file can declare terabytes."""
        if self.unsupported_reason:
            return self.unsupported_reason
        if self.storage.file_slice is None:
            return f"claims {format_bytes(self.nbytes)} but stores none"
        item, stored = ITEMSIZE.get(self.dtype, 0), self.storage.file_slice.length
        if not item:
            return f"has the type {self.dtype[:40]}, which gandiag does not read"
        if self.storage.nbytes > stored or self.nbytes > stored:
            return f"claims {format_bytes(max(self.storage.nbytes, self.nbytes))} but stores {format_bytes(stored)}"
        last = (
            self.offset + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))
            if self.numel()
            else 0
        )
        return (
            f"reaches beyond the {format_bytes(stored)} that are stored for it"
            if (last + 1) * item > stored and self.numel()
            else ""
        )


@dataclass(slots=True, eq=False)
class ArrayNode:
    """A numpy array that was not read. `data`: bytes or a Blob; None while the pickle has not said."""

    dtype: str  # numpy's typestr: "<f4"
    shape: tuple[int, ...]
    data: Any = None
    fortran_order: bool = False


def check_hashable(key: Any, depth: int = 0) -> Any:
    """A key that may be one: text, numbers, records, shallow tuples. Hashing a deep tuple would exhaust the C stack."""
    if isinstance(key, tuple):
        if depth > 3 or len(key) > 64:
            raise LoadError("the pickle in this file uses a deeply nested key: malformed or hostile", "do not load it")
        for entry in key:
            check_hashable(entry, depth + 1)
    elif isinstance(key, (list, dict, set, ArrayNode)) and not isinstance(key, DictNode):
        raise CorruptPickleError("a key that cannot be one")
    return key


def list_children(node: Any) -> list[tuple[str, Any]]:
    """What a node holds, by name."""
    if isinstance(node, dict):
        return [(format_key(key), value) for key, value in node.items()]
    if isinstance(node, (list, tuple)):
        return [(str(index), value) for index, value in enumerate(node)]
    if isinstance(node, ObjectNode):
        arguments = (
            [(f"({index})", value) for index, value in enumerate(node.args)] if isinstance(node.args, tuple) else []
        )
        states = [
            (format_key(key), value)
            for state in node.states
            for key, value in (state.items() if isinstance(state, dict) else [("state", state)])
        ]
        return [
            *arguments,
            *states,
            *((str(index), value) for index, value in enumerate(node.list_items)),
            *((format_key(key), value) for key, value in node.dict_items),
        ]
    return []


def format_key(key: Any) -> str:
    """A key as text: other objects by their class."""
    if isinstance(key, (str, float, bool)) or (isinstance(key, int) and abs(key) < 10**18):
        return str(key)
    return (
        key.full_name
        if isinstance(key, GlobalRef)
        else key.full_name
        if isinstance(key, ObjectNode)
        else type(key).__name__
    )


def format_bytes(count: int) -> str:
    """Bytes for people: 4 bytes, 26.0 MiB, 3.6 TiB."""
    if count < 1024:
        return f"{count} bytes"
    power = min(5, (count.bit_length() - 1) // 10)
    return (
        f"{count / 1024**power:.1f} {('KiB', 'MiB', 'GiB', 'TiB', 'PiB')[power - 1]}"
        if count.bit_length() < 1000
        else "more than can be counted"
    )
