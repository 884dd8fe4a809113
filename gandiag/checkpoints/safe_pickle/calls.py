"""Emulates a few allow-listed calls of a pickle; every other call becomes a node. Torch-free.

Each emulation is gandiag's own code: it inspects the arguments and returns a tensor, array, dictionary, text or node.
No function named in a file is ever imported, so whatever a pickle does to it (attributes, defaults) has no effect.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from gandiag.checkpoints.safe_pickle.data_globals import is_data_global
from gandiag.checkpoints.safe_pickle.keys import check_hashable
from gandiag.checkpoints.safe_pickle.machine import PickleMachine
from gandiag.checkpoints.safe_pickle.nodes import (
    ArrayNode,
    DictNode,
    FileSlice,
    GlobalRef,
    LazyTensor,
    ObjectNode,
    Storage,
)
from gandiag.errors import LoadError

Handler = Callable[[PickleMachine, tuple[Any, ...]], Any]  # (machine, arguments) -> what the call returns

_ENCODINGS = ("latin1", "latin-1", "utf-8", "utf8", "ascii")
_STRUCT_CODES = {
    "f8": "d",
    "f4": "f",
    "f2": "e",
    "i8": "q",
    "i4": "i",
    "i2": "h",
    "i1": "b",
    "u8": "Q",
    "u4": "I",
    "u2": "H",
    "u1": "B",
    "b1": "?",
}


class UnsupportedCallError(Exception):
    """The arguments are not the usual ones: keep the call as a node."""


def resolve_call(machine: PickleMachine, function: Any, args: tuple[Any, ...], kwargs: Any = None) -> Any:
    """What the call returns, where that is plain data; else a node that describes the call."""
    handler = _KNOWN.get(function.full_name) if isinstance(function, GlobalRef) and not kwargs else None
    if handler is not None:
        try:
            return handler(machine, args)
        except (UnsupportedCallError, TypeError, ValueError, IndexError, AttributeError, struct.error, OverflowError):
            pass  # unusual arguments: keep the call as a node
    if isinstance(function, GlobalRef) and not is_data_global(function.full_name):
        machine.budget.record_call(function.full_name, args)
    return ObjectNode(function, args, kwargs)


# tensors


def _sizes(value: Any) -> tuple[int, ...]:
    """A shape or stride: at most 64 integers from 0 to 2^62."""
    valid = isinstance(value, (tuple, list)) and len(value) <= 64
    if not valid or not all(type(size) is int and 0 <= size < 2**62 for size in value):
        raise UnsupportedCallError
    return tuple(value)


def _tensor(machine: PickleMachine, args: tuple[Any, ...], *, dtype: Any = None) -> LazyTensor:
    """torch._utils._rebuild_tensor, _v2, _v3: (storage, offset, size, stride, …)."""
    storage, offset = args[0], args[1]
    if not isinstance(storage, Storage) or type(offset) is not int or not 0 <= offset < 2**62:
        raise UnsupportedCallError
    shape, stride = _sizes(args[2]), _sizes(args[3])
    if len(shape) != len(stride):
        raise UnsupportedCallError
    return LazyTensor(storage, torch_dtype_name(dtype) if dtype is not None else storage.dtype, shape, stride, offset)


def torch_dtype_name(dtype_global: Any) -> str:
    """torch.float32 as a global -> "float32"."""
    if not isinstance(dtype_global, GlobalRef) or dtype_global.module != "torch":
        raise UnsupportedCallError
    return dtype_global.name


def _meta_tensor(machine: PickleMachine, args: tuple[Any, ...]) -> LazyTensor:
    return LazyTensor(Storage(None, "", 0, "meta"), torch_dtype_name(args[0]), _sizes(args[1]), _sizes(args[2]))


def _unsupported_tensor(reason: str) -> Handler:
    return lambda machine, args: LazyTensor(Storage(None, "float32", 0), "float32", (), (), unsupported_reason=reason)


def _tensor_subclass(machine: PickleMachine, args: tuple[Any, ...]) -> Any:
    """torch._tensor._rebuild_from_type_v2(function, type, arguments, state): subclasses, or tensors with attributes."""
    if not isinstance(args[2], tuple):
        raise UnsupportedCallError
    return resolve_call(machine, args[0], args[2])


def _parameter(machine: PickleMachine, args: tuple[Any, ...]) -> LazyTensor:
    if not isinstance(args[0], LazyTensor):
        raise UnsupportedCallError
    return args[0]


def _nested_file(machine: PickleMachine, args: tuple[Any, ...]) -> Any:
    """torch.storage._load_from_bytes: a whole torch file inside the pickle, read by the same rules."""
    if machine.load_nested is None or not isinstance(args[0], (bytes, FileSlice)):
        raise UnsupportedCallError
    return machine.load_nested(args[0])


# numpy


def _numpy_dtype(machine: PickleMachine, args: tuple[Any, ...]) -> ArrayNode:
    """numpy.dtype("f4", False, True): a scalar type. Little-endian unless BUILD sets the byte order later."""
    if not isinstance(args[0], str) or len(args[0]) > 8:
        raise UnsupportedCallError
    return ArrayNode("<" + args[0].lstrip("<|="), ())


def _numpy_reconstruct(machine: PickleMachine, args: tuple[Any, ...]) -> ArrayNode:
    return ArrayNode("", ())


def _numpy_frombuffer(machine: PickleMachine, args: tuple[Any, ...]) -> ArrayNode:
    data, dtype, shape, order = args
    return ArrayNode(dtype.dtype, _sizes(shape), data, order == "F")


def _numpy_scalar(machine: PickleMachine, args: tuple[Any, ...]) -> Any:
    """A numpy scalar as a Python number."""
    code = _STRUCT_CODES.get(args[0].dtype.lstrip("<|>="))
    if code is None or not isinstance(args[1], (str, bytes)) or len(args[1]) > 16:
        raise UnsupportedCallError
    raw = args[1].encode("latin-1") if isinstance(args[1], str) else args[1]
    if len(raw) > 16:
        raise UnsupportedCallError
    return struct.unpack("<" + code, raw)[0]


# containers and text


def _dict_subclass(name: str) -> Handler:
    def build(machine: PickleMachine, args: tuple[Any, ...]) -> DictNode:
        entries = next((entry for entry in args if isinstance(entry, (dict, list, tuple))), ())
        machine.budget.use_steps(len(entries))
        pairs = entries.items() if isinstance(entries, dict) else entries
        return DictNode([(check_hashable(key, machine.budget), value) for key, value in pairs], name=name)

    return build


def _set(machine: PickleMachine, args: tuple[Any, ...]) -> set[Any]:
    if args and not isinstance(args[0], (list, tuple, set, frozenset)):
        raise UnsupportedCallError
    machine.budget.use_steps(len(args[0]) if args else 0)
    return {check_hashable(entry, machine.budget) for entry in args[0]} if args else set()


def _encode(machine: PickleMachine, args: tuple[Any, ...]) -> bytes:
    """_codecs.encode(text, "latin1"): how protocol 2 writes bytes."""
    text, *encoding = args
    if not isinstance(text, str) or len(encoding) > 1 or any(name not in _ENCODINGS for name in encoding):
        raise UnsupportedCallError
    machine.budget.use_bytes(len(text))
    return text.encode(encoding[0] if encoding else "utf-8")


def _bytes(machine: PickleMachine, args: tuple[Any, ...]) -> bytes:
    if args and not isinstance(args[0], bytes):
        raise UnsupportedCallError
    return args[0] if args else b""


def _allocation(name: str) -> Handler:
    """A call that reserves memory: LoadError for large sizes, else a node."""

    def refuse(machine: PickleMachine, args: tuple[Any, ...]) -> Any:
        if any(type(entry) is int and entry > 4096 for entry in args[:64]):
            raise LoadError(
                f"the pickle in this file calls {name}, which reserves memory that the file does not have: "
                "malformed or hostile",
                "save it again as a state dict",
            )
        raise UnsupportedCallError

    return refuse


def _reconstructor(machine: PickleMachine, args: tuple[Any, ...]) -> Any:
    """copyreg._reconstructor(cls, base, state): an object of `cls` as protocol 0 writes it."""
    return resolve_call(machine, args[0], () if args[2] is None else (args[2],))


def _text(machine: PickleMachine, args: tuple[Any, ...]) -> str:
    if len(args) != 1 or not isinstance(args[0], str):
        raise UnsupportedCallError
    return args[0]


def _joined_text(separator: str, longest: int) -> Handler:
    def join(machine: PickleMachine, args: tuple[Any, ...]) -> str:
        # str() of anything else could take for ever: lists that hold themselves, or the same list ten times.
        if len(args) > 64 or not all(type(part) in (str, int) for part in args):
            raise UnsupportedCallError
        return separator.join(part[:longest] if isinstance(part, str) else f"{part:d}"[:longest] for part in args)

    return join


_QUANTIZED = "is quantized, nested or not on the CPU"
_NUMPY_CORES = ("numpy.core", "numpy._core")
_BUILTINS = ("builtins", "__builtin__")
_DICTS = ("collections.OrderedDict", "collections.defaultdict", "collections.Counter", "argparse.Namespace")
_ALLOCATIONS = ("builtins.bytearray", "__builtin__.bytearray", "torch.Tensor", "torch.FloatTensor")
_PATHS = ("PosixPath", "Path", "WindowsPath", "PurePosixPath")
_KNOWN: dict[str, Handler] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": lambda machine, args: _tensor(machine, args, dtype=args[6]),
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_meta_tensor_no_storage": _meta_tensor,
    "torch._utils._rebuild_sparse_tensor": _unsupported_tensor("is sparse, not dense"),
    "torch._utils._rebuild_sparse_csr_tensor": _unsupported_tensor("is sparse, not dense"),
    "torch._utils._rebuild_qtensor": _unsupported_tensor(_QUANTIZED),
    "torch._utils._rebuild_nested_tensor": _unsupported_tensor(_QUANTIZED),
    "torch._tensor._rebuild_from_type_v2": _tensor_subclass,
    "torch.storage._load_from_bytes": _nested_file,
    "torch.Size": lambda machine, args: _sizes(args[0]),
    "torch.device": _joined_text(":", 20),
    "torch.torch_version.TorchVersion": _text,
    **{f"{core}.multiarray._reconstruct": _numpy_reconstruct for core in _NUMPY_CORES},
    **{f"{core}.multiarray.scalar": _numpy_scalar for core in _NUMPY_CORES},
    **{f"{core}.numeric._frombuffer": _numpy_frombuffer for core in _NUMPY_CORES},
    "numpy.dtype": _numpy_dtype,
    **{name: _dict_subclass(name) for name in _DICTS},
    **{f"{module}.dict": _dict_subclass("dict") for module in _BUILTINS},
    **{f"{module}.set": _set for module in _BUILTINS},
    **{f"{module}.bytes": _bytes for module in _BUILTINS},
    "_codecs.encode": _encode,
    **{name: _allocation(name) for name in _ALLOCATIONS},
    **{f"{module}._reconstructor": _reconstructor for module in ("copyreg", "copy_reg")},
    **{f"pathlib.{name}": _joined_text("/", 200) for name in _PATHS},
}
